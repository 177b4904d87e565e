//! Section 1: lines, order, pipelining, half a close, and what is not JSON.

use crate::common::{Connection, Daemon};
use crate::shape::{batch, check_refused, good, refused};

/// Not JSON, and the message gives this byte offset.
#[track_caller]
fn check_not_json(daemon: &Daemon, line: impl AsRef<[u8]>, offset: usize) {
    check_refused(daemon, line, "invalid_json", &[&format!("byte {offset}")]);
}

/// Sent in these pieces, each on its way before the next, it is one good batch.
#[track_caller]
fn check_pieces(daemon: &Daemon, pieces: &[&[u8]]) {
    let mut connection = daemon.connect();
    for piece in pieces {
        connection.send(piece);
        // Somebody else's turn, so that the piece is read by itself.
        good(daemon.ask(r#"{"op":"status"}"#));
    }
    good(connection.reply());
}

#[test]
fn a_carriage_return_before_the_newline_is_tolerated() {
    let daemon = Daemon::start(&[]);
    let mut connection = daemon.connect();
    connection.send(format!("{}\r\n{}\n", batch("L", "s", 1), batch("L", "s", 2)));
    good(connection.reply());
    good(connection.reply());
    assert_eq!(daemon.lot("L").len(), 2);
}

#[test]
fn an_empty_line_is_not_json_and_is_answered() {
    let daemon = Daemon::start(&[]);
    let mut connection = daemon.connect();
    for line in ["\n", "\r\n", "  \n"] {
        connection.send(line);
        refused(&connection.reply(), "invalid_json");
    }
    good(connection.ask(batch("L", "s", 1)));
}

#[test]
fn blanks_around_the_request_are_json() {
    let daemon = Daemon::start(&[]);
    good(daemon.ask(" \t{ \"items\" : [ { } ] }  "));
    assert_eq!(daemon.lot("unassigned").len(), 1);
}

#[test]
fn a_last_line_without_newline_is_never_executed() {
    let daemon = Daemon::start(&[]);
    let mut connection = daemon.connect();
    connection.send(format!("{}\n{}", batch("L", "s", 1), batch("L", "s", 2)));
    connection.close_writing();
    assert_eq!(good(connection.reply())["seq"], 1);
    connection.expect_end();
    good(daemon.ask(r#"{"op":"sync"}"#));
    assert_eq!(daemon.lot("L").len(), 1);
    let reply = good(daemon.ask(batch("L", "s", 2)));
    assert!(reply.get("duplicate").is_none(), "{reply}");
}

#[test]
fn a_connection_that_sends_nothing_is_closed_without_a_word() {
    let daemon = Daemon::start(&[]);
    let mut connection = daemon.connect();
    connection.close_writing();
    connection.expect_end();
}

#[test]
fn a_closed_writing_half_still_gets_every_reply() {
    let daemon = Daemon::start(&[]);
    let mut connection = daemon.connect();
    let lines: String = (1..=500).map(|seq| batch("L", "s", seq) + "\n").collect();
    connection.send(lines);
    connection.close_writing();
    for seq in 1..=500 {
        assert_eq!(good(connection.reply())["seq"], seq);
    }
    connection.expect_end();
    assert_eq!(daemon.lot("L").len(), 500);
}

#[test]
fn replies_come_in_the_order_of_the_requests_whatever_they_are() {
    let daemon = Daemon::start(&[]);
    let mut connection = daemon.connect();
    let round = [
        batch("L", "s", 1),
        "nonsense".into(),
        r#"{"op":"status"}"#.into(),
        r#"{"items":[{}],"ack":"written"}"#.into(),
        r#"{"items":5}"#.into(),
        r#"{"op":"sync"}"#.into(),
        batch("L", "s", 9),
    ];
    connection.send(format!("{}\n", round.join("\n")).repeat(50));
    for _ in 0..50 {
        assert_eq!(good(connection.reply())["seq"], 1);
        refused(&connection.reply(), "invalid_json");
        assert!(good(connection.reply())["pid"].is_u64());
        assert_eq!(good(connection.reply())["durability"], "written");
        refused(&connection.reply(), "invalid_request");
        assert!(good(connection.reply())["lsn"].is_u64());
        refused(&connection.reply(), "out_of_sequence");
    }
}

#[test]
fn more_requests_than_may_be_in_flight_are_read_later_and_all_answered() {
    let daemon = Daemon::start(&["--max-requests-in-flight", "2"]);
    let mut connection = daemon.connect();
    let lines: String = (1..=300).map(|seq| batch("L", "s", seq) + "\n").collect();
    connection.send(lines);
    for seq in 1..=300 {
        assert_eq!(good(connection.reply())["seq"], seq);
    }
}

#[test]
fn requests_that_are_all_ready_at_once_go_on_beyond_the_limit_in_flight() {
    let daemon = Daemon::start(&[]);
    let mut connection = daemon.connect();
    connection.send("nonsense\n".repeat(600));
    for _ in 0..600 {
        refused(&connection.reply(), "invalid_json");
    }
}

#[test]
fn a_single_request_in_flight_at_a_time_is_enough_for_a_mixed_pipeline() {
    let daemon = Daemon::start(&["--max-requests-in-flight", "1"]);
    let mut connection = daemon.connect();
    connection.send(format!("{}\n{}\n", r#"{"items":[{}]}"#, r#"{"op":"status"}"#).repeat(100));
    for _ in 0..200 {
        good(connection.reply());
    }
}

#[test]
fn a_request_may_arrive_in_any_pieces() {
    let daemon = Daemon::start(&[]);
    let line = format!("{}\r\n", r#"{"context":{"lot_id":"L"},"items":[{"title":"caf\u00e9 é 日"}]}"#);
    let bytes = line.as_bytes();
    check_pieces(&daemon, &[&bytes[..1], &bytes[1..20], &bytes[20..]]);
    let inside_a_character = bytes.iter().position(|b| *b >= 0x80).unwrap() + 1;
    check_pieces(&daemon, &[&bytes[..inside_a_character], &bytes[inside_a_character..]]);
    let (text, end) = bytes.split_at(bytes.len() - 2);
    check_pieces(&daemon, &[text, end]);
    check_pieces(&daemon, &[text, b"\r", b"\n"]);
    let single: Vec<&[u8]> = bytes.chunks(1).collect();
    check_pieces(&daemon, &single);
    let records = daemon.records("L");
    assert_eq!(records.len(), 5);
    assert!(records.iter().all(|record| record["title"] == "café é 日"));
}

#[test]
fn what_is_not_json_is_refused_with_its_byte_offset() {
    let daemon = Daemon::start(&[]);
    check_not_json(&daemon, "nonsense", 0);
    check_not_json(&daemon, r#"{"items":[{}],}"#, 14);
    check_not_json(&daemon, r#"{"items":[{"x":01}]}"#, 16);
    check_not_json(&daemon, r#"{"items":[{}]} {"items":[{}]}"#, 15);
    check_not_json(&daemon, r#"{"items":[{'x':1}]}"#, 11);
}

#[test]
fn what_only_looks_like_json_is_refused() {
    let daemon = Daemon::start(&[]);
    for value in [
        ".5",
        "5.",
        "+1",
        "1e",
        "0x1",
        "1_000",
        "nan",
        "NAN",
        "inf",
        "-NaN",
        "+Infinity",
        "undefined",
        "None",
        "True",
        "[1,]",
        "{,}",
        "'a'",
        "\"\t\"",
        r#""\x41""#,
        r#""\u12""#,
        "\"a",
        "[1",
        "1 2",
        "/**/1",
    ] {
        check_refused(&daemon, format!(r#"{{"items":[{{"x":{value}}}]}}"#), "invalid_json", &["byte"]);
    }
}

#[test]
fn invalid_utf8_is_refused_wherever_it_stands() {
    let daemon = Daemon::start(&[]);
    for bytes in [&b"\xff"[..], b"\xc3", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80"] {
        for (before, after) in [
            (r#"{"items":[{"x":""#, r#""}]}"#),
            (r#"{"items":[{""#, r#"":1}]}"#),
            (r#"{"context":{"lot_id":""#, r#""},"items":[{}]}"#),
            (r#"{"items":[{}]"#, "}"),
        ] {
            let line = [before.as_bytes(), bytes, after.as_bytes()].concat();
            check_refused(&daemon, line, "invalid_json", &["byte"]);
        }
    }
}

#[test]
fn lone_surrogates_are_refused_wherever_they_stand() {
    let daemon = Daemon::start(&[]);
    for escape in [r"\ud83d", r"\ude00", r"\ude00\ud83d", r"\ud83dx", r"\ud83d\u0041"] {
        for line in [
            format!(r#"{{"items":[{{"x":"{escape}"}}]}}"#),
            format!(r#"{{"items":[{{"sku_local":"{escape}"}}]}}"#),
            format!(r#"{{"items":[{{"{escape}":1}}]}}"#),
            format!(r#"{{"items":[{{"x":[{{"y":"{escape}"}}]}}]}}"#),
            format!(r#"{{"context":{{"lot_id":"{escape}"}},"items":[{{}}]}}"#),
            format!(r#"{{"context":{{"opt_params":{{"{escape}":1}}}},"items":[{{}}]}}"#),
        ] {
            check_refused(&daemon, line, "invalid_json", &["byte"]);
        }
    }
}

#[test]
fn a_bad_request_does_not_end_the_connection() {
    let daemon = Daemon::start(&[]);
    let mut connection = daemon.connect();
    for (line, code) in [
        ("{", "invalid_json"),
        (r#"{"items":[{}],"x":1}"#, "invalid_request"),
        (r#"{"context":{"lot_id":""},"items":[{}]}"#, "invalid_lot_id"),
        (r#"{"session":"s","seq":4,"items":[{}]}"#, "out_of_sequence"),
    ] {
        refused(&connection.ask(line), code);
        good(connection.ask(r#"{"op":"status"}"#));
    }
}

#[test]
fn connections_do_not_wait_for_each_other() {
    let daemon = Daemon::start(&[]);
    let mut connections: Vec<Connection> = (0..20).map(|_| daemon.connect()).collect();
    for connection in connections.iter_mut().rev() {
        good(connection.ask(r#"{"items":[{}]}"#));
    }
    connections[0].send(r#"{"items":[{"#);
    good(connections[1].ask(r#"{"items":[{}]}"#));
    connections[0].send("}]}\n");
    good(connections[0].reply());
    assert_eq!(daemon.lot("unassigned").len(), 22);
}

#[test]
fn a_reply_is_one_line_whatever_the_request_had_in_it() {
    let daemon = Daemon::start(&[]);
    let mut connection = daemon.connect();
    let lot = r#"a\nb\u0000\u2028\"c"#;
    let reply = good(connection.ask(format!(r#"{{"context":{{"lot_id":"{lot}"}},"items":[{{}}]}}"#)));
    assert_eq!(reply["lot"], "a\nb\0\u{2028}\"c");
    refused(&connection.ask(r#"{"items":[{}],"k\n\"\u0000":1}"#), "invalid_request");
    refused(&connection.ask(r#"{"op":"a\nb"}"#), "invalid_request");
    good(connection.ask(r#"{"op":"sync"}"#));
}
