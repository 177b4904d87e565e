//! Sections 1 and 2, time and room: lines that stand still, peers that do not read, counters, tables that are full.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::common::{Connection, Daemon, Received, until};
use crate::shape::{batch, check_refused, good, refused};

/// The page of `status`.
#[track_caller]
fn status(daemon: &Daemon) -> Value {
    good(daemon.ask(r#"{"op":"status"}"#))
}

#[test]
fn a_line_that_stands_still_is_timed_out_and_nothing_of_it_is_stored() {
    let daemon = Daemon::start(&["--line-timeout-seconds", "200ms"]);
    let mut connection = daemon.connect();
    let line = batch("L", "s", 1);
    connection.send(&line);
    let begun = Instant::now();
    refused(&connection.reply(), "timeout");
    assert!(begun.elapsed() >= Duration::from_millis(190), "{:?}", begun.elapsed());
    connection.send_what_goes(b"\n");
    connection.expect_end();
    assert!(good(daemon.ask(line)).get("duplicate").is_none());
}

#[test]
fn requests_before_a_timeout_are_answered_before_it() {
    let daemon = Daemon::start(&["--line-timeout-seconds", "200ms"]);
    let mut connection = daemon.connect();
    connection.send(format!("{}\n{{", batch("L", "s", 1)));
    good(connection.reply());
    refused(&connection.reply(), "timeout");
    connection.expect_end();
}

#[test]
fn a_long_line_that_makes_progress_may_take_longer_than_the_deadline() {
    let daemon = Daemon::start(&["--line-timeout-seconds", "400ms"]);
    let mut connection = daemon.connect();
    let begun = Instant::now();
    connection.send(r#"{"context":{"lot_id":"L"},"items":[{"x":""#);
    while begun.elapsed() < Duration::from_millis(1000) {
        connection.send(vec![b'x'; 20 << 10]);
        // The pace is what is tested here.
        std::thread::sleep(Duration::from_millis(50));
    }
    connection.send("\"}]}\n");
    good(connection.reply());
}

#[test]
fn each_line_has_its_own_deadline() {
    let daemon = Daemon::start(&["--line-timeout-seconds", "500ms"]);
    let mut connection = daemon.connect();
    for seq in 1..=4 {
        let line = batch("L", "s", seq);
        let (first, second) = line.split_at(10);
        connection.send(first);
        std::thread::sleep(Duration::from_millis(200));
        connection.send(format!("{second}\n"));
        good(connection.reply());
    }
}

#[test]
fn a_peer_that_reads_nothing_is_closed_after_the_deadline_and_not_before() {
    let daemon = Daemon::start(&["--reply-timeout-seconds", "500ms", "--max-requests-in-flight", "65536"]);
    let mut deaf = daemon.connect();
    deaf.stream().set_write_timeout(Some(Duration::from_millis(100))).unwrap();
    let begun = Instant::now();
    deaf.send_what_goes("{\"op\":\"status\"}\n".repeat(20_000).as_bytes());
    until("the deaf one is closed", || (status(&daemon)["connections"] == 1).then_some(()));
    assert!(begun.elapsed() >= Duration::from_millis(500), "too early: {:?}", begun.elapsed());
    let mut replies = 0;
    let rest = loop {
        match deaf.receive() {
            Received::Line(_) => replies += 1,
            other => break other,
        }
    };
    assert!(matches!(rest, Received::End(_)) && replies < 20_000, "{replies} replies, then {rest:?}");
}

#[test]
fn a_peer_that_reads_slowly_gets_every_reply() {
    let daemon = Daemon::start(&["--reply-timeout-seconds", "500ms"]);
    let mut slow = daemon.connect();
    let mut writer = slow.stream().try_clone().unwrap();
    let sending = std::thread::spawn(move || {
        std::io::Write::write_all(&mut writer, "{\"op\":\"status\"}\n".repeat(1500).as_bytes())
    });
    for n in 0..1500 {
        if n % 150 == 0 {
            // Longer in all than the deadline.
            std::thread::sleep(Duration::from_millis(100));
        }
        good(slow.reply());
    }
    sending.join().unwrap().unwrap();
}

#[test]
fn a_peer_that_does_not_read_is_no_burden_to_others() {
    let daemon = Daemon::start(&[]);
    let mut deaf: Vec<Connection> = (0..5).map(|_| daemon.connect()).collect();
    for deaf in &mut deaf {
        deaf.stream().set_write_timeout(Some(Duration::from_millis(50))).unwrap();
        deaf.send_what_goes("{\"op\":\"status\"}\n".repeat(20_000).as_bytes());
    }
    for seq in 1..=20 {
        good(daemon.ask(batch("L", "s", seq)));
    }
}

#[test]
fn a_thousand_half_lines_hold_up_nobody() {
    let daemon = Daemon::start(&["--max-bytes-in-flight", "64KiB"]);
    let mut halves: Vec<Connection> = (0..1000).map(|_| daemon.connect()).collect();
    for (n, half) in halves.iter_mut().enumerate() {
        half.send(batch("L", &format!("s{n}"), 1).trim_end_matches('}'));
    }
    for seq in 1..=20 {
        good(daemon.ask(batch("L", "s", seq)));
    }
    halves.iter_mut().for_each(|half| half.send("}\n"));
    halves.iter_mut().for_each(|half| drop(good(half.reply())));
    assert_eq!(daemon.lot("L").len(), 1020);
}

#[test]
fn an_unfinished_line_beyond_the_budget_holds_up_nobody_elses_small_requests() {
    let daemon = Daemon::start(&["--max-bytes-in-flight", "1MiB", "--max-line-bytes", "1MiB"]);
    let (mut first, mut second) = (daemon.connect(), daemon.connect());
    let half = |kib: usize| format!(r#"{{"items":[{{"pad":"{}"#, "x".repeat(kib << 10));
    // The socket's buffers hold a part of either; what the daemon has read of both is more than 1 MiB.
    first.send(half(700));
    // Of an unfinished line 4 KiB are free. Before that the first might take the pass that the second needs.
    until("the first is read", || {
        let status = good(daemon.ask(r#"{"op":"status"}"#));
        (status["queue_bytes"].as_u64()? >= 696 << 10).then_some(())
    });
    second.send(half(1000));
    good(daemon.ask(r#"{"op":"status"}"#));
    good(daemon.ask(batch("L", "s", 1)));
}

#[test]
fn a_line_longer_than_the_whole_budget_is_finished() {
    let daemon = Daemon::start(&["--max-bytes-in-flight", "64KiB", "--max-line-bytes", "4MiB"]);
    let long = format!(r#"{{"context":{{"lot_id":"L"}},"items":[{{"x":"{}"}}]}}"#, "x".repeat(3 << 20));
    for _ in 0..3 {
        good(daemon.ask(&long));
    }
    assert_eq!(daemon.lot("L").len(), 3);
}

#[test]
fn many_long_lines_at_once_are_all_taken_with_little_room() {
    let daemon = Daemon::start(&["--max-bytes-in-flight", "256KiB"]);
    let senders: Vec<_> = (0..12)
        .map(|n| {
            let mut connection = daemon.connect();
            let line = batch("L", &format!("s{n}"), 1)
                .replace("{\"sku", &format!("{{\"x\":\"{}\",\"sku", "x".repeat(300_000)));
            std::thread::spawn(move || drop(good(connection.ask(line))))
        })
        .collect();
    senders.into_iter().for_each(|sender| sender.join().unwrap());
    assert_eq!(daemon.lot("L").len(), 12);
}

#[test]
fn too_many_sessions_in_use_are_busy_and_the_known_ones_go_on() {
    let daemon = Daemon::start(&["--session-memory-bytes", "64KiB"]);
    let mut connection = daemon.connect();
    let full = (1..20_000).find(|n| {
        let reply = connection.ask(batch("L", &format!("s{n}"), 1).replacen('{', r#"{"ack":"written","#, 1));
        if reply["ok"] == true {
            return false;
        }
        refused(&reply, "busy");
        true
    });
    let full = full.expect("the table is full at some time");
    assert!(full > 1);
    good(connection.ask(batch("L", "s1", 2)));
    good(connection.ask(r#"{"context":{"lot_id":"L"},"items":[{}]}"#));
    refused(&connection.ask(batch("L", "yet-another", 1)), "busy");
    assert_eq!(daemon.lot("L").len(), full + 1);
}

#[test]
fn status_counts_refusals_by_code() {
    let daemon = Daemon::start(&["--max-items", "1"]);
    let count = |code: &str| status(&daemon)["refused"][code].as_u64().unwrap_or(0);
    for (line, code) in [
        ("{", "invalid_json"),
        (r#"{"items":1}"#, "invalid_request"),
        (r#"{"context":{"lot_id":""},"items":[{}]}"#, "invalid_lot_id"),
        (r#"{"items":[{},{}]}"#, "too_large"),
        (r#"{"session":"s","seq":2,"items":[{}]}"#, "out_of_sequence"),
    ] {
        assert_eq!(count(code), 0);
        check_refused(&daemon, line, code, &[]);
        assert_eq!(count(code), 1, "{code}");
    }
}

#[test]
fn status_says_what_the_daemon_is_set_to() {
    let daemon = Daemon::start(&["--durability", "written"]);
    let page = status(&daemon);
    assert_eq!(page["durability"], "written");
    assert_eq!(page["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(page["data_dir"], daemon.place.data().to_str().unwrap());
    assert_eq!((&page["batches"], &page["records"], &page["duplicates"]), (&json!(0), &json!(0), &json!(0)));
}

#[test]
fn status_tells_what_is_taken_from_what_is_synced() {
    let daemon = Daemon::start(&["--sync-interval-seconds", "60"]);
    good(daemon.ask(batch("L", "s", 1).replacen('{', r#"{"ack":"written","#, 1)));
    let page = status(&daemon);
    assert_eq!((&page["lsn"], &page["synced_lsn"]), (&json!(1), &json!(0)), "{page}");
    assert_eq!(good(daemon.ask(r#"{"op":"sync"}"#))["lsn"], 1);
    assert_eq!(status(&daemon)["synced_lsn"], 1);
}

#[test]
fn a_sync_of_nothing_is_answered() {
    let daemon = Daemon::start(&[]);
    assert_eq!(daemon.ask(r#"{"op":"sync"}"#), json!({"ok": true, "lsn": 0}));
}
