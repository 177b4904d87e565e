//! A producer's session: numbers batches, keeps those without an answer (bounded by count and bytes), sends
//! them again after a broken connection, and gives new numbers after a refusal. Batches are settled strictly
//! in the order they were submitted. Does not look inside a batch.
//!
//! Why nothing is lost or doubled. A batch leaves the queue only with its answer. One whose answer was lost is
//! sent again under the *same* number. A number changes only after the daemon refused the batch before it, and
//! then only when each later batch of that connection was answered too (refused: the numbers after a gap are
//! out of sequence) or the daemon itself had ended the connection, of which it then reads no more. A
//! connection that *we* give up ends the session.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::batch::SessionId;
use crate::client::{Client, ClientError, Refused, Reply};
pub use crate::session_error::SessionError;

const FIRST_PAUSE: Duration = Duration::from_millis(25);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// How a session behaves.
#[derive(Clone, Debug)]
pub struct SessionOptions {
    /// The longest that one call waits: for the daemon to come back, for a reply, or for refusals that ask to
    /// be retried to pass.
    pub timeout: Duration,
    /// Batches without an answer, at most.
    pub max_unsettled_batches: usize,
    /// Bytes of batches without an answer, at most; one batch is always allowed.
    pub max_unsettled_bytes: usize,
    /// Batches stored by an earlier process under this name may come again: their duplicates are expected.
    pub resume: bool,
}

impl Default for SessionOptions {
    fn default() -> SessionOptions {
        SessionOptions {
            timeout: Duration::from_secs(30),
            max_unsettled_batches: 64,
            max_unsettled_bytes: 8 << 20,
            resume: false,
        }
    }
}

/// The end of one batch.
#[derive(Clone, Debug)]
pub struct Settled {
    /// The number that `submit` gave for it.
    pub batch: u64,
    /// Stored, as its reply promises; or refused, not one item of it stored.
    pub result: Result<Reply, Refused>,
}

struct Pending {
    batch: u64,
    /// The request's text after its `{`.
    body: Vec<u8>,
    /// It was sent, and its answer did not come, or left open whether it is stored.
    maybe_stored: bool,
}

/// A producer's session.
///
/// ```no_run
/// use lotlog::session::{Session, SessionOptions};
/// let name = uuid::Uuid::new_v4().to_string();
/// let mut session = Session::open(&lotlog::places::default_socket()?, &name, SessionOptions::default())?;
/// for day in 0..100 {
///     while session.is_full() {
///         if let Some(settled) = session.next_settled()? { println!("{:?}", settled.result) }
///     }
///     session.submit(&format!(r#"{{"context":{{"lot_id":"A1","day":{day}}},"items":[{{"sku_local":"S1"}}]}}"#))?;
/// }
/// while let Some(settled) = session.next_settled()? { println!("{:?}", settled.result) }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Session {
    path: PathBuf,
    name: SessionId,
    options: SessionOptions,
    client: Option<Client>,
    /// Sending failed: what the daemon had answered is still read, then the connection is made anew.
    send_failed: bool,
    pending: VecDeque<Pending>,
    pending_bytes: usize,
    next_batch: u64,
    /// The number of `pending[0]`; `pending[i]` has `base_seq + i`.
    base_seq: u64,
    /// `pending[..in_flight]` were sent on this connection and wait for their replies.
    in_flight: usize,
    /// Replies to come that are about numbers no longer valid; while there are any, nothing is sent.
    stale: usize,
    /// How many may be in flight now: 1 after a refusal, doubled by each batch stored.
    allowance: usize,
    /// Resumed, and not yet past what was stored before. The numbers behind a refused batch are then not out of
    /// sequence, so that nothing may be in flight behind one.
    catching_up: bool,
    /// When the present wait began.
    waiting_since: Instant,
    pause: Duration,
    not_before: Instant,
    last_refusal: Option<Refused>,
    last_break: String,
    reconnects: u64,
    forgotten: u64,
    failed: Option<String>,
}

