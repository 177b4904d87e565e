//! `lotlog verify` finds each kind of planted damage and names the place, says what it means and what to do, in
//! text and JSON, changes nothing, and needs no daemon. Where a kind of damage cannot be found, that is a row too.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use lotlog::findings::{Finding, KINDS};
use lotlog::verify::verify;
use serde_json::Value;
use tempfile::TempDir;

use crate::common::{Daemon, Place};
use crate::hand::{FOREIGN, LOOSE, ran};

/// What the daemon left behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Left {
    /// After a clean stop: the journal has let go of every batch.
    Stopped,
    /// After kill -9: the journal has them all.
    Killed,
}

use Left::*;

/// Batches of two items: session s in lot A, t in lot B, u in both by turns.
fn make(left: Left) -> std::sync::Arc<Place> {
    let place = Place::new();
    let mut daemon = Daemon::start_in(&place, &["--segment-bytes", "1MiB"]);
    let mut connection = daemon.connect();
    for seq in 1..=6 {
        for (session, lot) in [("s", "A"), ("t", "B"), ("u", if seq % 2 == 0 { "A" } else { "B" })] {
            let item = |n| {
                format!(r#"{{"sku_local":"{session}/{seq}/{n}","est_price_mu":1.5,"sell_p60":0.75,"of":2}}"#)
            };
            let request = format!(
                r#"{{"session":"{session}","seq":{seq},"context":{{"lot_id":"{lot}","roi_target":1.25}},"items":[{},{}]}}"#,
                item(0),
                item(1)
            );
            assert_eq!(connection.ask(request)["ok"], true);
        }
    }
    match left {
        Stopped => assert_eq!(daemon.terminate(), Some(0)),
        Killed => daemon.kill(),
    }
    place
}

/// A copy of what the daemon left behind.
fn copy(left: Left) -> (TempDir, PathBuf) {
    static MADE: [OnceLock<std::sync::Arc<Place>>; 2] = [OnceLock::new(), OnceLock::new()];
    let made = MADE[left as usize].get_or_init(|| make(left));
    let dir = tempfile::tempdir().unwrap();
    let to = dir.path().join("data");
    assert!(ran("cp", &["-a", made.data().to_str().unwrap(), to.to_str().unwrap()]));
    (dir, to)
}

/// Everything under a directory: names, modes, times, contents.
fn tree(dir: &Path) -> BTreeMap<PathBuf, (u32, i64, i64, Vec<u8>)> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let meta = path.symlink_metadata().unwrap();
        let bytes = if meta.is_file() { fs::read(&path).unwrap() } else { Vec::new() };
        found.insert(path.clone(), (meta.mode(), meta.mtime(), meta.mtime_nsec(), bytes));
        if meta.is_dir() {
            found.extend(tree(&path));
        }
    }
    found
}

/// A finding as rows expect it: kind, file, line, offset.
type Row<'a> = (&'a str, &'a str, Option<u64>, u64);

fn row(finding: &Finding) -> Row<'_> {
    (finding.kind, &finding.file, finding.line, finding.offset)
}

