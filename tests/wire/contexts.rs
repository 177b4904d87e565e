//! Section 4, the context: its flattened part, its copy in every record, and the timestamp.

use serde_json::{Value, json};

use crate::common::{Daemon, without_timestamps};
use crate::shape::{batch, check_refused, good};

/// A context becomes this, flattened and as the last key of a record; nothing is dropped or overridden.
#[track_caller]
fn check(context: &str, flattened: &str, copy: &str) {
    let (found, reply) = written(context);
    assert_eq!(found, format!(r#"{{"sku_local":"A",{flattened}"context":{copy}}}"#), "from {context}");
    assert!(reply.get("dropped").is_none() && reply.get("overridden").is_none(), "{context}: {reply}");
}

/// The record of one item with this context, without its timestamps, and the reply.
#[track_caller]
fn written(context: &str) -> (String, Value) {
    let daemon = Daemon::start(&[]);
    let reply = good(daemon.ask(format!(r#"{{"context":{context},"items":[{{"sku_local":"A"}}]}}"#)));
    let file = daemon.place.lots().remove(0);
    (without_timestamps(&daemon.lot(file.strip_suffix(".jsonl").unwrap())[0]), reply)
}

/// The timestamp of a record, the same in its context.
#[track_caller]
fn timestamp(record: &Value) -> &str {
    assert_eq!(record["timestamp"], record["context"]["timestamp"], "{record}");
    record["timestamp"].as_str().unwrap_or_else(|| panic!("a timestamp: {record}"))
}

#[test]
fn the_example_of_the_contract_becomes_the_record_of_the_contract() {
    let daemon = Daemon::start(&[]);
    let request = r#"{"op":"log","session":"run-7f3a","seq":1,"ack":"synced","context":{"lot_id":"TEST_LOT_001","roi_target":1.25,"risk_threshold":0.8,"horizon_days":60,"opt_source":"run_optimize","opt_params":{"roi_target":1.25,"risk_threshold":0.8,"sims":100}},"items":[{"sku_local":"SKU001","est_price_mu":45.0,"sell_p60":0.75}]}"#;
    good(daemon.ask(request));
    let line = daemon.lot("TEST_LOT_001").remove(0);
    let record: Value = serde_json::from_str(&line).unwrap();
    let template = r#"{"sku_local":"SKU001","est_price_mu":45.0,"predicted_price":45.0,"sell_p60":0.75,"predicted_sell_p60":0.75,"roi_target":1.25,"risk_threshold":0.8,"horizon_days":60,"lot_id":"TEST_LOT_001","timestamp":"@","context":{"roi_target":1.25,"risk_threshold":0.8,"horizon_days":60,"lot_id":"TEST_LOT_001","opt_source":"run_optimize","opt_params":{"roi_target":1.25,"risk_threshold":0.8,"sims":100},"timestamp":"@","session":"run-7f3a","seq":1}}"#;
    assert_eq!(line, template.replace('@', timestamp(&record)));
}

#[test]
fn only_the_known_fields_are_flattened_and_in_their_order() {
    check(
        r#"{"extra":1,"horizon_days":60,"opt_source":"o","lot_id":"L","roi_target":1.5,"risk_threshold":0}"#,
        r#""roi_target":1.5,"risk_threshold":0,"horizon_days":60,"lot_id":"L","#,
        r#"{"roi_target":1.5,"risk_threshold":0,"horizon_days":60,"lot_id":"L","opt_source":"o","extra":1}"#,
    );
}

#[test]
fn context_values_are_not_converted() {
    for value in [r#"" 1.5 ""#, "true", "1", "1.50", "1e400", "[1,null]", r#"{"a":null}"#, r#""""#] {
        check(
            &format!(r#"{{"roi_target":{value},"opt_source":{value},"opt_params":{value},"x":{value}}}"#),
            &format!(r#""roi_target":{value},"#),
            &format!(r#"{{"roi_target":{value},"opt_source":{value},"opt_params":{value},"x":{value}}}"#),
        );
    }
}

#[test]
fn null_and_nan_are_left_out_at_the_first_level_only() {
    for word in ["null", "NaN"] {
        check(
            &format!(r#"{{"roi_target":{word},"lot_id":{word},"opt_source":{word},"x":{word},"y":1}}"#),
            "",
            r#"{"y":1}"#,
        );
        check(
            &format!(r#"{{"opt_params":{{"a":{word},"b":[{word}]}}}}"#),
            "",
            r#"{"opt_params":{"a":null,"b":[null]}}"#,
        );
    }
}

#[test]
fn infinities_in_the_context_are_counted() {
    let (found, reply) = written(r#"{"roi_target":Infinity,"opt_params":{"a":-Infinity},"x":Infinity}"#);
    assert_eq!(found, r#"{"sku_local":"A","context":{"opt_params":{"a":null}}}"#);
    let counted: u64 =
        reply["dropped"].as_object().expect("dropped").values().map(|n| n.as_u64().unwrap()).sum();
    assert_eq!(counted, 3, "{reply}");
    assert_eq!(reply["dropped"]["roi_target"], 1, "{reply}");
}

#[test]
fn a_session_or_seq_inside_the_context_gives_way_to_the_batchs() {
    let daemon = Daemon::start(&[]);
    let line = r#"{"session":"s","seq":1,"context":{"seq":"x","session":9,"lot_id":"L","y":1},"items":[{}]}"#;
    good(daemon.ask(line));
    let record = without_timestamps(&daemon.lot("L")[0]);
    assert_eq!(record, r#"{"lot_id":"L","context":{"lot_id":"L","session":"s","seq":1,"y":1}}"#);
}

#[test]
fn every_record_of_a_batch_has_the_whole_context_and_one_timestamp() {
    let daemon = Daemon::start(&[]);
    good(daemon.ask(r#"{"context":{"lot_id":"L","roi_target":2,"z":[1]},"items":[{},{"a":1},{}]}"#));
    let records = daemon.records("L");
    assert_eq!(records.len(), 3);
    for record in &records {
        assert_eq!(record["context"], records[0]["context"]);
        assert_eq!(timestamp(record), timestamp(&records[0]));
        assert_eq!((&record["roi_target"], &record["context"]["z"]), (&json!(2), &json!([1])));
    }
}

#[test]
fn a_timestamp_sent_in_the_context_is_replaced_whatever_it_is() {
    for sent in [r#""2001-01-01T00:00:00Z""#, "5", "{}", "Infinity"] {
        let (found, reply) = written(&format!(r#"{{"timestamp":{sent},"y":1}}"#));
        assert_eq!(found, r#"{"sku_local":"A","context":{"y":1}}"#, "{sent}");
        assert_eq!(reply["overridden"], json!(["timestamp"]), "{reply}");
    }
}

#[test]
fn timestamps_are_utc_with_six_digits_and_strictly_increase() {
    let daemon = Daemon::start(&[]);
    let mut connection = daemon.connect();
    let lines: String = (1..=200).map(|seq| batch("L", "s", seq) + "\n").collect();
    connection.send(lines);
    connection.close_writing();
    (0..200).for_each(|_| drop(good(connection.reply())));
    let records = daemon.records("L");
    let stamps: Vec<&str> = records.iter().map(timestamp).collect();
    for stamp in &stamps {
        let shape: String = stamp.chars().map(|c| if c.is_ascii_digit() { '9' } else { c }).collect();
        assert_eq!(shape, "9999-99-99T99:99:99.999999+99:99");
        assert!(stamp.ends_with("+00:00"), "{stamp}");
    }
    assert!(stamps.windows(2).all(|pair| pair[0] < pair[1]), "not strictly increasing");
    assert_eq!(stamps.len(), 200);
}

#[test]
fn a_timestamp_is_the_time_of_now() {
    let now = || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let daemon = Daemon::start(&[]);
    let before = now();
    good(daemon.ask(batch("L", "s", 1)));
    let after = now();
    let record = daemon.records("L").remove(0);
    let number = |range: std::ops::Range<usize>| timestamp(&record)[range].parse::<u64>().unwrap();
    // Days since 1970 of a civil date, by the months of a year that begins in March.
    let (year, month, day) = (number(0..4), number(5..7), number(8..10));
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = year * 365 + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1 - 719_468;
    let seconds = days * 86_400 + number(11..13) * 3600 + number(14..16) * 60 + number(17..19);
    assert!((before..=after).contains(&seconds), "{before} <= {seconds} <= {after}: {}", timestamp(&record));
}

#[test]
fn a_lot_id_is_text_or_an_integer() {
    let daemon = Daemon::start(&[]);
    for id in ["1.5", "1e3", "true", "[]", "{}"] {
        let line = format!(r#"{{"context":{{"lot_id":{id}}},"items":[{{}}]}}"#);
        check_refused(&daemon, line, "invalid_request", &["lot_id"]);
    }
    let reply = good(daemon.ask(r#"{"context":{"lot_id":Infinity},"items":[{}]}"#));
    assert_eq!(
        (&reply["lot"], &reply["dropped"]),
        (&json!("unassigned"), &json!({"lot_id": 1})),
        "missing, counted"
    );
}

#[test]
fn a_lot_id_that_is_an_integer_stays_one_in_the_record() {
    for id in ["7", "-3", "0", "123456789012345678901234567890"] {
        let daemon = Daemon::start(&[]);
        let reply = good(daemon.ask(format!(r#"{{"context":{{"lot_id":{id}}},"items":[{{}}]}}"#)));
        assert_eq!(daemon.place.lots(), [format!("{id}.jsonl")], "{reply}");
        let record = without_timestamps(&daemon.lot(id)[0]);
        assert_eq!(record, format!(r#"{{"lot_id":{id},"context":{{"lot_id":{id}}}}}"#));
    }
}
