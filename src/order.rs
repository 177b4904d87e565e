//! What an operator may ask of the daemon beside what producers ask: its operations, and the keys they take. Pure;
//! who may ask is known in `front`, how it is carried out in the vault.

use crate::batch::{Code, Refusal};

/// Something asked for by an operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// Finish what is in hand, checkpoint and open every lot file anew by its name (SIGHUP).
    Reload,
}

impl Order {
    /// The operation of this name, given what else the request says.
    ///
    /// # Errors
    /// `invalid_request`: nothing was done.
    pub fn new(op: Op) -> Result<Order, Refusal> {
        match op {
            Op::Reload => Ok(Order::Reload),
        }
    }
}

/// The operations, by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Op {
    Reload,
}

impl Op {
    /// The operation of this name.
    pub fn named(name: &str) -> Option<Op> {
        [Op::Reload].into_iter().find(|op| op.as_str() == name)
    }

    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Op::Reload => "reload",
        }
    }
}

/// Why somebody who is neither root nor the daemon's own user is not obeyed.
pub fn forbidden(user: Option<u32>) -> Refusal {
    let who = user.map_or("a peer of unknown user".to_owned(), |user| format!("user {user}"));
    let why = "only root and the daemon's own user may ask for it";
    Refusal::new(Code::Forbidden, format!("{who} is no operator, so nothing was done: {why}"))
}
