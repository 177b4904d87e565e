//! A full disk: filled by somebody else and freed again while producers run. Refused at once, back by itself,
//! nothing lost, the own log quiet.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::common::producer::{Load, Random, number};
use crate::common::{Connection, Daemon, Place};
use crate::mount::{Disk, Filler, able, loop_needs, run};
use crate::{Farm, all_acknowledged, check};

/// After room was made the first batch is taken within this time.
const BACK_WITHIN: Duration = Duration::from_secs(1);
/// Most lines that an episode may leave in the own log.
const LINES_PER_EPISODE: usize = 8;

/// Asks with batches whose items are of no producer.
pub struct Probe {
    connection: Connection,
    /// Each for a lot of its own.
    pub fresh: bool,
    asked: usize,
}

impl Probe {
    #[track_caller]
    pub fn of(daemon: &Daemon) -> Probe {
        Probe { connection: daemon.connect(), fresh: false, asked: 0 }
    }

    #[track_caller]
    pub fn ask(&mut self) -> Value {
        self.asked += 1;
        let lot = if self.fresh { format!("probe-{}", self.asked) } else { "probe".to_owned() };
        let line = format!(
            r#"{{"ack":"written","context":{{"lot_id":"{lot}"}},"items":[{{"sku_local":"probe"}}]}}"#
        );
        self.connection.ask(line)
    }

    /// Asks until the answer is this one; gives how long that took.
    #[track_caller]
    pub fn until(&mut self, wanted: &str, mut meanwhile: impl FnMut()) -> Duration {
        let begun = Instant::now();
        loop {
            let reply = self.ask();
            if code(&reply) == wanted {
                return begun.elapsed();
            }
            assert!(["ok", "no_space"].contains(&code(&reply)), "{reply}");
            assert!(begun.elapsed() < 10 * BACK_WITHIN, "no {wanted} came, but {reply}");
            meanwhile();
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

pub fn code(reply: &Value) -> &str {
    reply["error"]["code"].as_str().unwrap_or("ok")
}

/// What somebody else does to the disk, and undoes.
struct Trouble<'a> {
    /// Whether batches must be refused meanwhile.
    refuses: bool,
    begin: Box<dyn FnMut() + 'a>,
    end: Box<dyn FnMut() + 'a>,
}

fn filling<'a>(filler: &'a std::cell::RefCell<Filler>) -> Trouble<'a> {
    Trouble {
        refuses: true,
        begin: Box::new(|| filler.borrow_mut().fill()),
        end: Box::new(|| filler.borrow_mut().free()),
    }
}

const BUSY: [&str; 6] =
    ["--segment-bytes", "1MiB", "--checkpoint-interval-seconds", "200ms", "--max-open-lots", "6"];

/// One trouble after the other under producers, again and again.
#[track_caller]
fn again_and_again(
    what: &str,
    place: &std::sync::Arc<Place>,
    mut daemon: Daemon,
    load: Load,
    fresh: bool,
    mut troubles: Vec<Trouble<'_>>,
) {
    let seed = number("LOTLOG_SEED", std::process::id().into());
    println!("LOTLOG_SEED={seed}");
    let mut random = Random(seed);
    let farm = Farm::start(&daemon, 4, seed, &load);
    let mut probe = Probe::of(&daemon);
    probe.fresh = fresh;
    let (mut waits, mut refusals) = (Vec::new(), Vec::new());
    let rounds = number("LOTLOG_ROUNDS", 10) as usize;
    let lines_before = place.own_log().lines().count();
    for round in 0..rounds {
        let kinds = troubles.len();
        let trouble = &mut troubles[round % kinds];
        std::thread::sleep(Duration::from_millis(20 + random.below(200)));
        (trouble.begin)();
        // What the daemon itself gives back is taken too.
        if trouble.refuses {
            refusals.push(probe.until("no_space", &mut trouble.begin));
        }
        let end = Instant::now() + Duration::from_millis(random.below(300));
        while Instant::now() < end {
            (trouble.begin)();
            probe.ask();
            std::thread::sleep(Duration::from_millis(2));
        }
        (trouble.end)();
        waits.push(probe.until("ok", || {}));
    }
    drop(troubles);
    let (ledgers, watcher) = farm.finish();
    let lines = place.own_log().lines().count() - lines_before;
    assert_eq!(daemon.terminate(), Some(0));
    let sent = check(&place.data(), &ledgers, watcher);
    all_acknowledged(&sent);
    let slowest = waits.iter().max().unwrap();
    let refused: usize = ledgers.iter().filter_map(|l| l.refusals.get("no_space")).sum();
    let pending = place.own_log().matches("a committed batch cannot be written").count();
    println!(
        "{what}: {rounds} times, refused after at most {:?}, back after at most {slowest:?}, {} batches, \
         {refused} refusals, {lines} lines of log, {pending} times committed batches waited",
        refusals.iter().max().unwrap(),
        sent.len(),
    );
    // One may meet a machine that is busy elsewhere.
    let late = waits.iter().filter(|wait| **wait >= BACK_WITHIN).count();
    assert!(late <= 1 && *slowest < 3 * BACK_WITHIN, "{what}: {waits:?}");
    // Without inodes known lots go on: old segments of the journal become new ones.
    assert!(refused > 0 || fresh, "{what}: nobody met it");
    assert!(lines <= LINES_PER_EPISODE * rounds, "{lines} lines for {rounds} episodes: {}", place.own_log());
}

