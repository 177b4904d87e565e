//! Keeping the archive on the modelled disk: when its rounds come, what they remove and what they never do, a kill or a
//! power cut at every storage call of compression and retention, and each of their calls failing.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use lotlog::batch::{Durability, LotId};
use lotlog::config::VaultConfig;
use lotlog::order::Order;
use lotlog::queue::Submission;
use lotlog::storage::Dir;
use lotlog::vault::Vault;

use crate::sim::*;

const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(24 * 3600);
/// No text that compresses to less than so many bytes.
const LEAST_PACKED_BYTES: u64 = 100;

/// A vault that keeps an archive.
struct Keeper {
    disk: SimDisk,
    around: Around,
    farm: Farm,
    vault: Vault,
}

impl Keeper {
    fn new(config: &VaultConfig) -> Keeper {
        Keeper::on(World::new(), Around::new(), Farm::default(), config)
    }

    fn on(world: World, around: Around, farm: Farm, config: &VaultConfig) -> Keeper {
        let disk = SimDisk::new(world);
        let vault = open(&disk, &around, config).unwrap();
        let mut keeper = Keeper { disk, around, farm, vault };
        keeper.pass(Duration::ZERO);
        keeper
    }

    /// Lets time pass, and the vault look once.
    fn pass(&mut self, time: Duration) {
        self.around.pass(time);
        let now = self.around.now();
        self.disk.world.lock().unwrap().seconds = now.wall_micros / 1_000_000;
        self.vault.tick(now).unwrap();
    }

    /// Stores a batch of so many bytes and has the lot's file archived.
    fn archive(&mut self, lot: &str, seq: u64, bytes: usize) {
        self.pass(Duration::ZERO);
        let batch = self.farm.send(lot, lot, seq, Durability::Synced, 1, bytes);
        commit(&mut self.vault, vec![batch], &self.around).unwrap();
        let id = LotId::new(lot, &format!("\"{lot}\"")).ok();
        let order = Submission::Order(Order::Rotate(id), unread());
        commit(&mut self.vault, vec![order], &self.around).unwrap();
        let archived = |keeper: &Keeper| keeper.files(lot).len();
        let before = archived(self);
        for _ in 0..200 {
            self.pass(Duration::from_millis(10));
            if archived(self) > before {
                return;
            }
        }
        panic!("{lot} is not archived");
    }

    /// Looks at the archive until a round is over, and rests until another would be due.
    fn rounds(&mut self) {
        for _ in 0..400 {
            self.pass(Duration::ZERO);
        }
        self.pass(11 * MINUTE);
        for _ in 0..400 {
            self.pass(Duration::ZERO);
        }
    }

    /// The next life of the same disk, kept otherwise.
    fn next(self, config: &VaultConfig) -> Keeper {
        let world = self.disk.world.lock().unwrap().clone();
        Keeper::on(world, self.around, self.farm, config)
    }

    fn with_world<T>(&self, change: impl FnOnce(&mut World) -> T) -> T {
        change(&mut self.disk.world.lock().unwrap())
    }

    /// What the archive takes, in bytes.
    fn archive_bytes(&self) -> u64 {
        self.with_world(|world| {
            let dirs = world.names(Dir::Archive);
            let files = dirs.iter().flat_map(|dir| {
                let names = world.names_below(Dir::Archive, Some(dir)).unwrap_or_default();
                names.into_iter().map(|name| format!("{dir}/{name}")).collect::<Vec<_>>()
            });
            files.map(|place| world.read(Dir::Archive, &place).unwrap().len() as u64).sum()
        })
    }

    /// All that was stored is there once, in either place.
    #[track_caller]
    fn check(&self, note: &str) {
        let found = lots(&self.disk.world.lock().unwrap());
        assert_eq!(judge(&found, &self.farm.hear(), false), Verdict::default(), "{note}");
    }

    /// The names of a lot's archived files.
    fn files(&self, lot: &str) -> Vec<String> {
        let dir = format!("lot={lot}");
        self.disk.world.lock().unwrap().names_below(Dir::Archive, Some(&dir)).unwrap_or_default()
    }
}

