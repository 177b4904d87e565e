//! What an operator may ask of the daemon beside what producers ask: its operations, and the keys they take. Pure;
//! who may ask is known in `front`, how it is carried out in the vault.

use crate::batch::{Code, LotId, Refusal};

/// Something asked for by an operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// Finish what is in hand, checkpoint and open every lot file anew by its name (SIGHUP).
    Reload,
    /// Move this lot's file into the archive, or every lot's.
    Rotate(Option<LotId>),
    /// Close this lot for good.
    Seal(LotId),
}

/// The operations, by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Op {
    Reload,
    Rotate,
    Seal,
}

/// The keys of operators' requests.
pub const KEYS: [&str; 2] = ["lot_id", "all"];

/// What a request has of [`KEYS`].
#[derive(Clone, Debug, Default)]
pub struct Keys {
    /// `lot_id`.
    pub lot: Option<LotId>,
    /// `all`.
    pub all: bool,
}

impl Op {
    /// The operation of this name.
    pub fn named(name: &str) -> Option<Op> {
        [Op::Reload, Op::Rotate, Op::Seal].into_iter().find(|op| op.as_str() == name)
    }

    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Op::Reload => "reload",
            Op::Rotate => "rotate",
            Op::Seal => "seal",
        }
    }

    /// Whether it takes a key of [`KEYS`].
    pub fn takes(self, key: &str) -> bool {
        match self {
            Op::Reload => false,
            Op::Rotate => KEYS.contains(&key),
            Op::Seal => key == "lot_id",
        }
    }

    /// The order, with the keys that came with it.
    ///
    /// # Errors
    /// `invalid_request`: nothing was done.
    pub fn order(self, keys: Keys) -> Result<Order, Refusal> {
        match (self, keys.lot, keys.all) {
            (Op::Reload, ..) => Ok(Order::Reload),
            (Op::Rotate, Some(lot), false) => Ok(Order::Rotate(Some(lot))),
            (Op::Rotate, None, true) => Ok(Order::Rotate(None)),
            (Op::Seal, Some(lot), _) => Ok(Order::Seal(lot)),
            (Op::Seal, None, _) => Err(Refusal::new(
                Code::InvalidRequest,
                "op seal needs a lot_id, so nothing was done: name the lot",
            )),
            (Op::Rotate, ..) => Err(Refusal::new(
                Code::InvalidRequest,
                "op rotate takes either a lot_id or \"all\":true, so nothing was done: name the lot, or all of them",
            )),
        }
    }
}

/// Why somebody who is neither root nor the daemon's own user is not obeyed.
pub fn forbidden(user: Option<u32>) -> Refusal {
    let who = user.map_or("a peer of unknown user".to_owned(), |user| format!("user {user}"));
    let why = "only root and the daemon's own user may ask for it";
    Refusal::new(Code::Forbidden, format!("{who} is no operator, so nothing was done: {why}"))
}