/// Plants, verifies, and compares the findings and notes (all of them); exit code, text and JSON agree.
#[track_caller]
fn check(left: Left, plant: impl FnOnce(&Path), expected: &[Row<'_>]) {
    let (_dir, data) = copy(left);
    plant(&data);
    let before = tree(&data);
    let report = verify(&data).unwrap();
    let found: Vec<Row<'_>> = report.findings.iter().chain(&report.notes).map(row).collect();
    assert_eq!(found, expected, "{report:#?}");
    let command = |json: bool| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lotlog"));
        command.arg("verify").arg(&data).env_remove("LOTLOG_SOCKET");
        if json {
            command.arg("--json");
        }
        let output = command.output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    let (code, text) = command(false);
    assert_eq!(code, Some(if report.findings.is_empty() { 0 } else { 65 }), "{text}");
    let (_, json) = command(true);
    let json: Value = serde_json::from_str(&json).unwrap();
    for (list, findings) in [("findings", &report.findings), ("notes", &report.notes)] {
        for (told, finding) in json[list].as_array().unwrap().iter().zip(findings) {
            assert_eq!((&told["kind"], &told["offset"]), (&finding.kind.into(), &finding.offset.into()));
            assert!(!finding.meaning.is_empty() && told["meaning"] == finding.meaning, "{told}");
            assert!(!finding.to_do.is_empty() && told["to_do"] == finding.to_do, "{told}");
            assert!(!finding.message.is_empty(), "{told}");
            for word in [finding.file.as_str(), finding.kind, finding.meaning, finding.to_do] {
                assert!(text.contains(word), "{word}: {text}");
            }
        }
    }
    assert!(tree(&data) == before, "verify changes nothing");
}

fn lot(data: &Path, lot: &str) -> PathBuf {
    data.join("lots").join(format!("{lot}.jsonl"))
}

/// The lines of a lot, rearranged.
fn edit(data: &Path, stem: &str, change: impl FnOnce(&mut Vec<String>)) {
    let text = fs::read_to_string(lot(data, stem)).unwrap();
    let mut lines: Vec<String> = text.split_inclusive('\n').map(str::to_owned).collect();
    change(&mut lines);
    fs::write(lot(data, stem), lines.concat()).unwrap();
}

/// Where a line of the untouched lot begins.
fn start(stem: &str, line: usize) -> u64 {
    let (_dir, data) = copy(Stopped);
    let text = fs::read_to_string(lot(&data, stem)).unwrap();
    text.split_inclusive('\n').take(line - 1).map(|line| line.len() as u64).sum()
}

const A: &str = "lots/A.jsonl";
const B: &str = "lots/B.jsonl";

#[test]
fn what_was_left_behind_is_good() {
    check(Stopped, |_| {}, &[]);
    check(Killed, |_| {}, &[]);
}

#[test]
fn a_line_that_is_cut_glued_or_no_utf8_is_found() {
    check(
        Stopped,
        |d| edit(d, "A", |l| l[4] = "{\"sku\n".into()),
        &[("not_json", A, Some(5), start("A", 5))],
    );
    check(
        Stopped,
        |d| edit(d, "A", |l| l[2].insert_str(0, LOOSE)),
        &[("not_json", A, Some(3), start("A", 3))],
    );
    let flip = |d: &Path| {
        let file = fs::File::options().write(true).open(lot(d, "A")).unwrap();
        file.write_all_at(&[0xff], start("A", 2) + 14).unwrap();
    };
    check(Stopped, flip, &[("not_json", A, Some(2), start("A", 2))]);
}

#[test]
fn a_range_of_nul_is_found() {
    let nul = |d: &Path| {
        let file = fs::File::options().write(true).open(lot(d, "A")).unwrap();
        file.write_all_at(&[0; 40], start("A", 3) + 20).unwrap();
    };
    check(Stopped, nul, &[("nul", A, Some(3), start("A", 3))]);
}

#[test]
fn a_line_of_others_is_found() {
    let note = FOREIGN.lines().next().unwrap().to_owned() + "\n";
    let at = [("foreign_line", A, Some(3), start("A", 3))];
    check(Stopped, |d| edit(d, "A", |l| l.insert(2, note.clone())), &at);
    check(Stopped, |d| edit(d, "A", |l| l.insert(2, "17\n".into())), &at);
    let inside = [
        ("foreign_line", A, Some(2), start("A", 2)),
        // And the batch around it is no longer in one piece only where another batch stands in between.
    ];
    check(Stopped, |d| edit(d, "A", |l| l.insert(1, note)), &inside);
}

#[test]
fn what_a_record_holds_twice_must_agree() {
    let at = |line| [("altered", A, Some(line), start("A", line as usize))];
    let change = |line: usize, from: &'static str, to: &'static str| {
        move |d: &Path| {
            edit(d, "A", |l| {
                assert!(l[line - 1].contains(from), "{}", l[line - 1]);
                l[line - 1] = l[line - 1].replacen(from, to, 1);
            });
        }
    };
    check(Stopped, change(1, "\"est_price_mu\":1.5", "\"est_price_mu\":1.4"), &at(1));
    check(Stopped, change(2, "\"predicted_sell_p60\":0.75", "\"predicted_sell_p60\":0.74"), &at(2));
    check(Stopped, change(3, "\"roi_target\":1.25", "\"roi_target\":1.26"), &at(3));
    check(Stopped, change(4, "\"lot_id\":\"A\"", "\"lot_id\":\"C\""), &at(4));
    check(
        Stopped,
        change(5, "\"timestamp\":\"2", "\"timestamp\":\"1"),
        &[("altered", A, Some(5), start("A", 5))],
    );
}

#[test]
fn a_value_that_stands_once_is_checked_only_while_the_journal_has_it() {
    let change = |d: &Path| {
        let file = fs::File::options().write(true).open(lot(d, "A")).unwrap();
        let text = fs::read_to_string(lot(d, "A")).unwrap();
        let at = text.find("\"of\":2").unwrap() as u64 + 5;
        file.write_all_at(b"3", at).unwrap();
    };
    check(Stopped, change, &[]);
    let (_dir, data) = copy(Killed);
    let at = fs::read_to_string(lot(&data, "A")).unwrap().find("\"of\":2").unwrap() as u64 + 5;
    check(Killed, change, &[("differs_from_journal", A, None, at)]);
}

#[test]
fn a_line_that_is_deleted_is_found_only_while_the_journal_has_it() {
    check(Stopped, |d| edit(d, "A", |l| drop(l.remove(1))), &[]);
    let (_dir, data) = copy(Killed);
    let text = fs::read_to_string(lot(&data, "A")).unwrap();
    let first = text.lines().next().unwrap().len() + 1;
    // The line behind it begins alike: `{"sku_local":"` and so on.
    let (one, two) = (&text.as_bytes()[first..], &text.as_bytes()[2 * first..]);
    let alike = one.iter().zip(two).take_while(|(a, b)| a == b).count();
    let report = {
        edit(&data, "A", |l| drop(l.remove(1)));
        verify(&data).unwrap()
    };
    assert_eq!(row(&report.findings[0]), ("differs_from_journal", A, None, (first + alike) as u64));
}

#[test]
fn a_batch_that_is_deleted_leaves_a_gap_in_its_session() {
    // Session s, seq 3: lines 7 and 8 of A are s/3, behind s/1, s/2 and u/2.
    let cut = |d: &Path| {
        edit(d, "A", |l| {
            let at = l.iter().position(|line| line.contains("\"s/3/0\"")).unwrap();
            l.drain(at..at + 2);
        });
    };
    check(Stopped, cut, &[("gap", A, Some(3), 0)]);
    let strict = |data: &Path| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lotlog"));
        command.arg("verify").arg("--strict").arg(data).env_remove("LOTLOG_SOCKET");
        command.output().unwrap().status.code()
    };
    let (_dir, data) = copy(Stopped);
    assert_eq!(strict(&data), Some(0));
    cut(&data);
    assert_eq!(strict(&data), Some(65));
    // The head of a session may have been rotated away: no gap.
    check(Stopped, |d| edit(d, "A", |l| drop(l.drain(..4))), &[]);
}

