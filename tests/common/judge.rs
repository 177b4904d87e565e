//! The judge: producers' ledgers against the lot files, and nothing else. Every proof ends here. Pure.
//!
//! What a batch is known by is its item texts, `"sku_local":"SESSION/BATCH/ITEM"`: a batch's number in its
//! ledger is its own, so a refused batch whose `seq` went to the next one is still told apart from it.

use std::collections::{BTreeMap, HashMap};

/// What a producer was told of a batch, at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Nothing: the connection ended, or the producer did.
    Unknown,
    /// `ok`, durability `synced`.
    Synced,
    /// `ok`, durability `written`.
    Written,
    /// Refused, and not sent again.
    Refused,
    /// Nothing for 10 s, with a daemon there to answer.
    Stuck,
}

/// One batch as its producer knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Stem of the lot's file.
    pub lot: String,
    pub session: String,
    /// Its number in this ledger, from 0 on.
    pub batch: u64,
    /// Its number in its session, from 1 on.
    pub seq: u64,
    pub items: usize,
    /// Length of the filling of each item.
    pub pad: usize,
    pub answer: Answer,
}

/// Lot files by stem.
pub type Lots = BTreeMap<String, Vec<u8>>;

/// The record, without its newline, that this item of a batch must have become.
pub type Expect<'a> = &'a dyn Fn(&Entry, usize, &str) -> String;

/// What the judge counted; all must be 0.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Acknowledged, but not there.
    pub lost: usize,
    /// There more than once.
    pub doubled: usize,
    /// Not all of its lines are there.
    pub partial: usize,
    /// Not a line of JSON, or a last line without an end.
    pub torn: usize,
    /// Another batch stands between its lines.
    pub interleaved: usize,
    /// Behind a later batch of its session, or with a timestamp that is not later than the one before.
    pub out_of_order: usize,
    /// Other bytes than were sent.
    pub altered: usize,
    /// Never sent, sent for another lot, or refused.
    pub phantom: usize,
    /// Seen by a reader, and gone.
    pub vanished: usize,
    /// Never answered.
    pub stuck: usize,
}

/// What may be missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    /// The daemon died, however: nothing acknowledged may be missing.
    Death,
    /// The power went: of each session the last `written` batches may be missing.
    PowerCut,
}

/// Who a line says it is.
fn identity(line: &[u8]) -> Option<(String, u64, usize)> {
    let record: serde_json::Value = serde_json::from_slice(line).ok()?;
    let mut parts = record["sku_local"].as_str()?.rsplitn(3, '/');
    let (item, batch, session) = (parts.next()?, parts.next()?, parts.next()?);
    Some((session.to_owned(), batch.parse().ok()?, item.parse().ok()?))
}

fn stamp(line: &[u8]) -> &str {
    const KEY: &str = "\"timestamp\":\"";
    let text = std::str::from_utf8(line).unwrap_or_default();
    let rest = text.split_once(KEY).map_or("", |(_, rest)| rest);
    rest.split_once('"').map_or("", |(stamp, _)| stamp)
}

/// Judges lot files against the ledgers.
pub fn judge(lots: &Lots, ledger: &[Entry], expect: Expect<'_>, after: After) -> Verdict {
    let mut verdict = Verdict::default();
    let sent: HashMap<(&str, u64), &Entry> =
        ledger.iter().map(|e| ((e.session.as_str(), e.batch), e)).collect();
    assert_eq!(sent.len(), ledger.len(), "a ledger names each batch once");
    let mut found: HashMap<(&str, u64), usize> = HashMap::new();
    for (stem, bytes) in lots {
        let mut open: Option<(&Entry, usize)> = None;
        let mut last: HashMap<&str, u64> = HashMap::new();
        let mut last_stamp = "";
        for line in bytes.split_inclusive(|b| *b == b'\n') {
            let whole = line.strip_suffix(b"\n");
            let Some(line) = whole.filter(|line| serde_json::from_slice::<serde_json::Value>(line).is_ok())
            else {
                verdict.torn += 1;
                continue;
            };
            let known = identity(line).and_then(|(session, batch, item)| {
                let entry = *sent.get(&(session.as_str(), batch))?;
                (entry.lot == *stem && item < entry.items).then_some((entry, item))
            });
            let Some((entry, item)) = known else {
                verdict.phantom += 1;
                continue;
            };
            if line != expect(entry, item, stamp(line)).as_bytes() {
                verdict.altered += 1;
            }
            match open.take() {
                Some((before, next)) if std::ptr::eq(before, entry) && next == item => {}
                Some((before, _)) if std::ptr::eq(before, entry) => verdict.partial += 1,
                Some(_) => verdict.interleaved += 1,
                None if item == 0 => {}
                None => verdict.partial += 1,
            }
            if item == 0 {
                let key = entry.session.as_str();
                let behind = last.insert(key, entry.batch).is_some_and(|last| last > entry.batch);
                if behind || stamp(line) <= last_stamp {
                    verdict.out_of_order += 1;
                }
                last_stamp = stamp(line);
            }
            if item + 1 == entry.items {
                *found.entry((entry.session.as_str(), entry.batch)).or_default() += 1;
            } else {
                open = Some((entry, item + 1));
            }
        }
        verdict.partial += usize::from(open.is_some());
    }
    verdict.doubled = found.values().filter(|times| **times > 1).count();
    let is_there = |e: &Entry| found.contains_key(&(e.session.as_str(), e.batch));
    let mut last_there: HashMap<&str, u64> = HashMap::new();
    for entry in ledger.iter().filter(|e| is_there(e)) {
        let last = last_there.entry(&entry.session).or_default();
        *last = entry.batch.max(*last);
    }
    for entry in ledger {
        match entry.answer {
            Answer::Refused if is_there(entry) => verdict.phantom += 1,
            Answer::Stuck => verdict.stuck += 1,
            Answer::Synced if !is_there(entry) => verdict.lost += 1,
            Answer::Written if !is_there(entry) => {
                let in_the_middle = last_there.get(entry.session.as_str()).is_some_and(|l| *l > entry.batch);
                verdict.lost += usize::from(after == After::Death || in_the_middle);
            }
            _ => {}
        }
    }
    verdict
}

