//! DATA directories as a real vault leaves them, in several shapes, and what must hold of each of them after any
//! damage: a start with everything that was synced, or a refusal that names the place and has changed nothing.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use lotlog::batch::Durability::{Synced, Written};
use lotlog::batch::Outcome;
use lotlog::chain::{self, Decision};
use lotlog::config::VaultConfig;
use lotlog::frame::{Content, Header, HeaderCheck, Position, segment_name, segment_number};
use lotlog::recovery::OpenError;
use lotlog::storage::Dir;
use lotlog::vault::Vault;

use crate::sim::*;

/// All directories of DATA.
pub const DIRS: [Dir; 4] = [Dir::Data, Dir::Lots, Dir::Journal, Dir::Quarantine];

/// The smallest segments that hold a checkpoint without growing.
pub fn small() -> VaultConfig {
    VaultConfig { segment_bytes: 136 << 10, ..config() }
}

/// A frame of the undamaged journal.
#[derive(Clone, Debug)]
pub struct Known {
    pub segment: u64,
    pub offset: usize,
    pub length: usize,
    pub claim: Position,
    /// Session and number, if it is a batch.
    pub batch: Option<(String, u64)>,
    /// Its lot, and where its lines begin there.
    pub lot: Option<(String, u64)>,
    /// Where the checkpoint begins that ends here.
    pub checkpoint: Option<Position>,
}

impl Known {
    fn place(&self) -> Position {
        Position { segment: self.segment, offset: self.offset as u64 }
    }
}

/// A directory, what its producers know, and what is in its journal.
#[derive(Clone)]
pub struct Shape {
    pub name: &'static str,
    pub world: World,
    pub ledger: Ledger,
    pub frames: Vec<Known>,
    /// The segments' identities.
    pub uuids: HashSet<u128>,
    /// Where redo begins in each lot that has batches to redo.
    pub bases: BTreeMap<String, usize>,
    /// The lots after a recovery of the undamaged directory.
    pub whole: Lots,
}

/// Everything that a directory holds.
pub type Files = BTreeMap<(usize, String), Vec<u8>>;

pub fn everything(world: &World) -> Files {
    let mut files = Files::new();
    for (at, dir) in DIRS.into_iter().enumerate() {
        for name in world.names(dir) {
            let bytes = world.read(dir, &name).unwrap();
            files.insert((at, name), bytes);
        }
    }
    files
}

/// Numbers of the segments.
pub fn segments(world: &World) -> Vec<u64> {
    world.names(Dir::Journal).iter().filter_map(|name| segment_number(name)).collect()
}

fn decision(world: &World, frames: &mut Vec<Known>) -> Decision {
    let mut scanned = Vec::new();
    for number in segments(world) {
        let bytes = world.read(Dir::Journal, &segment_name(number)).unwrap();
        let from = frames.len();
        let seen = chain::scan(number, &bytes, bytes.len() as u64, |at, frame| {
            let batch = match &frame.content {
                Content::Batch(batch) | Content::Pending { batch, .. } => Some(batch),
                _ => None,
            };
            frames.push(Known {
                segment: number,
                offset: at.offset as usize,
                length: 0,
                claim: frame.synced,
                batch: batch.map(|b| (b.session.to_owned(), b.seq)),
                lot: batch.map(|b| (b.lot.to_owned(), b.lot_offset)),
                checkpoint: match &frame.content {
                    Content::CheckpointEnd { begin, .. } => Some(*begin),
                    _ => None,
                },
            });
        });
        let mut end = seen.runs.last().map_or(0, |run| run.end as usize);
        for known in frames[from..].iter_mut().rev() {
            known.length = end - known.offset;
            end = known.offset;
        }
        scanned.push(seen);
    }
    chain::decide(&scanned, !lots(world).is_empty())
}

fn uuid(world: &World, number: u64) -> Option<u128> {
    match Header::decode(&world.read(Dir::Journal, &segment_name(number))?) {
        HeaderCheck::Valid(header) => Some(header.uuid),
        _ => None,
    }
}

/// The identity of the segment that recovery starts from.
fn chain(world: &World) -> Option<u128> {
    match decision(world, &mut Vec::new()) {
        Decision::Redo { checkpoint, .. } => uuid(world, checkpoint.begin.segment),
        _ => None,
    }
}

