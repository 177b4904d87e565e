//! Signals become two tokens and a bell: drain, end the waiting, reopen. Knows nothing of what they lead to.

use std::io;
use std::sync::Arc;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// What signals have asked for.
#[derive(Clone, Debug, Default)]
pub struct Shutdown {
    /// The first SIGTERM or SIGINT: stop accepting, finish what is queued.
    pub drain: CancellationToken,
    /// The second one: wait no longer.
    pub now: CancellationToken,
    /// SIGHUP: reopen the lot files, reread what can be reread.
    pub reload: Arc<Notify>,
}

/// Catches signals from now on; they wait for [`listen`]. Starts no thread, so it can come first of all.
///
/// # Errors
/// When the system refuses a handler.
pub fn catch() -> io::Result<Signals> {
    Signals::new([SIGTERM, SIGINT, SIGHUP])
}

/// Listens for the signals that were caught, and all that follow, on a thread of its own.
///
/// # Errors
/// When the system refuses a thread.
pub fn listen(mut signals: Signals) -> io::Result<Shutdown> {
    let shutdown = Shutdown::default();
    let asked = shutdown.clone();
    // Caught for its default's sake, which is death: beyond the limit of a file's size a write then fails.
    signal_hook::flag::register(rustix::process::Signal::XFSZ.as_raw(), Arc::default())?;
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        for signal in signals.forever() {
            match signal {
                SIGHUP => asked.reload.notify_one(),
                _ if asked.drain.is_cancelled() => asked.now.cancel(),
                _ => asked.drain.cancel(),
            }
        }
    })?;
    Ok(shutdown)
}