impl Session {
    /// Opens session `name` (new for each run: a UUID) with the daemon at `path`.
    ///
    /// # Errors
    /// At once when there is no daemon or `name` is not 1 to 64 of `A-Z a-z 0-9 . _ : -`.
    pub fn open(path: &Path, name: &str, options: SessionOptions) -> Result<Session, SessionError> {
        let name = SessionId::new(name).ok_or_else(|| {
            SessionError::Unusable(format!("`{name}` is no session name: use 1 to 64 of A-Z a-z 0-9 . _ : -"))
        })?;
        let client = Client::connect(path, options.timeout)?;
        let now = Instant::now();
        Ok(Session {
            path: path.to_owned(),
            name,
            allowance: if options.resume { 1 } else { options.max_unsettled_batches.max(1) },
            catching_up: options.resume,
            options,
            client: Some(client),
            send_failed: false,
            pending: VecDeque::new(),
            pending_bytes: 0,
            next_batch: 0,
            base_seq: 1,
            in_flight: 0,
            stale: 0,
            waiting_since: now,
            pause: FIRST_PAUSE,
            not_before: now,
            last_refusal: None,
            last_break: String::new(),
            reconnects: 0,
            forgotten: 0,
            failed: None,
        })
    }

    /// The session's name.
    pub fn name(&self) -> &str {
        self.name.as_str()
    }

    /// Whether a further batch must wait until one is settled.
    pub fn is_full(&self) -> bool {
        self.pending.len() >= self.options.max_unsettled_batches.max(1)
            || self.pending_bytes >= self.options.max_unsettled_bytes
    }

    /// Batches submitted and not settled.
    pub fn unsettled(&self) -> usize {
        self.pending.len()
    }