fn load() -> Load {
    Load { most_pad: 2000, pause: Duration::from_millis(3), ..Load::default() }
}

#[track_caller]
fn fill_again_and_again(what: &str, make: impl FnOnce(&Place) -> Disk) {
    let place = Place::new();
    let _disk = make(&place);
    let daemon = Daemon::start_in(&place, &BUSY);
    let filler = Filler::new(&place.data()).into();
    again_and_again(what, &place, daemon, load(), false, vec![filling(&filler)]);
}

#[test]
fn a_tmpfs_filled_and_freed_again_and_again_refuses_at_once_and_is_back_within_a_second() {
    if able("a full tmpfs", &[]) {
        fill_again_and_again("tmpfs", |place| Disk::tmpfs(&place.data(), "size=64m"));
    }
}

#[test]
fn an_ext4_filled_and_freed_again_and_again_refuses_at_once_and_is_back_within_a_second() {
    if able("a full ext4", &loop_needs("ext4")) {
        // With more free than is believed for a moment: the disk runs full between journal and lot.
        fill_again_and_again("ext4", |place| Disk::image(&place.data(), "ext4", 1024, &["-m", "0"], ""));
    }
}

#[test]
fn an_xfs_filled_and_freed_again_and_again_refuses_at_once_and_is_back_within_a_second() {
    if able("a full xfs", &loop_needs("xfs")) {
        fill_again_and_again("xfs", |place| Disk::image(&place.data(), "xfs", 1024, &[], ""));
    }
}

#[test]
fn a_btrfs_filled_and_freed_again_and_again_refuses_at_once_and_is_back_within_a_second() {
    if able("a full btrfs", &loop_needs("btrfs")) {
        // Copying on write, it would need space for what is written over in the journal.
        let place = Place::new();
        let _disk = Disk::image(&place.data(), "btrfs", 300, &[], "");
        let daemon = Daemon::start_in(&place, &BUSY);
        let filler = std::cell::RefCell::new(Filler::new(&place.data()));
        // It gives space back when it commits, which is every half minute unless somebody asks.
        let commit = || drop(run(std::process::Command::new("sync").arg("-f").arg(place.data())));
        let end = || {
            filler.borrow_mut().free();
            commit();
        };
        let trouble = Trouble { end: Box::new(end), ..filling(&filler) };
        again_and_again("btrfs", &place, daemon, load(), false, vec![trouble]);
    }
}

/// Somebody else who takes all inodes.
fn without_inodes(what: &str, make: impl FnOnce(&Place) -> Disk) {
    let place = Place::new();
    let _disk = make(&place);
    let daemon = Daemon::start_in(&place, &BUSY);
    let dir = place.data().join("strange");
    std::fs::create_dir(&dir).unwrap();
    let taken = std::cell::Cell::new(0);
    let trouble = Trouble {
        refuses: true,
        begin: Box::new(|| {
            while std::fs::File::create_new(dir.join(taken.get().to_string())).is_ok() {
                taken.set(taken.get() + 1);
            }
        }),
        end: Box::new(|| {
            (0..taken.take()).for_each(|n| std::fs::remove_file(dir.join(n.to_string())).unwrap());
        }),
    };
    again_and_again(what, &place, daemon, load(), true, vec![trouble]);
}

#[test]
fn a_tmpfs_out_of_inodes_again_and_again_refuses_new_lots_at_once_and_is_back_within_a_second() {
    if able("a tmpfs without inodes", &[]) {
        without_inodes("inodes of tmpfs", |place| Disk::tmpfs(&place.data(), "size=64m,nr_inodes=400"));
    }
}

