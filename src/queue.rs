//! The hatch between front and vault: a bounded channel of submissions, each with a ticket that is answered
//! exactly once and holds its bytes of the budget until then. Knows neither sockets nor files.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use tokio::sync::Notify;

use crate::batch::{Batch, Code, Outcome, Refusal};
use crate::budget::{Held, Hold};
use crate::order::Order;

/// Most submissions waiting in the queue.
pub const QUEUE_SUBMISSIONS: usize = 1024;
/// Most batches in one group.
pub const GROUP_BATCHES: usize = 1024;
/// A group stops growing at this many bytes of normalised text.
pub const GROUP_BYTES: usize = 8 << 20;

const _: () = assert!(GROUP_BATCHES <= QUEUE_SUBMISSIONS);

/// What the front asks of the vault.
#[derive(Debug)]
pub enum Submission {
    /// Store this batch.
    Batch(Batch, Ticket),
    /// Answer when everything accepted before is synced and in the lot files.
    Sync(Ticket),
    /// Carry this out.
    Order(Order, Ticket),
    /// Nothing: the vault's background has something to tell.
    Nudge,
}

/// A mailbox that was emptied keeps room for so many answers, because thousands of connections are idle.
pub const KEPT_ANSWERS: usize = 16;

/// So many answers of a turn at most are delivered by who answers: more are left to those whose work it is, while the
/// vault goes on.
const EXPRESS_ANSWERS: usize = 4;

/// Sends a connection's replies for it while it sleeps: to wake it takes as long as all the rest of a reply's way.
pub trait Express: std::fmt::Debug + Send + Sync {
    /// What became of these answers.
    fn deliver(&self, answers: &[(u64, Outcome)]) -> Delivery;
}

/// What became of answers that were to be delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// Nothing: the connection must take them.
    Declined,
    /// Taken, and the connection has more to do.
    Taken,
    /// All done; the connection may sleep on.
    Done,
}

/// Where a connection's answers arrive: filled by the vault, emptied by the connection.
#[derive(Debug, Default)]
pub struct Mailbox {
    answers: Mutex<Vec<(u64, Outcome)>>,
    filled: Notify,
    express: Option<Box<dyn Express>>,
}

impl Mailbox {
    /// An empty mailbox.
    pub fn new() -> Arc<Mailbox> {
        Arc::default()
    }

    /// An empty mailbox from which answers may be delivered.
    pub fn with_express(express: Box<dyn Express>) -> Arc<Mailbox> {
        Arc::new(Mailbox { express: Some(express), ..Mailbox::default() })
    }

    /// A ticket that puts its answer here under `slot`.
    pub fn ticket(self: &Arc<Self>, slot: u64) -> Ticket {
        Ticket { mailbox: Some(self.clone()), slot, taken: false, held: None }
    }

    /// Waits until an answer may have arrived. Cancel safe.
    pub async fn filled(&self) {
        self.filled.notified().await;
    }

    /// Moves the answers that have arrived to the end of `into`.
    pub fn collect(&self, into: &mut Vec<(u64, Outcome)>) {
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        into.append(&mut answers);
        empty(&mut answers);
    }

    /// Delivers the answers, or wakes who takes them.
    fn deliver(&self) {
        if let Some(express) = &self.express {
            let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
            let delivery = express.deliver(&answers);
            if delivery != Delivery::Declined {
                empty(&mut answers);
            }
            if delivery == Delivery::Done {
                return;
            }
        }
        self.filled.notify_one();
    }

    fn put(&self, slot: u64, outcome: Outcome) {
        self.put_quietly(slot, outcome);
        self.filled.notify_one();
    }

    /// Whether it was empty: if not, who put the first answer in has rung or will.
    fn put_quietly(&self, slot: u64, outcome: Outcome) -> bool {
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        answers.push((slot, outcome));
        answers.len() == 1
    }
}

fn empty(answers: &mut Vec<(u64, Outcome)>) {
    answers.clear();
    if answers.capacity() > KEPT_ANSWERS {
        *answers = Vec::new();
    }
}

/// The answers of one turn: each connection is woken once, when all of its answers are there, because waking it
/// costs more than a small batch does. Rings when dropped.
#[derive(Debug, Default)]
pub struct Answers {
    /// Mailboxes that were filled and not yet rung.
    quiet: Vec<Arc<Mailbox>>,
    /// Answers since then.
    count: usize,
}

impl Answers {
    /// Answers a submission; who waits for it hears of it with the next [`Answers::ring`].
    pub fn give(&mut self, mut ticket: Ticket, outcome: Outcome) {
        // First: who has the reply may count on the room.
        ticket.held = None;
        self.count += 1;
        if let Some(mailbox) = ticket.mailbox.take()
            && mailbox.put_quietly(ticket.slot, outcome)
        {
            self.quiet.push(mailbox);
        }
    }

