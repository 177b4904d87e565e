//! The replies of one connection, kept in the order of its requests whatever the order of the answers. Pure:
//! knows neither sockets nor the vault.

use std::collections::VecDeque;
use std::time::Instant;

use crate::allowance::Held;
use crate::batch::{Code, Outcome};
use crate::metrics::Metrics;
use crate::protocol::{self, Echo};

/// An emptied output keeps at most this many bytes allocated, because thousands of connections are idle.
const KEEP_BYTES: usize = 1 << 10;
/// ... and room for so many replies.
const KEEP_SLOTS: usize = 16;

/// A submitted request whose answer is awaited.
#[derive(Debug)]
pub struct Awaited {
    /// What the good reply repeats; `None` for a `sync`.
    pub echo: Option<Echo>,
    /// When its line was whole.
    pub since: Instant,
    /// What it holds of the bytes in flight, until its reply is made.
    pub held: Held,
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

/// Replies in request order: slots that are ready or awaited, and the bytes that are next to be sent.
#[derive(Debug, Default)]
pub struct Replies {
    slots: VecDeque<Slot>,
    /// Number of the first slot.
    first: u64,
    awaited: usize,
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
        self.slots.push_back(Slot::Ready(reply));
    }

    /// Appends the reply to a `status` request.
    pub fn push_status(&mut self) {
        self.slots.push_back(Slot::Status);
    }

    /// Appends a request whose answer is awaited.
    pub fn push_awaited(&mut self, awaited: Awaited) {
        self.awaited += 1;
        self.slots.push_back(Slot::Awaited(Box::new(awaited)));
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
        // The slot's hold on the bytes in flight ends here.
        self.slots[at] = reply.map_or(Slot::Cut, Slot::Ready);
        self.awaited -= 1;
        match outcome {
            Outcome::Refused(refusal) => Some(refusal.code),
            _ => None,
        }
    }

    /// Moves every reply whose turn has come to the output.
    pub fn advance(&mut self, mut status: impl FnMut() -> Vec<u8>) {
        while !self.cut
            && let Some(slot) = self.slots.pop_front()
        {
            let reply = match slot {
                Slot::Ready(reply) => reply,
                Slot::Status => status(),
                Slot::Awaited(_) => {
                    self.slots.push_front(slot);
                    break;
                }
                Slot::Cut => {
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