#[test]
fn an_ext4_out_of_inodes_again_and_again_refuses_new_lots_at_once_and_is_back_within_a_second() {
    if able("an ext4 without inodes", &loop_needs("ext4")) {
        let make = |place: &Place| Disk::image(&place.data(), "ext4", 256, &["-N", "600", "-m", "0"], "");
        without_inodes("inodes of ext4", make);
    }
}

#[test]
fn journal_and_lots_on_disks_of_their_own_are_full_in_turn_and_nothing_is_lost() {
    if !able("two full disks", &[]) {
        return;
    }
    let place = Place::new();
    let _lots = Disk::tmpfs(&place.data().join("lots"), "size=128m");
    let _journal = Disk::tmpfs(&place.data().join("journal"), "size=24m");
    let daemon = Daemon::start_in(&place, &BUSY);
    let of = |name: &str| Filler::new(&place.data().join(name)).into();
    let (lots, journal) = (of("lots"), of("journal"));
    // A full journal's disk holds nobody up for long: its old segments become new ones.
    let journal_full = Trouble { refuses: false, ..filling(&journal) };
    again_and_again("journal and lots", &place, daemon, load(), false, vec![journal_full, filling(&lots)]);
}

#[test]
fn lots_over_their_quota_again_and_again_are_refused_at_once_and_back_within_a_second() {
    if !able("a quota", &loop_needs("btrfs")) {
        return;
    }
    let place = Place::new();
    let volume = place.path().join("volume");
    let _disk = Disk::image(&volume, "btrfs", 256, &[], "");
    let btrfs =
        |words: &[&str], at: &Path| drop(run(std::process::Command::new("btrfs").args(words).arg(at)));
    btrfs(&["quota", "enable"], &volume);
    btrfs(&["subvolume", "create"], &volume.join("lots"));
    let _lots = Disk::bind(&volume.join("lots"), &place.data().join("lots"));
    let daemon = Daemon::start_in(&place, &BUSY);
    // Free space is not what is lacking: the lots' own writes meet it.
    let trouble = Trouble {
        refuses: true,
        begin: Box::new(|| btrfs(&["qgroup", "limit", "16K", "0/256"], &volume)),
        end: Box::new(|| btrfs(&["qgroup", "limit", "none", "0/256"], &volume)),
    };
    again_and_again("quota", &place, daemon, load(), false, vec![trouble]);
    assert!(place.own_log().contains("Disk quota exceeded"), "{}", place.own_log());
}

#[test]
fn on_a_disk_that_stays_full_nobody_waits_for_ever() {
    if !able("a full ext4", &loop_needs("ext4")) {
        return;
    }
    let place = Place::new();
    let _disk = Disk::image(&place.data(), "ext4", 1024, &["-m", "0"], "");
    let mut daemon = Daemon::start_in(&place, &BUSY);
    let farm = Farm::start(&daemon, 4, 1, &Load { synced_percent: 100, ..load() });
    let mut filler = Filler::new(&place.data());
    // Filled at once while much was believed free: what is on its way then has no place in its lot file, or
    // else it is tried again.
    let met = (0..30).any(|_| {
        std::thread::sleep(Duration::from_millis(300));
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let holding = scope.spawn(|| {
                // Longer than the ten seconds after which a producer counts itself stuck.
                let end = Instant::now() + Duration::from_secs(11);
                while Instant::now() < end && !stop.load(Relaxed) {
                    filler.hold(Duration::from_millis(20));
                }
                filler.free();
            });
            Probe::of(&daemon).until("no_space", || {});
            let asked = Instant::now();
            let reply = daemon.ask(r#"{"op":"sync"}"#);
            assert!(["ok", "no_space"].contains(&code(&reply)), "{reply}");
            assert!(asked.elapsed() < Duration::from_secs(8), "it took {:?}", asked.elapsed());
            stop.store(code(&reply) == "ok", Relaxed);
            holding.join().unwrap();
            code(&reply) == "no_space"
        })
    });
    assert!(met, "no committed batch ever waited for space");
    let (ledgers, watcher) = farm.finish();
    assert!(
        ledgers.iter().any(|l| l.breaks > 0),
        "who waited for a place in a lot was told that nobody knows"
    );
    assert_eq!(daemon.terminate(), Some(0));
    all_acknowledged(&check(&place.data(), &ledgers, watcher));
}
