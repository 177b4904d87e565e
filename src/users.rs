//! Quotas by user, as the kernel names the peer: how many connections each may have, and how much of the bytes in
//! flight while others have something to say. Knows neither sockets nor requests.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::budget::{Budget, PassOffice};

/// A user shares the daemon for so long after another one sent a batch.
const SHARED: Duration = Duration::from_secs(10);
/// No user: the kernel gives this number to nobody.
const NOBODY: u32 = u32::MAX;

/// All users who are connected, or have something in flight.
#[derive(Debug)]
pub struct Users {
    most_connections: usize,
    most_bytes: usize,
    accounts: Mutex<HashMap<u32, Account>>,
    crowd: Arc<Crowd>,
}

#[derive(Debug)]
struct Account {
    connections: usize,
    budget: Arc<Budget>,
    passes: Arc<PassOffice>,
}

/// Whether more than one user sends batches: while one is alone, nothing is kept from it.
#[derive(Debug)]
struct Crowd {
    began: Instant,
    /// Who sent the last batch.
    last: AtomicU32,
    is_shared: AtomicBool,
    /// When another user did so after it, in milliseconds since `began`.
    changed_millis: AtomicU64,
    waits: AtomicU64,
}

/// A connection's place among those of its user; given back when dropped.
#[derive(Debug)]
pub struct Guest {
    users: Arc<Users>,
    user: u32,
    /// The user's bytes in flight.
    pub budget: Arc<Budget>,
    /// The user's pass to finish a line.
    pub passes: Arc<PassOffice>,
}

impl Users {
    /// Nobody yet; each may have so many connections, and so many bytes in flight while it is not alone.
    pub fn new(most_connections: usize, most_bytes: usize) -> Arc<Users> {
        let crowd = Crowd {
            began: Instant::now(),
            last: AtomicU32::new(NOBODY),
            is_shared: AtomicBool::new(false),
            changed_millis: AtomicU64::new(0),
            waits: AtomicU64::new(0),
        };
        let accounts = Mutex::default();
        Arc::new(Users { most_connections, most_bytes, accounts, crowd: Arc::new(crowd) })
    }

    /// Lets a connection of `user` in, unless it has as many as one may have.
    pub fn enter(self: &Arc<Self>, user: u32) -> Option<Guest> {
        let mut accounts = self.accounts();
        if !accounts.contains_key(&user) {
            // Who is gone is kept while its batches are in flight, so that coming anew gives nobody a new quota.
            accounts.retain(|_, account| account.is_in_use());
        }
        let account = accounts.entry(user).or_insert_with(|| Account {
            connections: 0,
            budget: Budget::new(self.most_bytes),
            passes: Arc::default(),
        });
        if account.connections >= self.most_connections {
            return None;
        }
        account.connections += 1;
        let (budget, passes) = (account.budget.clone(), account.passes.clone());
        Some(Guest { users: self.clone(), user, budget, passes })
    }

    /// Most connections of one user.
    pub fn most_connections(&self) -> usize {
        self.most_connections
    }

    /// Most bytes in flight of one user who is not alone.
    pub fn most_bytes(&self) -> usize {
        self.most_bytes
    }

    /// Users with a connection.
    pub fn connected(&self) -> usize {
        self.accounts().values().filter(|account| account.connections > 0).count()
    }

    /// How often a connection had to wait for its own user's quota.
    pub fn waits(&self) -> u64 {
        self.crowd.waits.load(Relaxed)
    }

    fn accounts(&self) -> MutexGuard<'_, HashMap<u32, Account>> {
        self.accounts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Account {
    fn is_in_use(&self) -> bool {
        self.connections > 0 || self.budget.used_bytes() > 0
    }
}

impl Guest {
    /// The user sends a batch.
    pub fn speaks(&self, now: Instant) {
        let crowd = &self.users.crowd;
        let millis = || now.saturating_duration_since(crowd.began).as_millis() as u64;
        if crowd.last.load(Relaxed) != self.user {
            if crowd.last.swap(self.user, Relaxed) != NOBODY {
                crowd.changed_millis.store(millis(), Relaxed);
                crowd.is_shared.store(true, Relaxed);
            }
        } else if crowd.is_shared.load(Relaxed) {
            let since = Duration::from_millis(millis().saturating_sub(crowd.changed_millis.load(Relaxed)));
            if since >= SHARED {
                crowd.is_shared.store(false, Relaxed);
            }
        }
    }

    /// Whether the quota holds now.
    pub fn is_limited(&self) -> bool {
        self.users.crowd.is_shared.load(Relaxed)
    }

    /// The quota is used up: a connection waits for it.
    pub fn waits(&self) {
        self.users.crowd.waits.fetch_add(1, Relaxed);
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let mut accounts = self.users.accounts();
        if let Some(account) = accounts.get_mut(&self.user) {
            account.connections -= 1;
            if !account.is_in_use() {
                accounts.remove(&self.user);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_user_has_its_own_places_and_gets_them_back() {
        let users = Users::new(2, 100);
        let mut guests = vec![users.enter(1).unwrap(), users.enter(1).unwrap()];
        assert!(users.enter(1).is_none());
        assert!(users.enter(2).is_some());
        assert_eq!(users.connected(), 1);
        guests.pop();
        assert!(users.enter(1).is_some());
    }

    #[test]
    fn who_leaves_batches_behind_and_comes_again_has_them_on_its_account() {
        let users = Users::new(2, 100);
        let guest = users.enter(1).unwrap();
        let share = guest.budget.take(80);
        drop(guest);
        drop(users.enter(2).unwrap());
        let again = users.enter(1).unwrap();
        assert_eq!((users.connected(), again.budget.used_bytes()), (1, 80));
        drop((again, share));
        drop(users.enter(2).unwrap());
        assert_eq!(users.accounts().len(), 0);
    }

    #[test]
    fn a_user_is_limited_only_while_another_one_sends_too() {
        let users = Users::new(9, 100);
        let (one, other) = (users.enter(1).unwrap(), users.enter(2).unwrap());
        let start = Instant::now();
        one.speaks(start);
        one.speaks(start + SHARED * 5);
        assert!(!one.is_limited(), "alone");
        other.speaks(start + SHARED * 6);
        assert!(one.is_limited() && other.is_limited());
        one.speaks(start + SHARED * 6);
        one.speaks(start + SHARED * 7 - Duration::from_millis(2));
        assert!(one.is_limited());
        one.speaks(start + SHARED * 7);
        assert!(!one.is_limited(), "alone again");
    }
}