    /// Lets everybody hear who was answered since the last time.
    pub fn ring(&mut self) {
        let few = std::mem::take(&mut self.count) <= EXPRESS_ANSWERS;
        for mailbox in self.quiet.drain(..) {
            if few { mailbox.deliver() } else { mailbox.filled.notify_one() }
        }
    }
}

impl Drop for Answers {
    fn drop(&mut self) {
        self.ring();
    }
}

/// The right to answer one submission, once. Dropped unanswered it answers by itself: `io_error` before the
/// batch was handed to the journal, [`Outcome::Unknown`] afterwards.
#[derive(Debug)]
pub struct Ticket {
    mailbox: Option<Arc<Mailbox>>,
    slot: u64,
    taken: bool,
    /// What the submission holds of the budget, whatever becomes of its connection.
    held: Option<Held>,
}

impl Ticket {
    /// A ticket whose answer nobody reads.
    pub fn unread() -> Ticket {
        Ticket { mailbox: None, slot: 0, taken: false, held: None }
    }

    /// The ticket, holding this of the budget until it is answered.
    pub fn holding(mut self, held: Held) -> Ticket {
        self.held = Some(held);
        self
    }

    /// Takes over what the submission holds of its user's quota: its answer no longer gives that back.
    pub fn take_quota(&mut self) -> Option<Hold> {
        self.held.as_mut()?.take_own()
    }

    /// From here on the batch's bytes may be in the journal: nobody may say that it was not stored.
    pub fn take(&mut self) {
        self.taken = true;
    }

    /// Answers the submission.
    pub fn answer(mut self, outcome: Outcome) {
        // First: who has the reply may count on the room.
        self.held = None;
        if let Some(mailbox) = self.mailbox.take() {
            mailbox.put(self.slot, outcome);
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.held = None;
        if let Some(mailbox) = self.mailbox.take() {
            let outcome = if self.taken {
                Outcome::Unknown
            } else {
                Outcome::Refused(Refusal::new(
                    Code::IoError,
                    "the daemon met an I/O error before it took this request, stores nothing more and exits: send it again to its successor",
                ))
            };
            mailbox.put(self.slot, outcome);
        }
    }
}

/// The front's end of the queue. The queue closes when all of them are dropped.
#[derive(Clone, Debug)]
pub struct Sender {
    channel: flume::Sender<Submission>,
    /// flume keeps what is in a channel whose receiver is gone until the last sender goes; this end takes it
    /// out, so that its tickets answer.
    leftovers: flume::Receiver<Submission>,
    closed: Arc<AtomicBool>,
}

/// A [`Sender`] that does not keep the queue open.
#[derive(Clone, Debug)]
pub struct WeakSender {
    channel: flume::WeakSender<Submission>,
    leftovers: flume::Receiver<Submission>,
    closed: Arc<AtomicBool>,
}

impl WeakSender {
    /// A sender, if the queue is still open.
    pub fn upgrade(&self) -> Option<Sender> {
        let (leftovers, closed) = (self.leftovers.clone(), self.closed.clone());
        Some(Sender { channel: self.channel.upgrade()?, leftovers, closed })
    }
}

impl Sender {
    /// An end that does not keep the queue open.
    pub fn downgrade(&self) -> WeakSender {
        let (leftovers, closed) = (self.leftovers.clone(), self.closed.clone());
        WeakSender { channel: self.channel.downgrade(), leftovers, closed }
    }

    /// Puts a submission into the queue, waiting for room.
    ///
    /// # Errors
    /// Gives the submission back when the vault is gone.
    pub async fn send(&self, submission: Submission) -> Result<(), Submission> {
        if self.closed.load(Ordering::SeqCst) {
            return Err(submission);
        }
        self.channel.send_async(submission).await.map_err(|e| e.0)?;
        self.sweep_if_closed();
        Ok(())
    }

    /// Puts a submission into the queue if there is room now; gives it back otherwise.
    ///
    /// # Errors
    /// The submission, when the queue is full or the vault is gone.
    #[allow(clippy::result_large_err)] // the very thing, given back
    pub fn try_send(&self, submission: Submission) -> Result<(), Submission> {
        if self.closed.load(Ordering::SeqCst) {
            return Err(submission);
        }
        self.channel.try_send(submission).map_err(|e| match e {
            flume::TrySendError::Full(s) | flume::TrySendError::Disconnected(s) => s,
        })?;
        self.sweep_if_closed();
        Ok(())
    }

