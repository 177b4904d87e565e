//! What all connections share, and who may connect. Knows no requests and no listener.

use std::path::PathBuf;
use std::sync::Arc;

use tokio::net::UnixStream;
use tokio::sync::{Notify, Semaphore};

use crate::batch::{Code, Durability, Refusal};
use crate::budget::{Budget, PassOffice};
use crate::config::{Config, Limits};
use crate::metrics::Metrics;
use crate::order::{self, Order};
use crate::users::Users;

/// What all connections share.
#[derive(Debug)]
pub struct Front {
    /// Limits of the wire.
    pub limits: Limits,
    /// What an acknowledgement promises unless the request says.
    pub durability: Durability,
    /// User ids that may connect.
    pub allow_users: Vec<u32>,
    /// Group ids whose members may connect.
    pub allow_groups: Vec<u32>,
    /// DATA, for `status`.
    pub data_dir: PathBuf,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Bytes in flight.
    pub budget: Arc<Budget>,
    /// The pass to finish a line.
    pub passes: Arc<PassOffice>,
    /// Quotas by user.
    pub users: Arc<Users>,
    /// Connections that linger.
    pub lingering: Arc<Semaphore>,
    /// Rung when an operator has asked for a reload: the configuration is to be read anew.
    pub reload: Arc<Notify>,
}

impl Front {
    /// The shared part of a server.
    pub fn new(config: &Config, metrics: Arc<Metrics>) -> Arc<Front> {
        Arc::new(Front {
            limits: config.limits.clone(),
            durability: config.durability,
            allow_users: config.allow_users.clone(),
            allow_groups: config.allow_groups.clone(),
            data_dir: config.data_dir.clone(),
            metrics,
            budget: Budget::new(config.limits.max_bytes_in_flight),
            passes: Arc::default(),
            users: Users::new(
                config.limits.max_connections_per_user,
                config.limits.max_bytes_in_flight_per_user,
            ),
            lingering: Arc::new(Semaphore::new(config.limits.max_lingering)),
            reload: Arc::default(),
        })
    }

    /// Why a peer may not ask for this: orders are for root and the daemon's own user.
    pub fn forbids_order(&self, order: &Order, stream: &UnixStream) -> Option<Refusal> {
        let user = stream.peer_cred().ok().map(|peer| peer.uid());
        if user.is_none_or(|user| user != 0 && user != nix::unistd::geteuid().as_raw()) {
            return Some(order::forbidden(user));
        }
        match order {
            Order::Reload => self.reload.notify_one(),
            Order::Rotate(_) | Order::Seal(_) => {}
        }
        None
    }

    /// Why a peer is not let in, by the kernel's word for its user and the system's for that user's groups.
    pub async fn forbids(&self, stream: &UnixStream) -> Option<Refusal> {
        if self.allow_users.is_empty() && self.allow_groups.is_empty() {
            return None;
        }
        let forbidden = |who: &str| {
            let next = "ask the operator to name it in allow_users or one of its groups in allow_groups";
            Some(Refusal::new(
                Code::Forbidden,
                format!("{who} may not connect, so nothing was stored: {next}"),
            ))
        };
        let Ok(peer) = stream.peer_cred() else { return forbidden("a peer of unknown user") };
        let (user, group) = (peer.uid(), peer.gid());
        if self.allow_users.contains(&user) || self.allow_groups.contains(&group) {
            return None;
        }
        if !self.allow_groups.is_empty() {
            // The user database may be on another machine.
            let groups = tokio::task::spawn_blocking(move || groups_of(user)).await.unwrap_or_default();
            if groups.iter().any(|group| self.allow_groups.contains(group)) {
                return None;
            }
        }
        forbidden(&format!("user {user}"))
    }
}

/// All groups of a user, as the system's user database has them.
fn groups_of(user: u32) -> Vec<u32> {
    let Ok(Some(user)) = nix::unistd::User::from_uid(user.into()) else { return Vec::new() };
    let Ok(name) = std::ffi::CString::new(user.name) else { return Vec::new() };
    let groups = nix::unistd::getgrouplist(&name, user.gid).unwrap_or_default();
    groups.into_iter().map(nix::unistd::Gid::as_raw).collect()
}
