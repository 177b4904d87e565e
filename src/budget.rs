//! The budget of bytes in flight over all connections: a counter with a limit and a bell, the shares that are
//! taken from it, and the one pass beyond it. Part of the hatch; knows neither sockets nor files.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Notify;

/// What one batch or request takes beside its text, in bytes.
const REQUEST_BYTES: usize = 512;

/// The budget of bytes in flight over all connections: a counter with a limit and a bell.
#[derive(Debug)]
pub struct Budget {
    limit_bytes: usize,
    used_bytes: AtomicUsize,
    freed: Notify,
}

impl Budget {
    /// A budget of `limit_bytes`.
    pub fn new(limit_bytes: usize) -> Arc<Budget> {
        Arc::new(Budget { limit_bytes, used_bytes: AtomicUsize::new(0), freed: Notify::new() })
    }

    /// Bytes in use now.
    pub fn used_bytes(&self) -> usize {
        self.used_bytes.load(Ordering::Relaxed)
    }

    /// The limit.
    pub fn limit_bytes(&self) -> usize {
        self.limit_bytes
    }

    /// Takes `bytes` if they fit under the limit less `keep_free`.
    pub fn try_take(self: &Arc<Self>, bytes: usize, keep_free: usize) -> Option<Share> {
        let roof = self.limit_bytes.saturating_sub(keep_free);
        self.used_bytes
            .try_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
                used.checked_add(bytes).filter(|sum| *sum <= roof)
            })
            .ok()?;
        Some(Share { budget: self.clone(), bytes })
    }

    /// Takes `bytes` whatever the limit says: for the one connection that may always finish its line, and
    /// for the growth of a line as it is normalised.
    pub fn take(self: &Arc<Self>, bytes: usize) -> Share {
        self.used_bytes.fetch_add(bytes, Ordering::Relaxed);
        Share { budget: self.clone(), bytes }
    }

    /// Waits until bytes have been given back, at most `patience`. Check again afterwards, either way; who
    /// then got bytes calls [`Budget::wake_next`], because what was given back wakes one only.
    pub async fn freed(&self, patience: Duration) {
        let _ = tokio::time::timeout(patience, self.freed.notified()).await;
    }

    /// Wakes one more of those who wait: there may be bytes left for it.
    pub fn wake_next(&self) {
        self.freed.notify_one();
    }
}

/// Bytes taken from a [`Budget`]; given back when dropped.
#[derive(Debug)]
pub struct Share {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Share {
    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Gives back all but `bytes`; grows, whatever the limit says, if it holds less.
    pub fn resize(&mut self, bytes: usize) {
        if bytes < self.bytes {
            self.budget.used_bytes.fetch_sub(self.bytes - bytes, Ordering::Relaxed);
            // One, not all: with thousands waiting, each reply would wake them all.
            self.budget.freed.notify_one();
        } else {
            self.budget.used_bytes.fetch_add(bytes - self.bytes, Ordering::Relaxed);
        }
        self.bytes = bytes;
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.resize(0);
    }
}

/// The one pass of a daemon.
#[derive(Debug, Default)]
pub struct PassOffice(Arc<AtomicBool>);

impl PassOffice {
    /// The pass, if nobody has it; its return wakes one of those who wait for `budget`.
    pub fn claim(&self, budget: &Arc<Budget>) -> Option<Pass> {
        let was_taken = self.0.swap(true, Ordering::Acquire);
        (!was_taken).then(|| Pass { taken: self.0.clone(), budget: budget.clone() })
    }
}

/// The right to finish one line outside the budget, so that its holder takes nothing from whole lines however
/// long it takes; given back when dropped.
#[derive(Debug)]
pub struct Pass {
    taken: Arc<AtomicBool>,
    budget: Arc<Budget>,
}

impl Drop for Pass {
    fn drop(&mut self) {
        self.taken.store(false, Ordering::Release);
        self.budget.wake_next();
    }
}

/// What a submitted request holds of one budget.
#[derive(Debug)]
pub struct Hold {
    pass: Option<Pass>,
    share: Share,
}

impl Hold {
    /// Bytes of the budget, or the pass.
    pub fn new(pass: Option<Pass>, share: Share) -> Hold {
        Hold { pass, share }
    }

    /// Whether others of this budget wait for what it holds, or soon will: half of it is in use, or its one pass.
    pub fn is_tight(&self) -> bool {
        let budget = &self.share.budget;
        self.pass.is_some() || budget.used_bytes() >= budget.limit_bytes / 2
    }

    /// Holds `text_bytes` and what a request takes beside, whatever the budget says: the growth of a line as
    /// it is normalised is bounded, and the line itself was let in.
    pub fn hold(&mut self, text_bytes: usize) {
        if self.pass.is_none() {
            self.share.resize(text_bytes + REQUEST_BYTES);
        }
    }
}

/// What a submitted request holds until it is answered: of all bytes in flight, and of its user's where that one has
/// a quota now. It goes with the ticket: the batch outlives a connection that ends before its answer.
#[derive(Debug)]
pub struct Held {
    all: Hold,
    own: Option<Hold>,
}

impl Held {
    /// Both together.
    pub fn new(all: Hold, own: Option<Hold>) -> Held {
        Held { all, own }
    }

    /// Takes out what it holds of its user's quota.
    pub fn take_own(&mut self) -> Option<Hold> {
        self.own.take()
    }

    /// See [`Hold::hold`].
    pub fn hold(&mut self, text_bytes: usize) {
        self.all.hold(text_bytes);
        if let Some(own) = &mut self.own {
            own.hold(text_bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_keeps_its_limit_and_gets_back_what_was_taken() {
        let budget = Budget::new(100);
        let share = budget.try_take(60, 0).unwrap();
        assert!(budget.try_take(41, 0).is_none());
        assert!(budget.try_take(20, 25).is_none());
        let mut over = budget.take(60);
        assert_eq!(budget.used_bytes(), 120);
        over.resize(10);
        assert_eq!(budget.used_bytes(), 70);
        drop((share, over));
        assert_eq!(budget.used_bytes(), 0);
    }
}
