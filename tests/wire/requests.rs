//! Section 2: every key of every request, its type, and what is refused by which name.

use crate::common::Daemon;
use crate::shape::{check_refused, good};

/// Refused as `invalid_request`, naming this.
#[track_caller]
fn check_invalid(daemon: &Daemon, line: &str, names: &str) {
    check_refused(daemon, line, "invalid_request", &[names]);
}

/// Taken with this number of records.
#[track_caller]
fn check_good(daemon: &Daemon, line: &str, records: u64) {
    assert_eq!(good(daemon.ask(line))["records"], records, "{line}");
}

#[test]
fn an_op_left_out_null_or_log_is_log() {
    let daemon = Daemon::start(&[]);
    check_good(&daemon, r#"{"items":[{}]}"#, 1);
    check_good(&daemon, r#"{"op":null,"items":[{}]}"#, 1);
    check_good(&daemon, r#"{"op":"log","items":[{}]}"#, 1);
    assert_eq!(daemon.lot("unassigned").len(), 3);
}

#[test]
fn an_unknown_op_is_refused_by_its_name() {
    let daemon = Daemon::start(&[]);
    check_invalid(&daemon, r#"{"op":"drop","items":[]}"#, "op");
    check_invalid(&daemon, r#"{"op":"LOG","items":[]}"#, "op");
    check_invalid(&daemon, r#"{"op":7,"items":[]}"#, "op");
    check_invalid(&daemon, r#"{"op":"","items":[]}"#, "op");
}

#[test]
fn a_key_the_op_does_not_know_is_refused_by_name() {
    let daemon = Daemon::start(&[]);
    check_invalid(&daemon, r#"{"items":[{}],"lot_id":"L"}"#, "lot_id");
    check_invalid(&daemon, r#"{"items":[{}],"Items":[]}"#, "Items");
    check_invalid(&daemon, r#"{"op":"sync","items":[]}"#, "items");
    check_invalid(&daemon, r#"{"op":"sync","session":"s"}"#, "session");
    check_invalid(&daemon, r#"{"op":"status","verbose":true}"#, "verbose");
    check_invalid(&daemon, r#"{"items":[{}],"strange":null}"#, "strange");
}

#[test]
fn optional_keys_that_are_null_count_as_absent() {
    let daemon = Daemon::start(&[]);
    let line =
        r#"{"op":null,"session":null,"seq":null,"ack":null,"context":null,"items":[{"sku_local":"A"}]}"#;
    let reply = good(daemon.ask(line));
    assert_eq!((&reply["lot"], &reply["durability"]), (&"unassigned".into(), &"synced".into()));
    assert!(reply.get("seq").is_none(), "{reply}");
    assert_eq!(daemon.records("unassigned")[0]["sku_local"], "A");
}

#[test]
fn items_are_required_and_an_array() {
    let daemon = Daemon::start(&[]);
    check_invalid(&daemon, r#"{"context":{"lot_id":"L"}}"#, "items");
    check_invalid(&daemon, "{}", "items");
    for items in ["null", "{}", r#""[]""#, "1", "true"] {
        check_invalid(&daemon, &format!(r#"{{"items":{items}}}"#), "items");
    }
}

#[test]
fn every_item_is_an_object_and_the_first_other_is_named() {
    let daemon = Daemon::start(&[]);
    for other in ["null", "[]", r#""a""#, "1.5", "false", "NaN"] {
        check_invalid(&daemon, &format!(r#"{{"items":[{{}},{{}},{other},{{}},7]}}"#), "items[2]");
    }
}

#[test]
fn a_batch_without_items_creates_nothing_and_uses_no_number() {
    let daemon = Daemon::start(&[]);
    let line = r#"{"session":"s","seq":1,"context":{"lot_id":"L"},"items":[]}"#;
    let reply = good(daemon.ask(line));
    assert_eq!(reply["records"], 0, "{reply}");
    assert!(reply.get("lsn").is_none(), "{reply}");
    assert_eq!(reply["lot"], "L", "{reply}");
    assert!(daemon.place.lots().is_empty());
    let reply = good(daemon.ask(crate::shape::batch("L", "s", 1)));
    assert!(reply.get("duplicate").is_none(), "{reply}");
    assert_eq!(daemon.lot("L").len(), 1);
}

#[test]
fn a_batch_without_items_is_held_to_the_rules_all_the_same() {
    let daemon = Daemon::start(&[]);
    check_invalid(&daemon, r#"{"items":[],"context":[]}"#, "context");
    check_invalid(&daemon, r#"{"items":[],"session":"s"}"#, "seq");
    check_refused(&daemon, r#"{"items":[],"context":{"lot_id":""}}"#, "invalid_lot_id", &[]);
}

#[test]
fn a_context_is_an_object() {
    let daemon = Daemon::start(&[]);
    for context in ["[]", r#""L""#, "1", "true"] {
        check_invalid(&daemon, &format!(r#"{{"context":{context},"items":[{{}}]}}"#), "context");
    }
    check_good(&daemon, r#"{"context":{},"items":[{}]}"#, 1);
}

#[test]
fn a_session_has_1_to_64_of_its_characters() {
    let daemon = Daemon::start(&[]);
    let with = |session: &str| format!(r#"{{"session":{session},"seq":1,"items":[{{}}]}}"#);
    check_good(&daemon, &with(r#""aZ09._:-""#), 1);
    check_good(&daemon, &with(r#""x""#), 1);
    check_good(&daemon, &with(&format!(r#""{}""#, "s".repeat(64))), 1);
    for session in [r#""""#, r#""a b""#, r#""ä""#, r#""a/b""#, r#""a\u0000""#, "7", "true", "[]", "{}"] {
        check_invalid(&daemon, &with(session), "session");
    }
    check_invalid(&daemon, &with(&format!(r#""{}""#, "s".repeat(65))), "session");
    check_good(&daemon, &with(r#""\u0061bc""#), 1);
}

#[test]
fn a_seq_is_a_whole_number_from_1() {
    let daemon = Daemon::start(&[]);
    let with = |seq: &str| format!(r#"{{"session":"s","seq":{seq},"items":[{{}}]}}"#);
    for seq in ["0", "-1", "1.0", "1e0", r#""1""#, "true", "9223372036854775808", "1e30", "[]"] {
        check_invalid(&daemon, &with(seq), "seq");
    }
    check_refused(&daemon, with("9223372036854775807"), "out_of_sequence", &[]);
    check_good(&daemon, &with("1"), 1);
}

#[test]
fn session_and_seq_need_each_other() {
    let daemon = Daemon::start(&[]);
    check_invalid(&daemon, r#"{"session":"s","items":[{}]}"#, "seq");
    check_invalid(&daemon, r#"{"seq":1,"items":[{}]}"#, "session");
    check_invalid(&daemon, r#"{"session":"s","seq":null,"items":[{}]}"#, "seq");
    check_invalid(&daemon, r#"{"session":null,"seq":1,"items":[{}]}"#, "session");
}

#[test]
fn an_ack_is_one_of_two_words() {
    let daemon = Daemon::start(&[]);
    for ack in [r#""Synced""#, r#""none""#, r#""""#, "1", "true", "[]"] {
        check_invalid(&daemon, &format!(r#"{{"ack":{ack},"items":[{{}}]}}"#), "ack");
    }
    for ack in ["synced", "written"] {
        let reply = good(daemon.ask(format!(r#"{{"ack":"{ack}","items":[{{}}]}}"#)));
        assert_eq!(reply["durability"], ack);
    }
}

#[test]
fn the_ack_of_a_request_without_one_is_the_daemons_setting() {
    let daemon = Daemon::start(&["--durability", "written"]);
    assert_eq!(good(daemon.ask(r#"{"items":[{}]}"#))["durability"], "written");
    assert_eq!(good(daemon.ask(r#"{"ack":"synced","items":[{}]}"#))["durability"], "synced");
}

#[test]
fn a_request_that_is_no_object_is_invalid() {
    let daemon = Daemon::start(&[]);
    for line in ["[]", "7", "null", r#""log""#, "true"] {
        check_refused(&daemon, line, "invalid_request", &[]);
    }
}

#[test]
fn a_key_given_twice_is_refused_at_every_level() {
    let daemon = Daemon::start(&[]);
    check_invalid(&daemon, r#"{"items":[{}],"items":[{}]}"#, "items");
    check_invalid(&daemon, r#"{"items":[{"a":1,"a":1}]}"#, "items[0]");
    check_invalid(&daemon, r#"{"items":[{},{"sku_local":1,"sku_local":1}]}"#, "items[1]");
    check_invalid(&daemon, r#"{"items":[{"\u0061":1,"a":1}]}"#, "items[0]");
    check_invalid(&daemon, r#"{"context":{"x":1,"x":1},"items":[{}]}"#, "context");
    check_invalid(&daemon, r#"{"context":{"opt_params":{"x":1,"x":1}},"items":[{}]}"#, "context");
    check_invalid(&daemon, r#"{"context":{"lot_id":"L","lot_id":"L"},"items":[{}]}"#, "context");
}

#[test]
fn the_bare_words_are_json_only_inside_items_and_context() {
    let daemon = Daemon::start(&[]);
    for word in ["NaN", "Infinity", "-Infinity"] {
        for key in ["op", "session", "seq", "ack", "context", "items", "other"] {
            check_refused(&daemon, format!(r#"{{"{key}":{word}}}"#), "invalid_json", &["byte"]);
        }
    }
}
