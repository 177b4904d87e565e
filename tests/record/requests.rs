//! Requests through the library: what is taken and refused, with offset or path, and how replies are spelt.

use std::time::{Duration, Instant};

use lotlog::batch::{Code, Durability, Outcome, Refusal};
use lotlog::config::Limits;
use lotlog::protocol::{self, Log, Rejected, Request, size};
use serde_json::{Value, json};

fn decode_with(line: impl AsRef<[u8]>, limits: &Limits) -> Result<Request, Rejected> {
    protocol::decode(line.as_ref(), limits, Durability::Synced)
}

fn decode(line: impl AsRef<[u8]>) -> Result<Request, Rejected> {
    decode_with(line, &Limits::default())
}

#[track_caller]
fn log(line: impl AsRef<[u8]>) -> Log {
    match decode(line) {
        Ok(Request::Log(log)) => *log,
        other => panic!("{other:?}"),
    }
}

/// The refusal of a line must have this code and name this.
#[track_caller]
fn check_refused(line: impl AsRef<[u8]>, code: Code, named: &str) -> Rejected {
    check_refused_with(line, &Limits::default(), code, named)
}

#[track_caller]
fn check_refused_with(line: impl AsRef<[u8]>, limits: &Limits, code: Code, named: &str) -> Rejected {
    let rejected = match decode_with(&line, limits) {
        Err(rejected) => rejected,
        Ok(taken) => panic!("{}: {taken:?}", String::from_utf8_lossy(line.as_ref())),
    };
    let line = String::from_utf8_lossy(line.as_ref()).chars().take(200).collect::<String>();
    assert_eq!(rejected.refusal.code, code, "{line}: {rejected:?}");
    assert!(rejected.refusal.message.contains(named), "{line}: {rejected:?} does not name {named}");
    rejected
}

#[track_caller]
fn check_not_json(line: impl AsRef<[u8]>, offset: usize) {
    let rejected = check_refused(line, Code::InvalidJson, &format!("at byte {offset}"));
    let digit = rejected
        .refusal
        .message
        .split(&format!("at byte {offset}"))
        .nth(1)
        .and_then(|rest| rest.chars().next());
    assert!(!digit.is_some_and(|c| c.is_ascii_digit()), "{rejected:?}");
}

