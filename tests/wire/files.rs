//! Section 5: what lies under DATA, by which name, with which mode, and what a reader sees while it grows.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::common::{Daemon, Place};
use crate::shape::{batch, check_refused, good};

/// A batch of one item for a lot id that is JSON already.
fn for_lot(id: &str) -> String {
    format!(r#"{{"context":{{"lot_id":{id}}},"items":[{{}}]}}"#)
}

/// This lot id gets this file, and the name gives the id back.
#[track_caller]
fn check_name(id: &str, file: &str) {
    let daemon = Daemon::start(&[]);
    let quoted = Value::from(id).to_string();
    assert_eq!(good(daemon.ask(for_lot(&quoted)))["lot"], id);
    assert_eq!(daemon.place.lots(), [file]);
    assert_eq!(daemon.records(file.strip_suffix(".jsonl").unwrap())[0]["lot_id"], id);
}

/// Every path under this one, with its permission bits.
fn tree(path: &Path) -> Vec<(PathBuf, u32, bool)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(path).unwrap() {
        let entry = entry.unwrap();
        let meta = entry.metadata().unwrap();
        found.push((entry.path(), meta.permissions().mode() & 0o7777, meta.is_dir()));
        if meta.is_dir() {
            found.extend(tree(&entry.path()));
        }
    }
    found
}

#[test]
fn plain_ids_name_their_files_themselves() {
    check_name("TEST_LOT_001", "TEST_LOT_001.jsonl");
    check_name("a.b-C_9..", "a.b-C_9...jsonl");
    check_name("x.jsonl", "x.jsonl.jsonl");
}

#[test]
fn every_other_byte_is_written_in_upper_case_hex() {
    check_name("a b", "a%20b.jsonl");
    check_name("%", "%25.jsonl");
    check_name("a%2Fb", "a%252Fb.jsonl");
    check_name("\u{0}\n~", "%00%0A%7E.jsonl");
    check_name("é日", "%C3%A9%E6%97%A5.jsonl");
    check_name("e\u{301}", "e%CC%81.jsonl");
}

#[test]
fn no_id_leaves_the_directory() {
    check_name(".", "%2E.jsonl");
    check_name("..", "%2E..jsonl");
    check_name("../../etc/passwd", "%2E.%2F..%2Fetc%2Fpasswd.jsonl");
    check_name("/abs", "%2Fabs.jsonl");
    check_name("a/../b", "a%2F..%2Fb.jsonl");
}

