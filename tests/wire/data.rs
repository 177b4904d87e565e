//! The sample data: every record case byte for byte, and the batches of real producers.

use serde_json::Value;

use crate::common::{Daemon, without_timestamps};
use crate::shape::good;

const RECORD_CASES: &str = include_str!("../data/record_cases.json");
const BATCHES: &str = include_str!("../data/batches.jsonl");

/// Every number replaced by its value, where a text may have been spelt another way.
fn by_value(record: &str) -> Value {
    fn fold(value: &mut Value) {
        match value {
            Value::Number(n) => *value = Value::from(n.as_f64().expect("a double")),
            Value::Array(list) => list.iter_mut().for_each(fold),
            Value::Object(map) => map.values_mut().for_each(fold),
            _ => {}
        }
    }
    let mut value = serde_json::from_str(record).expect("a record is JSON");
    fold(&mut value);
    value
}

/// What is wrong with this case, if anything.
fn wrong(case: &Value) -> Result<(), String> {
    let daemon = Daemon::start(&[]);
    let reply = daemon.ask(case["request"].as_str().expect("a request"));
    let expected = &case["reply"];
    for (key, value) in expected.as_object().expect("fields of the reply") {
        let same = match (key.as_str(), &reply[key]) {
            ("error", error) => value.as_object().unwrap().iter().all(|(k, v)| &error[k] == v),
            (_, found) => found == value,
        };
        if !same {
            return Err(format!("`{key}` should be {value}: {reply}"));
        }
    }
    for key in ["dropped", "overridden", "duplicate"] {
        if expected.get(key).is_none() && reply.get(key).is_some() {
            return Err(format!("`{key}` should not be there: {reply}"));
        }
    }
    let expected: Vec<&str> =
        case["records"].as_array().unwrap().iter().map(|r| r.as_str().unwrap()).collect();
    if expected.is_empty() {
        let lots = daemon.place.lots();
        return if lots.is_empty() { Ok(()) } else { Err(format!("left {lots:?}")) };
    }
    let found: Vec<_> =
        daemon.lot(reply["lot"].as_str().unwrap()).iter().map(|r| without_timestamps(r)).collect();
    let as_text = case["name"].as_str().unwrap().contains("text_");
    let same = found.len() == expected.len()
        && found
            .iter()
            .zip(&expected)
            .all(|(found, expected)| found == expected || (as_text && by_value(found) == by_value(expected)));
    if same { Ok(()) } else { Err(format!("records\n  {found:?} instead of\n  {expected:?}")) }
}

#[test]
fn every_record_case_is_written_byte_for_byte() {
    let cases: Vec<Value> = serde_json::from_str(RECORD_CASES).unwrap();
    assert_eq!(cases.len(), 27);
    let failures: Vec<_> =
        cases.iter().filter_map(|case| Some(format!("{}: {}", case["name"], wrong(case).err()?))).collect();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn the_batches_of_real_producers_are_all_taken_once() {
    let daemon = Daemon::start(&[]);
    let mut connection = daemon.connect();
    let (mut duplicates, mut records, mut lsn) = (0, 0, 0);
    for line in BATCHES.lines() {
        let reply = good(connection.ask(line));
        if reply.get("duplicate").is_some() {
            duplicates += 1;
            continue;
        }
        records += reply["records"].as_u64().unwrap();
        let next = reply["lsn"].as_u64().unwrap();
        assert!(next > lsn, "lsn {next} after {lsn}");
        lsn = next;
    }
    assert_eq!((BATCHES.lines().count(), duplicates), (62, 2));
    assert_eq!(good(connection.ask(r#"{"op":"sync"}"#))["lsn"], lsn);
    let files = daemon.place.lots();
    assert_eq!(files.len(), 6, "{files:?}");
    let stored: usize = files.iter().map(|f| daemon.records(f.strip_suffix(".jsonl").unwrap()).len()).sum();
    assert_eq!(stored as u64, records);
}

#[test]
fn the_batches_pipelined_without_waiting_have_the_same_outcome() {
    let daemon = Daemon::start(&[]);
    let mut connection = daemon.connect();
    connection.send(BATCHES);
    connection.close_writing();
    let replies: Vec<_> = BATCHES.lines().map(|_| good(connection.reply())).collect();
    assert_eq!(replies.iter().filter(|reply| reply["duplicate"] == true).count(), 2);
    for (line, reply) in BATCHES.lines().zip(&replies) {
        let number = line.split(r#""seq": "#).nth(1).map(|rest| rest.split(',').next().unwrap());
        assert_eq!(reply.get("seq").map(Value::to_string).as_deref(), number, "{reply}");
    }
    connection.expect_end();
}
