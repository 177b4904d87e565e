//! Lives one after the other on one disk: each start finds what the last crash left, kills and power cuts fall
//! into the load and into recovery, calls fail, space comes and goes, sessions resend. Judged at every start.
//! `LOTLOG_SEED` repeats a schedule, `LOTLOG_SCHEDULES` sets their number.

use std::io;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use lotlog::batch::{Code, Durability, LotId, Outcome};
use lotlog::config::VaultConfig;
use lotlog::order::Order;
use lotlog::queue::{Mailbox, Submission};
use lotlog::storage::Dir;
use lotlog::vault::Vault;

use crate::crash::schedules;
use crate::sim::*;

const PRODUCERS: usize = 3;

/// A schedule under way.
struct Story {
    seed: u64,
    random: Random,
    world: World,
    around: Around,
    farm: Farm,
    /// The next number of each session.
    next: [u64; PRODUCERS],
    /// What readers saw before the crash.
    seen: Lots,
    /// The power went, or a sync failed: `written` batches may be gone.
    may_lose: bool,
    /// A call failed: something may stand in quarantine, or the disk may tell of its errors late.
    failed: bool,
    /// Length of the ledger when this life began.
    life_began: usize,
    /// What stands in quarantine.
    set_aside: Vec<String>,
    counts: Counts,
}

#[derive(Default, Debug)]
struct Counts {
    lives: usize,
    kills: usize,
    cuts: usize,
    in_recovery: usize,
    fail_stops: usize,
    batches: usize,
}

/// How a call fails, and for how long.
#[derive(Clone, Copy)]
struct Fault {
    from: usize,
    calls: usize,
    errno: i32,
    /// Only calls whose name holds this.
    of: &'static str,
}

/// What was there at the moment of a crash.
type Image = Arc<Mutex<Option<(World, Ledger)>>>;

fn session(producer: usize) -> String {
    format!("p{producer}")
}

/// Lot, items and filling of a batch: the same whenever it is sent.
fn content(seed: u64, producer: usize, seq: u64) -> (String, usize, usize) {
    let mut random = Random(seed ^ (producer as u64) << 32 ^ seq << 8);
    let lot = format!("lot-{}", random.below(12));
    let items = 1 + random.below(5);
    let pad = if random.chance(10) { 20_000 } else { random.below(300) };
    (lot, items, pad)
}

impl Story {
    fn new(seed: u64) -> Story {
        Story {
            seed,
            random: Random(seed),
            world: World::new(),
            around: Around::new(),
            farm: Farm::default(),
            next: [1; PRODUCERS],
            seen: Lots::new(),
            may_lose: false,
            failed: false,
            life_began: 0,
            set_aside: Vec::new(),
            counts: Counts::default(),
        }
    }

    /// In one schedule of three lots are rotated when they have grown a little, in one of two what is archived is compressed.
    fn config(&self) -> VaultConfig {
        let rotate_bytes = if self.seed.is_multiple_of(3) { 10_000 } else { 0 };
        let archive_compress = usize::from(self.seed.is_multiple_of(2));
        VaultConfig { rotate_bytes, archive_compress, ..config() }
    }

    fn note(&self) -> String {
        format!("LOTLOG_SEED={}, {:?}", self.seed, self.counts)
    }

    /// Stops the world at call `stop`, as a crash does, and lets a fault come before.
    fn arm(
        &mut self,
        disk: &SimDisk,
        stop: Option<usize>,
        fault: Option<Fault>,
    ) -> (Image, Arc<Mutex<bool>>) {
        let (image, sync_failed) = (Image::default(), Arc::new(Mutex::new(false)));
        let (taken, told, farm, mut call) = (image.clone(), sync_failed.clone(), self.farm.clone(), 0);
        disk.set_hook(Box::new(move |world, what| {
            call += 1;
            if stop.is_some_and(|stop| call >= stop) {
                taken.lock().unwrap().get_or_insert_with(|| (world.clone(), farm.hear()));
                return Err(io::Error::from_raw_os_error(5));
            }
            match fault {
                Some(f) if call >= f.from && call < f.from + f.calls && what.contains(f.of) => {
                    *told.lock().unwrap() |= what.starts_with("sync");
                    Err(io::Error::from_raw_os_error(f.errno))
                }
                _ => Ok(()),
            }
        }));
        (image, sync_failed)
    }

    /// What the next start finds of this world.
    fn crash(&mut self, world: &World, clean: bool) {
        if self.random.chance(50) {
            self.world = world.kill(&mut self.random);
            self.counts.kills += 1;
        } else {
            self.world = world.power_cut(&mut self.random);
            self.may_lose |= !clean;
            self.counts.cuts += 1;
        }
    }

