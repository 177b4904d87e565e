//! Section 2, sessions: at most once, in order, across connections, restarts and deaths.

use serde_json::Value;

use crate::common::Daemon;
use crate::shape::{batch, good, refused};

/// Refused with the number that the session expects.
#[track_caller]
fn check_expects(reply: &Value, seq: u64, expected: u64) {
    refused(reply, "out_of_sequence");
    assert_eq!((&reply["seq"], &reply["error"]["expected"]), (&seq.into(), &expected.into()), "{reply}");
}

/// The same line twice, then a second batch changed in this way under the same number: refused with `conflict`.
#[track_caller]
fn check_conflict(first: &str, changed: &str) {
    let daemon = Daemon::start(&[]);
    good(daemon.ask(first));
    assert_eq!(good(daemon.ask(first))["duplicate"], true);
    refused(&daemon.ask(changed), "conflict");
    assert_eq!(daemon.place.lots().len(), 1, "a conflicting batch left a file");
    assert_eq!(good(daemon.ask(first))["duplicate"], true, "the first content is still the stored one");
}

/// Another spelling of the same batch is its duplicate.
#[track_caller]
fn check_same(first: &str, again: &str) {
    let daemon = Daemon::start(&[]);
    good(daemon.ask(first));
    assert_eq!(good(daemon.ask(again))["duplicate"], true, "{again}");
}

#[test]
fn a_session_begins_with_1() {
    let daemon = Daemon::start(&[]);
    check_expects(&daemon.ask(batch("L", "s", 2)), 2, 1);
    check_expects(&daemon.ask(batch("L", "s", 1 << 40)), 1 << 40, 1);
    good(daemon.ask(batch("L", "s", 1)));
    assert_eq!(daemon.lot("L").len(), 1);
}

#[test]
fn a_gap_is_refused_with_the_expected_number() {
    let daemon = Daemon::start(&[]);
    good(daemon.ask(batch("L", "s", 1)));
    check_expects(&daemon.ask(batch("L", "s", 3)), 3, 2);
    good(daemon.ask(batch("L", "s", 2)));
    good(daemon.ask(batch("L", "s", 3)));
    assert_eq!(daemon.lot("L").len(), 3);
}

#[test]
fn the_last_batch_sent_again_is_answered_with_its_records_and_lsn() {
    let daemon = Daemon::start(&[]);
    let line = r#"{"session":"s","seq":1,"context":{"lot_id":"L"},"items":[{},{},{}]}"#;
    let first = good(daemon.ask(line));
    good(daemon.ask(batch("M", "other", 1)));
    let again = good(daemon.ask(line));
    assert!(first.get("duplicate").is_none(), "{first}");
    assert_eq!(again["duplicate"], true, "{again}");
    for key in ["lot", "records", "lsn", "seq", "durability"] {
        assert_eq!(again[key], first[key], "{key}: {again}");
    }
    assert_eq!(daemon.lot("L").len(), 3);
}

#[test]
fn an_older_batch_sent_again_is_answered_without_them() {
    let daemon = Daemon::start(&[]);
    for seq in 1..=3 {
        good(daemon.ask(batch("L", "s", seq)));
    }
    let again = good(daemon.ask(batch("L", "s", 1)));
    assert_eq!((&again["duplicate"], &again["seq"]), (&true.into(), &1.into()), "{again}");
    assert!(again.get("lsn").is_none() && again.get("records").is_none(), "{again}");
    assert_eq!(daemon.lot("L").len(), 3);
}

#[test]
fn a_duplicate_is_one_however_often_and_wherever_it_is_sent() {
    let daemon = Daemon::start(&[]);
    let line = batch("L", "s", 1);
    let mut connection = daemon.connect();
    connection.send(format!("{line}\n").repeat(20));
    let fresh = (0..20).filter(|_| good(connection.reply()).get("duplicate").is_none()).count();
    assert_eq!(fresh, 1);
    for _ in 0..5 {
        assert_eq!(good(daemon.ask(&line))["duplicate"], true);
    }
    assert_eq!(daemon.lot("L").len(), 1);
}

#[test]
fn many_connections_racing_with_one_batch_store_it_once() {
    let daemon = Daemon::start(&[]);
    let mut connections: Vec<_> = (0..50).map(|_| daemon.connect()).collect();
    connections.iter_mut().for_each(|c| c.send_line(batch("L", "s", 1)));
    let replies: Vec<_> = connections.iter_mut().map(|c| good(c.reply())).collect();
    assert_eq!(replies.iter().filter(|reply| reply.get("duplicate").is_none()).count(), 1);
    assert!(replies.iter().all(|reply| reply["lsn"] == replies[0]["lsn"]));
    assert_eq!(daemon.lot("L").len(), 1);
}

