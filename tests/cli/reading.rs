//! `lots`, `cat`, `tail`: the files as any reader sees them, while they grow, move and are cut.

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout};

use serde_json::Value;

use crate::{lotlog, run, wait_for};

fn lots_dir(home: &Path) -> PathBuf {
    let lots = home.join("lots");
    fs::create_dir(&lots).unwrap();
    lots
}

fn append(path: &Path, text: &str) {
    OpenOptions::new().create(true).append(true).open(path).unwrap().write_all(text.as_bytes()).unwrap();
}

#[test]
fn lots_lists_whole_records_only_and_knows_the_ids() {
    let home = tempfile::tempdir().unwrap();
    let lots = lots_dir(home.path());
    append(
        &lots.join("estate%2FNord%20%C3%98.jsonl"),
        "{\"timestamp\":\"T1\"}\n{\"timestamp\":\"T2\"}\n{\"timest",
    );
    append(&lots.join("A.jsonl"), "{\"n\":1}\n");
    append(&lots.join("not a lot.jsonl"), "{}\n");
    append(&lots.join("A.jsonl.1"), "{}\n");
    let data = home.path().to_str().unwrap();
    let (code, out, _) = run(lotlog(&["lots", "--json", "--data-dir", data]));
    assert_eq!(code, 0);
    let page: Value = serde_json::from_str(&out).unwrap();
    let expected = serde_json::json!([
        {"lot": "A", "records": 1, "bytes": 8, "archived": 0, "last": null},
        {"lot": "estate/Nord Ø", "records": 2, "bytes": 38, "archived": 0, "last": "T2"},
    ]);
    assert_eq!(page["lots"], expected);
    let (_, table, _) = run(lotlog(&["lots", "--data-dir", data]));
    assert_eq!(table.lines().count(), 3);
    assert!(table.contains("estate/Nord Ø") && table.contains("T2"), "{table}");
    // What has a lot's name and is no file is passed over, but not as if all were well.
    fs::create_dir(lots.join("U.jsonl")).unwrap();
    let (code, again, error) = run(lotlog(&["lots", "--data-dir", data]));
    assert_eq!((code, again), (65, table), "{error}");
    assert!(error.contains("lots/U.jsonl") && error.contains("1 lots are not in the list"), "{error}");
}

#[test]
fn cat_and_tail_print_whole_lines_only() {
    let home = tempfile::tempdir().unwrap();
    let lot = lots_dir(home.path()).join("L%201.jsonl");
    let long = "x".repeat(300_000);
    let lines: String = (0..30).map(|n| format!("{{\"n\":{n},\"pad\":\"{long}\"}}\n")).collect();
    append(&lot, &lines);
    append(&lot, "{\"torn");
    let data = home.path().to_str().unwrap();
    assert_eq!(run(lotlog(&["cat", "L 1", "--data-dir", data])), (0, lines.clone(), String::new()));
    let last = |count: usize| lines.split_inclusive('\n').skip(30 - count).collect::<String>();
    for (count, expected) in
        [("0", last(0)), ("1", last(1)), ("29", last(29)), ("30", last(30)), ("99", last(30))]
    {
        let (code, out, _) = run(lotlog(&["tail", "-n", count, "L 1", "--data-dir", data]));
        assert!(code == 0 && out == expected, "-n {count}: {} bytes", out.len());
    }
    let (_, out, _) = run(lotlog(&["tail", "L 1", "--data-dir", data]));
    assert!(out == last(10));
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let home = tempfile::tempdir().unwrap();
    let lot = lots_dir(home.path()).join("L.jsonl");
    append(&lot, &"{\"n\":1}\n".repeat(200_000));
    let data = home.path().to_str().unwrap();
    for args in [vec!["cat", "L"], vec!["tail", "-n", "200000", "L"], vec!["tail", "-f", "-n", "1", "L"]] {
        let mut child = lotlog(&[&args[..], &["--data-dir", data]].concat()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "{\"n\":1}\n");
        let output = child.wait_with_output().unwrap();
        assert_eq!((output.status.code(), output.stderr), (Some(0), Vec::new()), "{args:?}");
    }
}