    /// Starts, perhaps after some starts that were cut short.
    fn start(&mut self) -> (SimDisk, Vault) {
        for attempt in 0.. {
            self.world.free_bytes = 1 << 40;
            let disk = SimDisk::new(self.world.clone());
            let fate = if attempt < 3 { self.random.below(10) } else { 9 };
            let (stop, fault) = match fate {
                0..3 => (Some(1 + self.random.below(80)), None),
                3 => {
                    self.failed = true;
                    let errno = [5, 28, 1, 122, 24, 27][self.random.below(6)];
                    (None, Some(Fault { from: 1 + self.random.below(60), calls: 1, errno, of: "" }))
                }
                _ => (None, None),
            };
            let (image, sync_failed) = self.arm(&disk, stop, fault);
            self.around.pass(Duration::from_secs(1));
            let opened = open(&disk, &self.around, &self.config());
            disk.clear_hook();
            self.may_lose |= *sync_failed.lock().unwrap();
            if let Some((world, _)) = image.lock().unwrap().take() {
                self.counts.in_recovery += 1;
                drop(opened);
                self.crash(&world, false);
                continue;
            }
            match opened {
                Ok(vault) => return (disk, vault),
                Err(error) => {
                    // A disk that failed may tell of it now, and once.
                    assert!(self.failed && error.exit_code() == 74, "{}: {error}", self.note());
                    assert!(attempt < 9, "{}: {error}", self.note());
                    let world = disk.world.lock().unwrap().clone();
                    self.world = world.kill(&mut self.random);
                }
            }
        }
        unreachable!()
    }

    /// Judges what a start has made of the last crash. From here on all that is there is durable.
    fn judge(&mut self, disk: &SimDisk, vault: &mut Vault) {
        for _ in 0..2 {
            self.around.pass(Duration::from_millis(300));
            vault.tick(self.around.now()).unwrap();
        }
        let world = disk.world.lock().unwrap().clone();
        let (found, ledger, note) = (lots(&world), self.farm.hear(), self.note());
        let mut verdict = judge(&found, &ledger, self.may_lose);
        verdict.vanished = vanished(&self.seen, &found);
        assert_eq!(verdict, Verdict::default(), "{note}");
        // A crash may leave an unfinished file, which no reader takes for a lot.
        let kind = |name: &String| name.ends_with(".jsonl") || name.ends_with(".jsonl.new");
        assert!(world.names(Dir::Lots).iter().all(kind), "{note}");
        let set_aside = world.names(Dir::Quarantine);
        // A power cut may leave a file under its unfinished name as well: then that is copied.
        assert!(self.failed || self.counts.cuts > 0 || set_aside == self.set_aside, "{note}: {set_aside:?}");
        self.set_aside = set_aside;
        let stored = stored(&found);
        let is_stored = |sent: &Sent| stored.get(&sent.session).is_some_and(|seqs| seqs.contains(&sent.seq));
        // Across all sessions what is lost is a suffix.
        let numbers = |there: bool| {
            ledger.sent[self.life_began..].iter().filter(move |sent| is_stored(sent) == there).filter_map(
                |sent| match sent.answer {
                    Some(Outcome::Stored { lsn, .. }) => Some(lsn),
                    _ => None,
                },
            )
        };
        let (last, gone) = (numbers(true).max().unwrap_or(0), numbers(false).min().unwrap_or(u64::MAX));
        assert!(last < gone, "{note}: {last} is there, {gone} is not");
        let mut sent = Vec::new();
        for producer in 0..PRODUCERS {
            let seqs = stored.get(&session(producer)).cloned().unwrap_or_default();
            let count = seqs.len() as u64;
            assert!(seqs.into_iter().eq(1..=count), "{note}: the numbers of {} have gaps", session(producer));
            let most = ledger.sent.iter().filter(|s| s.session == session(producer)).map(|s| s.seq).max();
            for seq in 1..=most.unwrap_or(0) {
                let (lot, items, pad) = content(self.seed, producer, seq);
                // What is not there now never comes back, unless it is sent again.
                let answer = if seq <= count {
                    Outcome::Stored { lsn: 0, durability: Durability::Synced }
                } else {
                    Outcome::Refused(lotlog::batch::Refusal::new(Code::NoSpace, "gone"))
                };
                let (session, answer) = (session(producer), Some(answer));
                sent.push(Sent { lot, session, seq, ack: Durability::Synced, items, pad, answer });
            }
            self.next[producer] = count + 1;
        }
        self.life_began = sent.len();
        self.farm = Farm::default();
        self.farm.ledger.lock().unwrap().sent = sent;
        (self.may_lose, self.failed) = (false, false);
    }

