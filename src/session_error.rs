//! Why a producer's session cannot go on. Does not know how it got there.

use std::path::PathBuf;
use std::time::Duration;

use crate::client::{ClientError, Refused};

/// Why a session cannot go on. Of batches that were submitted and not settled,
/// [`may_be_stored`](crate::session::Session::may_be_stored) says which are of unknown fate; the others are not stored.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// Not reachable, or something else listens there.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The connection broke and nobody could be reached again in time.
    #[error("the daemon at {} could not be reached again for {waited:?}: {last}", path.display())]
    Unreachable {
        /// Where it was.
        path: PathBuf,
        /// How long it was tried.
        waited: Duration,
        /// The last attempt's end.
        last: String,
    },
    /// The daemon is there and does not answer.
    #[error("the daemon at {} gave no reply for {waited:?}: its disk may be stuck (`lotlog status` answers even then)", path.display())]
    NoReply {
        /// Where it is.
        path: PathBuf,
        /// How long it was waited for.
        waited: Duration,
    },
    /// The daemon kept refusing for now.
    #[error("the daemon refused for {waited:?} and nothing was stored in that time; last: {last}")]
    StillRefused {
        /// How long it was tried.
        waited: Duration,
        /// The last refusal.
        last: Refused,
    },
    /// The daemon refuses this session or this user altogether.
    #[error("{0}")]
    Refused(Refused),
    /// Somebody else uses the same session name, or the same name was used for other data.
    #[error(
        "session {session} holds other data under seq {seq} ({why}): use a new session name for new data, and the same data in the same order to resume"
    )]
    Foreign {
        /// The session.
        session: String,
        /// The number.
        seq: u64,
        /// What the daemon answered.
        why: String,
    },
    /// The session has failed before, or its name is not one.
    #[error("{0}")]
    Unusable(String),
    /// The window is full: take what is settled first.
    #[error("the session has as many unanswered batches as it may: take what is settled first")]
    Full,
}