impl Shape {
    /// `whole`: from this undamaged directory nothing acknowledged is lost.
    fn new(name: &'static str, world: World, mut ledger: Ledger) -> Shape {
        let mut frames = Vec::new();
        let mut bases = BTreeMap::new();
        match decision(&world, &mut frames) {
            Decision::Redo { checkpoint, .. } => {
                for known in frames.iter().filter(|known| known.place() >= checkpoint.begin) {
                    if let Some((lot, offset)) = &known.lot {
                        bases.entry(lot.clone()).or_insert(*offset as usize);
                    }
                }
            }
            other => panic!("{name}: {other:?}"),
        }
        let uuids = segments(&world).into_iter().filter_map(|number| uuid(&world, number)).collect();
        let disk = SimDisk::new(world.clone());
        drop(open(&disk, &Around::new(), &small()).unwrap_or_else(|e| panic!("{name}: {e}")));
        let whole = lots(&disk.world.lock().unwrap());
        // What a power cut took was promised to nobody.
        let there = present(&whole);
        for sent in &mut ledger.sent {
            if sent.ack == Written && !there.contains(&(sent.session.clone(), sent.seq)) {
                sent.answer = None;
            }
        }
        assert_eq!(judge(&whole, &ledger, true), Verdict::default(), "{name}, undamaged");
        Shape { name, world, ledger, frames, uuids, bases, whole }
    }
}

/// The batches that are in the lots, by the first line of each.
fn present(found: &Lots) -> HashSet<(String, u64)> {
    let mut there = HashSet::new();
    for line in found.values().flat_map(|bytes| bytes.split(|b| *b == b'\n')) {
        let Ok(record) = serde_json::from_slice::<serde_json::Value>(line) else { continue };
        let parts = record["sku_local"].as_str().map(|id| id.split('/').collect::<Vec<_>>());
        if let Some([session, seq, "0"]) = parts.as_deref() {
            there.insert(((*session).to_owned(), seq.parse().unwrap_or(0)));
        }
    }
    there
}

struct Rig {
    disk: SimDisk,
    around: Around,
    farm: Farm,
    vault: Vault,
}

impl Rig {
    fn on(world: World, farm: Farm) -> Rig {
        let (disk, around) = (SimDisk::new(world), Around::new());
        around.pass(Duration::from_secs(1000));
        let vault = open(&disk, &around, &small()).unwrap();
        Rig { disk, around, farm, vault }
    }

    fn send(&mut self, lot: &str, session: &str, seq: u64, items: usize, pad: usize) {
        let ack = if seq.is_multiple_of(4) { Written } else { Synced };
        let submission = self.farm.send(lot, session, seq, ack, items, pad);
        commit(&mut self.vault, vec![submission], &self.around).unwrap();
        self.around.pass(Duration::from_millis(10));
    }

    fn tick(&mut self, times: usize) {
        for _ in 0..times {
            self.around.pass(Duration::from_millis(300));
            self.vault.tick(self.around.now()).unwrap();
        }
    }

    /// Lets a checkpoint come due and end.
    fn checkpoint(&mut self) {
        self.around.pass(Duration::from_secs(31));
        self.tick(30);
    }

    fn world(&self) -> World {
        self.disk.world.lock().unwrap().clone()
    }

    /// The world when a storage call of this name comes for the first time, while `run` runs.
    fn world_at(&mut self, call: &'static str, run: impl FnOnce(&mut Rig)) -> (World, Ledger) {
        let image = Arc::<Mutex<Option<(World, Ledger)>>>::default();
        let (taken, farm) = (image.clone(), self.farm.clone());
        self.disk.set_hook(Box::new(move |world, what| {
            let mut taken = taken.lock().unwrap();
            if what.starts_with(call) && taken.is_none() {
                *taken = Some((world.clone(), farm.hear()));
            }
            Ok(())
        }));
        run(self);
        self.disk.clear_hook();
        image.lock().unwrap().take().unwrap_or_else(|| panic!("`{call}` did not come"))
    }
}

/// The directory as recovery leaves it at the first storage call of this name.
fn recovery_at(world: World, call: &'static str) -> World {
    let (disk, image) = (SimDisk::new(world), Arc::<Mutex<Option<World>>>::default());
    let taken = image.clone();
    disk.set_hook(Box::new(move |world, what| {
        if what.starts_with(call) {
            taken.lock().unwrap().get_or_insert_with(|| world.clone());
        }
        Ok(())
    }));
    drop(open(&disk, &Around::new(), &small()).unwrap());
    image.lock().unwrap().take().unwrap_or_else(|| panic!("`{call}` did not come in recovery"))
}