    fn send(&mut self, producer: usize, seq: u64, ack: Durability) -> Submission {
        let (lot, items, pad) = content(self.seed, producer, seq);
        self.counts.batches += 1;
        self.farm.send(&lot, &session(producer), seq, ack, items, pad)
    }

    /// One submission of its own, outside the ledger; its answer.
    fn ask(&mut self, vault: &mut Vault, producer: usize, seq: u64, other: bool) -> Outcome {
        let (lot, items, pad) = content(self.seed, producer, seq);
        let items = items + usize::from(other);
        let mailbox = Mailbox::new();
        let batch = batch(&lot, &session(producer), seq, Durability::Synced, items, pad);
        let _ = vault.commit_group(vec![Submission::Batch(batch, mailbox.ticket(0))], self.around.now());
        let mut answers = Vec::new();
        mailbox.collect(&mut answers);
        answers.pop().map_or(Outcome::Unknown, |(_, outcome)| outcome)
    }

    /// What a restarted session table must say of every number.
    fn resend(&mut self, vault: &mut Vault) {
        for producer in 0..PRODUCERS {
            let (last, note) = (self.next[producer] - 1, self.note());
            if last == 0 {
                continue;
            }
            let records = content(self.seed, producer, last).1 as u32;
            let answer = self.ask(vault, producer, last, false);
            let is_last =
                matches!(answer, Outcome::Duplicate { last: Some((r, lsn)), .. } if r == records && lsn > 0);
            assert!(is_last, "{note}: {answer:?}");
            let older = 1 + self.random.below(last as usize) as u64;
            let answer = self.ask(vault, producer, older, false);
            assert!(matches!(answer, Outcome::Duplicate { .. }), "{note}: {answer:?}");
            let answer = self.ask(vault, producer, last, true);
            assert!(matches!(&answer, Outcome::Refused(r) if r.code == Code::Conflict), "{note}: {answer:?}");
            let answer = self.ask(vault, producer, last + 2, false);
            assert!(
                matches!(&answer, Outcome::Refused(r) if r.expected == Some(last + 1)),
                "{note}: {answer:?}"
            );
        }
    }

    fn group(&mut self) -> Vec<Submission> {
        let mut group = Vec::new();
        for _ in 0..1 + self.random.below(5) {
            let producer = self.random.below(PRODUCERS);
            let ack = if self.random.chance(60) { Durability::Synced } else { Durability::Written };
            match self.random.below(20) {
                0 => group.push(Submission::Sync(unread())),
                1 if self.random.chance(30) => group.push(Submission::Order(Order::Reload, unread())),
                1 if self.random.chance(50) => {
                    let lot = format!("lot-{}", self.random.below(12));
                    let lot = LotId::new(&lot, &format!("\"{lot}\"")).unwrap();
                    let lot = Some(lot).filter(|_| self.random.chance(70));
                    group.push(Submission::Order(Order::Rotate(lot), unread()));
                }
                2..5 if self.next[producer] > 1 => {
                    let seq = 1 + self.random.below(self.next[producer] as usize - 1) as u64;
                    group.push(self.send(producer, seq, ack));
                }
                _ => {
                    let seq = self.next[producer];
                    self.next[producer] += 1;
                    group.push(self.send(producer, seq, ack));
                }
            }
        }
        group
    }

    /// A refused number is sent again, and what was behind it.
    fn hear(&mut self) -> Ledger {
        let ledger = self.farm.hear();
        for producer in 0..PRODUCERS {
            let own = ledger.sent.iter().filter(|s| s.session == session(producer));
            let taken = own.filter(|s| !matches!(s.answer, Some(Outcome::Refused(_)))).map(|s| s.seq).max();
            self.next[producer] = taken.unwrap_or(0) + 1;
        }
        ledger
    }