/// Up to its last newline: what a reader takes.
pub fn whole_lines(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.truncate(bytes.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1));
    bytes
}

/// Lots of which something that a reader had seen is gone.
pub fn vanished(before: &Lots, after: &Lots) -> usize {
    before.iter().filter(|(stem, seen)| !after.get(*stem).is_some_and(|now| now.starts_with(seen))).count()
}

/// The judge on trial: copies of good lots, each damaged in one way, and each must be counted as what it is.
#[track_caller]
pub fn judge_the_judge(good: &Lots, ledger: &[Entry], expect: Expect<'_>, after: After) {
    let check = |lots: &Lots| judge(lots, ledger, expect, after);
    assert_eq!(check(good), Verdict::default(), "before anything was damaged");
    let synced = |line: &&[u8]| {
        let id = identity(line).expect("a good line");
        ledger
            .iter()
            .any(|e| e.session == id.0 && e.batch == id.1 && e.answer == Answer::Synced && e.items > 1)
    };
    let of = |line: &[u8]| identity(line).map(|id| (id.0, id.1));
    // A synced batch of several lines, somewhere, with another behind it.
    let place = |lines: &[&[u8]]| {
        let at = lines.iter().position(|line| synced(line) && identity(line).is_some_and(|id| id.2 == 0))?;
        let end = at + lines[at..].iter().take_while(|line| of(line) == of(lines[at])).count();
        (end < lines.len()).then_some((at, end))
    };
    let (stem, lines, (at, end)) = good
        .iter()
        .find_map(|(stem, bytes)| {
            let lines: Vec<&[u8]> = bytes.split_inclusive(|b| *b == b'\n').collect();
            place(&lines).filter(|_| lines.len() > 8).map(|place| (stem, lines, place))
        })
        .expect("a lot with some synced batches of several items");
    let with = |lines: &[&[u8]]| {
        let mut lots = good.clone();
        lots.insert(stem.clone(), lines.concat());
        check(&lots)
    };
    assert!(with(&[&lines[..at], &lines[at + 1..]].concat()).partial > 0, "a first line deleted");
    assert!(with(&[&lines[..at + 1], &lines[end..]].concat()).lost > 0, "the rest of a batch deleted");
    assert!(with(&[&lines[..at], &lines[end..]].concat()).lost > 0, "a batch deleted");
    assert!(with(&[&lines[..end], &lines[at..]].concat()).doubled > 0, "a batch doubled");
    assert!(with(&[&lines[..at + 1], &lines[at..]].concat()).partial > 0, "a line doubled");
    let cut = &lines[at][..lines[at].len() / 2];
    assert!(with(&[&lines[..at], &[cut, b"\n"], &lines[at + 1..]].concat()).torn > 0, "a line cut");
    assert!(with(&[&lines[..], &[cut]].concat()).torn > 0, "a torn tail");
    let nul = lines[at].iter().map(|b| if *b == b'\n' { b'\n' } else { 0 }).collect::<Vec<u8>>();
    assert!(with(&[&lines[..at], &[&nul], &lines[at + 1..]].concat()).torn > 0, "a line of NUL");
    let other = [&lines[..at], &lines[end..]].concat();
    let other: Vec<&[u8]> = other.into_iter().take(1).collect();
    assert!(
        with(&[&lines[..at + 1], &other, &lines[at + 1..]].concat()).interleaved > 0,
        "a line of another batch in between"
    );
    let mut swapped = lines.clone();
    swapped.swap(at, at + 1);
    assert!(with(&swapped).partial > 0, "two lines swapped");
    assert!(with(&[&lines[end..], &lines[..end]].concat()).out_of_order > 0, "two halves swapped");
    let text = String::from_utf8_lossy(lines[at]).into_owned();
    let altered = text.replacen("\"of\":", "\"of\":1", 1);
    assert_ne!(altered, text);
    assert!(with(&[&lines[..at], &[altered.as_bytes()], &lines[at + 1..]].concat()).altered > 0, "altered");
    let strange = text.replacen("\"sku_local\":\"", "\"sku_local\":\"x", 1);
    let strange: &[&[u8]] = &[strange.as_bytes()];
    assert!(with(&[&lines[..], strange].concat()).phantom > 0, "a line that nobody sent");
    let mut gone = good.clone();
    gone.remove(stem);
    assert!(check(&gone).lost > 0, "a lot deleted");
    assert_eq!(vanished(good, &gone), 1, "a lot deleted");
    let refused: Vec<Entry> = ledger.iter().map(|e| Entry { answer: Answer::Refused, ..e.clone() }).collect();
    assert!(judge(good, &refused, expect, after).phantom > 0, "a refused batch that is there");
    let mut stuck = ledger.to_vec();
    stuck[0].answer = Answer::Stuck;
    assert!(judge(good, &stuck, expect, after).stuck > 0, "a batch without an answer");
}
