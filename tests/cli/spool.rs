//! `lotlog send --spool` against the real daemon: spools made by hand, as docs/spool.md describes them.

use std::path::Path;

use rustix::fs::{FlockOperation, flock};

use crate::{Daemon, lotlog, run};

fn line(session: &str, seq: u64, n: u64) -> String {
    format!(
        "{{\"session\":\"{session}\",\"seq\":{seq},\"context\":{{\"lot_id\":\"L\"}},\"items\":[{{\"n\":{n}}}]}}\n"
    )
}

fn seen(daemon: &Daemon) -> Vec<u64> {
    daemon.lot("L").iter().map(|record| record["n"].as_u64().unwrap()).collect()
}

fn files(spool: &Path) -> Vec<String> {
    let names =
        std::fs::read_dir(spool).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.filter(|name| name != "lock").collect();
    names.sort();
    names
}

#[track_caller]
fn deliver(daemon: &Daemon, spool: &Path, code: i32) -> (serde_json::Value, String) {
    let (got, out, error) = run(daemon.lotlog(&["send", "--spool", spool.to_str().unwrap(), "--json"]));
    assert_eq!(got, code, "{out}{error}");
    (serde_json::from_str(&out).unwrap_or_default(), error)
}

#[test]
fn a_spool_is_delivered_in_order_and_once_however_often_it_is_tried() {
    let home = tempfile::tempdir().unwrap();
    let mut daemon = Daemon::start(home.path());
    let spool = tempfile::tempdir().unwrap();
    let texts = [
        ("1-1.spool", line("a", 1, 1) + &line("a", 2, 2)),
        ("2-1.spool", line("a", 3, 3) + &line("b", 1, 4)),
    ];
    for round in 0..3 {
        for (name, text) in &texts {
            std::fs::write(spool.path().join(name), text).unwrap();
        }
        let (page, _) = deliver(&daemon, spool.path(), 0);
        let (fresh, again) = if round == 0 { (4, 0) } else { (0, 4) };
        assert_eq!(
            (&page["delivered_batches"], &page["duplicates"]),
            (&fresh.into(), &again.into()),
            "{page}"
        );
        assert!(files(spool.path()).is_empty());
        daemon.kill();
        daemon = Daemon::start(home.path());
    }
    assert_eq!(seen(&daemon), [1, 2, 3, 4]);
}

#[test]
fn a_refused_batch_is_set_aside_and_what_is_behind_it_is_stored_once() {
    let home = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(home.path());
    let spool = tempfile::tempdir().unwrap();
    let bad = "{\"session\":\"a\",\"seq\":2,\"items\":[5]}\n";
    let text = [
        line("a", 1, 1),
        bad.into(),
        line("a", 3, 3),
        "no request\n".into(),
        line("a", 4, 4),
        "{\"torn".into(),
    ];
    std::fs::write(spool.path().join("1-1.spool"), text.concat()).unwrap();
    let (page, said) = deliver(&daemon, spool.path(), 65);
    assert_eq!(seen(&daemon), [1, 3, 4], "{said}");
    assert_eq!(page["refused"], 2, "{page}");
    assert_eq!(files(spool.path()), ["1-1.refused"]);
    let kept = std::fs::read_to_string(spool.path().join("1-1.refused")).unwrap();
    assert!(kept.contains(bad) && kept.contains("no request\n"), "{kept}");
}

#[test]
fn what_is_behind_a_number_that_was_used_for_other_content_is_stored_once() {
    let home = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(home.path());
    let spool = tempfile::tempdir().unwrap();
    std::fs::write(spool.path().join("1-1.spool"), line("a", 1, 9)).unwrap();
    deliver(&daemon, spool.path(), 0);
    let text = [line("a", 1, 1), line("a", 2, 2), line("a", 3, 3), line("b", 1, 4)];
    std::fs::write(spool.path().join("2-1.spool"), text.concat()).unwrap();
    let (page, said) = deliver(&daemon, spool.path(), 65);
    assert_eq!(seen(&daemon), [9, 2, 3, 4], "{said}");
    assert_eq!(page["refused"], 1, "{page}");
    assert_eq!(std::fs::read_to_string(spool.path().join("2-1.refused")).unwrap(), text[0]);
}

#[test]
fn a_session_that_the_daemon_does_not_know_goes_under_a_new_one_with_a_word() {
    let home = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(home.path());
    let spool = tempfile::tempdir().unwrap();
    std::fs::write(spool.path().join("1-1.spool"), line("gone", 41, 1) + &line("gone", 42, 2)).unwrap();
    let (page, said) = deliver(&daemon, spool.path(), 0);
    assert!(said.contains("does not know session gone any more: 2 batches go under a new one"), "{said}");
    assert_eq!((seen(&daemon), &page["renumbered"]), (vec![1, 2], &2.into()));
}

#[test]
fn a_spool_that_is_being_delivered_is_left_alone_and_one_that_is_not_there_is_no_success() {
    let home = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(home.path());
    let spool = tempfile::tempdir().unwrap();
    std::fs::write(spool.path().join("1-1.spool"), line("a", 1, 1)).unwrap();
    let lock = std::fs::File::create(spool.path().join("lock")).unwrap();
    flock(&lock, FlockOperation::LockExclusive).unwrap();
    let (_, said) = deliver(&daemon, spool.path(), 74);
    assert!(said.contains("another process is delivering this spool"), "{said}");
    drop(lock);
    let none = spool.path().join("none");
    let (code, _, said) = run(daemon.lotlog(&["send", "--spool", none.to_str().unwrap()]));
    assert!(code == 65 && said.contains("no directory") && !none.exists(), "{said}");
    deliver(&daemon, spool.path(), 0);
    assert_eq!(seen(&daemon), [1]);
}

#[test]
fn without_a_daemon_the_spool_is_kept() {
    let spool = tempfile::tempdir().unwrap();
    std::fs::write(spool.path().join("1-1.spool"), line("a", 1, 1)).unwrap();
    let socket = spool.path().join("s");
    let (code, _, said) = run(lotlog(&[
        "send",
        "--spool",
        spool.path().to_str().unwrap(),
        "--socket",
        socket.to_str().unwrap(),
    ]));
    assert_eq!(code, 69, "{said}");
    assert_eq!(files(spool.path()), ["1-1.spool"]);
}

#[test]
fn what_is_no_file_in_a_spool_is_passed_over_with_a_word() {
    let home = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(home.path());
    let spool = tempfile::tempdir().unwrap();
    std::fs::create_dir(spool.path().join("1-1.spool")).unwrap();
    let pipe = spool.path().join("2-1.spool");
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0)
        .unwrap();
    std::fs::write(spool.path().join("3-1.spool"), line("a", 1, 1)).unwrap();
    let (page, said) = deliver(&daemon, spool.path(), 0);
    assert_eq!(page["delivered_batches"], 1, "{page}");
    assert_eq!(said.matches("is no file").count(), 2, "{said}");
    assert_eq!(files(spool.path()), ["1-1.spool", "2-1.spool"]);
    assert_eq!(seen(&daemon), [1]);
}