#[test]
fn a_line_that_is_not_json_is_refused_with_the_byte_offset() {
    for (line, offset) in [
        ("", 0),
        ("  ", 2),
        ("\r", 0),
        ("x", 0),
        ("{", 1),
        ("{}x", 2),
        ("{} {}", 3),
        ("\u{feff}{}", 0),
        (r#"{"items":[}"#, 10),
        (r#"{"items":[{},]}"#, 13),
        (r#"{"items":[,{}]}"#, 10),
        (r#"{"items":[{}{}]}"#, 12),
        (r#"{"items":[{}],}"#, 14),
        (r#"{,"items":[]}"#, 1),
        (r#"{"items" []}"#, 9),
        (r#"{"items":[] "op":"log"}"#, 12),
        (r#"{items:[]}"#, 1),
        (r#"{'items':[]}"#, 1),
        (r#"{"items":[{"x":01}]}"#, 16),
        (r#"{"items":[{"x":1.}]}"#, 17),
        (r#"{"items":[{"x":.5}]}"#, 15),
        (r#"{"items":[{"x":+1}]}"#, 15),
        (r#"{"items":[{"x":-}]}"#, 16),
        (r#"{"items":[{"x":1e}]}"#, 17),
        (r#"{"items":[{"x":0x1}]}"#, 16),
        (r#"{"items":[{"x":tru}]}"#, 15),
        (r#"{"items":[{"x":nan}]}"#, 15),
        (r#"{"items":[{"x":-Inf}]}"#, 15),
        (r#"{"items":[{"x":"a}]}"#, 15),
        (r#"{"items":[{"x":"\x"}]}"#, 16),
        (r#"{"items":[{"x":"\u12g4"}]}"#, 16),
        (r#"{"items":[{"x":"\ud800"}]}"#, 16),
        (r#"{"items":[{"x":"\udc00"}]}"#, 16),
        (r#"{"items":[{"x":"\ud800\u0041"}]}"#, 16),
        (r#"{"items":[{"\ud800":1}]}"#, 12),
        ("{\"items\":[{\"x\":\"a\tb\"}]}", 17),
        ("{\"items\":[{\"x\":\"a\0b\"}]}", 17),
        (r#"{"items":[{"x":1}/**/]}"#, 17),
    ] {
        check_not_json(line, offset);
    }
    check_not_json(b"{\"items\":[{\"x\":\"\xff\"}]}", 16);
    check_not_json(b"{\"items\":[{\"x\":\"\xed\xa0\x80\"}]}", 16);
    check_not_json(b"{\"items\":[{\"x\":\"\xc0\xaf\"}]}", 16);
}

#[test]
fn bare_words_are_taken_only_inside_items_and_context() {
    for (line, offset) in [
        ("NaN", 0),
        (r#"{"items":NaN}"#, 9),
        (r#"{"context":NaN,"items":[]}"#, 11),
        (r#"{"context":{},"items":[],"session":Infinity}"#, 35),
        (r#"{"items":[{"x":NaN}],"seq":-Infinity}"#, 27),
        (r#"{"op":NaN}"#, 6),
        (r#"{"colour":[NaN]}"#, 11),
    ] {
        check_not_json(line, offset);
    }
    log(r#"{"context":{"x":NaN,"opt_params":[Infinity]},"items":[{"x":-Infinity}]}"#);
    check_refused(r#"{"items":[{},NaN]}"#, Code::InvalidRequest, "items[1]");
}

#[test]
fn what_is_not_json_is_refused_for_that_whatever_else_is_wrong() {
    check_refused(r#"{"colour":1,"items":5,"items":6"#, Code::InvalidJson, "at byte 31");
    check_refused(r#"{"seq":9,"session":"s","items":[}"#, Code::InvalidJson, "at byte 32");
}

#[test]
fn nesting_counts_from_the_request_and_ends_at_its_limit() {
    // The request, items, the item, and then arrays.
    let nested = |levels: usize| {
        format!("{{\"items\":[{{\"x\":{}{}}}]}}", "[".repeat(levels - 3), "]".repeat(levels - 3))
    };
    log(nested(64));
    let rejected = check_refused(nested(65), Code::InvalidJson, "max_nesting = 64");
    assert!(rejected.refusal.message.contains(&format!("at byte {}", 15 + 61)), "{rejected:?}");
    check_refused("[".repeat(1 << 20), Code::InvalidJson, "max_nesting = 64");
    let limits = Limits { max_nesting: 1_000_000, ..Limits::default() };
    assert!(decode_with(nested(1_000_000), &limits).is_ok(), "depth costs no stack");
    check_refused_with(nested(1_000_001), &limits, Code::InvalidJson, "max_nesting = 1000000");
}

#[test]
fn a_wrong_key_or_type_is_refused_naming_its_path() {
    for (line, named) in [
        ("[]", "a JSON object"),
        ("5", "a JSON object"),
        ("null", "a JSON object"),
        ("\"x\"", "a JSON object"),
        ("{}", "items"),
        (r#"{"op":"log"}"#, "items"),
        (r#"{"items":null}"#, "items"),
        (r#"{"items":{}}"#, "items"),
        (r#"{"items":"[]"}"#, "items"),
        (r#"{"items":[{},{},{},5]}"#, "items[3] "),
        (r#"{"items":[null]}"#, "items[0] "),
        (r#"{"items":[[]]}"#, "items[0] "),
        (r#"{"items":[{}],"context":[]}"#, "context"),
        (r#"{"items":[{}],"context":"x"}"#, "context"),
        (r#"{"items":[{}],"colour":1}"#, "`colour`"),
        (r#"{"items":[{}],"colour":null}"#, "`colour`"),
        (r#"{"items":[{}],"Op":"log"}"#, "`Op`"),
        (r#"{"items":[{}],"op":"drop"}"#, "op"),
        (r#"{"items":[{}],"op":1}"#, "op"),
        (r#"{"items":[{}],"ack":"none"}"#, "ack"),
        (r#"{"items":[{}],"ack":true}"#, "ack"),
        (r#"{"items":[{}],"context":{"lot_id":true}}"#, "context.lot_id"),
        (r#"{"items":[{}],"context":{"lot_id":1.0}}"#, "context.lot_id"),
        (r#"{"items":[{}],"context":{"lot_id":1e2}}"#, "context.lot_id"),
        (r#"{"items":[{}],"context":{"lot_id":["L"]}}"#, "context.lot_id"),
        (r#"{"items":[{}],"context":{"lot_id":{"NaN":NaN}}}"#, "context.lot_id"),
        (r#"{"op":"sync","items":[]}"#, "`items`"),
        (r#"{"items":[],"op":"sync"}"#, "`items`"),
        (r#"{"op":"sync","seq":null}"#, "`seq`"),
        (r#"{"op":"status","context":{}}"#, "`context`"),
    ] {
        check_refused(line, Code::InvalidRequest, named);
    }
}

#[test]
fn session_and_seq_come_together_and_are_checked() {
    for (line, named) in [
        (r#"{"items":[{}],"session":"s"}"#, "seq"),
        (r#"{"items":[{}],"session":"s","seq":null}"#, "seq"),
        (r#"{"items":[{}],"session":"","seq":1}"#, "session"),
        (r#"{"items":[{}],"session":"a b","seq":1}"#, "session"),
        (r#"{"items":[{}],"session":7,"seq":1}"#, "session"),
        (r#"{"items":[{}],"session":"s","seq":0}"#, "seq"),
        (r#"{"items":[{}],"session":"s","seq":-1}"#, "seq"),
        (r#"{"items":[{}],"session":"s","seq":1.0}"#, "seq"),
        (r#"{"items":[{}],"session":"s","seq":1e0}"#, "seq"),
        (r#"{"items":[{}],"session":"s","seq":"1"}"#, "seq"),
        (r#"{"items":[{}],"session":"s","seq":true}"#, "seq"),
        (r#"{"items":[{}],"session":"s","seq":9223372036854775808}"#, "seq"),
    ] {
        check_refused(line, Code::InvalidRequest, named);
    }
    let rejected = check_refused(r#"{"items":[{}],"seq":4}"#, Code::InvalidRequest, "session");
    assert_eq!(rejected.seq, Some(4));
    let batch =
        log(r#"{"items":[{}],"session":"\u0061:b","seq":9223372036854775807}"#).batch.expect("a batch");
    let (session, seq) = batch.session.expect("a session");
    assert_eq!((session.as_str(), seq), ("a:b", i64::MAX as u64));
    let none = log(r#"{"items":[{}],"session":null,"seq":null}"#);
    assert!(none.batch.expect("a batch").session.is_none() && none.echo.seq.is_none());
}

#[test]
fn a_refusal_carries_seq_wherever_it_stands() {
    for line in [
        r#"{"seq":9,"session":"s","items":5}"#,
        r#"{"items":5,"session":"s","seq":9}"#,
        r#"{"colour":1,"seq":9}"#,
        r#"{"seq":9,"session":"s","items":[{}],"context":{"lot_id":""}}"#,
        r#"{"op":"sync","seq":9}"#,
        r#"{"seq":9,"session":"s","items":[{"a":1,"a":2}]}"#,
    ] {
        let rejected = decode(line).expect_err(line);
        assert_eq!(rejected.seq, Some(9), "{line}");
        let reply: Value =
            serde_json::from_slice(&protocol::refusal_reply(rejected.seq, &rejected.refusal)).unwrap();
        assert_eq!((&reply["ok"], &reply["seq"]), (&json!(false), &json!(9)), "{line}");
    }
}

#[test]
fn a_key_given_twice_is_refused_anywhere_naming_its_path() {
    for (line, path) in [
        (r#"{"op":"log","items":[],"op":"log"}"#, "op is given twice"),
        (r#"{"items":[],"items":[]}"#, "items is given twice"),
        (r#"{"op":"sync","op":"sync"}"#, "op is given twice"),
        (r#"{"seq":1,"seq":2}"#, "seq is given twice"),
        (r#"{"items":[{},{"x":1,"x":1}]}"#, "items[1].x is given twice"),
        (r#"{"items":[{"x":1,"\u0078":1}]}"#, "items[0].x is given twice"),
        (r#"{"items":[{"\u0078":1,"\u0078":1}]}"#, "items[0].x is given twice"),
        (r#"{"items":[{"sku_local":1,"sku_local":1}]}"#, "items[0].sku_local is given twice"),
        (
            r#"{"items":[{"predicted_price":1,"predicted_price":1}]}"#,
            "items[0].predicted_price is given twice",
        ),
        (r#"{"items":[{"lot_id":{"a":1,"a":1}}]}"#, "items[0].lot_id.a is given twice"),
        (r#"{"items":[{"x":[{},[0,{"a":1,"b":[{}],"a":2}]]}]}"#, "items[0].x[1][1].a is given twice"),
        (r#"{"items":[],"context":{"":1,"":2}}"#, "context. is given twice"),
        (
            r#"{"items":[],"context":{"opt_params":{"a":{"b":1,"b":2}}}}"#,
            "context.opt_params.a.b is given twice",
        ),
        (r#"{"items":[],"colour":{"a":1,"a":2}}"#, "colour"),
    ] {
        check_refused(line, Code::InvalidRequest, path);
    }
    log(r#"{"items":[{"a":{"a":{"a":1}},"b":[{"a":1},{"a":1}]},{"a":1}],"context":{"a":1,"A":1,"ä":1}}"#);
}

#[test]
fn a_key_given_twice_is_found_in_objects_of_any_size_without_quadratic_time() {
    let object = |keys: usize, twice: Option<usize>| {
        let mut object: String = (0..keys).map(|n| format!("\"key{n:07}\":0,")).collect();
        object.push_str(&twice.map_or("\"last\":0".into(), |n| format!("\"k\\u0065y{n:07}\":0")));
        format!("{{\"items\":[{{\"x\":{{{object}}}}}]}}")
    };
    for keys in [1, 2, 30, 31, 32, 33, 34, 64, 65, 200] {
        log(object(keys, None));
        for twice in [0, keys / 2, keys - 1] {
            let path = format!("items[0].x.key{twice:07} is given twice");
            check_refused(object(keys, Some(twice)), Code::InvalidRequest, &path);
        }
    }
    let started = Instant::now();
    log(object(700_000, None));
    // Quadratic time would be hours.
    assert!(started.elapsed() < Duration::from_secs(60), "{:?}", started.elapsed());
}

#[test]
fn messages_hold_at_most_a_little_of_the_producers_text() {
    let long = "é".repeat(100_000);
    for line in [
        format!("{{\"{long}\":1}}"),
        format!("{{\"items\":[],\"context\":{{\"{long}\":{{\"{long}\":1,\"{long}\":2}}}}}}"),
        format!("{{\"items\":[],\"session\":\"{long}\",\"seq\":1}}"),
        format!("{{\"items\":[],\"op\":\"{long}\"}}"),
    ] {
        let rejected = decode(&line).expect_err("refused");
        assert!(rejected.refusal.message.len() < 500, "{rejected:?}");
    }
    let deep = format!("{{\"items\":[{{\"x\":{}{{\"a\":1,\"a\":1}}{}}}]}}", "[".repeat(60), "]".repeat(60));
    assert!(decode(deep).expect_err("refused").refusal.message.len() < 500);
}

#[test]
fn a_lot_id_that_names_no_file_is_refused() {
    let line = |id: &str| format!("{{\"context\":{{\"lot_id\":{id}}},\"items\":[{{}}]}}");
    check_refused(line("\"\""), Code::InvalidLotId, "context.lot_id");
    log(line(&format!("\"{}\"", "a".repeat(200))));
    check_refused(line(&format!("\"{}\"", "a".repeat(201))), Code::InvalidLotId, "201");
    log(line(&format!("\"{}\"", "/".repeat(66))));
    check_refused(line(&format!("\"{}\"", "/".repeat(67))), Code::InvalidLotId, "201");
    check_refused(line(&"9".repeat(201)), Code::InvalidLotId, "201");
}

#[test]
fn each_limit_is_kept_exactly_and_named_with_its_value() {
    let items = |n: usize| format!("{{\"items\":[{}]}}", vec!["{}"; n].join(","));
    let limits = Limits { max_items: 3, ..Limits::default() };
    assert!(decode_with(items(3), &limits).is_ok());
    check_refused_with(items(4), &limits, Code::TooLarge, "max_items is 3");

    // The object as written: with its timestamp, session and seq, once normalised.
    let line = r#"{"context":{"x" : "\u00e9"},"items":[{"y":1},{}],"session":"s","seq":1}"#;
    let written = r#"{"timestamp":"2025-08-23T18:45:12.345678+00:00","session":"s","seq":1,"x":"é"}"#;
    let exact = Limits { max_context_bytes: written.len(), ..Limits::default() };
    assert!(decode_with(line, &exact).is_ok());
    let less = Limits { max_context_bytes: written.len() - 1, ..Limits::default() };
    check_refused_with(
        line,
        &less,
        Code::TooLarge,
        &format!("max_context_bytes is {}", size(written.len() - 1)),
    );

    let stamp = r#""timestamp":"2025-08-23T18:45:12.345678+00:00""#;
    let end = format!("{stamp},\"context\":{written}}}\n");
    let batch_bytes = format!("{{\"y\":1,{end}{{{end}").len();
    let exact = Limits { max_batch_bytes: batch_bytes, ..Limits::default() };
    assert!(decode_with(line, &exact).is_ok());
    let less = Limits { max_batch_bytes: batch_bytes - 1, ..Limits::default() };
    check_refused_with(line, &less, Code::TooLarge, &format!("max_batch_bytes is {}", size(batch_bytes - 1)));
}

#[test]
fn operations_acks_and_defaults_are_read_in_any_order() {
    assert!(matches!(decode(r#"{"op":"sync"}"#), Ok(Request::Sync)));
    assert!(matches!(decode(" { \"op\" : \"\\u0073tatus\" } \r"), Ok(Request::Status)));
    for (line, ack) in [
        (r#"{"items":[{}]}"#, Durability::Synced),
        (r#"{"op":null,"ack":null,"items":[{}]}"#, Durability::Synced),
        (r#"{"ack":"written","items":[{}]}"#, Durability::Written),
        (r#"{"items":[{}],"ack":"synced","op":"log"}"#, Durability::Synced),
    ] {
        let log = log(line);
        assert_eq!((log.echo.ack, log.batch.expect("a batch").ack), (ack, ack), "{line}");
    }
    let Ok(Request::Log(log)) =
        protocol::decode(br#"{"items":[{}]}"#, &Limits::default(), Durability::Written)
    else {
        panic!("refused");
    };
    assert_eq!(log.echo.ack, Durability::Written);
}

#[test]
fn good_replies_are_spelt_as_the_contract_shows() {
    let check = |line: &str, outcome: &Outcome, expected: &str| {
        let reply = protocol::log_reply(&log(line).echo, outcome).expect("a reply");
        assert_eq!(String::from_utf8_lossy(&reply), format!("{expected}\n"));
    };
    let synced = Outcome::Stored { lsn: 42, durability: Durability::Synced };
    check(
        r#"{"session":"s","seq":1,"context":{"lot_id":"TEST_LOT_001"},"items":[{}]}"#,
        &synced,
        r#"{"ok":true,"lot":"TEST_LOT_001","records":1,"lsn":42,"seq":1,"durability":"synced"}"#,
    );
    check(
        r#"{"context":{"lot_id":7,"timestamp":1},"items":[{"est_price_mu":"x"},{"est_price_mu":[],"lot_id":1}]}"#,
        &Outcome::Stored { lsn: 1, durability: Durability::Written },
        r#"{"ok":true,"lot":7,"records":2,"lsn":1,"durability":"written","dropped":{"est_price_mu":2},"overridden":["lot_id","timestamp"]}"#,
    );
    let line = r#"{"session":"s","seq":3,"items":[{},{}]}"#;
    check(
        line,
        &Outcome::Duplicate { last: Some((2, 40)), durability: Durability::Synced },
        r#"{"ok":true,"lot":"unassigned","records":2,"lsn":40,"seq":3,"durability":"synced","duplicate":true}"#,
    );
    check(
        line,
        &Outcome::Duplicate { last: None, durability: Durability::Synced },
        r#"{"ok":true,"lot":"unassigned","seq":3,"durability":"synced","duplicate":true}"#,
    );
    assert_eq!(protocol::log_reply(&log(line).echo, &Outcome::Unknown), None);
    assert_eq!(protocol::sync_reply(&Outcome::Synced { lsn: 5 }).unwrap(), b"{\"ok\":true,\"lsn\":5}\n");
}

#[test]
fn a_batch_without_items_stores_nothing_and_says_so() {
    let empty = log(r#"{"session":"s","seq":3,"ack":"written","context":{"lot_id":"L"},"items":[]}"#);
    assert!(empty.batch.is_none());
    assert_eq!(
        String::from_utf8_lossy(&protocol::empty_reply(&empty.echo)),
        "{\"ok\":true,\"lot\":\"L\",\"records\":0,\"seq\":3,\"durability\":\"written\"}\n"
    );
}

#[test]
fn refusals_are_spelt_as_the_contract_shows() {
    let mut refusal = Refusal::new(Code::OutOfSequence, "session \"s\" expects seq 2, got 9");
    refusal.expected = Some(2);
    let expected = "{\"ok\":false,\"seq\":9,\"error\":{\"code\":\"out_of_sequence\",\"message\":\"session \\\"s\\\" expects seq 2, got 9\",\"retryable\":false,\"expected\":2}}\n";
    assert_eq!(String::from_utf8_lossy(&protocol::refusal_reply(Some(9), &refusal)), expected);
    let echo = log(r#"{"session":"s","seq":9,"items":[{}]}"#).echo;
    let reply = protocol::log_reply(&echo, &Outcome::Refused(refusal)).expect("a reply");
    assert_eq!(String::from_utf8_lossy(&reply), expected);
    let retryable: Vec<&str> = Code::ALL
        .into_iter()
        .filter(|code| {
            let reply = protocol::refusal_reply(None, &Refusal::new(*code, "line\nbreak"));
            assert_eq!(memchr::memchr_iter(b'\n', &reply).count(), 1, "one line");
            let reply: Value = serde_json::from_slice(&reply).unwrap();
            assert_eq!(reply["error"]["code"], code.as_str());
            assert!(reply.get("seq").is_none() && reply["error"].get("expected").is_none());
            reply["error"]["retryable"] == true
        })
        .map(Code::as_str)
        .collect();
    assert_eq!(retryable, ["timeout", "busy", "no_space", "shutting_down", "lot_unavailable", "io_error"]);
}

#[test]
fn fields_of_the_producers_naming_are_counted_in_bounded_room() {
    let item: String = (0..5000).map(|n| format!("\"{}{n}\":Infinity,", "x".repeat(300))).collect();
    let log = log(format!("{{\"items\":[{{{item}\"est_price_mu\":\"x\"}}]}}"));
    let total: u64 = log.echo.dropped.values().sum();
    assert_eq!(total, 5001);
    let reply = protocol::log_reply(&log.echo, &Outcome::Stored { lsn: 1, durability: Durability::Synced });
    assert!(reply.expect("a reply").len() < 100_000);
}

#[test]
fn a_key_given_twice_is_found_whatever_the_items_before_looked_like() {
    let item = |keys: &str| {
        let members: Vec<String> = keys.chars().map(|key| format!("\"{key}\":1")).collect();
        format!("{{{}}}", members.join(","))
    };
    // Each run of items teaches an order of keys; the last item breaks it with a key that it had already.
    for items in [
        "abc acb abcb",
        "abc aa",
        "abc acab",
        "ab ba abab",
        "abc bca abca",
        "abcdefgh h abch ha abchac",
        "a b ab ba bab",
    ] {
        for twice in [false, true] {
            let mut items: Vec<String> = items.split(' ').map(item).collect();
            if !twice {
                items.pop();
            }
            let answer = crate::log(format!("{{\"items\":[{}]}}", items.join(",")).as_bytes());
            match answer {
                Ok(_) => assert!(!twice, "{items:?} is taken"),
                Err(refusal) => {
                    assert!(twice && refusal.message.contains("is given twice"), "{items:?}: {refusal:?}")
                }
            }
        }
    }
}