    /// Of each batch that is not settled, in their order: whether it may be stored. Exact once the session has ended;
    /// before, it says which ones a broken connection left without an answer.
    pub fn may_be_stored(&self) -> impl Iterator<Item = bool> + '_ {
        self.pending.iter().map(|pending| pending.maybe_stored)
    }

    /// How often the connection was made anew.
    pub fn reconnects(&self) -> u64 {
        self.reconnects
    }

    /// Acknowledged batches that the daemon no longer knows of: it forgot the session (unused for 7 days), or
    /// it runs on another data directory, or a power cut took batches that were only `written`.
    pub fn forgotten(&self) -> u64 {
        self.forgotten
    }

    /// Takes a batch: a whole `log` request, a JSON object in one line without `session` and `seq`. It is sent
    /// at once if the connection stands. Returns the batch's number for [`Settled::batch`].
    ///
    /// # Errors
    /// [`SessionError::Full`] (see [`Session::is_full`]); a failed session; a request that is no object in one line.
    pub fn submit(&mut self, request: &str) -> Result<u64, SessionError> {
        self.check_usable()?;
        if self.is_full() {
            return Err(SessionError::Full);
        }
        let batch = self.insert(self.pending.len(), request)?;
        self.transmit()?;
        Ok(batch)
    }

    /// Puts batches in the place of the one whose refusal was just settled, before all that are not: so the
    /// order of what is stored stays the order of submission. Returns the first one's number; the others follow.
    ///
    /// # Errors
    /// As [`Session::submit`] (without [`SessionError::Full`]); when it was not the last settled batch that was refused.
    pub fn replace_refused(&mut self, requests: &[String]) -> Result<u64, SessionError> {
        if self.in_flight > 0 {
            return Err(SessionError::Unusable("only a batch just refused can be replaced".into()));
        }
        let first = self.next_batch;
        for (at, request) in requests.iter().enumerate() {
            self.insert(at, request)?;
        }
        Ok(first)
    }

    fn insert(&mut self, at: usize, request: &str) -> Result<u64, SessionError> {
        self.check_usable()?;
        let body = match request.as_bytes() {
            [b'{', body @ ..] if memchr::memchr(b'\n', body).is_none() => body.to_vec(),
            _ => {
                return Err(SessionError::Unusable("a request must be a JSON object in one line".into()));
            }
        };
        let batch = self.next_batch;
        self.next_batch += 1;
        self.pending_bytes += body.len();
        self.pending.insert(at, Pending { batch, body, maybe_stored: false });
        Ok(batch)
    }

    /// Waits until the oldest batch is settled; `None` when none is left.
    ///
    /// # Errors
    /// The session cannot go on: [`Session::may_be_stored`] says what is unknown.
    pub fn next_settled(&mut self) -> Result<Option<Settled>, SessionError> {
        self.check_usable()?;
        self.waiting_since = Instant::now();
        while !self.pending.is_empty() {
            match self.step() {
                Ok(None) => {}
                Ok(settled) => return Ok(settled),
                Err(error) => return Err(self.fail(error)),
            }
        }
        Ok(None)
    }

    fn check_usable(&self) -> Result<(), SessionError> {
        match &self.failed {
            Some(why) => Err(SessionError::Unusable(format!("the session has ended: {why}"))),
            None => Ok(()),
        }
    }

    fn fail(&mut self, error: SessionError) -> SessionError {
        self.failed = Some(error.to_string());
        self.client = None;
        self.doubt(0..self.in_flight);
        error
    }

    /// These were sent, and nobody knows what became of them.
    fn doubt(&mut self, which: std::ops::Range<usize>) {
        let len = self.pending.len();
        for pending in self.pending.range_mut(which.start.min(len)..which.end.min(len)) {
            pending.maybe_stored = true;
        }
    }

    /// One thing at a time: connect, or send, or pause, or take a reply.
    fn step(&mut self) -> Result<Option<Settled>, SessionError> {
        let now = Instant::now();
        let deadline = self.waiting_since + self.options.timeout;
        if now < self.not_before && (self.client.is_none() || self.in_flight + self.stale == 0) {
            if self.not_before > deadline {
                return Err(self.gave_up());
            }
            std::thread::sleep(self.not_before - now);
            return Ok(None);
        }
        let left = deadline.saturating_duration_since(now);
        self.transmit()?;
        let Some(client) = &mut self.client else {
            if left.is_zero() {
                return Err(self.gave_up());
            }
            match Client::connect(&self.path, left) {
                Ok(client) => {
                    self.client = Some(client);
                    self.reconnects += 1;
                }
                Err(error) => {
                    self.last_break = error.to_string();
                    self.last_refusal = None;
                    self.back_off();
                }
            }
            return Ok(None);
        };
        // Even with no time left: a reply that is there is taken.
        client.set_timeout(left);
        let waits = self.in_flight + self.stale > 0 || self.send_failed;
        match if waits { client.recv_reply().map(Some) } else { Ok(None) } {
            Ok(Some(reply)) => self.take(reply),
            Ok(None) => Ok(None),
            Err(error @ (ClientError::Closed { .. } | ClientError::Io { .. })) => {
                self.disconnected(&error);
                Ok(None)
            }
            Err(ClientError::TimedOut { .. }) => Err(self.no_reply()),
            Err(error) => Err(error.into()),
        }
    }

    /// Sends what is due. Never waits for a connection.
    fn transmit(&mut self) -> Result<(), SessionError> {
        let Some(client) = &mut self.client else { return Ok(()) };
        if self.stale > 0 || self.send_failed || Instant::now() < self.not_before {
            return Ok(());
        }
        client.set_timeout(self.options.timeout);
        while self.in_flight < self.pending.len().min(self.allowance) {
            let seq = self.base_seq + self.in_flight as u64;
            let next = &self.pending[self.in_flight];
            let head = format!(r#"{{"session":"{}","seq":{seq},"#, self.name.as_str());
            self.in_flight += 1;
            match client.send_parts(&[head.as_bytes(), &next.body]) {
                Ok(()) => {}
                Err(ClientError::Closed { .. } | ClientError::Io { .. }) => {
                    self.send_failed = true;
                    break;
                }
                Err(ClientError::TimedOut { .. }) => {
                    let error = self.no_reply();
                    return Err(self.fail(error));
                }
                Err(error) => return Err(self.fail(error.into())),
            }
        }
        Ok(())
    }

    fn take(&mut self, reply: Reply) -> Result<Option<Settled>, SessionError> {
        if self.stale > 0 {
            self.stale -= 1;
            if reply.ok && !reply.duplicate && reply.records != Some(0) {
                self.doubt(0..self.pending.len());
                return Err(self.foreign("it stored a batch after a gap"));
            }
            return Ok(None);
        }
        if self.in_flight == 0 {
            // About the connection itself: `busy`, `forbidden`, `timeout`.
            return match reply.error {
                Some(refused) => self.put_off(refused).map(|()| None),
                None => Err(self.foreign("it answered what was not asked")),
            };
        }
        if let Some(seq) = reply.seq
            && seq != self.base_seq
        {
            return Err(self.foreign(&format!("it answered seq {seq}")));
        }
        let Some(refused) = reply.error.clone() else { return self.stored(reply).map(Some) };
        self.stale = self.in_flight - 1;
        self.in_flight = 0;
        self.allowance = 1;
        match refused.code.as_str() {
            "forbidden" => Err(SessionError::Refused(refused)),
            "conflict" => {
                // Other data has the number, and the next ones may have been ours.
                if let Some(first) = self.pending.front_mut() {
                    first.maybe_stored = false;
                }
                self.doubt(1..self.stale + 1);
                Err(self.foreign(&refused.message))
            }
            "out_of_sequence" => match refused.expected {
                Some(expected) if (1..self.base_seq).contains(&expected) => {
                    // Nothing was ever stored there under our number or a later one: going on from
                    // `expected` doubles nothing. What went missing is reported by `forgotten`.
                    self.forgotten += self.base_seq - expected;
                    self.base_seq = expected;
                    Ok(None)
                }
                _ => {
                    self.doubt(0..self.stale + 1);
                    Err(self.foreign(&refused.message))
                }
            },
            _ if refused.retryable => self.put_off(refused).map(|()| None),
            _ => Ok(self.settle(Err(refused))),
        }
    }

    fn stored(&mut self, reply: Reply) -> Result<Settled, SessionError> {
        let expected = self.options.resume || self.pending.front().is_some_and(|first| first.maybe_stored);
        if reply.duplicate && !expected {
            return Err(self.foreign("it held this number before it was first sent"));
        }
        let is_empty = reply.records == Some(0) && !reply.duplicate;
        self.catching_up &= is_empty || reply.duplicate;
        if is_empty {
            // An empty batch does not use up its number: those behind it have wrong ones.
            self.stale = self.in_flight - 1;
            self.in_flight = 0;
        } else {
            self.base_seq += 1;
            self.in_flight -= 1;
        }
        if !self.catching_up {
            self.allowance = (self.allowance * 2).min(self.options.max_unsettled_batches.max(1));
        }
        self.settle(Ok(reply)).ok_or_else(|| self.foreign("it answered what was not asked"))
    }

    fn settle(&mut self, result: Result<Reply, Refused>) -> Option<Settled> {
        let done = self.pending.pop_front()?;
        self.pending_bytes -= done.body.len();
        self.pause = FIRST_PAUSE;
        self.last_refusal = None;
        Some(Settled { batch: done.batch, result })
    }

    /// A refusal that may pass: wait, then send the same again.
    fn put_off(&mut self, refused: Refused) -> Result<(), SessionError> {
        if !refused.retryable {
            return Err(SessionError::Refused(refused));
        }
        self.last_refusal = Some(refused);
        self.back_off();
        Ok(())
    }

    fn back_off(&mut self) {
        self.not_before = Instant::now() + self.pause;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
    }

    fn disconnected(&mut self, error: &ClientError) {
        self.last_break = error.to_string();
        self.client = None;
        self.send_failed = false;
        self.doubt(0..self.in_flight);
        self.in_flight = 0;
        self.stale = 0;
        if self.not_before <= Instant::now() {
            self.back_off();
        }
    }

    fn gave_up(&mut self) -> SessionError {
        let waited = self.waiting_since.elapsed();
        match self.last_refusal.take() {
            Some(last) => SessionError::StillRefused { waited, last },
            None => {
                let last = std::mem::take(&mut self.last_break);
                SessionError::Unreachable { path: self.path.clone(), waited, last }
            }
        }
    }

    fn no_reply(&mut self) -> SessionError {
        let waited = self.options.timeout;
        match self.last_refusal.take() {
            Some(last) => SessionError::StillRefused { waited, last },
            None => SessionError::NoReply { path: self.path.clone(), waited },
        }
    }

    fn foreign(&self, why: &str) -> SessionError {
        SessionError::Foreign { session: self.name().to_owned(), seq: self.base_seq, why: why.to_owned() }
    }
}
