//! A vault on a disk in memory, a producer with a ledger, and the judge that compares the two.

pub mod disk;
mod inode;
#[path = "../../common/judge.rs"]
mod judge;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use lotlog::batch::{Batch, Body, Durability, LotId, Outcome, STAMP_BYTES, SessionId};
use lotlog::config::VaultConfig;
use lotlog::lane::Lane;
use lotlog::metrics::Metrics;
use lotlog::queue::{Mailbox, Submission, Ticket};
use lotlog::recovery::OpenError;
pub use lotlog::recovery::Surroundings;
use lotlog::storage::{Dir, Storage, StorageError};
use lotlog::vault::{Now, Vault, VaultError};

pub use disk::{Random, SimDisk, World};
use judge::{After, Answer, Entry, whole_lines};
pub use judge::{Lots, Verdict, vanished};

/// The start of the tests' time, 2026-01-01.
const EPOCH_MICROS: i64 = 1_767_225_600_000_000;

/// Inline lanes and a clock that the test moves.
#[derive(Clone)]
pub struct Around {
    pub start: Instant,
    pub passed: Arc<Mutex<Duration>>,
    /// By how much the wall clock is ahead of the time that passed, in microseconds.
    pub ahead_micros: Arc<AtomicI64>,
}

impl Around {
    pub fn new() -> Around {
        Around { start: Instant::now(), passed: Arc::default(), ahead_micros: Arc::default() }
    }

    pub fn pass(&self, time: Duration) {
        *self.passed.lock().unwrap() += time;
    }
}

impl Surroundings for Around {
    fn lane(&self, _name: &str, storage: &Storage) -> std::io::Result<Lane> {
        Ok(Lane::inline(storage.clone()))
    }

    fn wait_for_space(&self, _why: &StorageError) -> bool {
        false
    }

    fn now(&self) -> Now {
        let passed = *self.passed.lock().unwrap();
        let wall_micros = EPOCH_MICROS + passed.as_micros() as i64 + self.ahead_micros.load(Ordering::SeqCst);
        Now { wall_micros, mono: self.start + passed }
    }
}

pub fn config() -> VaultConfig {
    VaultConfig { segment_bytes: 256 << 10, max_open_lots: 8, ..VaultConfig::default() }
}

pub fn open(disk: &SimDisk, around: &Around, config: &VaultConfig) -> Result<Vault, OpenError> {
    let metrics = Arc::new(Metrics::default());
    let storage = Storage::new(Arc::new(disk.clone()), metrics.clone());
    Vault::recover(storage, config, metrics, around)
}

/// Commits a group and waits for what is under way.
pub fn commit(vault: &mut Vault, group: Vec<Submission>, around: &Around) -> Result<(), VaultError> {
    vault.commit_group(group, around.now())?;
    while vault.is_busy() {
        vault.tick(around.now())?;
    }
    Ok(())
}

/// A batch whose items say who they are: `session/seq/item`.
pub fn batch(lot: &str, session: &str, seq: u64, ack: Durability, items: usize, pad: usize) -> Batch {
    let mut text = Vec::new();
    for item in 0..items {
        let pad = "x".repeat(pad);
        text.extend_from_slice(
            format!("\"sku_local\":\"{session}/{seq}/{item}\",\"pad\":\"{pad}\"\n").as_bytes(),
        );
    }
    let blank = "0".repeat(STAMP_BYTES);
    let head = format!("\"of\":{items},\"lot_id\":\"{lot}\",\"timestamp\":\"");
    let middle = "\",\"context\":{\"timestamp\":\"";
    let suffix = format!("{head}{blank}{middle}{blank}\"}}}}\n");
    let stamp_at = [head.len(), head.len() + STAMP_BYTES + middle.len()];
    Batch {
        lot: LotId::new(lot, &format!("\"{lot}\"")).unwrap(),
        session: Some((SessionId::new(session).unwrap(), seq)),
        ack,
        records: items as u32,
        lines_bytes: (text.len() + items + items * suffix.len()) as u64,
        content_hash: u128::from(seq) << 64 | items as u128,
        body: Body { items: text, suffix: suffix.into_bytes(), stamp_at },
    }
}

/// One batch that was sent.
#[derive(Clone, Debug, PartialEq)]
pub struct Sent {
    pub lot: String,
    pub session: String,
    pub seq: u64,
    pub ack: Durability,
    pub items: usize,
    pub pad: usize,
    pub answer: Option<Outcome>,
}

/// What a farm of producers sent, and what they were told.
#[derive(Clone, Default)]
pub struct Ledger {
    pub sent: Vec<Sent>,
}

/// The producers: their ledger and the mailbox their answers arrive in.
#[derive(Clone, Default)]
pub struct Farm {
    pub ledger: Arc<Mutex<Ledger>>,
    pub mailbox: Arc<Mailbox>,
}

impl Farm {
    pub fn send(
        &self,
        lot: &str,
        session: &str,
        seq: u64,
        ack: Durability,
        items: usize,
        pad: usize,
    ) -> Submission {
        let mut ledger = self.ledger.lock().unwrap();
        let (lot, session) = (lot.to_owned(), session.to_owned());
        let batch = batch(&lot, &session, seq, ack, items, pad);
        ledger.sent.push(Sent { lot, session, seq, ack, items, pad, answer: None });
        Submission::Batch(batch, self.mailbox.ticket(ledger.sent.len() as u64 - 1))
    }

