//! One connection: read, cut into lines, decode, submit, reply in order. One task and one loop: every turn
//! takes in what has come, does what can be done without waiting, then waits for whatever may come next.
//! Knows no files and no clock but its deadlines.

use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::UnixStream;
use tokio_util::sync::CancellationToken;

use crate::allowance::READ_CHUNK_BYTES;
use crate::batch::{Code, Outcome, Refusal};
use crate::budget::Held;
use crate::express::{Counter, Express};
use crate::front::Front;
use crate::inbox::Inbox;
use crate::parting;
use crate::patience::{LineClock, ReplyClock};
use crate::protocol::{self, Request};
use crate::purse::Purse;
use crate::queue::{KEPT_ANSWERS, Mailbox, Sender, Submission};
use crate::replies::{Awaited, Replies};
use crate::status::status_reply;
use crate::users::Guest;

/// Lines longer than this are decoded where other connections need not wait for it.
const LONG_LINE_BYTES: usize = 256 << 10;
/// A connection decodes so many lines before others have their turn: hundreds may have as many waiting.
const LINES_IN_A_TURN: usize = 16;
/// ... and begins no further line after so many bytes.
const BYTES_IN_A_TURN: usize = 16 << 10;
/// A `status` request is at most this long where only such a one is taken.
const STATUS_LINE_BYTES: usize = 256;
/// While a clock runs a connection looks at it at least so often ...
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// ... and where that comes later than this, the daemon itself stood still, which is nobody else's fault.
const LATE: Duration = Duration::from_millis(500);
/// What is read for the last time when a drain begins, so that it can be refused by name.
const LAST_READ_BYTES: usize = 256 << 10;
/// What the kernel keeps of a connection's unread replies, doubled by it for its own needs (socket(7)).
const SEND_BUFFER_BYTES: usize = 16 << 10;

thread_local! {
    /// Where bytes are read before they go to an inbox: idle connections hold no buffer.
    static CHUNK: RefCell<Vec<u8>> = RefCell::new(vec![0; READ_CHUNK_BYTES]);
}

type Sending = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A connection and all it holds.
struct Connection {
    stream: Arc<UnixStream>,
    front: Arc<Front>,
    sender: Sender,
    inbox: Inbox,
    allowance: Purse,
    replies: Replies,
    /// Where they lie while this sleeps.
    counter: Arc<Counter>,
    mailbox: Arc<Mailbox>,
    answers: Vec<(u64, Outcome)>,
    /// A submission that waits for room in the queue.
    sending: Option<Sending>,
    line_clock: LineClock,
    reply_clock: ReplyClock,
    /// The peer will send no more.
    ended: bool,
    /// The daemon drains.
    draining: bool,
    /// The connection ends after the replies that are in hand; the last one is an error.
    fatal: bool,
}

/// Serves one connection to its end.
pub async fn serve(
    stream: UnixStream,
    guest: Guest,
    front: Arc<Front>,
    sender: Sender,
    drain: CancellationToken,
) {
    // Replies are small; by default a deaf peer would take some 200 KiB. Without it nothing is wrong.
    let _ = rustix::net::sockopt::set_socket_send_buffer_size(&stream, SEND_BUFFER_BYTES);
    let (stream, counter) = (Arc::new(stream), Arc::new(Counter::default()));
    let express = Express::new(&stream, &counter, &front.metrics);
    let mut connection = Connection {
        allowance: Purse::new(guest, &front.budget, &front.passes),
        line_clock: LineClock::new(front.limits.line_timeout),
        reply_clock: ReplyClock::new(front.limits.reply_timeout),
        stream,
        front,
        sender,
        inbox: Inbox::default(),
        replies: Replies::default(),
        counter,
        mailbox: Mailbox::with_express(Box::new(express)),
        answers: Vec::new(),
        sending: None,
        ended: false,
        draining: false,
        fatal: false,
    };
    if let Err(error) = connection.run(&drain).await {
        tracing::debug!(%error, "a connection ended");
        return;
    }
    if connection.fatal {
        parting::linger_if_few(&connection.stream, &connection.front.lingering).await;
    }
}

