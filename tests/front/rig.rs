//! A server on a socket of its own, a client with deadlines, and the vault's end of the queue in the test's hand.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use lotlog::batch::{Durability, Outcome};
use lotlog::config::Config;
use lotlog::metrics::Metrics;
use lotlog::queue::{self, Answers, Next, Receiver, Submission};
use lotlog::server::{self, Front};
use tokio_util::sync::CancellationToken;

/// How long anything here may take before the test fails.
pub const PATIENCE: Duration = Duration::from_secs(20);
/// How long to look before believing that nothing comes.
pub const A_WHILE: Duration = Duration::from_millis(150);

pub struct Rig {
    _home: tempfile::TempDir,
    _file: server::SocketFile,
    path: PathBuf,
    pub front: Arc<Front>,
    pub vault: Option<Receiver>,
    pub drain: CancellationToken,
    server: tokio::task::JoinHandle<()>,
    runtime: tokio::runtime::Runtime,
    threads: Arc<Mutex<Vec<PathBuf>>>,
    taken: Vec<Submission>,
}

impl Rig {
    pub fn start(change: impl FnOnce(&mut Config)) -> Rig {
        Rig::start_on(2, change)
    }

    /// A server whose runtime has so many workers.
    pub fn start_on(workers: usize, change: impl FnOnce(&mut Config)) -> Rig {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("s");
        let mut config = Config { data_dir: home.path().to_owned(), ..Config::default() };
        change(&mut config);
        let threads = Arc::new(Mutex::new(Vec::new()));
        let started = threads.clone();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(workers)
            .enable_all()
            .on_thread_start(move || {
                let thread = std::fs::read_link("/proc/thread-self").unwrap();
                started.lock().unwrap().push(Path::new("/proc").join(thread));
            })
            .build()
            .unwrap();
        let (sender, vault) = queue::queue();
        let (front, drain) = (Front::new(&config, Arc::new(Metrics::default())), CancellationToken::new());
        let (listener, file) = {
            let _inside = runtime.enter();
            server::bind(&path, 0o600).unwrap()
        };
        let server = runtime.spawn(server::serve(listener, front.clone(), sender, drain.clone()));
        let vault = Some(vault);
        Rig {
            _home: home,
            _file: file,
            path,
            front,
            vault,
            drain,
            server,
            runtime,
            threads,
            taken: Vec::new(),
        }
    }

    pub fn connect(&self) -> Client {
        Client::new(UnixStream::connect(&self.path).unwrap())
    }

    pub fn can_connect(&self) -> bool {
        UnixStream::connect(&self.path).is_ok()
    }

    pub fn connections(&self) -> usize {
        self.front.metrics.connections.load(Relaxed)
    }

    /// Waits until `count` connections are open.
    pub fn await_connections(&self, count: usize) {
        await_that(&format!("{count} connections"), || self.connections() == count);
    }

    /// The next `count` submissions that the vault gets.
    pub fn take(&mut self, count: usize) -> Vec<Submission> {
        let deadline = Instant::now() + PATIENCE;
        while self.taken.len() < count {
            match self.vault.as_ref().unwrap().next_group(Some(deadline)) {
                Next::Group(group) => self.taken.extend(group),
                other => panic!("the vault got {other:?} and {} of {count}", self.taken.len()),
            }
        }
        self.taken.drain(..count).collect()
    }

    /// Whether the vault gets nothing more for a while.
    pub fn gets_no_more(&mut self) -> bool {
        let next = self.vault.as_ref().unwrap().next_group(Some(Instant::now() + A_WHILE));
        if let Next::Group(group) = next {
            self.taken.extend(group);
        }
        self.taken.is_empty()
    }

    /// From here on every submission is answered at once by a thread of its own, which ends with the queue and
    /// gives the number of batches.
    pub fn answer_all(&mut self) -> std::thread::JoinHandle<u64> {
        let (vault, taken) = (self.vault.take().unwrap(), std::mem::take(&mut self.taken));
        std::thread::spawn(move || {
            let mut lsn = 0;
            answer_stored(taken, &mut lsn);
            loop {
                match vault.next_group(None) {
                    Next::Group(group) => answer_stored(group, &mut lsn),
                    Next::Deadline => {}
                    Next::Closed => return lsn,
                }
            }
        })
    }

    /// Waits until `serve` has returned.
    pub fn await_end(&mut self) {
        let server = &mut self.server;
        let ended = self.runtime.block_on(async { tokio::time::timeout(PATIENCE, server).await });
        ended.expect("serve did not return").unwrap();
    }

    /// Keeps the runtime's only thread busy from the moment when nothing else is to be done until the guard is dropped.
    pub fn hold_up(&self) -> std::sync::mpsc::Sender<()> {
        let (hold, held) = std::sync::mpsc::channel::<()>();
        let (begun, began) = std::sync::mpsc::channel();
        self.runtime.spawn(async move {
            begun.send(()).unwrap();
            let _ = held.recv_timeout(PATIENCE);
        });
        began.recv_timeout(PATIENCE).unwrap();
        hold
    }