    /// Takes in the answers that have arrived; gives the ledger as it now is.
    pub fn hear(&self) -> Ledger {
        let mut answers = Vec::new();
        self.mailbox.collect(&mut answers);
        let mut ledger = self.ledger.lock().unwrap();
        for (slot, outcome) in answers {
            if let Some(sent) = ledger.sent.get_mut(slot as usize) {
                assert_eq!(sent.answer, None, "answered twice: {sent:?}");
                sent.answer = Some(outcome);
            }
        }
        ledger.clone()
    }
}

pub fn unread() -> Ticket {
    Ticket::unread()
}

/// The lots as a reader finds them, whole lines only: what is in the archive, then what is in `lots/`.
pub fn lots(world: &World) -> Lots {
    let mut lots = Lots::new();
    for dir in world.names(Dir::Archive) {
        let files = world.names_below(Dir::Archive, Some(&dir)).unwrap();
        let numbers: BTreeSet<&str> = files.iter().filter_map(|name| name.get(..20)).collect();
        let read = |number: &&str| {
            let plain = world.read(Dir::Archive, &format!("{dir}/{number}.jsonl"));
            plain.or_else(|| {
                let packed = world.read(Dir::Archive, &format!("{dir}/{number}.jsonl.zst"))?;
                Some(
                    zstd::decode_all(&packed[..])
                        .expect("a compressed file is whole once the plain one is gone"),
                )
            })
        };
        let bytes: Vec<u8> = numbers.iter().filter_map(read).flatten().collect();
        if !numbers.is_empty() {
            lots.insert(dir.strip_prefix("lot=").unwrap().to_owned(), bytes);
        }
    }
    for name in world.names(Dir::Lots) {
        if let Some(stem) = name.strip_suffix(".jsonl") {
            let lines = whole_lines(world.read(Dir::Lots, &name).unwrap());
            lots.entry(stem.to_owned()).or_default().extend(lines);
        }
    }
    lots
}

/// The numbers of the batches of each session that stand in lot files.
pub fn stored(lots: &Lots) -> BTreeMap<String, BTreeSet<u64>> {
    let mut stored: BTreeMap<String, BTreeSet<u64>> = BTreeMap::new();
    for line in lots.values().flat_map(|bytes| bytes.split(|b| *b == b'\n')) {
        let text = std::str::from_utf8(line).unwrap_or_default();
        let Some(name) = text.strip_prefix("{\"sku_local\":\"").and_then(|t| t.split('"').next()) else {
            continue;
        };
        let mut parts = name.split('/');
        if let (Some(session), Some(seq), Some("0")) = (parts.next(), parts.next(), parts.next()) {
            stored.entry(session.to_owned()).or_default().insert(seq.parse().unwrap());
        }
    }
    stored
}

/// The ledger as the judge reads it. A number that was sent again under the same content is one batch: it has
/// the best answer that any of its sendings got.
fn entries(ledger: &Ledger) -> Vec<Entry> {
    let mut entries: Vec<Entry> = Vec::new();
    let mut known: HashMap<(&str, u64), usize> = HashMap::new();
    for sent in &ledger.sent {
        let answer = match &sent.answer {
            Some(Outcome::Stored { durability, .. } | Outcome::Duplicate { durability, .. }) => {
                if *durability == Durability::Synced { Answer::Synced } else { Answer::Written }
            }
            Some(Outcome::Refused(_)) => Answer::Refused,
            _ => Answer::Unknown,
        };
        let at = *known.entry((&sent.session, sent.seq)).or_insert(entries.len());
        match entries.get_mut(at) {
            Some(known) => {
                let weight = |answer| {
                    [Answer::Refused, Answer::Unknown, Answer::Written, Answer::Synced]
                        .iter()
                        .position(|a| *a == answer)
                };
                if weight(answer) > weight(known.answer) {
                    known.answer = answer;
                }
            }
            None => entries.push(Entry {
                lot: sent.lot.clone(),
                session: sent.session.clone(),
                batch: sent.seq,
                seq: sent.seq,
                items: sent.items,
                pad: sent.pad,
                answer,
            }),
        }
    }
    entries
}

/// The record that an item of [`batch`] must have become.
fn record(entry: &Entry, item: usize, stamp: &str) -> String {
    let Entry { lot, session, seq, items, pad, .. } = entry;
    format!(
        concat!(
            r#"{{"sku_local":"{}/{}/{}","pad":"{}","of":{},"lot_id":"{}","timestamp":"{}","#,
            r#""context":{{"timestamp":"{}"}}}}"#
        ),
        session,
        seq,
        item,
        "x".repeat(*pad),
        items,
        lot,
        stamp,
        stamp
    )
}

/// Judges lot files against a ledger. `written_may_be_lost`: after a power cut.
#[track_caller]
pub fn judge(lots: &Lots, ledger: &Ledger, written_may_be_lost: bool) -> Verdict {
    judge::judge(lots, &entries(ledger), &record, after(written_may_be_lost))
}

/// Puts the judge itself on trial.
#[track_caller]
pub fn judge_the_judge(lots: &Lots, ledger: &Ledger, written_may_be_lost: bool) {
    judge::judge_the_judge(lots, &entries(ledger), &record, after(written_may_be_lost));
}

fn after(written_may_be_lost: bool) -> After {
    if written_may_be_lost { After::PowerCut } else { After::Death }
}
