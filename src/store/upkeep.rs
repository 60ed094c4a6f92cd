//! Work that is done from time to time while the store runs.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;

/// Does `work` at once and each time `interval` is over, until `stopping`, which cuts it off.
pub async fn regularly<F: Future<Output = ()>>(
    interval: Duration,
    mut stopping: watch::Receiver<bool>,
    work: impl Fn() -> F,
) {
    loop {
        tokio::select! {
            () = work() => {}
            _ = stopping.wait_for(|stopping| *stopping) => return,
        }
        if !pause(interval, &mut stopping).await {
            return;
        }
    }
}

/// Waits for so long; false if `stopping` came first.
pub async fn pause(interval: Duration, stopping: &mut watch::Receiver<bool>) -> bool {
    timeout(interval, stopping.wait_for(|stopping| *stopping)).await.is_err()
}
