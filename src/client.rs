//! The producer's side of one connection: connect, send lines, receive replies, each wait with a deadline.
//! Blocking and single-threaded. Knows the shape of a reply; does not know sessions, numbers or retries
//! (`session.rs` does), nor what stands in a request.

use std::collections::BTreeMap;
use std::io::{self, IoSlice, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use serde::Deserialize;

/// The longest reply line a client takes, in bytes. A status page is the longest: a few KiB.
pub const MAX_REPLY_BYTES: usize = 1 << 20;
/// Replies read ahead while a request is being sent, in bytes; beyond it they wait in the socket.
const MAX_INBOX_BYTES: usize = 2 * MAX_REPLY_BYTES;
const READ_CHUNK_BYTES: usize = 64 << 10;
const _: () = assert!(MAX_INBOX_BYTES >= MAX_REPLY_BYTES + READ_CHUNK_BYTES);

/// What can go wrong on a connection. After any of these the connection is of no further use, except that
/// replies which arrived before can still be received after a failed send.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens there, or the socket cannot be reached.
    #[error("no daemon at {}: {source}", path.display())]
    NoDaemon {
        /// Where it was looked for.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The daemon did not take or give anything for the whole timeout: what was sent is of unknown fate.
    #[error("the daemon at {} {what} for {:?}", path.display(), timeout)]
    TimedOut {
        /// Where it listens.
        path: PathBuf,
        /// What it did not do.
        what: &'static str,
        /// How long that was waited for.
        timeout: Duration,
    },
    /// The connection ended: requests without a reply are of unknown fate.
    #[error("the daemon at {} closed the connection", path.display())]
    Closed {
        /// Where it listens.
        path: PathBuf,
    },
    /// Another I/O error, with the same consequence.
    #[error("connection to {}: {source}", path.display())]
    Io {
        /// Where the daemon listens.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// What arrived is not a reply of this protocol: something else listens there.
    #[error("{} sent what is not a reply of lotlogd: {text}", path.display())]
    BadReply {
        /// Where it listens.
        path: PathBuf,
        /// The beginning of what arrived.
        text: String,
    },
    /// A request with a newline in it would be two requests; nothing was sent.
    #[error("a request has a newline inside, so it would be taken as two: nothing was sent")]
    NotOneLine,
}

/// A reply to any request.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Reply {
    /// Whether the request was carried out.
    pub ok: bool,
    /// The lot, as the id was sent (text or integer).
    pub lot: Option<serde_json::Value>,
    /// Items of the batch; missing in the duplicate of an older batch.
    pub records: Option<u64>,
    /// Number of the batch among all that the daemon stored; of a `sync`, the last one covered.
    pub lsn: Option<u64>,
    /// The number that was sent.
    pub seq: Option<u64>,
    /// `synced` or `written`: what is promised.
    pub durability: Option<String>,
    /// The batch had been stored before; nothing was stored now.
    #[serde(default)]
    pub duplicate: bool,
    /// Values that could not be used, by field.
    #[serde(default)]
    pub dropped: BTreeMap<String, u64>,
    /// Keys whose sent value gave way to the daemon's.
    #[serde(default)]
    pub overridden: Vec<String>,
    /// Of a `rotate`: files moved to the archive.
    pub rotated: Option<u64>,
    /// Of a `rotate`: files that could not be moved.
    pub skipped: Option<u64>,
    /// Why it was not carried out.
    pub error: Option<Refused>,
}

/// Why a request was not carried out. Nothing of it was stored.
#[derive(Clone, Debug, Deserialize)]
pub struct Refused {
    /// The code of the contract, e.g. `no_space`.
    pub code: String,
    /// For a person: the thing, the consequence, the next step.
    pub message: String,
    /// Whether the same request may succeed later.
    #[serde(default)]
    pub retryable: bool,
    /// With `out_of_sequence`: the number that the session expects.
    pub expected: Option<u64>,
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.code, self.message)
    }
}