/// Two sessions over three lots, from `from` on.
fn work(rig: &mut Rig, from: u64, count: u64, pad: usize) {
    for seq in from..from + count {
        rig.send(&format!("lot-{}", seq % 3), "a", seq, 2, pad);
        rig.send(&format!("lot-{}", seq % 2), "b", seq, 1, pad);
    }
}

/// The directories that are damaged.
pub fn shapes() -> Vec<Shape> {
    let mut shapes = Vec::new();
    let mut add = |name, world, ledger| shapes.push(Shape::new(name, world, ledger));

    let mut rig = Rig::on(World::new(), Farm::default());
    work(&mut rig, 1, 3, 10);
    let killed = rig.world();
    add("killed, spare segments not yet made", killed.clone(), rig.farm.hear());
    add("after a power cut", killed.power_cut(&mut Random(3)), rig.farm.hear());
    rig.checkpoint();
    work(&mut rig, 4, 3, 10);
    add("two checkpoints, spare segments, redo behind the second", rig.world(), rig.farm.hear());
    let Rig { disk, around, farm, vault } = rig;
    vault.close(around.now()).unwrap();
    let stopped = disk.world.lock().unwrap().clone();
    add("stopped cleanly", stopped.clone(), farm.hear());

    let mut rig = Rig::on(stopped, farm);
    work(&mut rig, 7, 14, 3000);
    let closed = rig.world();
    add("three segments, two of them closed", closed.clone(), rig.farm.hear());
    let begun = recovery_at(closed.clone(), "unlink journal/0");
    add("the new chain begun, the old one not yet removed", begun, rig.farm.hear());
    let half = recovery_at(closed, "sync journal/");
    add("a recovery that had only begun", half, rig.farm.hear());

    let mut rig = Rig::on(World::new(), Farm::default());
    work(&mut rig, 1, 4, 10);
    rig.checkpoint();
    // EFBIG, for this lot alone: its batches stay pending and go into the checkpoint.
    rig.disk.set_hook(Box::new(|_, what| {
        if what.starts_with("write lots/lot-1") { Err(std::io::Error::from_raw_os_error(27)) } else { Ok(()) }
    }));
    work(&mut rig, 5, 3, 10);
    rig.checkpoint();
    rig.send("lot-2", "c", 1, 2, 10);
    rig.disk.clear_hook();
    add("batches pending in the checkpoint", rig.world(), rig.farm.hear());

    let mut rig = Rig::on(World::new(), Farm::default());
    work(&mut rig, 1, 2, 10);
    rig.checkpoint();
    work(&mut rig, 3, 3, 10);
    let (marked, ledger) = rig.world_at("sync lots/", Rig::checkpoint);
    add("lot syncs under way", marked, ledger);
    shapes
}

/// Whether a frame stands as it was written.
fn is_intact(shape: &Shape, damaged: &World, known: &Known) -> bool {
    let name = segment_name(known.segment);
    let range = known.offset..known.offset + known.length;
    let before = shape.world.read(Dir::Journal, &name).unwrap_or_default();
    damaged.read(Dir::Journal, &name).is_some_and(|after| after.get(range.clone()) == before.get(range))
}

/// Where the part of the journal begins that may be taken for a torn tail: at the first frame, from the newest
/// whole checkpoint on, that is not as it was written, if no frame that is says that anything from there on was
/// synced.
fn torn_from(shape: &Shape, damaged: &World) -> Option<Position> {
    let intact: Vec<bool> = shape.frames.iter().map(|known| is_intact(shape, damaged, known)).collect();
    let from = (0..shape.frames.len()).rev().find_map(|end| {
        let begin = shape.frames[end].checkpoint?;
        let begin = shape.frames.iter().position(|known| known.place() == begin)?;
        intact[begin..=end].iter().all(|intact| *intact).then_some(begin)
    })?;
    let hole = (from..shape.frames.len()).find(|at| !intact[*at])?;
    let hole = shape.frames[hole].place();
    let vouched = shape.frames.iter().zip(&intact).any(|(known, intact)| *intact && known.claim > hole);
    (!vouched).then_some(hole)
}

/// What came of a damaged directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Came {
    /// The start was refused, with the place.
    Refused(Position),
    /// Started with everything.
    Whole,
    /// Started without synced batches that nothing left in the journal vouched for: the known limit.
    Limit,
    /// Started from the whole journal of another directory: nothing in DATA could tell.
    Foreign,
}

