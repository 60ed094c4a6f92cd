//! Listening, and stopping in an orderly way: what was accepted is finished.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use axum::Extension;
use axum::serve::ListenerExt;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;

use super::acl_counts::{self, AclCounts};
use super::change_upkeep;
use super::client_upkeep;
use super::client_uses::ClientUses;
use super::clock::Clock;
use super::db::Database;
use super::http::console::OverTls;
use super::http::metrics::Metrics;
use super::http::{App, PERMISSION_ANSWERS, router};
use super::log_upkeep;
use super::refusals::{self, Refusals};
use super::stub_authorization_server;
use super::tls::{Files, Tls, TlsListener};
use super::token::{ExternalIssuer, Keys, ListedTokens, Verifier};
use super::writer::Writer;

/// How long requests in flight may take once the process is asked to stop. With [`QUEUE_GRACE`] it stays below the
/// ten seconds after which supervisors kill.
const REQUEST_GRACE: Duration = Duration::from_secs(7);

/// How long the registrations that wait, and what edges reported, may take after that.
const QUEUE_GRACE: Duration = Duration::from_secs(2);

/// Listens at `address`. A failure names it.
async fn listen(address: &str) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(address).await;
    listener.map_err(|error| io::Error::new(error.kind(), format!("cannot listen on {address}: {error}")))
}

/// Where a store listens.
pub struct Addresses {
    /// Without TLS.
    pub clear: String,
    /// With TLS, for those who have a certificate.
    pub tls: Option<(String, Files)>,
}

fn announce(line: &str) -> io::Result<()> {
    use io::Write;
    let mut out = io::stdout().lock();
    out.write_all(line.as_bytes())?;
    out.flush()
}