/// One connection to the daemon.
///
/// ```no_run
/// use std::time::Duration;
/// let mut client = lotlog::client::Client::connect(&lotlog::places::default_socket()?, Duration::from_secs(30))?;
/// client.send_line(br#"{"context":{"lot_id":"A1"},"items":[{"sku_local":"SKU001","sell_p60":0.75}]}"#)?;
/// assert!(client.recv_reply()?.ok);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Client {
    stream: UnixStream,
    path: PathBuf,
    timeout: Duration,
    inbox: Vec<u8>,
    /// How much of `inbox` is known to hold no newline.
    scanned: usize,
}

impl Client {
    /// Connects to the daemon at `path`. `timeout` bounds this and every later wait on the connection.
    ///
    /// # Errors
    /// [`ClientError::NoDaemon`] when nobody answers there; [`ClientError::TimedOut`] when somebody listens
    /// but does not accept.
    pub fn connect(path: &Path, timeout: Duration) -> Result<Client, ClientError> {
        match dial(path, timeout) {
            Ok(stream) => {
                Ok(Client { stream, path: path.to_owned(), timeout, inbox: Vec::new(), scanned: 0 })
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(ClientError::TimedOut {
                path: path.to_owned(),
                what: "did not accept a connection",
                timeout,
            }),
            Err(source) => Err(ClientError::NoDaemon { path: path.to_owned(), source }),
        }
    }

    /// Changes the deadline of every later wait.
    pub fn set_timeout(&mut self, timeout: Duration) {
        self.timeout = timeout;
    }

    /// Sends one request line; its newline is added. Replies that arrive meanwhile are kept, so that neither
    /// side can block the other.
    ///
    /// # Errors
    /// After an error the line was not executed and never will be (the daemon ignores a line without its
    /// newline); replies to earlier lines may still be received.
    pub fn send_line(&mut self, line: &[u8]) -> Result<(), ClientError> {
        self.send_parts(&[line])
    }

    /// Sends one request line given in parts; otherwise as [`Client::send_line`].
    ///
    /// # Errors
    /// As [`Client::send_line`].
    pub fn send_parts(&mut self, parts: &[&[u8]]) -> Result<(), ClientError> {
        if parts.iter().any(|part| memchr::memchr(b'\n', part).is_some()) {
            return Err(ClientError::NotOneLine);
        }
        let mut slices: Vec<IoSlice<'_>> = parts.iter().map(|part| IoSlice::new(part)).collect();
        slices.push(IoSlice::new(b"\n"));
        let mut rest = slices.as_mut_slice();
        IoSlice::advance_slices(&mut rest, 0);
        let mut deadline = Instant::now() + self.timeout;
        while !rest.is_empty() {
            match self.stream.write_vectored(rest) {
                Ok(count) => {
                    IoSlice::advance_slices(&mut rest, count);
                    deadline = Instant::now() + self.timeout;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let room = self.inbox.len() + READ_CHUNK_BYTES <= MAX_INBOX_BYTES;
                    let want = if room { PollFlags::IN | PollFlags::OUT } else { PollFlags::OUT };
                    let ready = self.wait(want, deadline, "took nothing of a request")?;
                    if room && ready.contains(PollFlags::IN) && self.fill()? == 0 {
                        return Err(ClientError::Closed { path: self.path.clone() });
                    }
                }
                Err(error) => return Err(self.failed(error)),
            }
        }
        Ok(())
    }

    /// Waits for the next reply.
    ///
    /// # Errors
    /// [`ClientError::TimedOut`], [`ClientError::Closed`]: the fate of what has no reply is unknown.
    pub fn recv_reply(&mut self) -> Result<Reply, ClientError> {
        let line = self.recv_line()?;
        self.parse(&line)
    }

    /// The next reply's text, without its newline.
    ///
    /// # Errors
    /// As [`Client::recv_reply`].
    pub fn recv_line(&mut self) -> Result<Vec<u8>, ClientError> {
        let deadline = Instant::now() + self.timeout;
        loop {
            if let Some(line) = self.take_line()? {
                return Ok(line);
            }
            self.wait(PollFlags::IN, deadline, "sent no reply")?;
            if self.fill()? == 0 {
                return Err(ClientError::Closed { path: self.path.clone() });
            }
        }
    }

    /// Sends one line and waits for its reply's text. Only for a connection without unanswered requests.
    ///
    /// # Errors
    /// As [`Client::recv_reply`].
    pub fn request(&mut self, line: &[u8]) -> Result<Vec<u8>, ClientError> {
        match self.send_line(line) {
            // A daemon that refuses the connection says why and closes: its word is worth more than EPIPE.
            Err(ClientError::Closed { .. } | ClientError::Io { .. }) | Ok(()) => self.recv_line(),
            Err(error) => Err(error),
        }
    }

    /// Takes a reply's text apart.
    ///
    /// # Errors
    /// [`ClientError::BadReply`].
    pub fn parse(&self, line: &[u8]) -> Result<Reply, ClientError> {
        let reply: Option<Reply> = serde_json::from_slice(line).ok();
        reply.filter(|reply| reply.ok != reply.error.is_some()).ok_or_else(|| self.bad_reply(line))
    }

    fn take_line(&mut self) -> Result<Option<Vec<u8>>, ClientError> {
        let Some(at) = memchr::memchr(b'\n', &self.inbox[self.scanned..]).map(|at| at + self.scanned) else {
            self.scanned = self.inbox.len();
            if self.inbox.len() > MAX_REPLY_BYTES {
                return Err(self.bad_reply(&self.inbox));
            }
            return Ok(None);
        };
        let mut line: Vec<u8> = self.inbox.drain(..=at).collect();
        line.pop();
        self.scanned = 0;
        Ok(Some(line))
    }

    /// Reads what is there; 0 at the end of the stream.
    fn fill(&mut self) -> Result<usize, ClientError> {
        let mut chunk = [0u8; READ_CHUNK_BYTES];
        match self.stream.read(&mut chunk) {
            Ok(count) => {
                self.inbox.extend_from_slice(&chunk[..count]);
                Ok(count)
            }
            // Nothing there after all: the caller waits again, under the same deadline.
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                Ok(usize::MAX)
            }
            Err(error) => Err(self.failed(error)),
        }
    }