    /// A life from its start to its crash.
    fn live(&mut self) {
        self.counts.lives += 1;
        let (disk, mut vault) = self.start();
        self.judge(&disk, &mut vault);
        if self.random.chance(50) {
            self.resend(&mut vault);
        }
        // The wall clock is set, but never an hour back.
        let step = [0, 0, 0, -55 * 60][self.random.below(4)] + 7200 * self.counts.lives as i64;
        self.around.ahead_micros.store(step * 1_000_000, std::sync::atomic::Ordering::SeqCst);
        let stop = self.random.chance(60).then(|| 1 + self.random.below(250));
        let fault = self.random.chance(35).then(|| Fault {
            from: 1 + self.random.below(150),
            calls: if self.random.chance(50) { 1 } else { 1 + self.random.below(30) },
            errno: [5, 28, 122, 30, 1, 13, 24, 23, 27, 4][self.random.below(10)],
            of: ["", "", "lots/", "journal/", "create", "allocate", "sync", "write"][self.random.below(8)],
        });
        let bad_disk = self.random.chance(8);
        self.failed |= fault.is_some() || bad_disk;
        if self.random.chance(20) {
            let mut dice = Random(self.random.number());
            disk.set_shorten(Box::new(move |_, most| match dice.below(4) {
                0 => 1,
                1 => most.div_ceil(2),
                2 => most.saturating_sub(1).max(1),
                _ => most,
            }));
        }
        let (image, sync_failed) = self.arm(&disk, stop, fault);
        let mut ended = false;
        for _ in 0..4 + self.random.below(24) {
            disk.world.lock().unwrap().free_bytes = if self.random.chance(5) { 1 << 20 } else { 1 << 40 };
            let group = self.group();
            ended = vault.commit_group(group, self.around.now()).is_err();
            self.around.pass(Duration::from_millis(self.random.below(1500) as u64));
            if self.random.chance(6) {
                self.around.pass(Duration::from_secs(31));
            }
            for _ in 0..self.random.below(4) {
                ended = ended || vault.tick(self.around.now()).is_err();
            }
            if image.lock().unwrap().is_none() {
                self.hear();
                let fails = bad_disk && self.random.chance(20);
                self.may_lose |= fails;
                if self.random.chance(30) || fails {
                    disk.world.lock().unwrap().write_back(&mut self.random, fails);
                }
            }
            if ended {
                break;
            }
        }
        let clean = !ended && self.random.chance(30) && vault.close(self.around.now()).is_ok();
        disk.clear_hook();
        self.may_lose |= *sync_failed.lock().unwrap();
        let taken = image.lock().unwrap().take();
        let (world, ledger) = taken.unwrap_or_else(|| {
            self.counts.fail_stops += usize::from(ended);
            (disk.world.lock().unwrap().clone(), self.farm.hear())
        });
        self.farm = Farm::default();
        *self.farm.ledger.lock().unwrap() = ledger;
        self.seen = lots(&world);
        self.crash(&world, clean);
    }
}

/// The last start: everything goes on, and a clean stop leaves nothing behind.
fn end(story: &mut Story) {
    let (disk, mut vault) = story.start();
    story.judge(&disk, &mut vault);
    story.resend(&mut vault);
    for producer in 0..PRODUCERS {
        let seq = story.next[producer];
        story.next[producer] += 1;
        let batch = story.send(producer, seq, Durability::Written);
        commit(&mut vault, vec![batch], &story.around).unwrap();
    }
    if let Err(error) = vault.close(story.around.now()) {
        // A lot that a start could not write, on a disk that failed before: it tells of it now, once.
        assert!(error.to_string().contains("os error 5"), "{}: {error}", story.note());
        let world = disk.world.lock().unwrap().clone();
        (story.seen, story.world) = (lots(&world), world.kill(&mut story.random));
        story.failed = true;
        return end(story);
    }
    let ledger = story.farm.hear();
    let found = lots(&disk.world.lock().unwrap());
    assert_eq!(judge(&found, &ledger, false), Verdict::default(), "{}", story.note());
    let all_stored = ledger.sent[story.life_began..]
        .iter()
        .all(|sent| matches!(sent.answer, Some(Outcome::Stored { .. } | Outcome::Duplicate { .. })));
    assert!(all_stored, "{}: {:?}", story.note(), &ledger.sent[story.life_began..]);
}

#[test]
fn several_lives_one_after_the_other_lose_and_double_nothing() {
    let (begun, mut all) = (Instant::now(), Counts::default());
    let schedules = schedules(300);
    let count = schedules.end - schedules.start;
    for seed in schedules {
        let mut story = Story::new(seed);
        for _ in 0..2 + story.random.below(4) {
            story.live();
        }
        end(&mut story);
        let Counts { lives, kills, cuts, in_recovery, fail_stops, batches } = story.counts;
        all.lives += lives;
        all.kills += kills;
        all.cuts += cuts;
        all.in_recovery += in_recovery;
        all.fail_stops += fail_stops;
        all.batches += batches;
    }
    println!("{count} schedules in {:?}: {all:?}", begun.elapsed());
    assert!(count < 100 || all.fail_stops > 0 && all.in_recovery > 0);
}
