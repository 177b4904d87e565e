//! The producers: one thread each with one blocking Unix socket, the same for every daemon that speaks the
//! protocol, so that what they cost themselves is the same for all. They believe no reply that does not begin
//! with `ok`.

use std::collections::VecDeque;
use std::io::{self, IoSlice, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Barrier;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};

use crate::load::{Load, Requests};

/// A reply that does not come in this time never will.
const REPLY_TIMEOUT: Duration = Duration::from_secs(60);
const READ_BYTES: usize = 16 << 10;
const OK: &[u8] = b"{\"ok\":true";

/// What the producers of one cell saw.
pub struct Seen {
    /// Acknowledged while the clock ran.
    pub batches: u64,
    /// Acknowledged before, so that files are open and buffers grown.
    pub warmed: u64,
    /// From the start of the clock to the last acknowledgement.
    pub seconds: f64,
    pub started: Instant,
    /// From the first byte of a request to its acknowledgement, sorted.
    pub latencies: Vec<Duration>,
}

struct Producer {
    stream: UnixStream,
    requests: Requests,
    seq: u64,
    sent: VecDeque<Instant>,
    buffer: Vec<u8>,
    replies: Vec<u8>,
    latencies: Vec<Duration>,
}

/// Sends `load` to the daemon at `socket`; `at_start` is called when all is warm, just before the clock starts.
pub fn run(load: &Load, ack: &str, socket: &Path, at_start: impl FnOnce() -> Result<()>) -> Result<Seen> {
    let mut producers = Vec::new();
    for requests in Requests::of_all(load, ack) {
        let stream =
            UnixStream::connect(socket).with_context(|| format!("cannot connect to {}", socket.display()))?;
        stream.set_read_timeout(Some(REPLY_TIMEOUT))?;
        stream.set_write_timeout(Some(REPLY_TIMEOUT))?;
        producers.push(Producer {
            stream,
            requests,
            seq: 0,
            sent: VecDeque::new(),
            buffer: vec![0; READ_BYTES],
            replies: Vec::new(),
            latencies: Vec::new(),
        });
    }
    // Together they reach every lot, and no one fewer than a few batches.
    let warm = (load.lots.div_ceil(load.producers) as u64).max(8);
    let (warmed, started) = (Barrier::new(load.producers + 1), Barrier::new(load.producers + 1));
    let outcomes = std::thread::scope(|scope| {
        let threads: Vec<_> = producers
            .into_iter()
            .map(|mut producer| {
                let (warmed, started) = (&warmed, &started);
                scope.spawn(move || {
                    let first = producer.send_until(load.outstanding, |seq| seq >= warm);
                    producer.latencies.clear();
                    warmed.wait();
                    started.wait();
                    first?;
                    let deadline = Instant::now() + load.time();
                    producer.send_until(load.outstanding, |_| Instant::now() >= deadline)?;
                    Ok((producer.latencies, Instant::now()))
                })
            })
            .collect();
        warmed.wait();
        let at_start = at_start();
        let begun = Instant::now();
        started.wait();
        let outcomes: Vec<Result<(Vec<Duration>, Instant)>> = threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|_| Err(anyhow!("a producer panicked"))))
            .collect();
        at_start.map(|()| (begun, outcomes))
    });
    let (begun, outcomes) = outcomes?;
    let mut latencies = Vec::new();
    let mut last = begun;
    for outcome in outcomes {
        let (of_one, ended) = outcome?;
        latencies.extend(of_one);
        last = last.max(ended);
    }
    latencies.sort_unstable();
    Ok(Seen {
        batches: latencies.len() as u64,
        warmed: warm * load.producers as u64,
        seconds: (last - begun).as_secs_f64(),
        started: begun,
        latencies,
    })
}

impl Producer {
    /// Keeps up to `outstanding` batches in flight until `enough`, then takes what is still owed.
    fn send_until(&mut self, outstanding: usize, enough: impl Fn(u64) -> bool) -> Result<()> {
        loop {
            let room = outstanding - self.sent.len();
            let wanted = (0..room as u64).take_while(|at| !enough(self.seq + at)).count();
            if wanted > 0 {
                self.send(wanted)?;
            }
            if self.sent.is_empty() {
                return Ok(());
            }
            self.receive()?;
        }
    }

    /// Sends so many batches with one call of the kernel.
    fn send(&mut self, batches: usize) -> Result<()> {
        let first = self.seq + 1;
        let heads: Vec<String> = (0..batches as u64).map(|at| self.requests.head(first + at)).collect();
        let mut parts: Vec<IoSlice<'_>> = Vec::with_capacity(batches * 4);
        for (at, head) in heads.iter().enumerate() {
            parts.push(IoSlice::new(head.as_bytes()));
            parts.extend(self.requests.rest(first + at as u64));
        }
        let now = Instant::now();
        self.sent.extend(std::iter::repeat_n(now, batches));
        write_all(&mut self.stream, &mut parts).context("cannot send to the daemon")?;
        self.seq += batches as u64;
        Ok(())
    }

    /// Takes at least one reply.
    fn receive(&mut self) -> Result<()> {
        loop {
            let got = self.stream.read(&mut self.buffer).context("no reply from the daemon")?;
            if got == 0 {
                bail!("the daemon closed the connection of a producer");
            }
            self.replies.extend_from_slice(&self.buffer[..got]);
            let mut from = 0;
            for end in memchr::memchr_iter(b'\n', &self.replies) {
                let line = &self.replies[from..end];
                if !line.starts_with(OK) {
                    bail!("the daemon refused a batch of the bench: {}", String::from_utf8_lossy(line));
                }
                let sent = self.sent.pop_front().context("the daemon sent a reply too many")?;
                self.latencies.push(sent.elapsed());
                from = end + 1;
            }
            self.replies.drain(..from);
            if from > 0 {
                return Ok(());
            }
        }
    }
}

/// All of the parts, however many calls it takes.
fn write_all(stream: &mut UnixStream, mut parts: &mut [IoSlice<'_>]) -> io::Result<()> {
    while !parts.is_empty() {
        match stream.write_vectored(parts) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(wrote) => IoSlice::advance_slices(&mut parts, wrote),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