#[test]
fn a_round_that_takes_longer_than_the_time_between_two_is_waited_for() {
    let config = VaultConfig { segment_bytes: 8 << 20, archive_compress: 1, ..VaultConfig::default() };
    let mut keeper = Keeper::new(&VaultConfig { archive_compress: 0, ..config.clone() });
    keeper.archive("A", 1, 4 << 20);
    let world = keeper.disk.world.lock().unwrap().clone();
    let mut keeper = Keeper::on(world, keeper.around, Farm::default(), &config);
    let rounds = Arc::new(AtomicUsize::new(0));
    let counted = rounds.clone();
    keeper.disk.set_look(Box::new(move |what| {
        counted.fetch_add(usize::from(what == "list archive/"), Ordering::SeqCst);
        Ok(())
    }));
    // Each look is a part of the work, and a quarter of an hour.
    let mut looks = 0;
    while keeper.files("A") != ["00000000000000000001.jsonl.zst"] {
        keeper.pass(15 * MINUTE);
        looks += 1;
        let now = keeper.around.now().mono;
        assert!(keeper.vault.next_deadline(now).is_none_or(|at| at > now), "it is looked at without a pause");
        assert!(looks < 100, "{:?}", keeper.files("A"));
    }
    assert!(looks > 5, "the work is too short: {looks} looks");
    let before = rounds.load(Ordering::SeqCst);
    for _ in 0..50 {
        keeper.pass(Duration::ZERO);
    }
    assert!(rounds.load(Ordering::SeqCst) - before <= 1, "rounds have queued up");
}

fn plain(number: u64) -> String {
    format!("{number:020}.jsonl")
}

fn packed(number: u64) -> String {
    format!("{number:020}.jsonl.zst")
}

#[test]
fn nothing_is_removed_for_its_age_while_the_clock_may_be_wrong() {
    let keep = VaultConfig::default();
    let config = VaultConfig { retain_age: 30 * DAY, ..keep.clone() };
    let mut keeper = Keeper::new(&keep);
    keeper.archive("A", 1, 100);
    keeper.around.pass(40 * DAY);
    keeper.archive("A", 2, 100);
    // A start with the clock a year ahead, put right after five minutes.
    let ahead = |keeper: &Keeper, days: i64| {
        keeper.around.ahead_micros.store(days * 24 * 3600 * 1_000_000, Ordering::SeqCst);
    };
    ahead(&keeper, 365);
    let mut keeper = keeper.next(&config);
    for _ in 0..5 {
        keeper.pass(MINUTE);
    }
    assert_eq!(keeper.files("A"), [plain(1), plain(2)]);
    ahead(&keeper, 0);
    keeper.rounds();
    keeper.rounds();
    assert_eq!(keeper.files("A"), [plain(2)], "what is really too old goes, once the clock has been steady");
    // Set ahead while the daemon runs, and put right before the next round but one.
    ahead(&keeper, 365);
    for _ in 0..9 {
        keeper.pass(MINUTE);
    }
    ahead(&keeper, 0);
    keeper.rounds();
    // Set back: nothing is as old as that.
    ahead(&keeper, -3650);
    keeper.rounds();
    keeper.rounds();
    assert_eq!(keeper.files("A"), [plain(2)]);
}

#[test]
fn what_may_be_removed_is_measured_when_it_is_compressed_and_is_as_old_as_its_records() {
    let keep = VaultConfig::default();
    let mut keeper = Keeper::new(&keep);
    for seq in 1..=4 {
        keeper.archive("A", seq, 60_000);
        keeper.around.pass(10 * DAY);
    }
    let before = keeper.archive_bytes();
    // Together they fit, once they are compressed.
    let config = VaultConfig { archive_compress: 1, retain_bytes: before / 10, ..keep.clone() };
    let mut keeper = keeper.next(&config);
    keeper.rounds();
    assert_eq!(keeper.files("A"), [packed(1), packed(2), packed(3), packed(4)]);
    keeper.check("compressed");
    // One more, archived before the older ones were compressed, is the youngest all the same.
    let now = keeper.archive_bytes();
    let mut keeper = keeper.next(&VaultConfig { retain_bytes: now - LEAST_PACKED_BYTES, ..config.clone() });
    keeper.rounds();
    assert_eq!(keeper.files("A"), [packed(2), packed(3), packed(4)]);
    // 40, 30, 20 and 10 days ago.
    let mut keeper = keeper.next(&VaultConfig { retain_age: 25 * DAY, ..config });
    keeper.rounds();
    assert_eq!(keeper.files("A"), [packed(3), packed(4)]);
}