    fn wait(&self, want: PollFlags, deadline: Instant, what: &'static str) -> Result<PollFlags, ClientError> {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let mut fds = [PollFd::new(&self.stream, want)];
            match poll(&mut fds, Timespec::try_from(left).ok().as_ref()) {
                Ok(0) if left.is_zero() => {
                    let (path, timeout) = (self.path.clone(), self.timeout);
                    return Err(ClientError::TimedOut { path, what, timeout });
                }
                Ok(0) | Err(rustix::io::Errno::INTR) => {}
                // A hang-up counts as readable, so that the read finds the end or the error.
                Ok(_) if fds[0].revents().intersects(PollFlags::HUP | PollFlags::ERR) => {
                    return Ok(fds[0].revents() | want);
                }
                Ok(_) => return Ok(fds[0].revents()),
                Err(errno) => return Err(self.failed(errno.into())),
            }
        }
    }

    fn failed(&self, error: io::Error) -> ClientError {
        let path = self.path.clone();
        match error.kind() {
            io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => ClientError::Closed { path },
            _ => ClientError::Io { path, source: error },
        }
    }

    fn bad_reply(&self, line: &[u8]) -> ClientError {
        let text: String = String::from_utf8_lossy(&line[..line.len().min(200)]).into_owned();
        ClientError::BadReply { path: self.path.clone(), text }
    }
}

/// Connects with a deadline (std's connect has none: it waits for ever where the backlog is full), and
/// returns a socket that never blocks.
fn dial(path: &Path, timeout: Duration) -> io::Result<UnixStream> {
    let address = SocketAddrUnix::new(path)?;
    let fd: OwnedFd = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    set_socket_timeout(fd.as_fd(), Timeout::Send, Some(timeout.max(Duration::from_millis(1))))?;
    connect(fd.as_fd(), &address)?;
    let stream = UnixStream::from(fd);
    stream.set_nonblocking(true)?;
    Ok(stream)
}