/// Answers requests at `addresses` until SIGTERM or SIGINT, then finishes what was accepted and closes the database.
/// With `edge_tokens` no others open the edge's interface. With `ready_after_edge` it is not ready before an edge has put everything in force.
pub async fn serve(
    database: Arc<dyn Database>,
    keys: Keys,
    external: Option<Arc<ExternalIssuer>>,
    edge_tokens: Option<ListedTokens>,
    addresses: Addresses,
    ready_after_edge: bool,
) -> io::Result<()> {
    let stopping = stop_signal()?;
    let listener = listen(&addresses.clear).await?;
    // The ports may be 0, so it is said where they are: that without TLS last.
    let tls_listener = match addresses.tls {
        Some((address, files)) => {
            let (tls, follower) = Tls::open(files).map_err(io::Error::other)?;
            tokio::spawn(follower.follow(stopping.clone()));
            let listener = listen(&address).await?;
            announce(&format!("listening with TLS on {}\n", listener.local_addr()?))?;
            Some(TlsListener::start(listener, tls)?)
        }
        None => None,
    };
    announce(&format!("listening on {}\n", listener.local_addr()?))?;
    let metrics = Arc::new(Metrics::default());
    let clock = Clock::of_this_machine()?;
    let (writer, writing) = Writer::start(Arc::clone(&database), Arc::clone(&metrics), clock);
    let (client_uses, noting) = ClientUses::start(Arc::clone(&database));
    let acl_counts = Arc::new(AclCounts::new(Arc::clone(&metrics)));
    let regularly =
        Arc::clone(&acl_counts).write_regularly(Arc::clone(&database), acl_counts::INTERVAL, stopping.clone());
    let summing_up = tokio::spawn(regularly);
    let refusals = Arc::new(Refusals::new(Arc::clone(&metrics)));
    let regularly = Arc::clone(&refusals).write_regularly(Arc::clone(&database), refusals::INTERVAL, stopping.clone());
    let summing_refusals_up = tokio::spawn(regularly);
    let pruning =
        tokio::spawn(log_upkeep::prune_regularly(Arc::clone(&database), log_upkeep::INTERVAL, stopping.clone()));
    let tidying = tokio::spawn(client_upkeep::delete_unused_regularly(
        Arc::clone(&database),
        client_upkeep::INTERVAL,
        stopping.clone(),
    ));
    let forgetting =
        tokio::spawn(change_upkeep::forget_regularly(Arc::clone(&database), change_upkeep::INTERVAL, stopping.clone()));
    if let Some(external) = &external {
        tokio::spawn(Arc::clone(external).follow(stopping.clone()));
    }
    let verifier = Arc::new(Verifier::new(keys, Arc::clone(&database), external));
    tokio::spawn(Arc::clone(&verifier).follow(stopping.clone()));
    let edge_tokens = edge_tokens.map(Arc::new);
    if let Some(tokens) = &edge_tokens {
        tokio::spawn(Arc::clone(tokens).follow(stopping.clone()));
    }
    let app = App {
        database: Arc::clone(&database),
        writer,
        clock,
        client_uses,
        permission_answers: Arc::new(Semaphore::new(PERMISSION_ANSWERS)),
        verifier,
        edge_tokens,
        metrics,
        acl_counts: Arc::clone(&acl_counts),
        refusals: Arc::clone(&refusals),
        edge_signals: Arc::default(),
        other_versions: Arc::default(),
        stopping: stopping.clone(),
        in_force: Arc::new(AtomicBool::new(!ready_after_edge)),
    };
    let over_tls = tls_listener
        .map(|listener| (listener, router(app.clone()).layer(Extension(OverTls))))
        .map(|(listener, router)| axum::serve(listener, router).with_graceful_shutdown(stopped(stopping.clone())));
    let over_tls = async {
        match over_tls {
            Some(answering) => answering.await,
            None => Ok(()),
        }
    };
    let in_clear = axum::serve(without_delay(listener), router(app)).with_graceful_shutdown(stopped(stopping.clone()));
    let answering = async { tokio::try_join!(async { in_clear.await }, over_tls) };
    let overdue = async {
        stopped(stopping).await;
        tracing::info!("stopping");
        tokio::time::sleep(REQUEST_GRACE).await;
    };
    tokio::select! {
        answered = answering => { answered?; }
        () = overdue => tracing::warn!("some requests did not end in time and were cut off"),
    }
    // The writer ends when no request is left that could give it anything.
    let summed_up = async {
        _ = tokio::join!(summing_up, summing_refusals_up, pruning, tidying, forgetting);
        // A minute that is not over either: no edge reports to this process again.
        refusals.finish(&*database).await;
        acl_counts.finish(&*database).await;
    };
    let (written, summed_up, _) = tokio::join!(
        timeout(QUEUE_GRACE, writing),
        timeout(QUEUE_GRACE, summed_up),
        // What is not noted by then is noted when the client is used again.
        timeout(QUEUE_GRACE, noting)
    );
    if written.is_err() {
        tracing::warn!("stopped without waiting for every registration; whoever got no answer may ask again");
    }
    if summed_up.is_err() {
        tracing::warn!("stopped without writing all that edges reported since the last time");
    }
    database.close().await;
    tracing::info!("stopped");
    Ok(())
}

/// Answers requests at `address` with the stand-in for an authorization server until SIGTERM or SIGINT.
pub async fn serve_stub_authorization_server(address: &str) -> io::Result<()> {
    let stopping = stop_signal()?;
    let listener = listen(address).await?;
    announce(&format!("listening on {}\n", listener.local_addr()?))?;
    axum::serve(listener, stub_authorization_server::router()).with_graceful_shutdown(stopped(stopping)).await
}

/// Small answers must not wait for the acknowledgement of the one before.
fn without_delay(listener: TcpListener) -> impl axum::serve::Listener<Addr = std::net::SocketAddr> {
    listener.tap_io(|stream| _ = stream.set_nodelay(true))
}

async fn stopped(mut stopping: watch::Receiver<bool>) {
    _ = stopping.wait_for(|stopping| *stopping).await;
}

/// Becomes `true` at the first SIGTERM or SIGINT. Asked for before anyone is told where to connect, since whoever
/// starts the process may stop it from then on.
fn stop_signal() -> io::Result<watch::Receiver<bool>> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let (sender, receiver) = watch::channel(false);
    tokio::spawn(async move {
        tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
        _ = sender.send(true);
    });
    Ok(receiver)
}
