//! Sections 2 and 3: sessions, duplicates, promises, replies in order.

use std::time::Instant;

use rustix::process::Signal;
use serde_json::json;

use crate::common::{Connection, Daemon, until};
use crate::shape::{batch, good, refused};

#[test]
fn a_batch_sent_again_is_stored_once_and_answered_as_the_first_time() {
    let daemon = Daemon::start(&[]);
    let first = good(daemon.ask(batch("L", "s", 1)));
    assert_eq!(first, json!({"ok":true,"lot":"L","records":1,"lsn":1,"seq":1,"durability":"synced"}));
    let again = good(daemon.ask(batch("L", "s", 1)));
    assert_eq!(
        again,
        json!({"ok":true,"lot":"L","records":1,"lsn":1,"seq":1,"durability":"synced","duplicate":true})
    );
    good(daemon.ask(batch("L", "s", 2)));
    let older = good(daemon.ask(batch("L", "s", 1)));
    assert_eq!(older, json!({"ok":true,"lot":"L","seq":1,"durability":"synced","duplicate":true}));
    assert_eq!(daemon.lot("L").len(), 2);
}

#[test]
fn a_gap_is_refused_with_the_expected_number_and_uses_up_none() {
    let daemon = Daemon::start(&[]);
    for (seq, expected) in [(2, 1), (9, 1)] {
        let reply = daemon.ask(batch("L", "s", seq));
        refused(&reply, "out_of_sequence");
        assert_eq!((&reply["error"]["expected"], &reply["seq"]), (&json!(expected), &json!(seq)));
    }
    good(daemon.ask(batch("L", "s", 1)));
    let reply = daemon.ask(batch("L", "s", 3));
    refused(&reply, "out_of_sequence");
    assert_eq!(reply["error"]["expected"], 2);
    good(daemon.ask(batch("L", "s", 2)));
}

#[test]
fn other_content_under_a_used_number_is_a_conflict() {
    let daemon = Daemon::start(&[]);
    good(daemon.ask(batch("L", "s", 1)));
    refused(&daemon.ask(batch("M", "s", 1)), "conflict");
    refused(&daemon.ask(batch("L", "s", 1).replace("s/1", "other")), "conflict");
    // Another spelling of the same content, and another timestamp, are the same content.
    let same = r#"{"items":[{ "sku_local" : "s\/1" }],"seq":1,"session":"s","context":{"timestamp":"x","lot_id":"\u004c"}}"#;
    assert_eq!(good(daemon.ask(same))["duplicate"], true);
    assert_eq!(daemon.lot("L").len(), 1);
    assert!(daemon.lot("M").is_empty());
}

#[test]
fn a_refused_batch_does_not_use_up_its_number() {
    let daemon = Daemon::start(&[]);
    let bad = batch("L", "s", 1).replace("\"lot_id\":\"L\"", "\"lot_id\":\"\"");
    let reply = daemon.ask(bad);
    refused(&reply, "invalid_lot_id");
    assert_eq!(reply["seq"], 1, "an error names the number too");
    assert!(good(daemon.ask(batch("L", "s", 1))).get("duplicate").is_none());
}

