//! The short way of a reply: while a connection sleeps its replies lie here, and who brings an answer sends them. Knows
//! neither requests nor the vault.

use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Instant;

use tokio::net::UnixStream;

use crate::batch::Outcome;
use crate::metrics::Metrics;
use crate::queue::{self, Delivery};
use crate::replies::Replies;

/// Where a connection's replies lie while it sleeps.
#[derive(Debug, Default)]
pub struct Counter {
    replies: Mutex<Option<Replies>>,
}

impl Counter {
    /// Lays them down: they are taken again before they are used.
    pub fn lay(&self, replies: &mut Replies) {
        *self.replies.lock().unwrap_or_else(PoisonError::into_inner) = Some(std::mem::take(replies));
    }

    /// Takes them, if they lie here.
    pub fn take(&self, replies: &mut Replies) {
        if let Some(laid) = self.replies.lock().unwrap_or_else(PoisonError::into_inner).take() {
            *replies = laid;
        }
    }
}

/// Sends a connection's good replies in its stead.
#[derive(Debug)]
pub struct Express {
    counter: Arc<Counter>,
    /// Does not keep the socket open: a connection that has ended is closed at once.
    stream: Weak<UnixStream>,
    metrics: Arc<Metrics>,
}

impl Express {
    /// For the connection whose stream and counter these are.
    pub fn new(stream: &Arc<UnixStream>, counter: &Arc<Counter>, metrics: &Arc<Metrics>) -> Express {
        Express { counter: counter.clone(), stream: Arc::downgrade(stream), metrics: metrics.clone() }
    }
}

impl queue::Express for Express {
    fn deliver(&self, answers: &[(u64, Outcome)]) -> Delivery {
        // A refusal may end the connection, which is its own affair.
        if !answers.iter().all(|(_, outcome)| is_good(outcome)) {
            return Delivery::Declined;
        }
        let Ok(mut laid) = self.counter.replies.try_lock() else { return Delivery::Declined };
        let (Some(replies), Some(stream)) = (laid.as_mut(), self.stream.upgrade()) else {
            return Delivery::Declined;
        };
        let now = Instant::now();
        for (slot, outcome) in answers {
            replies.answer(*slot, outcome, &self.metrics, now);
        }
        replies.advance(None::<fn() -> Vec<u8>>);
        while !replies.output().is_empty() {
            match stream.try_write(replies.output()) {
                Ok(sent) => replies.sent(sent),
                // What is wrong is the connection's affair, as is waiting.
                Err(_) => return Delivery::Taken,
            }
        }
        let more = replies.can_advance() || replies.is_cut();
        if more { Delivery::Taken } else { Delivery::Done }
    }
}

fn is_good(outcome: &Outcome) -> bool {
    !matches!(outcome, Outcome::Refused(_) | Outcome::Unknown)
}