#[test]
fn a_batch_that_is_doubled_or_stands_in_two_lots_is_found() {
    check(
        Stopped,
        |d| edit(d, "A", |l| l.extend_from_within(..2)),
        &[("split_batch", A, Some(19), start("A", 19))],
    );
    let (_dir, data) = copy(Stopped);
    let lines = fs::read_to_string(lot(&data, "A")).unwrap();
    let first: String = lines.split_inclusive('\n').take(2).collect();
    check(
        Stopped,
        |d| edit(d, "B", |l| l.insert(0, first.clone())),
        &[("wrong_lot", B, Some(1), 0), ("wrong_lot", B, Some(2), first.len() as u64 / 2)],
    );
}

#[test]
fn lines_that_are_swapped_or_interleaved_are_found() {
    check(
        Stopped,
        |d| edit(d, "A", |l| l.swap(1, 2)),
        &[("split_batch", A, Some(3), start("A", 3)), ("split_batch", A, Some(4), start("A", 4))],
    );
    // Whole batches in another order: their timestamps go back.
    let swapped = |d: &Path| {
        edit(d, "A", |l| {
            l.swap(0, 2);
            l.swap(1, 3);
        });
    };
    check(Stopped, swapped, &[("out_of_order", A, Some(3), start("A", 3))]);
    // Within a batch only while the journal has it.
    check(Stopped, |d| edit(d, "A", |l| l.swap(0, 1)), &[]);
    check(Killed, |d| edit(d, "A", |l| l.swap(0, 1)), &[("differs_from_journal", A, None, 18)]);
}