#[test]
fn what_lotlogd_has_not_named_is_not_touched_and_does_not_keep_the_rest() {
    let keep = VaultConfig::default();
    let mut keeper = Keeper::new(&keep);
    for seq in 1..=3 {
        keeper.archive("A", seq, 100);
    }
    keeper.archive("B", 1, 100);
    let foreign = ["notes.jsonl.zst.new", "notes.jsonl", "1.jsonl", "00000000000000000001.jsonl.bak"];
    let put = |keeper: &Keeper, dir: &str, name: &str| {
        keeper.with_world(|world| world.put(Dir::Archive, &format!("{dir}/{name}"), b"mine\n"));
    };
    for name in foreign {
        put(&keeper, "lot=A", name);
    }
    keeper.with_world(|world| {
        world.make_dir(Dir::Archive, "lot=%zz");
        // The oldest of all, by its name.
        world.make_dir(Dir::Archive, "lot=A/00000000000000000000.jsonl");
    });
    put(&keeper, "lot=%zz", &plain(1));
    put(&keeper, "lot=%zz", "00000000000000000001.jsonl.zst.new");
    put(&keeper, "lot=B", "00000000000000000001.jsonl.zst.new");
    keeper.around.pass(40 * DAY);
    let config = VaultConfig { archive_compress: 1, retain_age: 30 * DAY, retain_bytes: 1, ..keep };
    let mut keeper = keeper.next(&config);
    // Two of them cannot be removed for a while.
    keeper.disk.set_hook(Box::new(|_, what| {
        let kept = what.starts_with("unlink archive/lot=A/00000000000000000002");
        if kept && what.ends_with(".zst") { Err(io::ErrorKind::PermissionDenied.into()) } else { Ok(()) }
    }));
    keeper.rounds();
    let mut left = foreign.map(String::from).to_vec();
    left.extend([packed(2), "00000000000000000000.jsonl".to_owned()]);
    left.sort();
    let mut found = keeper.files("A");
    found.sort();
    assert_eq!(found, left);
    assert_eq!(keeper.files("B"), Vec::<String>::new(), "what a crash has left unfinished goes");
    assert_eq!(keeper.files("%zz"), [plain(1), "00000000000000000001.jsonl.zst.new".to_owned()]);
}

#[test]
fn of_a_file_that_a_crash_left_twice_the_plain_one_is_removed_last() {
    let keep = VaultConfig::default();
    let mut keeper = Keeper::new(&keep);
    keeper.archive("A", 1, 100);
    keeper.with_world(|world| world.put(Dir::Archive, &format!("lot=A/{}", packed(1)), b"not finished"));
    keeper.around.pass(40 * DAY);
    let mut keeper = keeper.next(&VaultConfig { retain_age: 30 * DAY, ..keep });
    let removed = Arc::new(Mutex::new(Vec::new()));
    let note = removed.clone();
    keeper.disk.set_hook(Box::new(move |_, what| {
        note.lock().unwrap().extend(what.strip_prefix("unlink archive/lot=A/").map(str::to_owned));
        Ok(())
    }));
    keeper.rounds();
    assert_eq!(*removed.lock().unwrap(), [packed(1), plain(1)]);
}