impl Connection {
    async fn run(&mut self, drain: &CancellationToken) -> io::Result<()> {
        loop {
            let now = Instant::now();
            if !self.draining && drain.is_cancelled() {
                self.begin_drain()?;
            }
            if self.line_clock.is_over(now) && self.wants_input() {
                // What lies in the socket counts: the daemon itself may have been held up.
                self.read()?;
            }
            self.take_answers(now);
            self.take_lines(now);
            if self.line_clock.is_over(now) && !self.inbox.has_line() {
                let seconds = self.front.limits.line_timeout.as_secs_f64();
                self.end_with(Refusal::new(
                    Code::Timeout,
                    format!("the line made no progress for {seconds} s, so it was dropped and the connection ends: send it again in one go"),
                ));
            }
            self.send(now)?;
            if self.reply_clock.is_over(now) {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "its replies were not read"));
            }
            if self.is_over() {
                return Ok(());
            }
            let takes_more = self.may_take_a_line() && !self.allowance.is_starved();
            if takes_more || self.replies.can_advance() {
                // Replies that went out made room, for lines that wait or for further replies; nothing else would
                // wake this task. Others have their turn first.
                tokio::task::yield_now().await;
            } else {
                self.wait(drain, now).await?;
            }
        }
    }

    /// Whether nothing is left to do.
    fn is_over(&mut self) -> bool {
        let more = !self.fatal && (self.inbox.has_line() || !(self.ended || self.draining));
        self.replies.is_finished() && (self.replies.is_cut() || (!more && self.sending.is_none()))
    }

    /// Whether one more request may be in flight.
    fn has_room(&self) -> bool {
        !self.fatal
            && !self.replies.is_cut()
            && self.sending.is_none()
            && self.replies.in_flight() < self.front.limits.max_requests_in_flight
            && self.replies.have_room()
    }

    /// Whether a whole line is there and may come in, the budget aside.
    fn may_take_a_line(&mut self) -> bool {
        self.has_room() && self.inbox.has_line()
    }

    fn wants_input(&mut self) -> bool {
        !self.ended && !self.draining && self.has_room() && !self.inbox.has_line()
    }

    /// Waits for whatever may come next.
    async fn wait(&mut self, drain: &CancellationToken, now: Instant) -> io::Result<()> {
        let starved = self.allowance.is_starved();
        let wants_input = self.wants_input();
        let reads = wants_input && !starved;
        self.line_clock.run(reads && !self.inbox.is_empty(), now);
        let deadlines = [self.line_clock.deadline(), self.reply_clock.deadline()];
        let wake = deadlines.into_iter().flatten().min().map(|at| at.min(now + LOOK_INTERVAL));
        let has_output = !self.replies.output().is_empty();
        let awaits = self.replies.awaited() > 0;
        // It then has nothing to do with an answer but to send the reply, which others may do.
        if awaits && reads && !has_output {
            self.counter.lay(&mut self.replies);
        }
        let woken = async {
            tokio::select! {
                () = self.mailbox.filled(), if awaits => {}
                ready = self.stream.readable(), if reads => {
                    ready?;
                    self.read()?;
                }
                ready = self.stream.writable(), if has_output => ready?,
                () = self.allowance.freed(), if starved && !self.fatal => {
                    // Asked again in the next turn: for a whole line by `take_lines`, for reading here.
                    if wants_input {
                        self.read()?;
                    }
                }
                () = poll_sending(&mut self.sending), if self.sending.is_some() => self.sending = None,
                () = drain.cancelled(), if !self.draining => {}
                () = until(wake), if wake.is_some() => {}
            }
            Ok(())
        }
        .await;
        self.counter.take(&mut self.replies);
        if wake.is_some_and(|at| at.elapsed() >= LATE) {
            self.line_clock.forgive(now.elapsed());
            self.reply_clock.forgive(now.elapsed());
        }
        woken
    }

    /// Reads what is there, as far as the budget allows.
    fn read(&mut self) -> io::Result<()> {
        let Some(leave) = self.allowance.leave_to_read(self.inbox.len()) else { return Ok(()) };
        let got = CHUNK.with_borrow_mut(|chunk| {
            let got = self.stream.try_read(&mut chunk[..leave.bytes.min(READ_CHUNK_BYTES)])?;
            self.inbox.push(&chunk[..got]);
            io::Result::Ok(got)
        });
        let read = *got.as_ref().unwrap_or(&0);
        self.allowance.end_leave(leave, read, self.inbox.len());
        self.line_clock.progress(read);
        match got {
            Ok(0) => self.ended = true,
            Err(e) if e.kind() != io::ErrorKind::WouldBlock => return Err(e),
            _ => {}
        }
        Ok(())
    }

    fn take_answers(&mut self, now: Instant) {
        self.mailbox.collect(&mut self.answers);
        let mut failed = false;
        for (slot, outcome) in self.answers.drain(..) {
            if let Some(code) = self.replies.answer(slot, &outcome, &self.front.metrics, now) {
                self.front.metrics.count_refusal(code);
                failed |= code == Code::IoError;
            }
        }
        if self.answers.capacity() > KEPT_ANSWERS {
            self.answers = Vec::new();
        }
        if failed {
            self.stop_reading();
        }
    }

    /// Decodes and submits whole lines while they may come in.
    fn take_lines(&mut self, now: Instant) {
        let (mut lines, mut bytes) = (0, 0);
        while lines < LINES_IN_A_TURN && bytes < BYTES_IN_A_TURN && self.may_take_a_line() {
            if self.is_too_long() {
                return;
            }
            lines += 1;
            bytes += self.inbox.line_bytes();
            match self.allowance.let_in(self.inbox.line_bytes(), self.inbox.len()) {
                Some(held) => self.carry_out(held, now),
                // The writer may hold all there is to give: its status is told all the same.
                None if self.asks_for_status() => self.replies.push_status(),
                None => return,
            }
            self.inbox.consume_line();
            self.allowance.set_inbox(self.inbox.len());
            self.line_clock.reset();
        }
        if !self.fatal && !self.inbox.has_line() {
            self.is_too_long();
        }
        if self.inbox.is_empty() {
            self.line_clock.reset();
        }
    }

    /// Whether the first line is a `status` request, which holds nothing.
    fn asks_for_status(&mut self) -> bool {
        let line = self.inbox.line();
        line.len() <= STATUS_LINE_BYTES
            && matches!(
                protocol::decode(line, &self.front.limits, self.front.durability),
                Ok(Request::Status)
            )
    }

    /// Ends the connection if its line is beyond the limit.
    fn is_too_long(&mut self) -> bool {
        let limit = self.front.limits.max_line_bytes;
        let too_long = self.inbox.line().len() > limit;
        if too_long {
            self.end_with(Refusal::new(
                Code::TooLarge,
                format!("the request line is longer than max_line_bytes = {}, so nothing of it was stored and the connection ends: split the batch", protocol::size(limit)),
            ));
        }
        too_long
    }

    /// Decodes the first line and submits or answers it.
    fn carry_out(&mut self, mut held: Held, now: Instant) {
        let (limits, ack) = (&self.front.limits, self.front.durability);
        let line = self.inbox.line();
        let decoded = if line.len() > LONG_LINE_BYTES {
            tokio::task::block_in_place(|| protocol::decode(line, limits, ack))
        } else {
            protocol::decode(line, limits, ack)
        };
        let slot = self.replies.next_slot();
        if let Ok(Request::Log(log)) = &decoded
            && let Some(dropped) = &log.dropped
        {
            self.front.metrics.count_dropped(dropped);
        }
        match decoded {
            Err(rejected) => self.refuse(rejected.seq, &rejected.refusal),
            Ok(Request::Status) => self.replies.push_status(),
            Ok(Request::Sync | Request::Order(_)) if self.draining => self.refuse(None, &shutting_down()),
            Ok(Request::Log(log)) if self.draining => self.refuse(log.echo.seq, &shutting_down()),
            Ok(Request::Sync) => {
                held.hold(0);
                self.replies.push_awaited(Awaited { echo: None, since: now });
                self.submit(Submission::Sync(self.mailbox.ticket(slot).holding(held)));
            }
            Ok(Request::Order(order)) => match self.front.forbids_order(&order, &self.stream) {
                Some(refusal) => self.refuse(None, &refusal),
                None => {
                    held.hold(0);
                    self.replies.push_awaited(Awaited { echo: None, since: now });
                    self.submit(Submission::Order(order, self.mailbox.ticket(slot).holding(held)));
                }
            },
            Ok(Request::Log(log)) => match log.batch {
                None => self.replies.push(protocol::empty_reply(&log.echo)),
                Some(batch) => {
                    self.allowance.speaks(now);
                    held.hold(batch.body.items.len() + batch.body.suffix.len() + log.echo.reply_bytes());
                    self.replies.push_awaited(Awaited { echo: Some(log.echo), since: now });
                    self.submit(Submission::Batch(batch, self.mailbox.ticket(slot).holding(held)));
                }
            },
        }
    }

    fn submit(&mut self, submission: Submission) {
        if let Err(submission) = self.sender.try_send(submission) {
            let sender = self.sender.clone();
            self.sending = Some(Box::pin(async move {
                // Given back, it is dropped here, and its ticket answers by itself.
                let _ = sender.send(submission).await;
            }));
        }
    }

    fn refuse(&mut self, seq: Option<u64>, refusal: &Refusal) {
        self.front.metrics.count_refusal(refusal.code);
        self.replies.push(protocol::refusal_reply(seq, refusal));
    }

    /// Refuses what is being sent, behind the replies that are in hand, and ends the connection.
    fn end_with(&mut self, refusal: Refusal) {
        self.refuse(None, &refusal);
        self.stop_reading();
    }

    fn stop_reading(&mut self) {
        self.fatal = true;
        self.inbox.clear();
        self.allowance.give_up();
        self.line_clock.run(false, Instant::now());
        self.line_clock.reset();
    }

    /// Stops reading. What had arrived is read once more, so that it is refused by name.
    fn begin_drain(&mut self) -> io::Result<()> {
        let mut rest = LAST_READ_BYTES;
        while self.wants_input() && !self.ended && rest > 0 {
            let before = self.inbox.len();
            self.read()?;
            let read = self.inbox.len() - before;
            if read == 0 {
                break;
            }
            rest = rest.saturating_sub(read);
        }
        self.draining = true;
        Ok(())
    }

    /// Sends what can be sent.
    fn send(&mut self, now: Instant) -> io::Result<()> {
        let front = &self.front;
        let status = || {
            status_reply(&front.metrics, front.durability, &front.data_dir, front.budget.used_bytes(), now)
        };
        self.replies.advance(Some(status));
        let mut progress = false;
        while !self.replies.output().is_empty() {
            match self.stream.try_write(self.replies.output()) {
                Ok(sent) => {
                    progress |= sent > 0;
                    self.replies.sent(sent);
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) => return Err(e),
            }
        }
        self.reply_clock.wrote(progress, !self.replies.output().is_empty(), now);
        Ok(())
    }
}

fn shutting_down() -> Refusal {
    Refusal::new(
        Code::ShuttingDown,
        "the daemon is draining, so nothing of this was stored: connect again and send it to its successor",
    )
}

async fn poll_sending(sending: &mut Option<Sending>) {
    if let Some(sending) = sending {
        sending.await;
    }
}

async fn until(deadline: Option<Instant>) {
    if let Some(deadline) = deadline {
        tokio::time::sleep_until(deadline.into()).await;
    }
}
