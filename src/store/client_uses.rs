//! Notes of which clients authorization servers ask for, written behind the answers: no answer waits for the database's
//! writer, and none fails with it.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::clock::unix_millis;
use super::db::{Database, StoredClient};

/// Uses that may wait. More are not noted: whoever uses a client uses it again.
const QUEUE: usize = 4_096;

/// How long registrations have the database's writer for themselves between two transactions that note uses.
const PAUSE: Duration = Duration::from_millis(100);

/// The way to the task that notes uses, which ends when the last one is dropped and the queue is empty.
#[derive(Clone)]
pub struct ClientUses(mpsc::Sender<(u32, String)>);

impl ClientUses {
    /// Starts the task.
    pub fn start(database: Arc<dyn Database>) -> (Self, JoinHandle<()>) {
        let (queue, waiting) = mpsc::channel(QUEUE);
        (Self(queue), tokio::spawn(write(database, waiting)))
    }

    /// Has it noted that a server asked just now for this client, unless that was noted a short while ago.
    pub fn note(&self, tenant: u32, client: StoredClient) {
        if client.is_use_due(unix_millis()) && self.0.try_send((tenant, client.client_id)).is_err() {
            tracing::debug!(tenant, "the use of a client was not noted: too many wait");
        }
    }
}

async fn write(database: Arc<dyn Database>, mut queue: mpsc::Receiver<(u32, String)>) {
    let mut waiting = Vec::new();
    let mut failed = false;
    while queue.recv_many(&mut waiting, QUEUE).await > 0 {
        let clients: Vec<_> = waiting.drain(..).collect::<HashSet<_>>().into_iter().collect();
        let result = database.note_client_uses(&clients, unix_millis()).await;
        match &result {
            Err(error) if !failed => tracing::warn!(%error, "the uses of clients are not noted"),
            _ => {}
        }
        failed = result.is_err();
        sleep(PAUSE).await;
    }
}
