//! What systemd is told and gives: READY, STOPPING, STATUS, WATCHDOG, an inherited socket. Without systemd
//! (no `NOTIFY_SOCKET`, no `LISTEN_FDS`) nothing of it happens.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use sd_notify::NotifyState;

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

/// The socket that systemd listens on for us, if it does.
///
/// # Errors
/// What it gave is not a Unix stream socket.
pub fn inherited_socket() -> io::Result<Option<std::os::unix::net::UnixListener>> {
    let mut fds = listenfd::ListenFd::from_env();
    if fds.len() == 0 {
        return Ok(None);
    }
    let listener = fds.take_unix_listener(0)?;
    if let Some(listener) = &listener {
        listener.set_nonblocking(true)?;
    }
    Ok(listener)
}

/// Pings the watchdog for as long as the writer makes progress or has nothing to do; returns at once where
/// there is no watchdog. A writer that hangs in one storage call stops the pings.
pub async fn watchdog(metrics: Arc<Metrics>) {
    let Some(timeout) = sd_notify::watchdog_enabled() else { return };
    let mut pulse = Pulse::new(metrics);
    loop {
        tokio::time::sleep(timeout / 2).await;
        if pulse.beats() {
            notify(&[NotifyState::Watchdog]);
        }
    }
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
