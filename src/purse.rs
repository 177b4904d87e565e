//! What one connection may hold of the bytes in flight: of those of its user, while that one shares the daemon
//! with others, and of all. Knows neither sockets nor lines' content.

use std::sync::Arc;
use std::time::Instant;

use crate::allowance::{Allowance, Leave};
use crate::budget::{Budget, Held, PassOffice};
use crate::users::Guest;

/// Leave to read once.
#[derive(Debug)]
pub struct Permit {
    /// Most bytes to read.
    pub bytes: usize,
    own: Option<Leave>,
    all: Leave,
}

/// A connection's two allowances.
#[derive(Debug)]
pub struct Purse {
    guest: Guest,
    /// Of its user's quota.
    own: Allowance,
    /// Of the bytes in flight over all connections.
    all: Allowance,
}

impl Purse {
    /// Of a new connection.
    pub fn new(guest: Guest, budget: &Arc<Budget>, office: &Arc<PassOffice>) -> Purse {
        let own = Allowance::new(&guest.budget, &guest.passes);
        Purse { guest, own, all: Allowance::new(budget, office) }
    }

    /// The connection sends a batch.
    pub fn speaks(&self, now: Instant) {
        self.guest.speaks(now);
    }

    /// Whether one of them was asked in vain: wait with [`Purse::freed`], then ask again.
    pub fn is_starved(&self) -> bool {
        self.own.is_starved() || self.all.is_starved()
    }

    /// Waits until asking again may help; a tenth of a second at most.
    pub async fn freed(&self) {
        let short = if self.own.is_starved() { &self.own } else { &self.all };
        short.freed().await;
    }

    /// Leave to read on, with `inbox_bytes` of an unfinished line held; `None` when starved.
    pub fn leave_to_read(&mut self, inbox_bytes: usize) -> Option<Permit> {
        let own = if self.is_limited() {
            let leave = self.own.leave_to_read(inbox_bytes);
            Some(self.counted(leave)?)
        } else {
            None
        };
        match self.all.leave_to_read(inbox_bytes) {
            Some(all) => {
                let bytes = own.as_ref().map_or(all.bytes, |own| own.bytes.min(all.bytes));
                Some(Permit { bytes, own, all })
            }
            None => {
                if let Some(own) = own {
                    self.own.end_leave(own, 0, inbox_bytes);
                }
                self.own.give_pass_back();
                None
            }
        }
    }

    /// Ends a leave: the inbox now holds `inbox_bytes`, of which `read_bytes` are new.
    pub fn end_leave(&mut self, permit: Permit, read_bytes: usize, inbox_bytes: usize) {
        if let Some(own) = permit.own {
            self.own.end_leave(own, read_bytes, inbox_bytes);
        }
        self.all.end_leave(permit.all, read_bytes, inbox_bytes);
    }

    /// Lets a whole line of `line_bytes` in, `inbox_bytes` being held with it; `None` when starved.
    pub fn let_in(&mut self, line_bytes: usize, inbox_bytes: usize) -> Option<Held> {
        let own = if self.is_limited() {
            let hold = self.own.let_in(line_bytes, inbox_bytes);
            Some(self.counted(hold)?)
        } else {
            None
        };
        Some(Held::new(self.all.let_in(line_bytes, inbox_bytes)?, own))
    }

    /// Charges what the inbox holds now.
    pub fn set_inbox(&mut self, inbox_bytes: usize) {
        if self.is_limited() {
            self.own.set_inbox(inbox_bytes);
        }
        self.all.set_inbox(inbox_bytes);
    }

    /// Gives everything back: nothing more will be read.
    pub fn give_up(&mut self) {
        self.own.give_up();
        self.all.give_up();
    }

    /// Whether the user's quota holds; if not, nothing is held of it.
    fn is_limited(&mut self) -> bool {
        let is_limited = self.guest.is_limited();
        if !is_limited && self.own.is_in_use() {
            self.own.give_up();
        }
        is_limited
    }

