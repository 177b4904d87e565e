//! The end of a connection that is told no, or why it ends: so that the peer can read it. Knows no requests.

use std::io;
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::sync::Semaphore;

use crate::batch::Refusal;
use crate::protocol;

/// After a fatal reply the peer's further input is discarded for this long, so that it can read the reply.
const LINGER: Duration = Duration::from_secs(1);
/// ... and at most so much of it.
const LINGER_BYTES: usize = 64 << 20;
/// Most bytes discarded at once.
const CHUNK_BYTES: usize = 16 << 10;

/// Says no to a connection that was not served.
pub fn say_no(stream: &UnixStream, refusal: &Refusal) {
    let reply = protocol::refusal_reply(None, refusal);
    // A fresh socket has room for one line, and tokio takes an accepted one for writable from the start; a peer
    // that is gone needs no answer.
    let _ = stream.try_write(&reply);
}

/// Lingers, unless many do already.
pub async fn linger_if_few(stream: &UnixStream, lingering: &Semaphore) {
    if let Ok(_permit) = lingering.try_acquire() {
        linger(stream).await;
    }
}

/// Ends the writing half and discards what the peer still sends, for a moment: closed at once, its next write
/// would fail before it has read the reply.
pub async fn linger(stream: &UnixStream) {
    if rustix::net::shutdown(stream, rustix::net::Shutdown::Write).is_err() {
        return;
    }
    let discard = async {
        let (mut rest, mut chunk) = (LINGER_BYTES, vec![0; CHUNK_BYTES]);
        while rest > 0 && stream.readable().await.is_ok() {
            match stream.try_read(&mut chunk) {
                Ok(0) => break,
                Ok(got) => rest = rest.saturating_sub(got),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => break,
            }
        }
    };
    let _ = tokio::time::timeout(LINGER, discard).await;
}