#[test]
fn nothing_is_removed_of_a_lot_that_is_being_sealed() {
    let keep = VaultConfig::default();
    let mut keeper = Keeper::new(&keep);
    for lot in ["A", "B"] {
        for seq in 1..=3 {
            keeper.archive(lot, seq, 100);
        }
    }
    let mut keeper = keeper.next(&VaultConfig { retain_bytes: 1, ..keep });
    // The round has looked at A, and takes its files one after the other; meanwhile it is sealed.
    let mut ticks = 0;
    while keeper.files("A").len() == 3 {
        keeper.pass(Duration::ZERO);
        ticks += 1;
        assert!(ticks < 200, "nothing is removed");
    }
    let id = LotId::new("A", "\"A\"").unwrap();
    let order = Submission::Order(Order::Seal(id), unread());
    commit(&mut keeper.vault, vec![order], &keeper.around).unwrap();
    keeper.rounds();
    let text = keeper.with_world(|world| world.read(Dir::Lots, "A.sealed")).expect("a footer");
    let footer: lotlog::seal::Footer = serde_json::from_slice(&text).unwrap();
    let names: Vec<String> = footer.files.iter().map(|part| part.file.clone()).collect();
    let there: Vec<String> = keeper.files("A").iter().map(|name| format!("archive/lot=A/{name}")).collect();
    assert!(names == there && !there.is_empty(), "{names:?} {there:?}");
    assert_eq!(keeper.files("B"), Vec::<String>::new());
}

/// A life that compresses while producers go on; to its end; whether it was stopped before.
fn compressing_life(
    seed: u64,
    hook: impl Fn(&World, &str, &Farm) -> io::Result<()> + Send + 'static,
) -> (Keeper, bool) {
    let mut random = Random(seed);
    let config = VaultConfig { archive_compress: 1, rotate_bytes: 4000, ..config() };
    let mut keeper = Keeper::new(&config);
    let farm = keeper.farm.clone();
    keeper.disk.set_hook(Box::new(move |world, what| hook(world, what, &farm)));
    let mut seqs = [0; 3];
    for _ in 0..40 {
        let producer = random.below(3);
        seqs[producer] += 1;
        let lot = format!("lot-{}", random.below(3));
        let batch = keeper.farm.send(
            &lot,
            &format!("p{producer}"),
            seqs[producer],
            if random.chance(60) { Durability::Synced } else { Durability::Written },
            1 + random.below(3),
            1500,
        );
        if keeper.vault.commit_group(vec![batch], keeper.around.now()).is_err() {
            return (keeper, true);
        }
        for _ in 0..random.below(40) {
            keeper.around.pass(Duration::from_millis(300));
            if keeper.vault.tick(keeper.around.now()).is_err() {
                return (keeper, true);
            }
        }
    }
    (keeper, false)
}

#[test]
fn cut_at_any_storage_call_of_a_compression_each_record_stays_where_a_reader_finds_it_once() {
    let (mut cuts, mut met) = (0, 0);
    for seed in crate::crash::schedules(4) {
        let images: Arc<Mutex<Vec<(World, Ledger, String)>>> = Arc::default();
        let taken = images.clone();
        drop(compressing_life(seed, move |world, what, farm| {
            if what.contains(" archive/") {
                taken.lock().unwrap().push((world.clone(), farm.hear(), what.to_owned()));
            }
            Ok(())
        }));
        let images = std::mem::take(&mut *images.lock().unwrap());
        for (at, (world, ledger, what)) in images.iter().enumerate() {
            let mut random = Random(seed * 1000 + at as u64);
            let power = random.chance(70);
            let after = if power { world.power_cut(&mut random) } else { world.kill(&mut random) };
            let note = format!("LOTLOG_SEED={seed}, image {at}, cut at `{what}`");
            let around = Around::new();
            around.pass(100 * DAY);
            let found = lots(&after);
            if !power {
                let verdict = Verdict { vanished: vanished(&lots(world), &found), ..Verdict::default() };
                assert_eq!(verdict, Verdict::default(), "{note}: before the start");
            }
            let config = VaultConfig { archive_compress: 1, ..config() };
            let mut keeper = Keeper::on(after, around, Farm::default(), &config);
            keeper.rounds();
            let found = lots(&keeper.disk.world.lock().unwrap());
            let mut verdict = judge(&found, ledger, power);
            verdict.vanished = vanished(&lots(world), &found);
            assert_eq!(verdict, Verdict::default(), "{note}");
            let names: Vec<String> = (0..3).flat_map(|n| keeper.files(&format!("lot-{n}"))).collect();
            assert!(names.iter().all(|name| name.ends_with(".jsonl.zst")), "{note}: {names:?}");
            met += names.len();
            cuts += 1;
        }
    }
    println!("{cuts} cuts, {met} compressed files met");
    assert!(cuts > 100 && met > 100, "{cuts} cuts, {met} files");
}

