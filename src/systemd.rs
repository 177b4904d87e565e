//! What systemd is told and gives: READY, STOPPING, STATUS, WATCHDOG, an inherited socket. Without systemd
//! (no `NOTIFY_SOCKET`, no `LISTEN_FDS`) nothing of it happens.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use sd_notify::NotifyState;
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;

/// How long before the start timeout recovery asks for more time, each time it does.
const EXTENSION: Duration = Duration::from_secs(60);
/// How often it asks.
pub const EXTENSION_INTERVAL: Duration = Duration::from_secs(20);

fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "systemd could not be told");
    }
}

/// Ready: recovered, locked, listening.
pub fn ready(status: &str) {
    notify(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// Draining.
pub fn stopping() {
    notify(&[NotifyState::Stopping, NotifyState::Status("draining: finishing what is queued")]);
}

/// One line for `systemctl status`.
pub fn status(status: &str) {
    notify(&[NotifyState::Status(status)]);
}

/// Starting takes longer.
pub fn extend_start(status: &str) {
    notify(&[NotifyState::ExtendTimeoutUsec(EXTENSION.as_micros() as u32), NotifyState::Status(status)]);
}

/// Whether the system's systemd has started this process, as a part of a service.
pub fn is_parent() -> bool {
    std::env::var_os("INVOCATION_ID").is_some() && rustix::process::getppid().is_some_and(|pid| pid.is_init())
}

/// The socket that systemd listens on for us, if it does. Before any thread is started, because it clears the
/// environment of it.
///
/// # Errors
/// What it gave is not one Unix stream socket that listens.
pub fn inherited_socket() -> io::Result<Option<std::os::unix::net::UnixListener>> {
    let wrong = |why| Err(io::Error::new(io::ErrorKind::InvalidInput, why));
    // The protocol: descriptors are for the process that is named, and for no other.
    let for_us = std::env::var("LISTEN_PID").is_ok_and(|pid| pid.parse() == Ok(std::process::id()));
    let mut fds = if for_us { listenfd::ListenFd::from_env() } else { listenfd::ListenFd::empty() };
    match fds.len() {
        0 => return Ok(None),
        1 => {}
        _ => {
            return wrong(
                "systemd passes several, and one is served: leave one ListenStream in the socket unit",
            );
        }
    }
    let listener = fds.take_unix_listener(0)?;
    if let Some(listener) = &listener {
        if !rustix::net::sockopt::socket_acceptconn(listener)? {
            return wrong("it does not listen: the socket unit needs Accept=no");
        }
        listener.set_nonblocking(true)?;
    }
    Ok(listener)
}

/// Pings the watchdog for as long as the writer makes progress or has nothing to do; returns at once where
/// there is no watchdog. A writer that hangs in one storage call stops the pings. The same wake-ups keep the
/// status up to date until `drain`, whose status stays.
pub async fn watchdog(metrics: Arc<Metrics>, drain: CancellationToken) {
    let Some(timeout) = sd_notify::watchdog_enabled() else { return };
    let mut pulse = Pulse::new(metrics.clone());
    let mut told = String::new();
    loop {
        tokio::time::sleep(timeout / 2).await;
        if pulse.beats() {
            notify(&[NotifyState::Watchdog]);
        }
        let now = summary(&metrics);
        if now != told && !drain.is_cancelled() {
            status(&now);
            told = now;
        }
    }
}

/// The daemon in one line.
fn summary(metrics: &Metrics) -> String {
    let trouble = if metrics.no_space.load(Relaxed) { "no space, batches are refused; " } else { "" };
    format!(
        "{trouble}{} connections, {} batches and {} records stored since the start",
        metrics.connections.load(Relaxed),
        metrics.batches.load(Relaxed),
        metrics.records.load(Relaxed)
    )
}

/// Whether the writer lives.
#[derive(Debug)]
pub struct Pulse {
    metrics: Arc<Metrics>,
    seen: u64,
}

impl Pulse {
    /// Of this daemon's writer.
    pub fn new(metrics: Arc<Metrics>) -> Pulse {
        Pulse { seen: metrics.progress.load(Relaxed), metrics }
    }

    /// Whether the writer is idle or has made progress since the last look.
    pub fn beats(&mut self) -> bool {
        let progress = self.metrics.progress.load(Relaxed);
        let beats = progress != self.seen || self.metrics.idle.load(Relaxed);
        self.seen = progress;
        beats
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pulse_follows_the_writers_progress() {
        let metrics = Arc::new(Metrics::default());
        let mut pulse = Pulse::new(metrics.clone());
        assert!(!pulse.beats(), "busy without progress");
        metrics.progress.fetch_add(1, Relaxed);
        assert!(pulse.beats());
        assert!(!pulse.beats());
        metrics.idle.store(true, Relaxed);
        assert!(pulse.beats() && pulse.beats());
    }
}
