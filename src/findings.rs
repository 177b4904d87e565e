//! What `lotlog verify` can find: each kind with what it means and what to do, and the report. Pure.

use serde::Serialize;

/// Most findings, and most notes, that are kept; further ones are counted.
pub const MOST_FINDINGS: usize = 1000;

/// A kind of finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind {
    /// Its name, in text and JSON.
    pub name: &'static str,
    /// Whether something is wrong: exit code 65. Otherwise it is a note.
    pub is_damage: bool,
    /// What it means.
    pub means: &'static str,
    /// What to do.
    pub to_do: &'static str,
}

const fn damage(name: &'static str, means: &'static str, to_do: &'static str) -> Kind {
    Kind { name, is_damage: true, means, to_do }
}

const fn note(name: &'static str, means: &'static str, to_do: &'static str) -> Kind {
    Kind { name, is_damage: false, means, to_do }
}

const RESTORE: &str =
    "restore the lot file from a backup, or mend the line by hand while the daemon is stopped";
const STOP_THEM: &str =
    "find out who writes to lots/, and stop it; take their lines out while the daemon is stopped";

/// Every kind.
pub const KINDS: &[Kind] = &[
    damage(
        "not_json",
        "a line that is not strict JSON: lotlogd did not write it like this; it was cut, glued to other bytes or changed",
        RESTORE,
    ),
    damage(
        "nul",
        "NUL bytes in a line: the file system lost what was written here, or somebody else wrote them",
        "restore the lot file from a backup, and look at the disk",
    ),
    damage("foreign_line", "a line of JSON that is no record of lotlogd: somebody else wrote it", STOP_THEM),
    damage(
        "altered",
        "parts of a record that lotlogd writes alike are not alike: it was changed afterwards",
        RESTORE,
    ),
    damage(
        "wrong_lot",
        "a record of another lot than the file is named after: a file was renamed to another lot's name, or lines were copied between lots",
        "move the records to the file of their lot while the daemon is stopped; a rotated file must not end in .jsonl",
    ),
    damage(
        "split_batch",
        "other lines stand between the lines of one batch: somebody else has moved, doubled or inserted lines",
        RESTORE,
    ),
    damage(
        "doubled",
        "a session and number is stored twice: lines were copied, or a file was renamed without SIGHUP, brought back, and the daemon had been killed between",
        "compare the two, and remove one while the daemon is stopped; readers that join by session and number are not harmed",
    ),
    damage(
        "out_of_order",
        "timestamps, or the numbers of a session, go back within a file: somebody else has moved lines",
        RESTORE,
    ),
    damage(
        "torn_tail",
        "the last line has no end, and the journal does not have it: lotlogd did not write it",
        "nothing needs to be done: the next append sets it aside in quarantine/; find out who wrote it",
    ),
    damage(
        "empty_file",
        "a lot file without a byte: lotlogd makes none; somebody else made or truncated it",
        "remove it, or restore it from a backup; rotate by renaming and SIGHUP, never by truncating",
    ),
    damage(
        "not_a_file",
        "something that is no regular file has the name of a lot file: that lot's batches are refused (lot_unavailable)",
        "remove it, or put the lot file back in its place; the daemon then goes on by itself",
    ),
    damage(
        "unreadable",
        "a file that cannot be read, so nothing is known of it",
        "run as a user who may read it (root, or a member of the daemon's group); with an I/O error look at the disk",
    ),
    damage(
        "differs_from_journal",
        "bytes of a lot file are not those of the batch that the journal has for this place: somebody else has changed them",
        "copy the lot file away and kill the daemon (kill -9): the next start sets these bytes aside and writes the batch; after a checkpoint (30 s, SIGHUP or a clean stop) it can only be restored from a backup",
    ),
    damage(
        "shorter_than_journal",
        "the lot file is gone, or ends before the place of the journal's next batch: somebody else has moved, cut or replaced it",
        "nothing needs to be done: the daemon, or its next start, takes the file as it is and writes the batch behind it; restore what was cut from a backup",
    ),
    damage(
        "journal_damaged",
        "journalled batches that were acknowledged cannot be read, or may be missing: the daemon does not start on this (exit 65)",
        "restore DATA from a backup, or move it aside and start anew; the lot files hold everything up to the last checkpoint",
    ),
    damage(
        "journal_newer",
        "a later version of lotlogd wrote this journal",
        "verify and start with that version",
    ),
    damage(
        "journal_missing",
        "there is no journal/: the daemon does not start on lot files without their journal",
        "restore DATA from a backup as a whole, or move it aside and start anew",
    ),
    damage(
        "lots_missing",
        "there is a journal/ and no lots/: the lot files are gone, or not mounted; a start would make them anew, with what the journal has",
        "mount lots/, or restore DATA from a backup as a whole",
    ),
    damage(
        "seal_broken",
        "a sealed lot has not what its footer says, or the footer cannot be read: it was changed after it was sealed",
        "compare the lot's files with the footer's list, and restore what differs from a backup",
    ),
    damage(
        "archive_damaged",
        "a compressed file of the archive cannot be read whole, or not with its checksum: the disk, or somebody, has changed it",
        "restore the file from a backup, and look at the disk",
    ),
    note(
        "journal_torn_tail",
        "the journal ends in bytes that are no whole entry, and nothing behind them was promised: the trace of a kill, or damage to the very last group of batches, for which no later entry can vouch",
        "nothing: the next start drops it and says so",
    ),
    note(
        "gap",
        "numbers of a session stand in no lot file: batches were cut out, or they are in a file that was rotated away",
        "look for them in the rotated files; if they are not there, restore the lot from a backup",
    ),
    note(
        "clock_step",
        "timestamps go back by an hour or more: the wall clock was set back",
        "nothing: lotlogd follows such a step and logs it; read by lines, not by timestamps, around it",
    ),
    note(
        "quarantined",
        "bytes that somebody else wrote and that were in the way; each has a note (.txt) that says more",
        "read the note, take what you need, delete both",
    ),
    note(
        "note_missing",
        "a file in quarantine/ without a note: the daemon died while setting it aside, or the note was deleted",
        "look at it; lotlogd completes it when it meets the same bytes again",
    ),
    note(
        "leftover",
        "a trace of a start or a checkpoint that did not end",
        "nothing: the next start removes it",
    ),
    note(
        "name_gone",
        "the journal has batches of a lot whose name is gone beside a running daemon: its file was renamed, or deleted",
        "after a rename send SIGHUP; a deleted file must come from a backup: after the next checkpoint the journal no longer has its batches",
    ),
    note(
        "unknown_file",
        "something under DATA that lotlogd did not make and does not read",
        "move it away, so that nobody takes it for records (rotated lot files may stay)",
    ),
    note(
        "mode",
        "another mode than lotlogd gives (files 0640, directories 0750)",
        "check who may write here: nobody but the daemon's user should",
    ),
    note(
        "owner",
        "another owner than DATA has: the daemon may not be able to write it",
        "chown it to the daemon's user",
    ),
];

