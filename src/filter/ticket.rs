//! Names for what the worker does in the place of a request, which may be gone before it is done.

use std::cell::Cell;
use std::rc::{Rc, Weak};

/// Names something to whoever waits for what becomes of it. Once it is dropped, nobody waits any longer.
#[derive(Debug)]
pub struct Ticket {
    number: u64,
    awaits: Rc<()>,
}

impl Ticket {
    /// Its number among those of the worker.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// What is gone with it.
    pub fn awaited(&self) -> Weak<()> {
        Rc::downgrade(&self.awaits)
    }
}

/// The numbers of one worker's tickets.
#[derive(Debug, Default)]
pub struct Tickets {
    last: Cell<u64>,
}

impl Tickets {
    /// Another one.
    pub fn issue(&self) -> Ticket {
        let number = self.last.get().wrapping_add(1);
        self.last.set(number);
        Ticket { number, awaits: Rc::default() }
    }
}
