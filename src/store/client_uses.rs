//! Notes of which clients authorization servers ask for, written behind the answers: no answer waits for the database's
//! writer, and none fails with it.

use std::collections::HashSet;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use super::clock::unix_millis;
use super::db::{Database, StoredClient};

/// Clients whose use may wait to be noted. More are not noted: whoever uses a client uses it again.
const MOST_WAITING: usize = 4_096;

/// Clients whose use is noted in one transaction. Each one's row is written anew, which may have tens of kilobytes, and
/// registrations wait for the transaction.
const AT_ONCE: usize = 256;

/// How long registrations have the database's writer for themselves between two transactions that note uses.
const PAUSE: Duration = Duration::from_millis(100);

/// The shortest time between two words on uses that were not noted.
const WORD_PAUSE: Duration = Duration::from_secs(60);

/// A client whose use waits to be noted: its tenant's slot and its id.
type Use = (u32, String);

/// What waits, each client once.
#[derive(Default)]
struct Waiting {
    clients: HashSet<Use>,
    /// How many uses found no place since that was said.
    dropped: u64,
}

impl Waiting {
    /// Whether the client waits by now.
    fn add(&mut self, client: Use) -> bool {
        if self.clients.len() < MOST_WAITING || self.clients.contains(&client) {
            self.clients.insert(client);
            return true;
        }
        self.dropped = self.dropped.saturating_add(1);
        false
    }

    /// Some of those that wait. They stay until they are [noted](Self::noted).
    fn some(&self) -> Vec<Use> {
        self.clients.iter().take(AT_ONCE).cloned().collect()
    }

    fn noted(&mut self, clients: &[Use]) {
        for client in clients {
            self.clients.remove(client);
        }
    }
}

#[derive(Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    came: Notify,
}

impl Shared {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The way to the task that notes uses, which ends when the last one is dropped and what waits is written, or cannot
/// be.
#[derive(Clone)]
pub struct ClientUses {
    shared: Arc<Shared>,
    /// Nothing is ever sent: it tells the task that there is somebody who may have something noted.
    _open: mpsc::Sender<Infallible>,
}

impl ClientUses {
    /// Starts the task.
    pub fn start(database: Arc<dyn Database>) -> (Self, JoinHandle<()>) {
        let shared = Arc::new(Shared::default());
        let (open, is_open) = mpsc::channel(1);
        let task = tokio::spawn(write(database, Arc::clone(&shared), is_open));
        (Self { shared, _open: open }, task)
    }

    /// Has it noted that a server asked just now for this client, unless that was noted a short while ago.
    pub fn note(&self, tenant: u32, client: &StoredClient) {
        if client.is_use_due(unix_millis()) && self.shared.waiting().add((tenant, client.client_id.clone())) {
            self.shared.came.notify_one();
        }
    }
}

async fn write(database: Arc<dyn Database>, shared: Arc<Shared>, mut is_open: mpsc::Receiver<Infallible>) {
    let mut failed = false;
    let mut last_word: Option<Instant> = None;
    loop {
        tokio::select! {
            () = shared.came.notified() => {}
            _ = is_open.recv() => {}
        }
        loop {
            // Asked first: after that nothing comes any more.
            let is_last = is_open.is_closed();
            let clients = shared.waiting().some();
            if clients.is_empty() {
                if is_last {
                    return;
                }
                break;
            }
            let result = database.note_client_uses(&clients, unix_millis()).await;
            match &result {
                Ok(()) => shared.waiting().noted(&clients),
                Err(error) if !failed => tracing::warn!(%error, "the uses of clients cannot be noted yet"),
                Err(_) => {}
            }
            failed = result.is_err();
            if last_word.is_none_or(|last| last.elapsed() >= WORD_PAUSE) {
                let dropped = std::mem::take(&mut shared.waiting().dropped);
                if dropped > 0 {
                    tracing::warn!(dropped, "uses of clients were not noted, since too many waited");
                    last_word = Some(Instant::now());
                }
            }
            if is_last && failed {
                return;
            }
            sleep(PAUSE).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_client_waits_once_until_it_is_noted_and_no_more_than_the_most_wait() {
        let client = |number: usize| (1, number.to_string());
        let mut waiting = Waiting::default();
        for _ in 0..2 {
            assert!((0..MOST_WAITING).all(|number| waiting.add(client(number))));
        }
        assert!(!waiting.add(client(MOST_WAITING)) && !waiting.add(client(MOST_WAITING)));
        assert_eq!((waiting.clients.len(), waiting.dropped), (MOST_WAITING, 2));
        // The same number of another tenant's is another client.
        assert!(!waiting.add((2, "0".to_owned())));
        let some = waiting.some();
        assert_eq!((some.len(), waiting.clients.len()), (AT_ONCE, MOST_WAITING));
        waiting.noted(&some);
        assert_eq!(waiting.clients.len(), MOST_WAITING - AT_ONCE);
        assert!(some.iter().all(|client| !waiting.clients.contains(client)));
        assert!(waiting.add(client(MOST_WAITING)));
    }
}
