//! The table of limits in section 1: what is just within, and what happens beyond.

use crate::common::Daemon;
use crate::shape::{batch, check_refused, good, refused};

/// A good batch for lot `L` whose line is exactly this long.
fn line_of(length: usize) -> String {
    let frame = r#"{"context":{"lot_id":"L"},"items":[{"x":""}]}"#;
    frame.replace(r#""x":"""#, &format!(r#""x":"{}""#, "a".repeat(length - frame.len())))
}

/// A batch in which an array is nested so that the deepest one is at this level.
fn nested_to(level: usize) -> String {
    // The request is level 1, `items` 2, the item 3.
    let arrays = level - 3;
    format!(
        r#"{{"context":{{"lot_id":"L"}},"items":[{{"x":{}{}}}]}}"#,
        "[".repeat(arrays),
        "]".repeat(arrays)
    )
}

/// So many empty items.
fn items(count: usize) -> String {
    let items = vec!["{}"; count].join(",");
    format!(r#"{{"context":{{"lot_id":"L"}},"items":[{items}]}}"#)
}

/// A context that is written as exactly this many bytes, its timestamp included.
fn context_of(length: usize, items: &str) -> String {
    let written = r#"{"lot_id":"L","timestamp":"2025-08-23T18:45:12.345678+00:00","note":""}"#.len();
    let note = "n".repeat(length - written);
    format!(r#"{{"context":{{"lot_id":"L","note":"{note}"}},"items":[{items}]}}"#)
}

#[test]
fn a_line_of_the_greatest_length_is_taken() {
    let daemon = Daemon::start(&["--max-line-bytes", "64KiB"]);
    good(daemon.ask(line_of(64 * 1024)));
    assert_eq!(daemon.lot("L").len(), 1);
}

#[test]
fn one_byte_more_is_too_large_and_closes() {
    let daemon = Daemon::start(&["--max-line-bytes", "64KiB"]);
    let mut connection = daemon.connect();
    connection.send_what_goes(format!("{}\n", line_of(64 * 1024 + 1)).as_bytes());
    let message = refused(&connection.reply(), "too_large");
    assert!(
        message.contains("64 KiB") || message.contains("64KiB") || message.contains("65536"),
        "{message}"
    );
    connection.expect_end();
    assert!(daemon.place.lots().is_empty());
}

#[test]
fn the_newline_is_not_part_of_the_length_and_neither_is_its_return() {
    let daemon = Daemon::start(&["--max-line-bytes", "64KiB"]);
    let mut connection = daemon.connect();
    connection.send(format!("{}\n{}\n", line_of(64 * 1024), batch("L", "s", 1)));
    good(connection.reply());
    good(connection.reply());
    connection.send(format!("{}\r\n", line_of(64 * 1024)));
    good(connection.reply());
}

#[test]
fn a_line_that_is_too_large_is_refused_before_it_ends() {
    let daemon = Daemon::start(&["--max-line-bytes", "64KiB"]);
    let mut connection = daemon.connect();
    connection.send_what_goes(&vec![b'x'; 256 * 1024]);
    refused(&connection.reply(), "too_large");
    connection.expect_end();
}

#[test]
fn requests_before_a_line_that_is_too_large_are_answered_first() {
    let daemon = Daemon::start(&["--max-line-bytes", "64KiB"]);
    let mut connection = daemon.connect();
    let before = format!("{}\n{}\n", batch("L", "s", 1), batch("L", "s", 2));
    connection.send_what_goes(format!("{before}{}\n", line_of(100_000)).as_bytes());
    assert_eq!(good(connection.reply())["seq"], 1);
    assert_eq!(good(connection.reply())["seq"], 2);
    refused(&connection.reply(), "too_large");
    connection.expect_end();
    assert_eq!(daemon.lot("L").len(), 2);
}

#[test]
fn the_greatest_line_by_default_is_16_mib() {
    let daemon = Daemon::start(&[]);
    good(daemon.ask(line_of(16 << 20)));
    let mut connection = daemon.connect();
    connection.send_what_goes(format!("{}\n", line_of((16 << 20) + 1)).as_bytes());
    let message = refused(&connection.reply(), "too_large");
    assert!(message.contains("16"), "{message}");
    connection.expect_end();
}

#[test]
fn a_hundred_thousand_items_are_taken_and_one_more_is_too_large() {
    let daemon = Daemon::start(&[]);
    assert_eq!(good(daemon.ask(items(100_000)))["records"], 100_000);
    let message = refused(&daemon.ask(items(100_001)), "too_large");
    assert!(message.replace([',', '_', ' '], "").contains("100000"), "{message}");
    assert_eq!(daemon.lot("L").len(), 100_000);
}

#[test]
fn a_batch_that_is_too_large_does_not_end_the_connection() {
    let daemon = Daemon::start(&["--max-items", "3"]);
    let mut connection = daemon.connect();
    refused(&connection.ask(items(4)), "too_large");
    good(connection.ask(items(3)));
}

#[test]
fn a_context_of_64_kib_is_taken_and_one_byte_more_is_too_large() {
    let daemon = Daemon::start(&[]);
    good(daemon.ask(context_of(64 << 10, "{}")));
    let written = daemon.lot("L").remove(0);
    let context = written.split_once(r#""context":"#).unwrap().1;
    assert_eq!(context.len() - 1, 64 << 10, "the case measures what it says");
    let line = context_of((64 << 10) + 1, "{}");
    let message = refused(&daemon.ask(&line), "too_large");
    assert!(message.contains("64") || message.contains("65536"), "{message}");
    assert_eq!(daemon.lot("L").len(), 1);
}

#[test]
fn session_and_seq_count_for_the_context_they_are_written_to() {
    let daemon = Daemon::start(&[]);
    let add = r#","session":"s","seq":1"#.len();
    let fits = context_of((64 << 10) - add, "{}").replacen('{', r#"{"session":"s","seq":1,"#, 1);
    let beyond = context_of((64 << 10) - add + 1, "{}").replacen('{', r#"{"session":"t","seq":1,"#, 1);
    good(daemon.ask(fits));
    refused(&daemon.ask(beyond), "too_large");
}

#[test]
fn a_small_line_whose_context_multiplies_beyond_the_batch_is_too_large() {
    let daemon = Daemon::start(&["--max-batch-bytes", "1MiB"]);
    let few = context_of(50_000, &vec!["{}"; 20].join(","));
    let many = context_of(50_000, &vec!["{}"; 21].join(","));
    good(daemon.ask(few));
    check_refused(&daemon, many, "too_large", &["1"]);
    assert_eq!(daemon.lot("L").len(), 20);
}

#[test]
fn a_batch_beyond_256_mib_as_records_is_too_large_by_default() {
    let daemon = Daemon::start(&[]);
    let line = context_of(60_000, &vec!["{}"; 4500].join(","));
    check_refused(&daemon, line, "too_large", &["256"]);
}

#[test]
fn nesting_of_64_levels_is_taken_and_65_is_invalid() {
    let daemon = Daemon::start(&[]);
    good(daemon.ask(nested_to(64)));
    check_refused(&daemon, nested_to(65), "invalid_json", &["64"]);
    assert_eq!(daemon.lot("L").len(), 1);
}

#[test]
fn nesting_that_would_break_a_stack_is_only_invalid() {
    let daemon = Daemon::start(&[]);
    for open in ["[", r#"{"a":"#] {
        let reply = daemon.ask(open.repeat(1_000_000));
        refused(&reply, "invalid_json");
    }
    good(daemon.ask(nested_to(10)));
}

#[test]
fn objects_count_as_levels_like_arrays() {
    let daemon = Daemon::start(&[]);
    let deep = |level: usize| {
        let (open, close) = (r#"{"a":"#.repeat(level - 3), "}".repeat(level - 3));
        format!(r#"{{"items":[{{"x":{open}1{close}}}]}}"#)
    };
    good(daemon.ask(deep(64)));
    check_refused(&daemon, deep(65), "invalid_json", &[]);
}
