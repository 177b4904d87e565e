//! The replies of one connection, kept in the order of its requests whatever the order of the answers. Pure:
//! knows neither sockets nor the vault.

use std::collections::VecDeque;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use crate::batch::{Code, Outcome};
use crate::metrics::Metrics;
use crate::protocol::{self, Echo};

/// An emptied output keeps at most this many bytes allocated, because thousands of connections are idle.
const KEEP_BYTES: usize = 1 << 10;
/// ... and room for so many replies.
const KEEP_SLOTS: usize = 16;

/// Replies go to the output while it holds less than this: what lies unread of `status` is not even made.
const OUTPUT_BYTES: usize = 16 << 10;
/// What a usual reply takes at most: so much of each is bounded by the number of requests in flight.
const USUAL_REPLY_BYTES: usize = 256;
/// Beyond that, all unsent replies of a connection take no more than this and one reply.
const UNUSUAL_BYTES: usize = 16 << 10;

/// A submitted request whose answer is awaited.
#[derive(Debug)]
pub struct Awaited {
    /// What the good reply repeats; `None` for a `sync`.
    pub echo: Option<Echo>,
    /// When its line was whole.
    pub since: Instant,
}

#[derive(Debug)]
enum Slot {
    Ready(Vec<u8>),
    /// Made when its turn comes, so that it counts what was answered before it.
    Status,
    Awaited(Box<Awaited>),
    /// The connection must end here, without a reply.
    Cut,
}

impl Slot {
    /// What its reply takes beyond a usual one; `status` is made only when it can be sent.
    fn unusual_bytes(&self) -> usize {
        match self {
            Slot::Ready(reply) => unusual(reply.len()),
            Slot::Awaited(awaited) => awaited.echo.as_ref().map_or(0, |echo| unusual(echo.reply_bytes())),
            Slot::Status | Slot::Cut => 0,
        }
    }
}

fn unusual(reply_bytes: usize) -> usize {
    reply_bytes.saturating_sub(USUAL_REPLY_BYTES)
}

/// Replies in request order: slots that are ready or awaited, and the bytes that are next to be sent.
#[derive(Debug, Default)]
pub struct Replies {
    slots: VecDeque<Slot>,
    /// Number of the first slot.
    first: u64,
    awaited: usize,
    /// Sum of [`Slot::unusual_bytes`].
    unusual_bytes: usize,
    output: Vec<u8>,
    sent_bytes: usize,
    /// Replies in `output`.
    unsent: usize,
    cut: bool,
}

impl Replies {
    /// Requests whose replies are not wholly sent.
    pub fn in_flight(&self) -> usize {
        self.slots.len() + self.unsent
    }

    /// Whether one more request may come in as far as the size of replies goes.
    pub fn have_room(&self) -> bool {
        self.unusual_bytes + self.output.len() < UNUSUAL_BYTES + OUTPUT_BYTES
    }

    /// Requests whose answers are awaited.
    pub fn awaited(&self) -> usize {
        self.awaited
    }

    /// The slot that the next request gets.
    pub fn next_slot(&self) -> u64 {
        self.first + self.slots.len() as u64
    }

    /// Appends a reply that is ready.
    pub fn push(&mut self, reply: Vec<u8>) {
        self.push_slot(Slot::Ready(reply));
    }

    /// Appends the reply to a `status` request.
    pub fn push_status(&mut self) {
        self.push_slot(Slot::Status);
    }

    /// Appends a request whose answer is awaited.
    pub fn push_awaited(&mut self, awaited: Awaited) {
        self.awaited += 1;
        self.push_slot(Slot::Awaited(Box::new(awaited)));
    }

    fn push_slot(&mut self, slot: Slot) {
        self.unusual_bytes += slot.unusual_bytes();
        self.slots.push_back(slot);
    }

    /// Takes the answer for `slot`; gives the code of a refusal. An answer that nobody awaits is ignored.
    pub fn answer(&mut self, slot: u64, outcome: &Outcome, metrics: &Metrics, now: Instant) -> Option<Code> {
        let at = usize::try_from(slot.checked_sub(self.first)?).ok()?;
        let Some(Slot::Awaited(awaited)) = self.slots.get(at) else { return None };
        let reply = match &awaited.echo {
            Some(echo) => protocol::log_reply(echo, outcome),
            None => protocol::sync_reply(outcome),
        };
        metrics.ack_seconds.record(now.saturating_duration_since(awaited.since), now);
        if reply.is_none() {
            metrics.unanswered.fetch_add(1, Relaxed);
        }
        let answered = reply.map_or(Slot::Cut, Slot::Ready);
        self.unusual_bytes += answered.unusual_bytes();
        self.unusual_bytes -= std::mem::replace(&mut self.slots[at], answered).unusual_bytes();
        self.awaited -= 1;
        match outcome {
            Outcome::Refused(refusal) => Some(refusal.code),
            _ => None,
        }
    }

    /// Moves replies whose turn has come to the output, as long as it is short; of `status`, which must be made,
    /// one at a time, and none if nobody makes it.
    pub fn advance(&mut self, mut status: Option<impl FnMut() -> Vec<u8>>) {
        let mut made = false;
        while !self.cut
            && !made
            && self.output.len() < OUTPUT_BYTES
            && let Some(slot) = self.slots.pop_front_if(|slot| match slot {
                Slot::Awaited(_) => false,
                Slot::Status => status.is_some(),
                Slot::Ready(_) | Slot::Cut => true,
            })
        {
            self.unusual_bytes -= slot.unusual_bytes();
            let reply = match (slot, &mut status) {
                (Slot::Ready(reply), _) => reply,
                (Slot::Status, Some(status)) => {
                    made = true;
                    status()
                }
                _ => {
                    self.cut = true;
                    break;
                }
            };
            self.first += 1;
            self.unsent += 1;
            if self.output.is_empty() {
                self.output = reply;
            } else {
                self.output.extend_from_slice(&reply);
            }
        }
        if self.slots.is_empty() && self.slots.capacity() > KEEP_SLOTS {
            self.slots = VecDeque::new();
        }
    }

    /// Whether the next reply's turn has come and the output is empty: there was more than one turn's worth.
    pub fn can_advance(&self) -> bool {
        self.output.is_empty()
            && !self.cut
            && self.slots.front().is_some_and(|slot| !matches!(slot, Slot::Awaited(_)))
    }

    /// The bytes to send next.
    pub fn output(&self) -> &[u8] {
        &self.output[self.sent_bytes..]
    }

    /// The first `bytes` of the output were sent.
    pub fn sent(&mut self, bytes: usize) {
        self.sent_bytes += bytes;
        if self.sent_bytes == self.output.len() {
            self.output.clear();
            if self.output.capacity() > KEEP_BYTES {
                self.output = Vec::new();
            }
            self.sent_bytes = 0;
            self.unsent = 0;
        }
    }

    /// Whether every reply that will ever be sent has been sent: all of them, or all before an unknown one.
    pub fn is_finished(&self) -> bool {
        self.output.is_empty() && (self.cut || self.slots.is_empty())
    }

    /// Whether the connection must end after the output: the fate of the next request is unknown.
    pub fn is_cut(&self) -> bool {
        self.cut
    }
}