/// Damage to the journal only: everything is there, or the start is refused, naming the place.
#[track_caller]
pub fn check_journal(shape: &Shape, damaged: &World, what: &str, further: bool) -> Came {
    let note = format!("{}: {what}", shape.name);
    let disk = SimDisk::new(damaged.clone());
    let around = Around::new();
    around.pass(Duration::from_secs(5000));
    let vault = match open(&disk, &around, &small()) {
        Ok(vault) => vault,
        Err(error) => return check_refusal(&disk, damaged, &error, &note),
    };
    let found = lots(&disk.world.lock().unwrap());
    let there = present(&found);
    let mut ledger = shape.ledger.clone();
    if chain(damaged).is_none_or(|uuid| !shape.uuids.contains(&uuid)) {
        return Came::Foreign;
    }
    let torn = torn_from(shape, damaged);
    let mut limit = HashSet::new();
    for sent in &mut ledger.sent {
        let acknowledged = matches!(sent.answer, Some(Outcome::Stored { .. } | Outcome::Duplicate { .. }));
        let id = (sent.session.clone(), sent.seq);
        let frame = shape.frames.iter().rev().find(|known| known.batch.as_ref() == Some(&id));
        let unvouched = frame.zip(torn).is_some_and(|(known, torn)| known.place() >= torn);
        if acknowledged && !there.contains(&id) {
            assert!(unvouched, "{note}: {id:?} is lost: {frame:?}");
            sent.answer = None;
        }
        if acknowledged && unvouched {
            limit.insert(sent.session.clone());
        }
    }
    assert_eq!(judge(&found, &ledger, false), Verdict::default(), "{note}");
    if further {
        goes_on(vault, disk, around, ledger, &limit, &note);
    }
    if limit.is_empty() { Came::Whole } else { Came::Limit }
}

/// A refusal has exit code 65, names file and offset, and leaves the directory as it was.
#[track_caller]
pub fn check_refusal(disk: &SimDisk, before: &World, error: &OpenError, note: &str) -> Came {
    assert_eq!(error.exit_code(), 65, "{note}: {error}");
    let place = match error {
        OpenError::Damaged { at, .. } => *at,
        OpenError::Newer { number, .. } => Position { segment: *number, offset: 8 },
        other => panic!("{note}: {other}"),
    };
    assert!(
        error.to_string().contains(&format!("journal/{}", segment_name(place.segment))),
        "{note}: {error}"
    );
    let after = disk.world.lock().unwrap();
    assert!(everything(&after) == everything(before), "{note}: a refused start has changed something");
    Came::Refused(place)
}

/// After a start everything goes on: old batches are not stored again, new ones are, and so once more. Not for
/// sessions that the limit has met: their batches may stand in a lot without the journal knowing.
#[track_caller]
pub fn goes_on(
    mut vault: Vault,
    disk: SimDisk,
    around: Around,
    ledger: Ledger,
    limit: &HashSet<String>,
    note: &str,
) {
    let mut sent = ledger.sent.clone();
    sent.retain(|sent| !limit.contains(&sent.session));
    let before = present(&lots(&disk.world.lock().unwrap()));
    let farm = Farm { ledger: Arc::new(Mutex::new(ledger)), ..Farm::default() };
    let mut last = BTreeMap::new();
    for sent in &sent {
        let again = farm.send(&sent.lot, &sent.session, sent.seq, Synced, sent.items, sent.pad);
        commit(&mut vault, vec![again], &around).unwrap();
        let answer = farm.hear().sent.last().unwrap().answer.clone();
        let known = before.contains(&(sent.session.clone(), sent.seq));
        let right = match answer {
            Some(Outcome::Duplicate { .. }) => known,
            Some(Outcome::Stored { .. }) => !known,
            _ => false,
        };
        assert!(right, "{note}: {}/{} sent again, {known}: {answer:?}", sent.session, sent.seq);
        last.insert(sent.session.clone(), sent.seq);
    }
    for (session, seq) in last {
        let next = farm.send("lot-0", &session, seq + 1, Synced, 2, 20);
        commit(&mut vault, vec![next], &around).unwrap();
    }
    for _ in 0..3 {
        around.pass(Duration::from_secs(1));
        vault.tick(around.now()).unwrap();
    }
    let heard = farm.hear();
    assert_eq!(
        judge(&lots(&disk.world.lock().unwrap()), &heard, false),
        Verdict::default(),
        "{note}: gone on"
    );
    drop(vault);
    let world = disk.world.lock().unwrap().clone();
    let disk = SimDisk::new(world);
    drop(open(&disk, &around, &small()).unwrap_or_else(|e| panic!("{note}: the second start: {e}")));
    let found = lots(&disk.world.lock().unwrap());
    assert_eq!(judge(&found, &heard, false), Verdict::default(), "{note}: the second start");
}
