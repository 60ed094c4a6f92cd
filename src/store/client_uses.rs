//! Notes of which clients authorization servers ask for, written behind the answers: no answer waits for the database's
//! writer, and none fails with it.

use std::collections::HashSet;
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::clock::unix_millis;
use super::db::{Database, StoredClient, note_use};

/// Uses that may wait. More are not noted: whoever uses a client uses it again.
const QUEUE: usize = 4_096;

/// Most uses that are looked at together. A client that is among them more than once is noted once.
const BATCH: usize = 256;

struct Use {
    tenant: u32,
    client: StoredClient,
    at: u64,
}

/// The way to the task that notes uses, which ends when the last one is dropped and the queue is empty.
#[derive(Clone)]
pub struct ClientUses(mpsc::Sender<Use>);

impl ClientUses {
    /// Starts the task.
    pub fn start(database: Arc<dyn Database>) -> (Self, JoinHandle<()>) {
        let (queue, waiting) = mpsc::channel(QUEUE);
        (Self(queue), tokio::spawn(write(database, waiting)))
    }

    /// Has it noted that a server asked for this client just now.
    pub fn note(&self, tenant: u32, client: StoredClient) {
        if self.0.try_send(Use { tenant, client, at: unix_millis() }).is_err() {
            tracing::debug!(tenant, "the use of a client was not noted: too many wait");
        }
    }
}

async fn write(database: Arc<dyn Database>, mut queue: mpsc::Receiver<Use>) {
    let mut waiting = Vec::with_capacity(BATCH);
    let mut failed = false;
    while queue.recv_many(&mut waiting, BATCH).await > 0 {
        let mut noted = HashSet::new();
        for Use { tenant, client, at } in waiting.drain(..) {
            if !noted.insert(client.client_id.clone()) {
                continue;
            }
            let result = note_use(&*database, tenant, &client, at).await;
            match &result {
                Err(error) if !failed => tracing::warn!(%error, "the uses of clients are not noted"),
                _ => {}
            }
            failed = result.is_err();
        }
    }
}