#[test]
fn a_refusal_in_a_pipelined_session_is_resent_from_expected() {
    let daemon = Daemon::start(&[]);
    let mut connection = daemon.connect();
    let bad = r#"{"session":"s","seq":2,"context":{"lot_id":"L"},"items":[7]}"#;
    connection.send(format!(
        "{}\n{bad}\n{}\n{}\n",
        batch("L", "s", 1),
        batch("L", "s", 3),
        batch("L", "s", 4)
    ));
    good(connection.reply());
    refused(&connection.reply(), "invalid_request");
    check_expects(&connection.reply(), 3, 2);
    check_expects(&connection.reply(), 4, 2);
    for seq in 2..=4 {
        good(connection.ask(batch("L", "s", seq)));
    }
    assert_eq!(daemon.lot("L").len(), 4);
}

#[test]
fn sessions_count_apart_and_over_lots() {
    let daemon = Daemon::start(&[]);
    good(daemon.ask(batch("L", "s", 1)));
    good(daemon.ask(batch("L", "t", 1)));
    good(daemon.ask(batch("M", "s", 2)));
    check_expects(&daemon.ask(batch("L", "S", 2)), 2, 1);
    assert_eq!((daemon.lot("L").len(), daemon.lot("M").len()), (2, 1));
}

#[test]
fn without_a_session_a_batch_is_stored_each_time() {
    let daemon = Daemon::start(&[]);
    for _ in 0..3 {
        let reply = good(daemon.ask(r#"{"items":[{"sku_local":"A"}]}"#));
        assert!(reply.get("duplicate").is_none() && reply.get("seq").is_none(), "{reply}");
    }
    assert_eq!(daemon.lot("unassigned").len(), 3);
}

#[test]
fn another_lot_under_the_same_number_is_a_conflict() {
    check_conflict(&batch("L", "s", 1), &batch("M", "s", 1));
}

#[test]
fn other_items_under_the_same_number_are_a_conflict() {
    let with =
        |items: &str| format!(r#"{{"session":"s","seq":1,"context":{{"lot_id":"L"}},"items":[{items}]}}"#);
    check_conflict(&with(r#"{"x":1}"#), &with(r#"{"x":2}"#));
    check_conflict(&with(r#"{"x":1}"#), &with(r#"{"x":1},{"x":1}"#));
    check_conflict(&with(r#"{"x":1},{"x":2}"#), &with(r#"{"x":2},{"x":1}"#));
    check_conflict(&with(r#"{"est_price_mu":1.0}"#), &with(r#"{"est_price_mu":1.5}"#));
}

#[test]
fn another_context_under_the_same_number_is_a_conflict() {
    let with = |context: &str| {
        format!(r#"{{"session":"s","seq":1,"context":{{"lot_id":"L"{context}}},"items":[{{}}]}}"#)
    };
    check_conflict(&with(""), &with(r#","roi_target":1.25"#));
    check_conflict(&with(r#","opt_params":{"sims":1}"#), &with(r#","opt_params":{"sims":2}"#));
    check_conflict(&with(r#","note":"a""#), &with(r#","note":"b""#));
}

#[test]
fn the_timestamp_of_the_context_is_no_content() {
    let with = |time: &str| {
        format!(r#"{{"session":"s","seq":1,"context":{{"lot_id":"L","timestamp":"{time}"}},"items":[{{}}]}}"#)
    };
    check_same(&with("2025-01-01T00:00:00Z"), &with("2026-02-02T00:00:00Z"));
    check_same(
        &with("2025-01-01T00:00:00Z"),
        r#"{"session":"s","seq":1,"context":{"lot_id":"L"},"items":[{}]}"#,
    );
}

#[test]
fn blanks_and_escapes_are_no_content() {
    check_same(
        r#"{"session":"s","seq":1,"context":{"lot_id":"L"},"items":[{"title":"café"}]}"#,
        r#"{ "items": [ {"title": "caf\u00e9"} ], "context": {"lot_id": "L"}, "seq": 1, "session": "s" }"#,
    );
}

#[test]
fn the_wish_for_an_ack_is_no_content() {
    check_same(
        r#"{"session":"s","seq":1,"ack":"written","items":[{"x":1}]}"#,
        r#"{"session":"s","seq":1,"ack":"synced","items":[{"x":1}]}"#,
    );
}

#[test]
fn a_duplicate_that_asks_for_synced_is_in_the_file_when_answered() {
    let daemon = Daemon::start(&["--sync-interval-seconds", "60"]);
    let with = |ack: &str| {
        format!(r#"{{"session":"s","seq":1,"ack":"{ack}","context":{{"lot_id":"L"}},"items":[{{}}]}}"#)
    };
    assert_eq!(good(daemon.ask(with("written")))["durability"], "written");
    let again = good(daemon.ask(with("synced")));
    assert_eq!((&again["duplicate"], &again["durability"]), (&true.into(), &"synced".into()), "{again}");
    assert_eq!(daemon.lot("L").len(), 1);
}