    /// A submission that went in while the receiver was dropped is taken out by one of the two: the receiver
    /// raises `closed` before it sweeps, a sender looks at it after it sent.
    fn sweep_if_closed(&self) {
        if self.closed.load(Ordering::SeqCst) {
            while self.leftovers.try_recv().is_ok() {}
        }
    }
}

/// Ends a wait for the next group early. Does not keep the queue open.
#[derive(Clone, Debug)]
pub struct Bell(flume::WeakSender<Submission>);

impl Bell {
    /// Rings. A vault whose queue is full does not wait, and one whose queue is closed waits no more.
    pub fn ring(&self) {
        if let Some(channel) = self.0.upgrade() {
            let _ = channel.try_send(Submission::Nudge);
        }
    }
}

/// The vault's end of the queue.
#[derive(Debug)]
pub struct Receiver {
    channel: flume::Receiver<Submission>,
    bell: Bell,
    closed: Arc<AtomicBool>,
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.closed.store(true, Ordering::SeqCst);
        while self.channel.try_recv().is_ok() {}
    }
}

/// What waiting for a group brought.
#[derive(Debug)]
pub enum Next {
    /// At least one submission, in the order of arrival.
    Group(Vec<Submission>),
    /// The deadline passed first.
    Deadline,
    /// Every sender is gone and the queue is empty.
    Closed,
}

impl Receiver {
    /// What ends a wait in [`Receiver::next_group`] early.
    pub fn bell(&self) -> Bell {
        self.bell.clone()
    }

    /// Takes one submission, waiting until `deadline` (for ever without one), then all that wait, up to
    /// [`GROUP_BATCHES`] and [`GROUP_BYTES`]. Never waits for company.
    pub fn next_group(&self, deadline: Option<Instant>) -> Next {
        let first = match (self.channel.try_recv(), deadline) {
            (Ok(first), _) => Ok(first),
            (Err(flume::TryRecvError::Disconnected), _) => Err(Next::Closed),
            (Err(flume::TryRecvError::Empty), None) => self.channel.recv().map_err(|_| Next::Closed),
            (Err(flume::TryRecvError::Empty), Some(at)) if at <= Instant::now() => Err(Next::Deadline),
            (Err(flume::TryRecvError::Empty), Some(at)) => {
                self.channel.recv_deadline(at).map_err(|e| match e {
                    flume::RecvTimeoutError::Timeout => Next::Deadline,
                    flume::RecvTimeoutError::Disconnected => Next::Closed,
                })
            }
        };
        let first = match first {
            Ok(first) => first,
            Err(next) => return next,
        };
        let mut bytes = first.text_bytes();
        let mut group = vec![first];
        while group.len() < GROUP_BATCHES && bytes < GROUP_BYTES {
            let Ok(more) = self.channel.try_recv() else { break };
            bytes += more.text_bytes();
            group.push(more);
        }
        Next::Group(group)
    }
}

impl Submission {
    fn text_bytes(&self) -> usize {
        match self {
            Submission::Batch(batch, _) => batch.body.items.len() + batch.body.suffix.len(),
            Submission::Sync(_) | Submission::Order(..) | Submission::Nudge => 0,
        }
    }
}

/// A new queue.
pub fn queue() -> (Sender, Receiver) {
    let (sender, receiver) = flume::bounded(QUEUE_SUBMISSIONS);
    let closed = Arc::new(AtomicBool::new(false));
    let leftovers = receiver.clone();
    let bell = Bell(sender.downgrade());
    let sender = Sender { channel: sender, leftovers, closed: closed.clone() };
    (sender, Receiver { channel: receiver, bell, closed })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answers(mailbox: &Mailbox) -> Vec<(u64, Outcome)> {
        let mut answers = Vec::new();
        mailbox.collect(&mut answers);
        answers
    }

    #[test]
    fn a_queue_whose_vault_is_gone_answers_what_waits_in_it_and_takes_no_more() {
        let (sender, receiver) = queue();
        let mailbox = Mailbox::new();
        sender.try_send(Submission::Sync(mailbox.ticket(7))).unwrap();
        assert!(answers(&mailbox).is_empty());
        drop(receiver);
        let got = answers(&mailbox);
        assert!(
            matches!(&got[..], [(7, Outcome::Refused(refusal))] if refusal.code == Code::IoError),
            "{got:?}"
        );
        assert!(sender.try_send(Submission::Sync(mailbox.ticket(8))).is_err());
        assert_eq!(answers(&mailbox).len(), 1);
    }

    #[test]
    fn a_queue_closes_when_its_last_sender_goes() {
        let (sender, receiver) = queue();
        drop(sender);
        assert!(matches!(receiver.next_group(None), Next::Closed));
    }
}