#[test]
fn a_call_of_a_compression_that_fails_stops_the_daemon_only_where_a_directory_is_not_synced() {
    let (mut runs, mut stops) = (0, 0);
    // EIO, ENOSPC, EROFS, EDQUOT, EPERM
    for errno in [5, 28, 30, 122, 1] {
        for n in 1.. {
            let hit: Arc<Mutex<(usize, Option<String>)>> = Arc::default();
            let seen = hit.clone();
            let (mut keeper, stopped) = compressing_life(7, move |_, what, _| {
                let of_compression = what.contains(" archive/")
                    && (what.ends_with(".zst.new") || what.ends_with(".zst") || what.starts_with("unlink"))
                    || what.starts_with("sync archive/lot=");
                let mut seen = seen.lock().unwrap();
                seen.0 += usize::from(of_compression);
                if !of_compression || seen.0 != n {
                    return Ok(());
                }
                seen.1 = Some(what.to_owned());
                Err(io::Error::from_raw_os_error(errno))
            });
            keeper.disk.clear_hook();
            let Some(what) = hit.lock().unwrap().1.clone() else { break };
            let note = format!("call {n} (`{what}`) fails with error {errno}");
            runs += 1;
            let is_directory = what.starts_with("sync") && what.ends_with('/');
            assert_eq!(stopped, is_directory, "{note}: stopped or not");
            if stopped {
                stops += 1;
                let config = VaultConfig { archive_compress: 1, ..config() };
                keeper = keeper.next(&config);
            }
            keeper.rounds();
            keeper.check(&note);
            let names: Vec<String> = (0..3).flat_map(|n| keeper.files(&format!("lot-{n}"))).collect();
            assert!(names.iter().all(|name| name.ends_with(".jsonl.zst")), "{note}: {names:?}");
        }
    }
    println!("{runs} runs, {stops} stops");
    assert!(runs > 50 && stops > 5, "{runs} runs, {stops} stops");
}

#[test]
fn a_checkpoint_has_lot_files_written_in_pieces_before_it_syncs_them() {
    let config = VaultConfig { segment_bytes: 8 << 20, ..VaultConfig::default() };
    let mut keeper = Keeper::new(&config);
    let said: Arc<Mutex<Vec<String>>> = Arc::default();
    let (looks, calls) = (said.clone(), said.clone());
    keeper.disk.set_look(Box::new(move |what| {
        if what.starts_with("begin lots/") {
            looks.lock().unwrap().push(what.to_owned());
        }
        Ok(())
    }));
    keeper.disk.set_hook(Box::new(move |_, what| {
        if what.starts_with("sync lots/") {
            calls.lock().unwrap().push(what.to_owned());
        }
        Ok(())
    }));
    let mut before = 0;
    for seq in 1..=2 {
        let batch = |lot| keeper.farm.send(lot, lot, seq, Durability::Synced, 1, 1 << 20);
        let group = ["A", "B"].map(batch).into();
        commit(&mut keeper.vault, group, &keeper.around).unwrap();
        let length = keeper.with_world(|world| world.read(Dir::Lots, "A.jsonl")).unwrap().len() as u64;
        for _ in 0..200 {
            keeper.pass(MINUTE);
        }
        let said = std::mem::take(&mut *said.lock().unwrap());
        let (pieces, syncs): (Vec<_>, Vec<_>) = said.iter().partition(|what| what.starts_with("begin"));
        assert!(said[..pieces.len()].iter().all(|what| what.starts_with("begin")), "{said:?}");
        assert!(syncs.iter().any(|what| *what == "sync lots/A.jsonl"), "{said:?}");
        // All that came since the last checkpoint, in order, a little at a time.
        let mut at = before;
        for piece in pieces.iter().filter_map(|what| what.strip_prefix("begin lots/A.jsonl ")) {
            let (from, bytes) = piece.split_once(' ').unwrap();
            let (from, bytes): (u64, u64) = (from.parse().unwrap(), bytes.parse().unwrap());
            assert!(from == at && bytes <= 256 << 10, "{said:?}");
            at += bytes;
        }
        assert_eq!(at, length, "{said:?}");
        before = length;
    }
}
