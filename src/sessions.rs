//! The session table: what each session stored last. Knows neither the journal's bytes nor tickets.

use indexmap::IndexMap;

use crate::frame::SessionRow;

/// A session unused for this much of the daemon's running time is forgotten.
pub const SESSION_MEMORY_SECONDS: u64 = 7 * 24 * 3600;
/// What one session costs in memory, in bytes: its entry, its name, and its share of the table's slack.
pub const SESSION_BYTES: usize = 256;

/// The last batch of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Last {
    /// Its number.
    pub seq: u64,
    /// Its lsn.
    pub lsn: u64,
    /// Its records.
    pub records: u32,
    /// Its content hash.
    pub content_hash: u128,
    /// When, in seconds of the daemon's running time.
    pub used_seconds: u64,
}

/// What the table says to a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is the next one: store it.
    Next,
    /// It is the session's last one, again.
    DuplicateOfLast(Last),
    /// It is an older one, again; the session's last is given.
    DuplicateOfOlder(Last),
    /// The number was used for other content.
    Conflict,
    /// A number is missing.
    OutOfSequence {
        /// The number that comes next.
        expected: u64,
    },
    /// The session is new and the table is full.
    Full,
}

/// All sessions.
#[derive(Debug)]
pub struct Sessions {
    table: IndexMap<Box<str>, Last>,
    most: usize,
}

impl Sessions {
    /// A table that may use `memory_bytes`.
    pub fn new(memory_bytes: usize) -> Sessions {
        Sessions { table: IndexMap::new(), most: (memory_bytes / SESSION_BYTES).max(1) }
    }

    /// Judges a batch, marking its session as used.
    pub fn judge(&mut self, session: &str, seq: u64, content_hash: u128, now_seconds: u64) -> Verdict {
        let full = self.is_full();
        let Some(last) = self.table.get_mut(session) else {
            return match seq {
                1 if full => Verdict::Full,
                1 => Verdict::Next,
                _ => Verdict::OutOfSequence { expected: 1 },
            };
        };
        last.used_seconds = now_seconds;
        if seq == last.seq {
            if last.content_hash == content_hash {
                Verdict::DuplicateOfLast(*last)
            } else {
                Verdict::Conflict
            }
        } else if seq < last.seq {
            Verdict::DuplicateOfOlder(*last)
        } else if seq == last.seq + 1 {
            Verdict::Next
        } else {
            Verdict::OutOfSequence { expected: last.seq + 1 }
        }
    }

    /// Notes a stored batch. An older one than the table knows changes nothing.
    pub fn note(&mut self, session: &str, last: Last) {
        match self.table.get_mut(session) {
            Some(known) if known.lsn > last.lsn => {}
            Some(known) => *known = last,
            None => {
                self.table.insert(session.into(), last);
            }
        }
    }

    /// Whether no new session can be taken.
    pub fn is_full(&self) -> bool {
        self.table.len() >= self.most
    }

    /// Number of sessions.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// Rows from `cursor` on, at most `most`, forgetting on the way what is too old; gives the next cursor,
    /// `None` at the end. Sessions added meanwhile may or may not be in: their own frames tell of them.
    pub fn rows(&mut self, cursor: usize, most: usize, now_seconds: u64) -> (Vec<SessionRow>, Option<usize>) {
        let mut rows = Vec::new();
        let mut at = cursor;
        while rows.len() < most {
            let Some((name, last)) = self.table.get_index(at) else { return (rows, None) };
            if now_seconds.saturating_sub(last.used_seconds) > SESSION_MEMORY_SECONDS {
                // Puts the last entry, not yet visited, into this place.
                self.table.swap_remove_index(at);
                continue;
            }
            rows.push(SessionRow {
                session: name.to_string(),
                seq: last.seq,
                lsn: last.lsn,
                records: last.records,
                content_hash: last.content_hash,
                used_seconds: last.used_seconds,
            });
            at += 1;
        }
        (rows, Some(at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn last(seq: u64) -> Last {
        Last { seq, lsn: seq * 10, records: 1, content_hash: u128::from(seq), used_seconds: 0 }
    }

    #[test]
    fn every_number_gets_its_verdict() {
        let mut sessions = Sessions::new(SESSION_BYTES);
        assert_eq!(sessions.judge("a", 2, 0, 0), Verdict::OutOfSequence { expected: 1 });
        assert_eq!(sessions.judge("a", 1, 1, 0), Verdict::Next);
        sessions.note("a", last(1));
        sessions.note("a", last(2));
        assert_eq!(sessions.judge("b", 1, 1, 0), Verdict::Full);
        assert_eq!(sessions.judge("a", 1, 99, 0), Verdict::DuplicateOfOlder(last(2)));
        assert_eq!(sessions.judge("a", 2, 2, 0), Verdict::DuplicateOfLast(last(2)));
        assert_eq!(sessions.judge("a", 2, 3, 0), Verdict::Conflict);
        assert_eq!(sessions.judge("a", 3, 3, 0), Verdict::Next);
        assert_eq!(sessions.judge("a", 4, 3, 0), Verdict::OutOfSequence { expected: 3 });
        sessions.note("a", last(1));
        assert_eq!(sessions.judge("a", 2, 2, 0), Verdict::DuplicateOfLast(last(2)));
    }

    #[test]
    fn rows_come_once_each_and_the_unused_are_forgotten() {
        let mut sessions = Sessions::new(1 << 20);
        for n in 0..100 {
            let used_seconds = if n % 3 == 0 { 0 } else { SESSION_MEMORY_SECONDS };
            sessions.note(&format!("s{n}"), Last { used_seconds, ..last(1) });
        }
        let mut seen = Vec::new();
        let mut cursor = Some(0);
        while let Some(at) = cursor {
            let (rows, next) = sessions.rows(at, 7, SESSION_MEMORY_SECONDS + 1);
            seen.extend(rows.into_iter().map(|row| row.session));
            cursor = next;
        }
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), 66);
        assert_eq!(sessions.len(), 66);
    }
}
