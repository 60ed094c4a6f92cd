//! Many registrations, one transaction, one sync.
//!
//! One task takes all registrations that wait, has them written together, and answers each. While it waits for the
//! disk the next ones gather, so batches grow with the load and a lone registration waits for nobody.
//!
//! Each is judged by when it came, and a refusal counts from its answer: however long the writer waits, a store that is
//! the only one refuses nothing that a single edge admitted.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use super::admission::{NewClient, Refusal};
use super::clock::Clock;
use super::db::{Arrival, Database, Registered};
use super::http::metrics::{Metrics, outcome};

/// Registrations that may wait.
const QUEUE: usize = 4_096;

/// Most registrations in one transaction.
const BATCH: usize = 256;

/// What becomes of a registration.
pub type Answer = Result<Registered, NotRegistered>;

/// Why a registration was not made.
#[derive(Debug)]
pub enum NotRegistered {
    /// It was refused.
    Refused(Refusal),
    /// Too many others wait, or the store is shutting down.
    Busy,
    /// The database failed.
    Failed,
}

impl NotRegistered {
    /// In a word, for metrics and logs.
    pub fn outcome(&self) -> &'static str {
        match self {
            Self::Refused(refusal) => refusal.outcome(),
            Self::Busy => "busy",
            Self::Failed => "failed",
        }
    }
}

struct Waiting {
    arrival: Arrival,
    answer: oneshot::Sender<Answer>,
}

/// The way to the writer's task, which ends when the last one is dropped and the queue is empty.
#[derive(Clone)]
pub struct Writer {
    queue: mpsc::Sender<Waiting>,
    metrics: Arc<Metrics>,
    clock: Clock,
}

impl Writer {
    /// Starts the task.
    pub fn start(database: Arc<dyn Database>, metrics: Arc<Metrics>, clock: Clock) -> (Self, JoinHandle<()>) {
        let (queue, waiting) = mpsc::channel(QUEUE);
        let task = tokio::spawn(write(database, Arc::clone(&metrics), clock, waiting));
        (Self { queue, metrics, clock }, task)
    }

    /// Registers a client. When this returns `Ok`, the registration is durable.
    pub async fn register(&self, client: NewClient) -> Answer {
        let (answer, answered) = oneshot::channel();
        let arrival = Arrival { client, at: self.clock.now() };
        if self.queue.try_send(Waiting { arrival, answer }).is_err() {
            self.metrics.registration(NotRegistered::Busy.outcome());
            return Err(NotRegistered::Busy);
        }
        answered.await.unwrap_or(Err(NotRegistered::Failed))
    }

    /// How many registrations wait.
    pub fn waiting(&self) -> usize {
        self.queue.max_capacity().saturating_sub(self.queue.capacity())
    }
}

async fn write(database: Arc<dyn Database>, metrics: Arc<Metrics>, clock: Clock, mut queue: mpsc::Receiver<Waiting>) {
    let mut waiting = Vec::with_capacity(BATCH);
    while queue.recv_many(&mut waiting, BATCH).await > 0 {
        let (batch, waiters): (Vec<_>, Vec<_>) =
            waiting.drain(..).map(|Waiting { arrival, answer }| (arrival, answer)).unzip();
        match database.register(&batch).await {
            Ok(answers) => {
                metrics.flushed(batch.len());
                let now = clock.now().steady.nanos;
                for ((waiter, answer), arrival) in waiters.into_iter().zip(answers).zip(&batch) {
                    metrics.registration(outcome(&answer));
                    let waited = now.saturating_sub(arrival.at.steady.nanos);
                    // Whoever hung up may ask again: the registration is idempotent.
                    _ = waiter.send(answer.map_err(|refusal| NotRegistered::Refused(refusal.after(waited))));
                }
            }
            Err(error) => {
                tracing::error!(registrations = batch.len(), %error, "a batch was not written");
                for waiter in waiters {
                    metrics.registration(NotRegistered::Failed.outcome());
                    _ = waiter.send(Err(NotRegistered::Failed));
                }
            }
        }
    }
}