#[test]
fn an_id_of_200_encoded_bytes_is_taken_and_one_of_201_is_not() {
    let daemon = Daemon::start(&[]);
    let long = format!("{}%2Fz", "a".repeat(196));
    good(daemon.ask(for_lot(&format!(r#""{}/z""#, "a".repeat(196)))));
    assert_eq!(daemon.lot(&long).len(), 1);
    good(daemon.ask(for_lot(&format!(r#""{}""#, "b".repeat(200)))));
    for id in [format!("{}/z", "a".repeat(197)), "b".repeat(201), "é".repeat(34), String::new()] {
        check_refused(&daemon, for_lot(&format!(r#""{id}""#)), "invalid_lot_id", &[]);
    }
    check_refused(&daemon, for_lot(&"1".repeat(201)), "invalid_lot_id", &[]);
}

#[test]
fn a_number_and_its_text_share_a_file_as_do_no_id_and_unassigned() {
    let daemon = Daemon::start(&[]);
    good(daemon.ask(for_lot("7")));
    good(daemon.ask(for_lot(r#""7""#)));
    good(daemon.ask(r#"{"items":[{}]}"#));
    good(daemon.ask(for_lot(r#""unassigned""#)));
    assert_eq!(daemon.place.lots(), ["7.jsonl", "unassigned.jsonl"]);
    let ids = |lot: &str| daemon.records(lot).iter().map(|r| r.get("lot_id").cloned()).collect::<Vec<_>>();
    assert_eq!(ids("7"), [Some(7.into()), Some("7".into())]);
    assert_eq!(ids("unassigned"), [None, Some("unassigned".into())]);
}

#[test]
fn modes_are_the_same_whatever_the_umask() {
    for umask in ["0000", "0777"] {
        let place = Place::new();
        let plain = place.command(&[]);
        let mut command = std::process::Command::new("sh");
        command
            .args(["-c", r#"umask "$0"; exec "$@""#, umask])
            .arg(plain.get_program())
            .args(plain.get_args());
        command.stderr(std::process::Stdio::null());
        let daemon = Daemon::spawn(&place, command);
        good(daemon.ask(batch("L", "s", 1)));
        let found = tree(&place.data());
        assert!(found.iter().any(|(path, ..)| path.ends_with("lots/L.jsonl")));
        for (path, mode, is_dir) in found {
            assert_eq!(mode, if is_dir { 0o750 } else { 0o640 }, "{} under umask {umask}", path.display());
        }
        let mode = std::fs::metadata(place.data()).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o750, "DATA itself under umask {umask}");
        let mode = std::fs::metadata(place.socket()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o660, "the socket under umask {umask}");
    }
}

#[test]
fn the_mode_of_the_socket_is_a_setting() {
    let daemon = Daemon::start(&["--socket-mode", "0600"]);
    let mode = std::fs::metadata(daemon.place.socket()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn parent_directories_are_made() {
    let place = Place::new();
    let deep = place.path().join("a/b/c");
    let command = place.command(&[]);
    let mut moved = std::process::Command::new(command.get_program());
    moved.arg("--data-dir").arg(&deep).arg("--socket").arg(place.socket());
    moved.stderr(std::process::Stdio::null());
    let daemon = Daemon::spawn(&place, moved);
    good(daemon.ask(batch("L", "s", 1)));
    assert!(deep.join("lots/L.jsonl").is_file());
}

#[test]
fn nothing_else_under_data_ends_in_jsonl_and_no_lot_file_is_empty() {
    let mut daemon = Daemon::start(&[]);
    for seq in 1..=20 {
        good(daemon.ask(batch(&format!("L{seq}"), "s", seq)));
    }
    daemon.ask(batch("refused", "s", 99));
    daemon.ask(r#"{"context":{"lot_id":"none"},"items":[]}"#);
    assert_eq!(daemon.terminate(), Some(0));
    let lots = daemon.place.data().join("lots");
    let jsonl = |path: &Path| path.extension().is_some_and(|e| e == "jsonl");
    let found: Vec<_> = tree(&daemon.place.data()).into_iter().map(|(path, ..)| path).collect();
    let lot_files: Vec<_> = found.iter().filter(|path| jsonl(path)).collect();
    assert_eq!(lot_files.len(), 20, "{lot_files:?}");
    for file in lot_files {
        assert_eq!(file.parent(), Some(lots.as_path()));
        assert!(std::fs::metadata(file).unwrap().len() > 0, "{}", file.display());
    }
    for name in ["journal", "quarantine", "lock"] {
        assert!(daemon.place.data().join(name).exists(), "{name}");
    }
}

#[test]
fn a_file_that_grows_shows_whole_batches_up_to_its_last_newline() {
    let daemon = Daemon::start(&[]);
    let mut connection = daemon.connect();
    let writer = std::thread::spawn(move || {
        for seq in 1..=60 {
            let items = format!(r#"{{"sku_local":{seq}}}"#);
            let items = vec![items; 50].join(",");
            let line =
                format!(r#"{{"session":"s","seq":{seq},"context":{{"lot_id":"L"}},"items":[{items}]}}"#);
            good(connection.ask(line));
        }
    });
    let mut seen = Vec::new();
    while !writer.is_finished() {
        let lines = daemon.lot("L");
        assert!(lines.starts_with(&seen), "what a reader has seen stays");
        for line in &lines[seen.len()..] {
            serde_json::from_str::<Value>(line).expect("a line up to the last newline is a whole record");
        }
        seen = lines;
    }
    writer.join().unwrap();
    let skus: Vec<_> = daemon.records("L").iter().map(|r| r["sku_local"].as_u64().unwrap()).collect();
    assert_eq!(skus, (1..=60).flat_map(|seq| [seq; 50]).collect::<Vec<u64>>());
}

#[test]
fn what_lies_in_a_lot_file_already_is_appended_to() {
    let daemon = Daemon::start(&[]);
    good(daemon.ask(batch("L", "s", 1)));
    let before = daemon.lot("L");
    let daemon = daemon.restart(&[]);
    good(daemon.ask(batch("L", "s", 2)));
    let after = daemon.lot("L");
    assert!(after.starts_with(&before) && after.len() == 2, "{after:?}");
}