#[test]
fn without_a_session_a_batch_is_stored_each_time() {
    let daemon = Daemon::start(&[]);
    for lsn in 1..=3 {
        let reply = good(daemon.ask(r#"{"context":{"lot_id":"L"},"items":[{"sku_local":"A"}]}"#));
        assert_eq!(reply["lsn"], lsn);
        assert!(reply.get("seq").is_none() && reply.get("duplicate").is_none());
    }
    assert_eq!(daemon.lot("L").len(), 3);
}

#[test]
fn sessions_lsn_and_timestamps_go_on_after_a_clean_restart_and_after_a_kill() {
    let mut daemon = Daemon::start(&[]);
    good(daemon.ask(batch("L", "s", 1)));
    for seq in 2..6 {
        if seq % 2 == 0 {
            daemon = daemon.restart(&[]);
        } else {
            daemon.kill();
            daemon = Daemon::start_in(&daemon.place.clone(), &[]);
        }
        let again = good(daemon.ask(batch("L", "s", seq - 1)));
        assert_eq!((&again["duplicate"], &again["lsn"]), (&json!(true), &json!(seq - 1)));
        assert_eq!(good(daemon.ask(batch("L", "s", seq)))["lsn"], seq);
    }
    let stamps: Vec<String> =
        daemon.records("L").iter().map(|r| r["timestamp"].as_str().unwrap().to_owned()).collect();
    assert_eq!(stamps.len(), 5);
    assert!(stamps.windows(2).all(|pair| pair[0] < pair[1]), "{stamps:?}");
    for stamp in stamps {
        assert!(stamp.len() == 32 && stamp.ends_with("+00:00") && &stamp[19..20] == ".", "{stamp}");
    }
}

#[test]
fn a_synced_batch_is_in_its_file_with_its_reply_and_a_written_one_within_a_second() {
    let daemon = Daemon::start(&[]);
    for seq in 1..20 {
        good(daemon.ask(batch("L", "s", seq)));
        assert_eq!(daemon.lot("L").len() as u64, seq);
    }
    let written = batch("W", "w", 1).replacen('{', r#"{"ack":"written","#, 1);
    assert_eq!(good(daemon.ask(&written))["durability"], "written");
    let begun = Instant::now();
    until("the written batch is visible", || (daemon.lot("W").len() == 1).then_some(()));
    assert!(begun.elapsed().as_millis() < 1000, "{:?}", begun.elapsed());
}

#[test]
fn a_sync_makes_everything_before_it_visible_at_once() {
    let daemon = Daemon::start(&["--sync-interval-seconds", "1m"]);
    let mut connection = daemon.connect();
    for seq in 1..=3 {
        good(connection.ask(batch("L", "s", seq).replacen('{', r#"{"ack":"written","#, 1)));
    }
    assert_eq!(daemon.lot("L").len(), 0, "a lot file only ever shows what is durable");
    assert_eq!(daemon.ask(r#"{"op":"sync"}"#), json!({"ok":true,"lsn":3}));
    assert_eq!(daemon.lot("L").len(), 3);
}

#[test]
fn the_duplicate_of_a_written_batch_asked_synced_is_synced_and_visible() {
    let daemon = Daemon::start(&["--sync-interval-seconds", "1m"]);
    good(daemon.ask(batch("L", "s", 1).replacen('{', r#"{"ack":"written","#, 1)));
    let again = good(daemon.ask(batch("L", "s", 1)));
    assert_eq!((&again["durability"], &again["duplicate"]), (&json!("synced"), &json!(true)));
    assert_eq!(daemon.lot("L").len(), 1);
}

#[test]
fn pipelined_requests_of_every_kind_are_answered_in_order() {
    let daemon = Daemon::start(&[]);
    let mut connection = daemon.connect();
    let mut sent = String::new();
    for seq in 1..=60 {
        let ack = if seq % 3 == 0 { "written" } else { "synced" };
        sent += &batch("L", "s", seq).replacen('{', &format!(r#"{{"ack":"{ack}","#), 1);
        sent += "\nnonsense\n{\"op\":\"status\"}\n{\"op\":\"sync\"}\n";
    }
    connection.send(sent);
    for seq in 1..=60 {
        assert_eq!(good(connection.reply())["seq"], seq);
        refused(&connection.reply(), "invalid_json");
        assert!(good(connection.reply())["uptime_seconds"].is_u64());
        assert!(good(connection.reply())["lsn"].as_u64() >= Some(seq), "everything before it is covered");
    }
}

#[test]
fn a_client_that_shuts_its_writing_half_down_still_reads_all_its_replies() {
    let daemon = Daemon::start(&[]);
    let mut connection = daemon.connect();
    let lines: Vec<String> = (1..=100).map(|seq| batch("L", "s", seq) + "\n").collect();
    connection.send(lines.concat());
    // A last line without its newline is never carried out.
    connection.send(batch("L", "s", 101));
    connection.close_writing();
    for seq in 1..=100 {
        assert_eq!(good(connection.reply())["seq"], seq);
    }
    connection.expect_end();
    assert_eq!(daemon.lot("L").len(), 100);
}

#[test]
fn an_empty_line_is_no_json_and_a_carriage_return_is_tolerated() {
    let daemon = Daemon::start(&[]);
    let mut connection = daemon.connect();
    for line in ["", "\r", "   "] {
        refused(&connection.ask(line), "invalid_json");
    }
    good(connection.ask(batch("L", "s", 1) + "\r"));
}

#[test]
fn status_has_every_field_and_counts() {
    let daemon = Daemon::start(&[]);
    good(daemon.ask(batch("L", "s", 1)));
    good(daemon.ask(batch("L", "s", 1)));
    refused(&daemon.ask("nonsense"), "invalid_json");
    let page = good(daemon.ask(r#"{"op":"status"}"#));
    for key in "version pid uptime_seconds durability data_dir connections queue_bytes batches records duplicates refused \
                bytes_written lots_open lsn synced_lsn journal_bytes syncs clock_skew_seconds ack_seconds sync_seconds"
        .split_whitespace()
    {
        assert!(!page[key].is_null(), "{key}: {page}");
    }
    for key in ["ack_seconds", "sync_seconds"] {
        for quantile in ["p50", "p99", "max"] {
            assert!(page[key][quantile].as_f64().is_some_and(|s| s > 0.0), "{key}.{quantile}: {page}");
        }
    }
    let counts = ["batches", "records", "duplicates", "lsn", "synced_lsn", "lots_open"]
        .map(|key| page[key].as_u64().unwrap());
    assert_eq!(counts, [1; 6], "{page}");
    assert_eq!(
        (page["refused"]["invalid_json"].as_u64(), page["pid"].as_u64()),
        (Some(1), Some(daemon.pid().into()))
    );
    let bytes = std::fs::metadata(daemon.place.lot_path("L.jsonl")).unwrap().len();
    assert_eq!(page["bytes_written"].as_u64(), Some(bytes));
}

#[test]
fn a_draining_daemon_answers_what_it_took_and_refuses_the_rest_by_name() {
    let mut daemon = Daemon::start(&[]);
    let mut connections: Vec<Connection> = (0..20).map(|_| daemon.connect()).collect();
    for (n, connection) in connections.iter_mut().enumerate() {
        let lines: Vec<String> = (1..=50).map(|seq| batch("L", &format!("s{n}"), seq) + "\n").collect();
        connection.send(lines.concat());
    }
    daemon.signal(Signal::TERM);
    let mut stored = 0;
    for connection in &mut connections {
        let mut refusals = 0;
        while let crate::common::Received::Line(line) = connection.receive() {
            let reply: serde_json::Value = serde_json::from_slice(&line).unwrap();
            if reply["ok"] == true {
                assert_eq!(refusals, 0, "nothing is stored behind a refusal");
                stored += 1;
            } else {
                refused(&reply, "shutting_down");
                refusals += 1;
            }
        }
    }
    assert_eq!(daemon.wait().code(), Some(0));
    assert_eq!(daemon.lot("L").len(), stored, "an ok is stored, a refusal is not");
}
