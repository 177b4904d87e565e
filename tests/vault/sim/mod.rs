//! A vault on a disk in memory, a producer with a ledger, and the judge that compares the two.

pub mod disk;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use lotlog::background::Lane;
use lotlog::batch::{Batch, Body, Durability, LotId, Outcome, STAMP_BYTES, SessionId};
use lotlog::config::VaultConfig;
use lotlog::metrics::Metrics;
use lotlog::queue::{Mailbox, Submission, Ticket};
use lotlog::recovery::OpenError;
pub use lotlog::recovery::Surroundings;
use lotlog::storage::{Dir, Storage, StorageError};
use lotlog::vault::{Now, Vault};

pub use disk::{Random, SimDisk, World};

/// The start of the tests' time, 2026-01-01.
const EPOCH_MICROS: i64 = 1_767_225_600_000_000;

/// Inline lanes and a clock that the test moves.
#[derive(Clone)]
pub struct Around {
    pub start: Instant,
    pub passed: Arc<Mutex<Duration>>,
}

impl Around {
    pub fn new() -> Around {
        Around { start: Instant::now(), passed: Arc::default() }
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
        Now { wall_micros: EPOCH_MICROS + passed.as_micros() as i64, mono: self.start + passed }
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

/// The lots as a reader finds them, whole lines only.
pub fn lots(world: &World) -> BTreeMap<String, Vec<u8>> {
    let mut lots = BTreeMap::new();
    for name in world.names(Dir::Lots) {
        if let Some(stem) = name.strip_suffix(".jsonl") {
            let mut bytes = world.read(Dir::Lots, &name).unwrap();
            let end = bytes.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
            bytes.truncate(end);
            lots.insert(stem.to_owned(), bytes);
        }
    }
    lots
}

/// What the judge counted; all must be 0.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    pub lost: usize,
    pub doubled: usize,
    pub partial: usize,
    pub torn: usize,
    pub interleaved: usize,
    pub out_of_order: usize,
    pub phantom: usize,
    pub vanished: usize,
}

/// Judges lot files against a ledger. `written_may_be_lost`: after a power cut.
pub fn judge(lots: &BTreeMap<String, Vec<u8>>, ledger: &Ledger, written_may_be_lost: bool) -> Verdict {
    let mut verdict = Verdict::default();
    let mut found: HashMap<(String, u64), usize> = HashMap::new();
    let sent: HashMap<(String, u64), &Sent> =
        ledger.sent.iter().map(|s| ((s.session.clone(), s.seq), s)).collect();
    for (stem, bytes) in lots {
        let mut open: Option<(String, u64, usize, usize)> = None;
        let mut last_seq: HashMap<String, u64> = HashMap::new();
        let mut last_stamp = String::new();
        for line in bytes.split_inclusive(|b| *b == b'\n') {
            let Ok(record) = serde_json::from_slice::<serde_json::Value>(line) else {
                verdict.torn += 1;
                continue;
            };
            let sku = record["sku_local"].as_str().unwrap_or_default();
            let stamp = record["timestamp"].as_str().unwrap_or_default().to_owned();
            let mut parts = sku.split('/');
            let key = (|| {
                Some((
                    parts.next()?.to_owned(),
                    parts.next()?.parse::<u64>().ok()?,
                    parts.next()?.parse::<usize>().ok()?,
                ))
            })();
            let Some((session, seq, item)) = key else {
                verdict.phantom += 1;
                continue;
            };
            let of = record["of"].as_u64().unwrap_or(0) as usize;
            match sent.get(&(session.clone(), seq)) {
                Some(s) if s.lot == *stem && s.items == of => {}
                _ => verdict.phantom += 1,
            }
            match open.take() {
                None if item == 0 => {}
                Some((s, q, i, _)) if s == session && q == seq && i + 1 == item => {}
                Some(_) => verdict.interleaved += 1,
                None => verdict.partial += 1,
            }
            if item == 0 {
                if last_seq.get(&session).is_some_and(|last| *last >= seq) || stamp <= last_stamp {
                    verdict.out_of_order += 1;
                }
                last_seq.insert(session.clone(), seq);
                last_stamp = stamp;
            }
            if item + 1 == of {
                *found.entry((session, seq)).or_default() += 1;
            } else {
                open = Some((session, seq, item, of));
            }
        }
        if open.is_some() {
            verdict.partial += 1;
        }
    }
    verdict.doubled = found.values().filter(|n| **n > 1).count();
    for s in &ledger.sent {
        let durable = match &s.answer {
            Some(Outcome::Stored { durability, .. } | Outcome::Duplicate { durability, .. }) => {
                *durability == Durability::Synced || !written_may_be_lost
            }
            Some(Outcome::Refused(_)) => {
                // Refused means not stored, unless it was stored by another sending of the same number.
                let stored_otherwise = ledger.sent.iter().any(|o| {
                    o.session == s.session && o.seq == s.seq && !matches!(o.answer, Some(Outcome::Refused(_)))
                });
                if found.contains_key(&(s.session.clone(), s.seq)) && !stored_otherwise {
                    verdict.phantom += 1;
                }
                false
            }
            _ => false,
        };
        if durable && !found.contains_key(&(s.session.clone(), s.seq)) {
            verdict.lost += 1;
        }
    }
    verdict
}

/// Lots of which something that a reader had seen is gone.
pub fn vanished(before: &BTreeMap<String, Vec<u8>>, after: &BTreeMap<String, Vec<u8>>) -> usize {
    before.iter().filter(|(stem, bytes)| !after.get(*stem).is_some_and(|now| now.starts_with(bytes))).count()
}