/// The kind of this name.
fn kind(name: &str) -> Kind {
    KINDS.iter().copied().find(|kind| kind.name == name).unwrap_or(damage("unnamed", "", ""))
}

/// Something found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Its kind, one of [`KINDS`].
    pub kind: &'static str,
    /// The file below DATA.
    pub file: String,
    /// Line, from 1; missing where there are no lines.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<u64>,
    /// Byte offset in the file.
    pub offset: u64,
    /// What was found.
    pub message: String,
    /// What it means.
    pub meaning: &'static str,
    /// What to do.
    pub to_do: &'static str,
}

impl Finding {
    /// Of a file as a whole.
    pub fn of_file(kind: &'static str, file: impl Into<String>, message: impl Into<String>) -> Finding {
        Finding::at(kind, file, None, 0, message)
    }

    /// At a place.
    pub fn at(
        name: &'static str,
        file: impl Into<String>,
        line: Option<u64>,
        offset: u64,
        message: impl Into<String>,
    ) -> Finding {
        let Kind { means, to_do, .. } = kind(name);
        Finding {
            kind: name,
            file: file.into(),
            line,
            offset,
            message: message.into(),
            meaning: means,
            to_do,
        }
    }
}

/// What a verification saw.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// Whether a daemon holds DATA.
    pub daemon_running: bool,
    /// Lots read.
    pub lots: u64,
    /// Files read in the archive.
    pub archived: u64,
    /// Lots that are sealed and have what their footers say.
    pub sealed: u64,
    /// Lines read.
    pub records: u64,
    /// Batches found in them (lines with one timestamp, one after the other).
    pub batches: u64,
    /// Bytes of lot files read.
    pub bytes: u64,
    /// Batches of the journal that were compared with the lot files.
    pub compared_batches: u64,
    /// Batches that are in the journal and not wholly in their lot file yet: the daemon, or its next start,
    /// writes them.
    pub to_be_written: u64,
    /// What is set aside in `quarantine/`.
    pub quarantined: u64,
    /// Everything wrong, at most [`MOST_FINDINGS`].
    pub findings: Vec<Finding>,
    /// Findings beyond that.
    pub further_findings: u64,
    /// What is worth knowing, but not wrong; at most [`MOST_FINDINGS`].
    pub notes: Vec<Finding>,
    /// Notes beyond that.
    pub further_notes: u64,
}

impl Report {
    /// Whether nothing is wrong.
    pub fn is_good(&self) -> bool {
        self.findings.is_empty()
    }

    /// Takes a finding in, as damage or as a note.
    pub fn find(&mut self, finding: Finding) {
        let (list, further) = if kind(finding.kind).is_damage {
            (&mut self.findings, &mut self.further_findings)
        } else {
            (&mut self.notes, &mut self.further_notes)
        };
        if list.len() < MOST_FINDINGS {
            list.push(finding);
        } else {
            *further += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_says_what_it_means_and_what_to_do_and_has_a_name_of_its_own() {
        for (at, kind) in KINDS.iter().enumerate() {
            assert!(!kind.means.is_empty() && !kind.to_do.is_empty(), "{}", kind.name);
            assert!(KINDS[..at].iter().all(|before| before.name != kind.name), "{}", kind.name);
        }
    }
}
