//! How much one connection may hold of a budget: its shares of it, and the pass that lets one connection at a time
//! finish its line whatever the budget says. Knows neither sockets nor lines' content.

use std::sync::Arc;
use std::time::Duration;

use crate::budget::{Budget, Hold, Pass, PassOffice, Share};
use crate::config::FREE_LINE_BYTES;

/// Most bytes read at once.
pub const READ_CHUNK_BYTES: usize = 64 << 10;
/// What is asked of the budget, one after the other, where a whole chunk is not to be had.
const CHUNKS_BYTES: [usize; 3] = [READ_CHUNK_BYTES, 16 << 10, 4 << 10];
/// Unfinished lines leave one part in so many of the budget to whole ones.
const KEPT_FOR_WHOLE_LINES: usize = 4;
/// A connection that waits for the budget looks again after this time, so that no lost wake-up can hold it up.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

const _: () = assert!(FREE_LINE_BYTES <= READ_CHUNK_BYTES);

/// Leave to read once.
#[derive(Debug)]
pub struct Leave {
    /// Most bytes to read.
    pub bytes: usize,
    _share: Option<Share>,
    new_pass: bool,
}

/// One connection's part of the budget.
#[derive(Debug)]
pub struct Allowance {
    budget: Arc<Budget>,
    office: Arc<PassOffice>,
    /// What the inbox holds beyond [`FREE_LINE_BYTES`].
    inbox: Share,
    pass: Option<Pass>,
    /// Whether the budget was asked in vain.
    starved: bool,
}

impl Allowance {
    /// Of a new connection.
    pub fn new(budget: &Arc<Budget>, office: &Arc<PassOffice>) -> Allowance {
        Allowance {
            budget: budget.clone(),
            office: office.clone(),
            inbox: budget.take(0),
            pass: None,
            starved: false,
        }
    }

    /// Whether the budget was asked in vain: wait with [`Allowance::freed`], then ask again.
    pub fn is_starved(&self) -> bool {
        self.starved
    }

    /// Whether anything is held or waited for, requests that were let in aside.
    pub fn is_in_use(&self) -> bool {
        self.starved || self.pass.is_some() || self.inbox.bytes() > 0
    }

    /// Waits until asking again may help; a tenth of a second at most.
    pub async fn freed(&self) {
        self.budget.freed(LOOK_AGAIN).await;
    }

    /// Leave to read on, with `inbox_bytes` of an unfinished line held; `None` when starved.
    pub fn leave_to_read(&mut self, inbox_bytes: usize) -> Option<Leave> {
        if self.pass.is_some() {
            return Some(Leave { bytes: READ_CHUNK_BYTES, _share: None, new_pass: false });
        }
        let free = FREE_LINE_BYTES.saturating_sub(inbox_bytes);
        let kept = self.budget.limit_bytes() / KEPT_FOR_WHOLE_LINES;
        for chunk in CHUNKS_BYTES {
            if let Some(share) = self.budget.try_take(chunk.saturating_sub(free), kept) {
                self.fed();
                return Some(Leave { bytes: chunk, _share: Some(share), new_pass: false });
            }
        }
        if free > 0 {
            self.starved = false;
            return Some(Leave { bytes: free, _share: None, new_pass: false });
        }
        self.claim_pass().then_some(Leave { bytes: READ_CHUNK_BYTES, _share: None, new_pass: true })
    }

    /// Ends a leave: the inbox now holds `inbox_bytes`, of which `read_bytes` are new.
    pub fn end_leave(&mut self, leave: Leave, read_bytes: usize, inbox_bytes: usize) {
        if read_bytes == 0 && leave.new_pass {
            // There was nothing to read: somebody else may need it more.
            self.pass = None;
        }
        self.set_inbox(inbox_bytes);
    }

    /// Lets a whole line of `line_bytes` in, `inbox_bytes` being held with it; `None` when starved.
    pub fn let_in(&mut self, line_bytes: usize, inbox_bytes: usize) -> Option<Hold> {
        let paid = charge(inbox_bytes) - charge(inbox_bytes - line_bytes);
        let unpaid = line_bytes.saturating_sub(paid);
        let share = match self.budget.try_take(unpaid, 0) {
            Some(share) => share,
            None if self.claim_pass() => self.budget.take(0),
            None => return None,
        };
        self.fed();
        Some(Hold::new(self.pass.take(), share))
    }