#[test]
fn a_file_of_another_lots_name_is_found() {
    let (_dir, data) = copy(Stopped);
    let lines = fs::read_to_string(lot(&data, "B")).unwrap();
    let mut at = 0;
    let rows: Vec<Row<'_>> = lines
        .split_inclusive('\n')
        .enumerate()
        .map(|(n, line)| {
            at += line.len() as u64;
            ("wrong_lot", "lots/C.jsonl", Some(n as u64 + 1), at - line.len() as u64)
        })
        .collect();
    check(Stopped, |d| fs::rename(lot(d, "B"), lot(d, "C")).unwrap(), &rows);
}

#[test]
fn a_clock_that_was_set_back_by_more_than_an_hour_is_a_note() {
    let back = |d: &Path| {
        edit(d, "A", |l| {
            for line in &mut l[16..] {
                let year = &line[line.find("\"timestamp\":\"").unwrap() + 13..][..4].to_owned();
                *line = line.replace(&format!("\"timestamp\":\"{year}"), "\"timestamp\":\"2001");
            }
        });
    };
    check(Stopped, back, &[("clock_step", A, Some(17), start("A", 17))]);
}

#[test]
fn an_empty_lot_file_a_loose_end_and_what_is_no_file_are_found() {
    check(
        Stopped,
        |d| fs::write(lot(d, "C"), "").unwrap(),
        &[("empty_file", "lots/C.jsonl", None, 0), ("mode", "lots/C.jsonl", None, 0)],
    );
    let (_dir, data) = copy(Stopped);
    let end = fs::metadata(lot(&data, "A")).unwrap().len();
    check(Stopped, |d| edit(d, "A", |l| l.push(LOOSE.into())), &[("torn_tail", A, Some(19), end)]);
    let c = [("not_a_file", "lots/C.jsonl", None, 0)];
    check(Stopped, |d| std::os::unix::fs::symlink("A.jsonl", lot(d, "C")).unwrap(), &c);
    check(Stopped, |d| assert!(ran("mkfifo", &["-m", "640", lot(d, "C").to_str().unwrap()])), &c);
    let dir = |d: &Path| {
        fs::create_dir(lot(d, "C")).unwrap();
        fs::set_permissions(lot(d, "C"), fs::Permissions::from_mode(0o750)).unwrap();
    };
    check(Stopped, dir, &c);
}

#[test]
fn a_lot_that_is_cut_or_gone_while_the_journal_has_batches_for_it_is_found() {
    // The first checkpoint is behind the first batches: a daemon that was started again.
    let place = make(Stopped);
    let mut daemon = Daemon::start_in(&place, &["--segment-bytes", "1MiB"]);
    let item = r#"{"context":{"lot_id":"A"},"items":[{"sku_local":"late"}]}"#;
    assert_eq!(daemon.ask(item)["ok"], true);
    daemon.kill();
    let data = place.data();
    let whole = fs::read(lot(&data, "A")).unwrap();
    assert!(verify(&data).unwrap().is_good());
    fs::write(lot(&data, "A"), &whole[..start("A", 5) as usize]).unwrap();
    let report = verify(&data).unwrap();
    assert_eq!(row(&report.findings[0]), ("shorter_than_journal", A, None, start("A", 5)), "{report:?}");
    fs::remove_file(lot(&data, "A")).unwrap();
    let report = verify(&data).unwrap();
    assert_eq!(row(&report.findings[0]), ("shorter_than_journal", A, None, 0), "{report:?}");
    assert_eq!(report.to_be_written, 1);
}

#[test]
fn what_reads_as_nul_after_a_power_cut_is_on_its_way_and_no_damage() {
    let nul = |d: &Path| {
        let file = fs::File::options().write(true).open(lot(d, "A")).unwrap();
        let end = file.metadata().unwrap().len();
        file.write_all_at(&vec![0; (end - start("A", 11)) as usize], start("A", 11)).unwrap();
    };
    check(Killed, nul, &[]);
}