    /// Counts what the user's quota did not give. Nobody has one of the two passes and waits for the other, which
    /// somebody may have who waits for that one; and who waits for its own user's quota keeps no other user waiting.
    fn counted<T>(&mut self, given: Option<T>) -> Option<T> {
        if given.is_none() {
            self.all.give_pass_back();
            self.guest.waits();
        }
        given
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::users::Users;

    const QUOTA_BYTES: usize = 400 << 10;
    const ALL_BYTES: usize = 64 << 20;

    struct Scene {
        users: Arc<Users>,
        budget: Arc<Budget>,
        office: Arc<PassOffice>,
    }

    impl Scene {
        fn new() -> Scene {
            let users = Users::new(100, QUOTA_BYTES);
            Scene { users, budget: Budget::new(ALL_BYTES), office: Arc::default() }
        }

        fn purse(&self, user: u32) -> Purse {
            Purse::new(self.users.enter(user).unwrap(), &self.budget, &self.office)
        }

        /// Lines of 1,000 bytes until the connection must wait.
        fn flood(&self, purse: &mut Purse) -> Vec<Held> {
            std::iter::from_fn(|| purse.let_in(1000, 1000)).take(100_000).collect()
        }
    }

    #[test]
    fn a_user_alone_may_have_all_and_one_of_several_its_quota() {
        let scene = Scene::new();
        let (mut one, other) = (scene.purse(1), scene.purse(2));
        let now = Instant::now();
        one.speaks(now);
        let held = scene.flood(&mut one);
        assert!(held.len() * 1000 > ALL_BYTES * 9 / 10, "{}", held.len());
        drop(held);
        other.speaks(now);
        // The whole quota, and one line more with the user's pass.
        let held = scene.flood(&mut one);
        assert!((QUOTA_BYTES / 1000..=QUOTA_BYTES / 1000 + 1).contains(&held.len()), "{}", held.len());
        assert!(one.is_starved() && scene.users.waits() > 0);
        // Another connection of that user waits too, the other user does not.
        assert!(scene.purse(1).let_in(1000, 1000).is_none());
        assert!(scene.purse(2).let_in(1000, 1000).is_some());
        drop((held, one, other));
        assert_eq!(scene.budget.used_bytes(), 0);
    }

    #[test]
    fn what_was_read_before_another_user_came_is_given_back_after_it_went() {
        let scene = Scene::new();
        let (mut one, other) = (scene.purse(1), scene.purse(2));
        let now = Instant::now();
        let read = |purse: &mut Purse, held: usize| {
            let permit = purse.leave_to_read(held).unwrap();
            let bytes = permit.bytes;
            purse.end_leave(permit, bytes, held + bytes);
            held + bytes
        };
        one.speaks(now);
        let mut held = read(&mut one, 0);
        other.speaks(now);
        held = read(&mut one, held);
        assert!(one.guest.budget.used_bytes() > 0);
        one.speaks(now);
        one.speaks(now + std::time::Duration::from_secs(60));
        read(&mut one, held);
        assert_eq!(one.guest.budget.used_bytes(), 0, "alone again");
        one.give_up();
        assert_eq!(scene.budget.used_bytes(), 0);
    }

    #[test]
    fn of_a_users_unfinished_lines_one_may_always_be_finished() {
        let scene = Scene::new();
        scene.purse(1).speaks(Instant::now());
        scene.purse(2).speaks(Instant::now());
        let mut halves: Vec<(Purse, usize)> = (0..20).map(|_| (scene.purse(1), 0)).collect();
        let mut longest = 0;
        for _ in 0..50 {
            for (purse, held) in &mut halves {
                if let Some(permit) = purse.leave_to_read(*held) {
                    let bytes = permit.bytes;
                    *held += bytes;
                    purse.end_leave(permit, bytes, *held);
                }
                longest = longest.max(*held);
            }
        }
        // One goes on beyond the quota, the others stay within it together.
        assert!(longest > 2 * QUOTA_BYTES, "{longest}");
        let all: usize = halves.iter().map(|(_, held)| held).sum();
        assert!(all - longest < QUOTA_BYTES + 20 * (4 << 10), "{all} {longest}");
    }

    #[test]
    fn the_passes_of_a_user_and_of_all_never_wait_for_each_other() {
        let scene = Scene::new();
        let read = |purse: &mut Purse, held: &mut usize| {
            let Some(permit) = purse.leave_to_read(*held) else { return false };
            let bytes = permit.bytes;
            *held += bytes;
            purse.end_leave(permit, bytes, *held);
            true
        };
        let (mut one, mut other) = (scene.purse(1), scene.purse(1));
        let (mut of_one, mut of_other) = (0, 0);
        scene.purse(1).speaks(Instant::now());
        scene.purse(2).speaks(Instant::now());
        // The user's quota is used up: one takes the user's pass, and goes on beyond the quota.
        let quota = one.guest.budget.take(QUOTA_BYTES);
        (0..4).for_each(|_| assert!(read(&mut one, &mut of_one)));
        drop(quota);
        // All others' unfinished lines have filled the daemon: the other takes its pass, then uses up the quota.
        let all = scene.budget.take(ALL_BYTES);
        while read(&mut other, &mut of_other) {}
        assert!(of_other >= QUOTA_BYTES / 2, "{of_other}");
        // One of the two can always go on to the end of its line.
        for _ in 0..100 {
            let went_on = [read(&mut one, &mut of_one), read(&mut other, &mut of_other)];
            assert!(went_on.contains(&true), "{of_one} and {of_other} wait for each other for ever");
        }
        // Nor does another user wait for who waits for its own user's quota.
        let (mut of_one, mut of_next) = (0, 0);
        let quota = one.guest.budget.take(QUOTA_BYTES);
        let (mut next, mut third) = (scene.purse(1), scene.purse(2));
        one.give_up();
        other.give_up();
        drop(all);
        while read(&mut one, &mut of_one) && of_one < QUOTA_BYTES {}
        drop(quota);
        let all = scene.budget.take(ALL_BYTES);
        while read(&mut next, &mut of_next) {}
        assert!(of_next >= QUOTA_BYTES / 2, "{of_next}");
        let mut of_third = 0;
        (0..4).for_each(|_| assert!(read(&mut third, &mut of_third), "{of_third}"));
        drop(all);
    }
}
