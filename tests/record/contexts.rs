//! The context's half of the record, and what is counted over a whole batch.

use lotlog::protocol::Log;

use crate::{lines, log};

#[track_caller]
fn decode(line: &str) -> Log {
    log(line.as_bytes()).unwrap()
}

/// The end of the record that a context becomes; and the reply's `dropped` and `overridden`.
#[track_caller]
fn check_context(request: &str, expected: &str, dropped: &[(&str, u64)], overridden: &[&str]) {
    let log = decode(request);
    let counts: Vec<(&str, u64)> = log.echo.dropped.iter().map(|(k, v)| (k.as_str(), *v)).collect();
    assert_eq!(counts, dropped, "dropped");
    assert_eq!(log.echo.overridden, overridden, "overridden");
    let stamp = String::from_utf8_lossy(crate::STAMP);
    assert_eq!(lines(log)[0], expected.replace('@', &format!("\"timestamp\":\"{stamp}\"")));
}

#[test]
fn the_context_is_written_flat_and_whole_in_its_order() {
    check_context(
        r#"{"items":[{}],"session":"s","seq":7,"context":{"b":[1, 2],"opt_params":{"x":null},"opt_source":"o","lot_id":"L","horizon_days":"60","risk_threshold":true,"roi_target":1.50,"a":0}}"#,
        r#"{"roi_target":1.50,"risk_threshold":true,"horizon_days":"60","lot_id":"L",@,"context":{"roi_target":1.50,"risk_threshold":true,"horizon_days":"60","lot_id":"L","opt_source":"o","opt_params":{"x":null},@,"session":"s","seq":7,"b":[1,2],"a":0}}"#,
        &[],
        &[],
    );
    for nothing in ["", "\"context\":null,", "\"context\":{},"] {
        check_context(&format!("{{{nothing}\"items\":[{{}}]}}"), r#"{@,"context":{@}}"#, &[], &[]);
    }
}

#[test]
fn missing_context_values_are_left_out_at_the_first_level_only() {
    check_context(
        r#"{"items":[{}],"context":{"roi_target":null,"risk_threshold":NaN,"horizon_days":Infinity,"opt_source":-Infinity,"opt_params":{"a":null,"b":NaN,"c":[Infinity,-Infinity]},"x":null,"y":Infinity,"z":[NaN]}}"#,
        r#"{@,"context":{"opt_params":{"a":null,"b":null,"c":[null,null]},@,"z":[null]}}"#,
        &[("horizon_days", 1), ("opt_params", 2), ("opt_source", 1), ("y", 1)],
        &[],
    );
}

#[test]
fn session_and_seq_inside_the_context_give_way_only_to_the_batchs() {
    let sent = r#""context":{"seq":Infinity,"timestamp":1,"x":1,"session":null,"y":2}"#;
    check_context(
        &format!("{{\"items\":[{{}}],\"session\":\"s\",\"seq\":1,{sent}}}"),
        r#"{@,"context":{@,"session":"s","seq":1,"x":1,"y":2}}"#,
        &[],
        &["timestamp", "session", "seq"],
    );
    check_context(
        &format!("{{\"items\":[{{}}],{sent}}}"),
        r#"{@,"context":{@,"x":1,"y":2}}"#,
        &[("seq", 1)],
        &["timestamp"],
    );
    check_context(
        r#"{"items":[{}],"context":{"a":0,"seq":[1],"session":"x","b":0},"session":"s","seq":1}"#,
        r#"{@,"context":{@,"session":"s","seq":1,"a":0,"b":0}}"#,
        &[],
        &["session", "seq"],
    );
    check_context(
        r#"{"items":[{}],"context":{"seq":[1],"session":"x"}}"#,
        r#"{@,"context":{@,"seq":[1],"session":"x"}}"#,
        &[],
        &[],
    );
}

#[test]
fn unusable_values_are_counted_over_all_items_and_the_context() {
    let log = decode(
        r#"{"context":{"x":[Infinity,Infinity],"y":1},"items":[{"x":[Infinity,-Infinity,NaN],"upc":[]},{"x":[[Infinity],Infinity],"upc":{}}]}"#,
    );
    let counts: Vec<(&str, u64)> = log.echo.dropped.iter().map(|(k, v)| (k.as_str(), *v)).collect();
    assert_eq!(counts, [("upc", 2), ("x", 6)]);
}

#[test]
fn bytes_that_move_from_one_part_to_the_next_hash_differently() {
    let body = |suffix: &[u8], items: &[u8]| lotlog::batch::Body {
        items: items.to_vec(),
        suffix: suffix.to_vec(),
        ..Default::default()
    };
    let lot = lotlog::batch::LotId::unassigned();
    assert_ne!(
        lotlog::record::content_hash(&lot, &body(b"ab", b"c")),
        lotlog::record::content_hash(&lot, &body(b"a", b"bc"))
    );
}