/// The journal's only segment after a kill.
fn segment(data: &Path) -> PathBuf {
    let mut names: Vec<PathBuf> =
        fs::read_dir(data.join("journal")).unwrap().map(|e| e.unwrap().path()).collect();
    names.sort();
    names.into_iter().find(|path| path.extension().is_some_and(|e| e == "wal")).unwrap()
}

/// Changes the journal; `journal_damaged` must be found, and the daemon must not start.
#[track_caller]
fn check_journal(left: Left, plant: impl Fn(&Path), kind: &str) {
    let (_dir, data) = copy(left);
    plant(&data);
    let before = tree(&data);
    let report = verify(&data).unwrap();
    let found = report.findings.first().unwrap_or_else(|| panic!("{kind} was not found: {report:?}"));
    assert_eq!(found.kind, kind, "{report:?}");
    assert!(found.file.starts_with("journal"), "{report:?}");
    assert!(tree(&data) == before, "verify changes nothing");
    let mut daemon = Command::new(env!("CARGO_BIN_EXE_lotlogd"));
    daemon.arg("--data-dir").arg(&data).arg("--socket").arg(data.with_file_name("sock"));
    daemon.stderr(std::process::Stdio::null());
    assert_eq!(crate::common::refuses_to_start(daemon), Some(65));
}

fn change(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).unwrap();
    change(&mut bytes);
    fs::write(path, bytes).unwrap();
}

/// Where a batch's item stands in the segment.
fn place_of(bytes: &[u8], item: &str) -> usize {
    memchr::memmem::find(bytes, item.as_bytes()).unwrap()
}

#[test]
fn a_bit_flipped_in_the_journal_is_found_and_so_is_a_zeroed_range() {
    let kind = "journal_damaged";
    // In a frame's payload, in its prologue, in the header of the segment.
    let payload = |b: &mut Vec<u8>| {
        let at = place_of(b, "s/2/0");
        b[at] ^= 1;
    };
    check_journal(Killed, |d| change(&segment(d), payload), kind);
    let prologue = |b: &mut Vec<u8>| {
        let at = place_of(b, "s/2/0");
        let frame = (0..at).rev().find(|at| at % 8 == 0 && b[at + 8..at + 12] == [1, 0, 0, 0]).unwrap();
        b[frame] ^= 1;
    };
    check_journal(Killed, |d| change(&segment(d), prologue), kind);
    check_journal(Killed, |d| change(&segment(d), |b| b[20] ^= 1), kind);
    check_journal(Stopped, |d| change(&segment(d), |b| b[20] ^= 1), kind);
    check_journal(Killed, |d| change(&segment(d), |b| b[4096..8192].fill(0)), kind);
    let zero = |b: &mut Vec<u8>| {
        let at = place_of(b, "t/3/0");
        b[at..at + 200].fill(0);
    };
    check_journal(Killed, |d| change(&segment(d), zero), kind);
    check_journal(Killed, |d| change(&segment(d), |b| b.truncate(4100)), kind);
}

#[test]
fn a_flip_in_the_last_group_cannot_be_told_from_a_torn_tail_and_is_a_note() {
    let (_dir, data) = copy(Killed);
    let path = segment(&data);
    let bytes = fs::read(&path).unwrap();
    let at = place_of(&bytes, "u/6/1");
    change(&path, |b| b[at] ^= 1);
    let report = verify(&data).unwrap();
    let kinds: Vec<_> = report.findings.iter().chain(&report.notes).map(|f| f.kind).collect();
    assert_eq!(kinds, ["journal_torn_tail"], "{report:?}");
}

