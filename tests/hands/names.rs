//! Names that the daemon needs and somebody else has: of an unfinished lot file, and in `quarantine/`. And the
//! note beside each copy.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use crate::common::{Daemon, Place, refuses_to_start, until};
use crate::hand::{LOOSE, ran};

fn batch(lot: &str, session: &str, seq: u64) -> String {
    format!(
        r#"{{"session":"{session}","seq":{seq},"context":{{"lot_id":"{lot}"}},"items":[{{"sku_local":"{seq}"}}]}}"#
    )
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// The copies in quarantine, each with its note; every copy must have one.
#[track_caller]
fn quarantine(place: &Place) -> Vec<(Vec<u8>, String)> {
    let dir = place.data().join("quarantine");
    let all = names(&dir);
    let copies = all.iter().filter(|name| !name.ends_with(".txt"));
    copies
        .map(|name| {
            let note = fs::read_to_string(dir.join(format!("{name}.txt")));
            (fs::read(dir.join(name)).unwrap(), note.unwrap_or_else(|e| panic!("{name} has no note: {e}")))
        })
        .collect()
}

fn append(path: &Path, bytes: &[u8]) {
    use std::io::Write;
    fs::File::options().append(true).open(path).unwrap().write_all(bytes).unwrap();
}

#[test]
fn a_file_with_the_name_of_an_unfinished_lot_is_set_aside_and_not_lost() {
    for moment in ["running", "stopped", "killed"] {
        let mut daemon = Daemon::start(&[]);
        let place = daemon.place.clone();
        assert_eq!(daemon.ask(batch("other", "o", 1))["ok"], true);
        match moment {
            "stopped" => assert_eq!(daemon.terminate(), Some(0)),
            "killed" => daemon.kill(),
            _ => {}
        }
        fs::write(place.lot_path("L.jsonl.new"), "somebody's").unwrap();
        if moment != "running" {
            daemon = Daemon::start_in(&place, &[]);
        }
        assert_eq!(daemon.ask(batch("L", "s", 1))["ok"], true, "{moment}");
        assert_eq!(place.lots(), ["L.jsonl", "other.jsonl"], "{moment}");
        let aside = quarantine(&place);
        assert_eq!(aside.len(), 1, "{moment}");
        assert_eq!(aside[0].0, b"somebody's");
        assert!(aside[0].1.contains("lots/L.jsonl.new, from byte 0 up to byte 10"), "{}", aside[0].1);
    }
}

#[test]
fn a_file_that_takes_the_name_of_a_lot_under_redo_is_set_aside_and_not_lost() {
    let mut daemon = Daemon::start(&[]);
    let place = daemon.place.clone();
    assert_eq!(daemon.ask(batch("L", "s", 1))["ok"], true);
    daemon.kill();
    let lines = fs::read(place.lot_path("L.jsonl")).unwrap();
    fs::remove_file(place.lot_path("L.jsonl")).unwrap();
    fs::write(place.lot_path("L.jsonl.new"), "somebody's").unwrap();
    let daemon = Daemon::start_in(&place, &[]);
    assert_eq!(fs::read(place.lot_path("L.jsonl")).unwrap(), lines);
    assert_eq!(place.lots(), ["L.jsonl"]);
    assert_eq!(quarantine(&place)[0].0, b"somebody's");
    drop(daemon);
}

#[test]
fn what_an_interrupted_recovery_has_made_is_ours_and_is_not_set_aside() {
    let mut daemon = Daemon::start(&[]);
    let place = daemon.place.clone();
    assert_eq!(daemon.ask(batch("L", "s", 1))["ok"], true);
    daemon.kill();
    let lines = fs::read(place.lot_path("L.jsonl")).unwrap();
    fs::remove_file(place.lot_path("L.jsonl")).unwrap();
    // A part of it, and NUL where the disk has nothing yet.
    let mut part = lines.clone();
    part[40..].fill(0);
    fs::write(place.lot_path("L.jsonl.new"), part).unwrap();
    let daemon = Daemon::start_in(&place, &[]);
    assert_eq!(fs::read(place.lot_path("L.jsonl")).unwrap(), lines);
    assert_eq!(quarantine(&place), []);
    drop(daemon);
}

#[test]
fn what_is_no_file_and_has_the_name_of_an_unfinished_lot_shuts_that_lot_alone() {
    for what in ["directory", "symlink", "fifo"] {
        for moment in ["running", "stopped", "killed"] {
            let mut daemon = Daemon::start(&[]);
            let place = daemon.place.clone();
            assert_eq!(daemon.ask(batch("other", "o", 1))["ok"], true);
            match moment {
                "stopped" => assert_eq!(daemon.terminate(), Some(0)),
                "killed" => daemon.kill(),
                _ => {}
            }
            let path = place.lot_path("L.jsonl.new");
            let outside = place.path().join("outside");
            fs::write(&outside, "keep").unwrap();
            match what {
                "directory" => fs::create_dir(&path).unwrap(),
                "symlink" => symlink(&outside, &path).unwrap(),
                _ => assert!(ran("mkfifo", &[path.to_str().unwrap()])),
            }
            if moment != "running" {
                daemon = Daemon::start_in(&place, &[]);
            }
            let reply = daemon.ask(batch("L", "s", 1));
            assert_eq!(reply["error"]["code"], "lot_unavailable", "{what} {moment}: {reply}");
            assert_eq!(daemon.ask(batch("other", "o", 2))["ok"], true);
            assert!(path.symlink_metadata().is_ok(), "{what} {moment}: it stays");
            assert_eq!(fs::read_to_string(&outside).unwrap(), "keep");
            if what == "directory" { fs::remove_dir(&path) } else { fs::remove_file(&path) }.unwrap();
            assert_eq!(daemon.ask(batch("L", "s", 1))["ok"], true);
            let log = fs::read_to_string(place.path().join("log")).unwrap();
            assert!(log.contains("refused"), "{what} {moment}: {log}");
        }
    }
}

/// A lot with a loose end, set aside once: the copy's path and what the lot then holds.
fn set_aside_once(place: &std::sync::Arc<Place>) -> (PathBuf, Vec<u8>) {
    let mut daemon = Daemon::start_in(place, &[]);
    assert_eq!(daemon.ask(batch("L", "s", 1))["ok"], true);
    append(&place.lot_path("L.jsonl"), LOOSE.as_bytes());
    assert_eq!(daemon.ask(batch("L", "s", 2))["ok"], true);
    assert_eq!(daemon.terminate(), Some(0));
    let dir = place.data().join("quarantine");
    let name = names(&dir).into_iter().find(|name| !name.ends_with(".txt")).unwrap();
    (dir.join(name), fs::read(place.lot_path("L.jsonl")).unwrap())
}

#[test]
fn the_note_says_which_file_where_how_many_bytes_when_why_and_what_to_do() {
    let place = Place::new();
    let (copy, lot) = set_aside_once(&place);
    assert_eq!(fs::read(&copy).unwrap(), LOOSE.as_bytes());
    let first = lot.iter().position(|b| *b == b'\n').unwrap() + 1;
    let (_, note) = quarantine(&place).remove(0);
    let name = copy.file_name().unwrap().to_str().unwrap();
    let today = chrono::Utc::now().format("%Y-%m-").to_string();
    for word in [
        &format!("{name}, {} bytes", LOOSE.len()),
        &format!("lots/L.jsonl, from byte {first} up to byte {}", first + LOOSE.len()),
        &today,
        "(UTC)",
        "Why:            It was a line without an end",
        "What it means:",
        "What to do:",
    ] {
        assert!(note.contains(word), "{word}: {note}");
    }
}

/// A note of somebody else's.
const WORDS: &str = "somebody's words\n";

/// Plants the same loose end once more, at the same place, with something prepared in quarantine.
#[track_caller]
fn again(prepare: impl FnOnce(&Path), copies: &[&[u8]]) {
    let place = Place::new();
    let (copy, lot) = set_aside_once(&place);
    let first = lot.iter().position(|b| *b == b'\n').unwrap() + 1;
    fs::write(place.lot_path("L.jsonl"), [&lot[..first], LOOSE.as_bytes()].concat()).unwrap();
    prepare(&copy);
    let daemon = Daemon::start_in(&place, &[]);
    assert_eq!(daemon.ask(batch("L", "s", 3))["ok"], true);
    let dir = place.data().join("quarantine");
    let mut found: Vec<Vec<u8>> = names(&dir)
        .iter()
        .filter(|name| !name.ends_with(".txt") && dir.join(name).is_file())
        .map(|name| {
            // What somebody else put there needs no note of ours; where their note is, ours goes with another copy.
            let bytes = fs::read(dir.join(name)).unwrap();
            let note = fs::read_to_string(dir.join(format!("{name}.txt"))).unwrap_or_default();
            assert!(
                bytes != LOOSE.as_bytes() || note == WORDS || note.contains("What to do"),
                "{name}: {note}"
            );
            bytes
        })
        .collect();
    found.sort();
    assert_eq!(found, copies);
}

#[test]
fn a_copy_whose_note_is_missing_or_cut_after_a_crash_gets_its_note() {
    let note = |copy: &Path| PathBuf::from(format!("{}.txt", copy.display()));
    let whole = LOOSE.as_bytes();
    again(|copy| fs::remove_file(note(copy)).unwrap(), &[whole]);
    again(|copy| fs::write(note(copy), "").unwrap(), &[whole]);
    again(|copy| fs::write(note(copy), [0; 300]).unwrap(), &[whole]);
    again(|copy| fs::write(note(copy), "lotlogd has").unwrap(), &[whole]);
    again(|_| {}, &[whole]);
}

#[test]
fn a_copy_that_a_crash_cut_short_is_completed() {
    let whole = LOOSE.as_bytes();
    again(|copy| fs::write(copy, &whole[..7]).unwrap(), &[whole]);
    again(|copy| fs::write(copy, "").unwrap(), &[whole]);
    again(|copy| fs::write(copy, vec![0; whole.len()]).unwrap(), &[whole]);
}

#[test]
fn a_name_in_quarantine_that_something_else_has_is_left_alone() {
    let whole = LOOSE.as_bytes();
    let other = vec![b'x'; whole.len()];
    again(|copy| fs::write(copy, &other).unwrap(), &[&other, whole]);
    let longer = [whole, b"and more"].concat();
    again(|copy| fs::write(copy, &longer).unwrap(), &[whole, &longer]);
    again(
        |copy| {
            fs::remove_file(copy).unwrap();
            fs::create_dir(copy).unwrap();
        },
        &[whole],
    );
    again(
        |copy| {
            fs::remove_file(copy).unwrap();
            symlink("/dev/null", copy).unwrap();
        },
        &[whole],
    );
    again(|copy| fs::write(format!("{}.txt", copy.display()), WORDS).unwrap(), &[whole, whole]);
}

#[test]
fn a_quarantine_that_cannot_be_written_shuts_the_lots_that_need_it_alone() {
    let mut daemon = Daemon::start(&[]);
    let place = daemon.place.clone();
    let quarantine = place.data().join("quarantine");
    if !ran("chattr", &["+i", quarantine.to_str().unwrap()]) {
        println!("SKIPPED: a quarantine/ that root cannot write needs root and chattr on this file system");
        return;
    }
    struct Mend(PathBuf);
    impl Drop for Mend {
        fn drop(&mut self) {
            ran("chattr", &["-i", self.0.to_str().unwrap()]);
        }
    }
    let mend = Mend(quarantine);
    assert_eq!(daemon.ask(batch("running", "a", 1))["ok"], true);
    append(&place.lot_path("running.jsonl"), LOOSE.as_bytes());
    let reply = daemon.ask(batch("running", "a", 2));
    assert_eq!(reply["error"]["code"], "lot_unavailable", "{reply}");
    assert_eq!(daemon.ask(batch("other", "o", 1))["ok"], true);
    assert_eq!(daemon.ask(batch("killed", "b", 1))["ok"], true);
    daemon.kill();
    fs::write(place.lot_path("killed.jsonl"), vec![b'x'; 4000]).unwrap();
    let daemon = Daemon::start_in(&place, &[]);
    assert_eq!(daemon.ask(batch("other", "o", 2))["ok"], true);
    for (session, lot) in [("a", "running"), ("b", "killed")] {
        let reply = daemon.ask(batch(lot, session, 2));
        assert_eq!(reply["error"]["code"], "lot_unavailable", "{lot}: {reply}");
    }
    drop(mend);
    for (session, lot) in [("a", "running"), ("b", "killed")] {
        until("the lot goes on", || (daemon.ask(batch(lot, session, 2))["ok"] == true).then_some(()));
        let skus: Vec<_> = daemon.records(lot).iter().map(|r| r["sku_local"].clone()).collect();
        assert_eq!(skus, ["1", "2"], "{lot}");
    }
}

#[test]
fn a_link_in_the_place_of_a_directory_of_data_is_not_followed() {
    for name in ["lots", "journal"] {
        let daemon = Daemon::start(&[]);
        assert_eq!(daemon.ask(batch("L", "s", 1))["ok"], true);
        let place = daemon.place.clone();
        drop(daemon);
        let (here, there) = (place.data().join(name), place.path().join("elsewhere"));
        fs::rename(&here, &there).unwrap();
        symlink(&there, &here).unwrap();
        assert_eq!(refuses_to_start(place.command(&[])), Some(78), "{name}");
        assert!(place.own_log().contains(&format!("/{name}")), "{}", place.own_log());
        fs::remove_file(&here).unwrap();
        fs::rename(&there, &here).unwrap();
        let daemon = Daemon::start_in(&place, &[]);
        assert_eq!(daemon.ask(batch("L", "s", 2))["ok"], true, "{name}");
    }
}