    /// Charges what the inbox holds now.
    pub fn set_inbox(&mut self, inbox_bytes: usize) {
        let mut charged = charge(inbox_bytes);
        if self.pass.is_some() {
            charged = charged.min(self.inbox.bytes());
        }
        if charged != self.inbox.bytes() {
            self.inbox.resize(charged);
        }
    }

    /// Gives everything back: nothing more will be read.
    pub fn give_up(&mut self) {
        self.pass = None;
        self.starved = false;
        self.set_inbox(0);
    }

    /// Gives the pass back: whoever waits for something else keeps it from nobody. The inbox is charged anew when it is
    /// read to the next time.
    pub fn give_pass_back(&mut self) {
        self.pass = None;
    }

    fn claim_pass(&mut self) -> bool {
        if self.pass.is_none() {
            self.pass = self.office.claim(&self.budget);
        }
        self.starved = self.pass.is_none();
        !self.starved
    }

    fn fed(&mut self) {
        if std::mem::take(&mut self.starved) {
            self.budget.wake_next();
        }
    }
}

/// What the budget is charged for an inbox.
fn charge(inbox_bytes: usize) -> usize {
    inbox_bytes.saturating_sub(FREE_LINE_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT_BYTES: usize = 400 << 10;

    /// A connection that reads until it is starved or holds `most` bytes; and what it holds.
    fn filled(budget: &Arc<Budget>, office: &Arc<PassOffice>, most: usize) -> (Allowance, usize) {
        let (mut allowance, mut held) = (Allowance::new(budget, office), 0);
        while held < most
            && let Some(leave) = allowance.leave_to_read(held)
        {
            let read = leave.bytes.min(most - held);
            held += read;
            allowance.end_leave(leave, read, held);
        }
        (allowance, held)
    }

    #[test]
    fn unfinished_lines_leave_room_for_whole_ones_and_one_may_always_finish() {
        let (budget, office) = (Budget::new(LIMIT_BYTES), Arc::new(PassOffice::default()));
        let (_first, held) = filled(&budget, &office, 200 << 10);
        assert_eq!(held, 200 << 10);
        // The second fills what is left to unfinished lines, then takes the pass and goes on outside the budget.
        let (_second, held) = filled(&budget, &office, 500 << 10);
        assert_eq!(held, 500 << 10);
        // The third gets what is free, and no more.
        let (third, held) = filled(&budget, &office, 200 << 10);
        assert_eq!(held, FREE_LINE_BYTES);
        assert!(third.is_starved());
        assert!(budget.used_bytes() <= LIMIT_BYTES * 3 / 4, "{}", budget.used_bytes());
        // Whole small lines still come in.
        let mut small = Allowance::new(&budget, &office);
        assert!(small.let_in(1000, 1000).is_some());
    }

    #[test]
    fn the_pass_stays_with_the_line_until_its_reply_is_made() {
        let (budget, office) = (Budget::new(0), Arc::new(PassOffice::default()));
        let (mut first, held) = filled(&budget, &office, 1 << 20);
        let mut request = first.let_in(held, held).unwrap();
        request.hold(held * 2);
        first.set_inbox(0);
        let mut second = Allowance::new(&budget, &office);
        assert!(second.let_in(100, 100).is_none());
        assert!(second.is_starved());
        drop(request);
        assert!(second.let_in(100, 100).is_some());
        assert_eq!(budget.used_bytes(), 0);
    }

    #[test]
    fn a_pass_taken_for_nothing_is_given_back() {
        let (budget, office) = (Budget::new(0), Arc::new(PassOffice::default()));
        let mut first = Allowance::new(&budget, &office);
        let leave = first.leave_to_read(FREE_LINE_BYTES).unwrap();
        let mut second = Allowance::new(&budget, &office);
        assert!(second.leave_to_read(FREE_LINE_BYTES).is_none());
        first.end_leave(leave, 0, FREE_LINE_BYTES);
        assert!(second.leave_to_read(FREE_LINE_BYTES).is_some());
        assert!(!second.is_starved());
    }
}