#[test]
fn a_missing_doubled_renamed_or_newer_segment_is_found() {
    let kind = "journal_damaged";
    check_journal(Killed, |d| fs::remove_file(segment(d)).unwrap(), kind);
    check_journal(Stopped, |d| fs::remove_file(segment(d)).unwrap(), kind);
    let number = |path: &Path, number: &str| path.with_file_name(format!("{number}.wal"));
    check_journal(
        Killed,
        |d| assert!(fs::copy(segment(d), number(&segment(d), "00000000000000ff")).is_ok()),
        kind,
    );
    check_journal(Killed, |d| fs::rename(segment(d), number(&segment(d), "00000000000000ff")).unwrap(), kind);
    let newer = |b: &mut Vec<u8>| {
        b[8] = 9;
        let crc = crc32c::crc32c(&b[..64]);
        b[64..68].copy_from_slice(&crc.to_le_bytes());
    };
    check_journal(Killed, |d| change(&segment(d), newer), "journal_newer");
    let empty = |d: &Path| {
        fs::remove_dir_all(d.join("journal")).unwrap();
        fs::create_dir(d.join("journal")).unwrap();
    };
    check_journal(Stopped, empty, kind);
    check_journal(Stopped, |d| fs::remove_dir_all(d.join("journal")).unwrap(), "journal_missing");
}

#[test]
fn without_lots_the_journal_is_looked_at_all_the_same() {
    let (_dir, data) = copy(Stopped);
    fs::remove_dir_all(data.join("lots")).unwrap();
    let kinds =
        |data: &Path| verify(data).unwrap().findings.iter().map(|found| found.kind).collect::<Vec<_>>();
    assert_eq!(kinds(&data), ["lots_missing"]);
    for entry in fs::read_dir(data.join("journal")).unwrap() {
        fs::write(entry.unwrap().path(), [0; 9000]).unwrap();
    }
    assert_eq!(kinds(&data), ["lots_missing", "journal_damaged"]);
}

#[test]
fn what_else_lies_under_data_is_noted() {
    let file = |name: &'static str| {
        move |d: &Path| {
            fs::write(d.join(name), "x").unwrap();
            fs::set_permissions(d.join(name), fs::Permissions::from_mode(0o640)).unwrap();
        }
    };
    for name in ["a.txt", "lots/A.jsonl.1", "lots/.hidden", "lots/%zz.jsonl", "journal/x.wal"] {
        let (_dir, data) = copy(Stopped);
        file(name)(&data);
        let report = verify(&data).unwrap();
        let last = report.notes.first().map(row);
        assert_eq!(last, Some(("unknown_file", name, None, 0)), "{report:?}");
    }
    for name in ["lots/A.jsonl.new", "journal/syncing", "journal/rebase", "journal/rebase.new"] {
        check(Stopped, file(name), &[("leftover", name, None, 0)]);
    }
    check(Stopped, file("quarantine/A.1.2"), &[("note_missing", "quarantine/A.1.2", None, 0)]);
    let both = |d: &Path| {
        file("quarantine/A.1.2")(d);
        file("quarantine/A.1.2.txt")(d);
    };
    check(Stopped, both, &[("quarantined", "quarantine/A.1.2", None, 0)]);
    let mode = |d: &Path| fs::set_permissions(lot(d, "A"), fs::Permissions::from_mode(0o666)).unwrap();
    check(Stopped, mode, &[("mode", A, None, 0)]);
    let archive = |d: &Path| {
        fs::create_dir(d.join("archive")).unwrap();
        fs::set_permissions(d.join("archive"), fs::Permissions::from_mode(0o750)).unwrap();
    };
    check(Stopped, archive, &[]);
    let (_dir, data) = copy(Stopped);
    if std::os::unix::fs::chown(lot(&data, "A"), Some(65534), None).is_err() {
        println!("SKIPPED: a file of another user needs root");
        return;
    }
    check(
        Stopped,
        |d| std::os::unix::fs::chown(lot(d, "A"), Some(65534), None).unwrap(),
        &[("owner", A, None, 0)],
    );
}

#[test]
fn the_help_names_each_kind_with_what_it_means_and_what_to_do() {
    let page = |args: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_lotlog")).args(args).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap().replace('\\', "");
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    let (help, manual) = (page(&["verify", "--help"]), page(&["man", "lotlog-verify"]));
    for kind in KINDS {
        assert!(manual.contains(kind.name), "{}: {manual}", kind.name);
        for word in [kind.name, kind.means, kind.to_do] {
            assert!(help.contains(word), "{word}: {help}");
        }
    }
}