struct Follow {
    child: Child,
    out: BufReader<ChildStdout>,
}

impl Follow {
    fn start(data: &Path, options: &[&str]) -> Follow {
        let args = [&["tail", "-f"], options, &["L", "--data-dir", data.to_str().unwrap()]].concat();
        let mut child = lotlog(&args).spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        Follow { child, out }
    }

    /// The next line; a test that waits for ever is ended by its runner.
    #[track_caller]
    fn expect(&mut self, line: &str) {
        let mut got = String::new();
        self.out.read_line(&mut got).unwrap();
        assert_eq!(got.trim_end(), line);
    }
}

impl Drop for Follow {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn tail_follows_through_rotation_and_truncation_and_ends_on_a_signal() {
    let home = tempfile::tempdir().unwrap();
    let lots = lots_dir(home.path());
    let (lot, old) = (lots.join("L.jsonl"), lots.join("L.jsonl.1"));
    append(&lot, "one\ntwo\n");
    let mut follow = Follow::start(home.path(), &["-n", "1"]);
    follow.expect("two");
    append(&lot, "thr");
    append(&lot, "ee\nfour");
    follow.expect("three");
    // Renamed; what is still added to the old file comes before what is in the new one.
    fs::rename(&lot, &old).unwrap();
    append(&old, " and a half\n");
    follow.expect("four and a half");
    append(&old, "five\n");
    append(&lot, "six\n");
    follow.expect("five");
    follow.expect("six");
    // Cut short and written again.
    append(&lot, "seven, longer than what follows\n");
    follow.expect("seven, longer than what follows");
    File::create(&lot).unwrap();
    append(&lot, "eight\n");
    follow.expect("eight");
    // Removed and made again.
    fs::remove_file(&lot).unwrap();
    append(&lot, "nine\n");
    follow.expect("nine");
    rustix::process::kill_process(
        rustix::process::Pid::from_child(&follow.child),
        rustix::process::Signal::INT,
    )
    .unwrap();
    let status = wait_for("the end", || follow.child.try_wait().unwrap());
    assert_eq!(status.code(), Some(0));
}

#[test]
fn tail_that_was_held_up_misses_nothing_of_what_was_archived_meanwhile() {
    let home = tempfile::tempdir().unwrap();
    let lot = lots_dir(home.path()).join("L.jsonl");
    let archive = home.path().join("archive/lot=L");
    fs::create_dir_all(&archive).unwrap();
    let rotate = |number: u64| fs::rename(&lot, archive.join(format!("{number:020}.jsonl"))).unwrap();
    append(&lot, "before\n");
    rotate(1);
    append(&lot, "one\n");
    let mut follow = Follow::start(home.path(), &["-n", "1"]);
    follow.expect("one");
    let tail = rustix::process::Pid::from_child(&follow.child);
    let signal = |signal| rustix::process::kill_process(tail, signal).unwrap();
    for (live, begin) in [(true, 2), (false, 12)] {
        signal(rustix::process::Signal::STOP);
        append(&lot, &format!("end of {begin}\n"));
        rotate(begin);
        append(&lot, &format!("two {begin}\n2\n"));
        rotate(begin + 1);
        append(&lot, &format!("three {begin}\n"));
        if !live {
            rotate(begin + 2);
        }
        signal(rustix::process::Signal::CONT);
        follow.expect(&format!("end of {begin}"));
        follow.expect(&format!("two {begin}"));
        follow.expect("2");
        follow.expect(&format!("three {begin}"));
    }
    append(&lot, "last\n");
    follow.expect("last");
}

#[test]
fn tail_waits_for_a_lot_that_is_not_there_yet() {
    let home = tempfile::tempdir().unwrap();
    let lots = lots_dir(home.path());
    let mut follow = Follow::start(home.path(), &[]);
    let mut said = String::new();
    BufReader::new(follow.child.stderr.take().unwrap()).read_line(&mut said).unwrap();
    assert!(said.contains("waiting for lot `L`"), "{said}");
    append(&lots.join("L.jsonl"), "first\n");
    follow.expect("first");
}
