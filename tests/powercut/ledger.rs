//! The ledgers on their way out of the guest: one line an event, and what the host makes of them. A line that
//! did not arrive did not happen: a batch is announced before it is sent, an answer after it was read.

use std::collections::HashMap;

use super::common::judge::{Answer, Entry};

/// As a line: `B SESSION BATCH SEQ LOT ITEMS PAD ANSWER`.
pub fn line(entry: &Entry) -> String {
    let Entry { lot, session, batch, seq, items, pad, answer } = entry;
    let answer = match answer {
        Answer::Unknown => "unknown",
        Answer::Synced => "synced",
        Answer::Written => "written",
        Answer::Refused => "refused",
        Answer::Stuck => "stuck",
    };
    format!("B {session} {batch} {seq} {lot} {items} {pad} {answer}")
}

/// From such a line; `None` for others.
pub fn entry(line: &str) -> Option<Entry> {
    let mut words = line.split(' ');
    let mut word = || words.next();
    if word()? != "B" {
        return None;
    }
    let session = word()?.to_owned();
    let batch = word()?.parse().ok()?;
    let seq = word()?.parse().ok()?;
    let lot = word()?.to_owned();
    let items = word()?.parse().ok()?;
    let pad = word()?.parse().ok()?;
    let answer = match word()? {
        "unknown" => Answer::Unknown,
        "synced" => Answer::Synced,
        "written" => Answer::Written,
        "refused" => Answer::Refused,
        "stuck" => Answer::Stuck,
        _ => return None,
    };
    Some(Entry { lot, session, batch, seq, items, pad, answer })
}

/// All batches of all lives of a disk, and when the last word on each came in.
#[derive(Clone, Default)]
pub struct Book<When> {
    pub entries: Vec<Entry>,
    pub heard: Vec<When>,
    at: HashMap<(String, u64), usize>,
}

impl<When> Book<When> {
    /// Takes in an entry, new or with another answer.
    pub fn note(&mut self, entry: Entry, when: When) {
        let key = (entry.session.clone(), entry.batch);
        match self.at.get(&key) {
            Some(at) => (self.entries[*at], self.heard[*at]) = (entry, when),
            None => {
                self.at.insert(key, self.entries.len());
                self.entries.push(entry);
                self.heard.push(when);
            }
        }
    }

    pub fn count(&self, answer: Answer) -> usize {
        self.entries.iter().filter(|e| e.answer == answer).count()
    }
}