    /// Time that the runtime's threads were on a processor until now.
    pub fn busy(&self) -> Duration {
        let threads = self.threads.lock().unwrap();
        let nanos = threads.iter().filter_map(|thread| {
            let text = std::fs::read_to_string(thread.join("schedstat")).ok()?;
            text.split_whitespace().next()?.parse::<u64>().ok()
        });
        Duration::from_nanos(nanos.sum())
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.drain.cancel();
    }
}

pub fn await_that(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn answer_stored(group: Vec<Submission>, lsn: &mut u64) {
    let mut answers = Answers::default();
    for submission in group {
        *lsn += u64::from(matches!(submission, Submission::Batch(..)));
        give(&mut answers, submission, *lsn);
    }
}

/// Answers a submission well, as the vault does.
pub fn answer(submission: Submission, lsn: u64) {
    give(&mut Answers::default(), submission, lsn);
}

fn give(answers: &mut Answers, submission: Submission, lsn: u64) {
    match submission {
        Submission::Batch(_, ticket) => {
            answers.give(ticket, Outcome::Stored { lsn, durability: Durability::Synced });
        }
        Submission::Sync(ticket) | Submission::Order(_, ticket) => {
            answers.give(ticket, Outcome::Synced { lsn });
        }
        Submission::Nudge => {}
    }
}

pub fn ticket(submission: Submission) -> queue::Ticket {
    match submission {
        Submission::Batch(_, ticket) | Submission::Sync(ticket) | Submission::Order(_, ticket) => ticket,
        Submission::Nudge => queue::Ticket::unread(),
    }
}

/// A batch of one item, numbered so that its reply can be told.
pub fn log(seq: u64) -> String {
    format!("{{\"session\":\"s\",\"seq\":{seq},\"items\":[{{\"asin\":\"a\"}}]}}\n")
}

/// A batch whose line takes `bytes` with its newline.
pub fn log_of(seq: u64, bytes: usize) -> String {
    let line = |filling: usize| {
        let filling = "x".repeat(filling);
        format!("{{\"session\":\"s\",\"seq\":{seq},\"items\":[{{\"note\":\"{filling}\"}}]}}\n")
    };
    let line = line(bytes - line(0).len());
    assert_eq!(line.len(), bytes);
    line
}

pub struct Client {
    pub stream: UnixStream,
    read: Vec<u8>,
}

impl Client {
    fn new(stream: UnixStream) -> Client {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Client { stream, read: Vec::new() }
    }

    pub fn send(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).unwrap();
    }

    /// Sends what the daemon may not want to read to its end.
    pub fn try_send(&mut self, text: &str) -> std::io::Result<()> {
        self.stream.write_all(text.as_bytes())
    }

    pub fn no_more(&self) {
        self.stream.shutdown(std::net::Shutdown::Write).unwrap();
    }

    /// The next reply.
    #[track_caller]
    pub fn reply(&mut self) -> serde_json::Value {
        self.reply_or_end().expect("the connection ended instead of a reply")
    }

    /// The next reply, or `None` where the connection ended between two replies.
    #[track_caller]
    pub fn reply_or_end(&mut self) -> Option<serde_json::Value> {
        let mut bytes = [0; 4096];
        while !self.read.contains(&b'\n') {
            match self.stream.read(&mut bytes) {
                Ok(n) if n > 0 => self.read.extend_from_slice(&bytes[..n]),
                Err(e) if e.kind() != ErrorKind::ConnectionReset => panic!("{e} instead of a reply"),
                _ => {
                    assert_eq!(String::from_utf8_lossy(&self.read), "", "a torn reply");
                    return None;
                }
            }
        }
        let end = self.read.iter().position(|b| *b == b'\n').unwrap();
        let line: Vec<u8> = self.read.drain(..=end).collect();
        Some(serde_json::from_slice(&line).unwrap())
    }

    /// The next reply is an error with this code.
    #[track_caller]
    pub fn refused(&mut self, code: &str) -> serde_json::Value {
        let reply = self.reply();
        assert_eq!(reply["error"]["code"], code, "{reply}");
        reply
    }

    /// The next reply is the good one to this sequence number.
    #[track_caller]
    pub fn stored(&mut self, seq: u64) {
        let reply = self.reply();
        assert!(reply["ok"] == true && reply["seq"] == seq, "{reply}, not that of {seq}");
    }

    /// The connection ends without another reply.
    #[track_caller]
    pub fn ended(&mut self) {
        let mut rest = std::mem::take(&mut self.read);
        match self.stream.read_to_end(&mut rest) {
            Ok(_) => {}
            Err(e) => assert_eq!(e.kind(), ErrorKind::ConnectionReset, "{e}"),
        }
        assert_eq!(String::from_utf8_lossy(&rest), "");
    }

    /// Nothing comes for a while.
    #[track_caller]
    pub fn silent(&mut self) {
        assert_eq!(String::from_utf8_lossy(&self.read), "");
        self.stream.set_read_timeout(Some(A_WHILE)).unwrap();
        let mut byte = [0];
        let got = self.stream.read(&mut byte);
        assert!(
            matches!(&got, Err(e) if e.kind() == ErrorKind::WouldBlock),
            "{got:?} {byte:?} instead of silence"
        );
        self.stream.set_read_timeout(Some(PATIENCE)).unwrap();
    }
}
