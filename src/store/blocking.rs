//! Work that keeps a processor busy, away from the threads that answer requests.

use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

use super::db::Error;

/// How many pieces of such work are done at a time: what a tenant's owners do must not slow down all others.
static AT_A_TIME: Semaphore = Semaphore::const_new(1);

/// Does `work` on a thread of its own, one after another.
pub async fn run<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Error> {
    let failed = |reason: &str| Error::Failed(format!("a piece of work was not done: {reason}"));
    let permit = AT_A_TIME.acquire().await.map_err(|_| failed("the store is shutting down"))?;
    // The permit goes with the work, which goes on if the request is given up.
    let done = spawn_blocking(move || {
        let _permit = permit;
        work()
    });
    done.await.map_err(|_| failed("it was cut off"))
}
