//! The scanner at its edges: broken JSON and noise judged like another reader, whole batches, every place in
//! a string. (proptest prints the failing case with its seed.)

use lotlog::batch::Durability;
use lotlog::config::Limits;
use lotlog::protocol::{self, Request};
use lotlog::record;
use lotlog::scan::Scanner;
use lotlog::token::{Fault, What};
use proptest::prelude::*;
use serde_json::Value;

/// Nesting that the other reader takes too.
const MAX_NESTING: usize = 100;

/// Bytes that matter to a scanner.
const FREQUENT: &[u8] = b"\"\\,:[]{}0-.eEu \x1f\xc3\xa9\xed";

/// A line in normal form, and whether a key stands twice in it.
fn normal_form(line: &[u8]) -> Result<(String, bool), Fault> {
    let mut scanner = Scanner::new(line, MAX_NESTING)?;
    let mut out = Vec::new();
    let value = scanner.value()?;
    scanner.copy(value, &mut out)?;
    scanner.finish()?;
    Ok((String::from_utf8(out).expect("normal form is UTF-8"), scanner.twice().is_some()))
}

/// Both readers must agree on whether this is JSON, and on what it says.
fn check_agreement(line: &[u8]) -> Result<(), TestCaseError> {
    let ours = normal_form(line);
    match serde_json::from_slice::<Value>(line) {
        Ok(value) => {
            let (normal, twice) = match ours {
                Ok(ours) => ours,
                Err(fault) => return Err(TestCaseError::fail(format!("JSON, but we say {fault}"))),
            };
            if twice {
                return Ok(());
            }
            let again: Value = serde_json::from_str(&normal).expect("normal form is JSON");
            prop_assert_eq!(&again, &value, "{}", normal);
            prop_assert_eq!(normal_form(normal.as_bytes()), Ok((normal, false)), "normal form is final");
        }
        Err(error) if error.to_string().contains("number out of range") => {
            // A number of any size is JSON. Skipping over values the other reader sees only the grammar, not
            // halves of surrogate pairs.
            match (serde_json::from_slice::<serde::de::IgnoredAny>(line), ours) {
                (Ok(_), Ok(_)) | (Err(_), Err(_)) => {}
                (Ok(_), Err(fault)) => prop_assert_eq!(fault.what(), What::Surrogate),
                (Err(error), Ok(ours)) => prop_assert!(false, "{error}, but we say {ours:?}"),
            }
        }
        Err(error) => prop_assert!(ours.is_err(), "{error}, but we say {ours:?}"),
    }
    Ok(())
}

/// Numbers as people and programs spell them.
fn number() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<f64>().prop_filter("JSON has only these", |x| x.is_finite()).prop_map(|x| format!("{x:?}")),
        any::<i64>().prop_map(|n| n.to_string()),
        "-?(0|[1-9][0-9]{0,25})(\\.[0-9]{1,25})?([eE][+-]?[0-9]{1,2})?",
    ]
}

/// A JSON string with quotes, escaped here and there.
fn text() -> impl Strategy<Value = String> {
    prop::collection::vec((any::<char>(), 0..4u8), 0..12).prop_map(|chars| {
        let mut text = String::from("\"");
        for (char, how) in chars {
            if how == 0 {
                for unit in char.encode_utf16(&mut [0; 2]) {
                    text.push_str(&format!("\\u{unit:04x}"));
                }
            } else {
                let quoted = serde_json::to_string(&char).expect("a char is JSON");
                text.push_str(&quoted[1..quoted.len() - 1]);
            }
        }
        text + "\""
    })
}

/// JSON with blanks; `bare` adds the words that JSON lacks.
fn json(bare: bool) -> impl Strategy<Value = String> {
    let words =
        if bare { vec!["NaN", "Infinity", "-Infinity", "null"] } else { vec!["true", "false", "null"] };
    let leaf = prop_oneof![number(), text(), prop::sample::select(words).prop_map(str::to_owned)];
    leaf.prop_recursive(5, 64, 6, |inner| {
        let blank = prop::sample::select(vec!["", " ", "\n\t"]);
        prop_oneof![
            (prop::collection::vec(inner.clone(), 0..6), blank.clone()).prop_map(|(values, blank)| format!(
                "[{blank}{}{blank}]",
                values.join(&format!("{blank},{blank}"))
            )),
            (prop::collection::vec((text(), inner), 0..6), blank).prop_map(|(members, blank)| {
                let members: Vec<_> = members.iter().map(|(k, v)| format!("{k}{blank}:{blank}{v}")).collect();
                format!("{{{blank}{}{blank}}}", members.join(&format!(",{blank}")))
            }),
        ]
    })
}

/// The keys of the record and some others.
fn item() -> impl Strategy<Value = String> {
    let keys = vec![
        "sku_local",
        "asin",
        "upc",
        "ean",
        "upc_ean_asin",
        "est_price_mu",
        "predicted_price",
        "est_price_sigma",
        "est_price_p50",
        "sell_p60",
        "predicted_sell_p60",
        "sell_hazard_daily",
        "condition_bucket",
        "sell_condition_factor",
        "sell_seasonality_factor",
        "mins_per_unit",
        "quantity",
        "lot_id",
        "timestamp",
        "context",
        "roi_target",
        "title",
        "a",
        "é",
    ];
    let count = keys.len();
    (prop::sample::subsequence(keys, 0..=count).prop_shuffle(), prop::collection::vec(json(true), count))
        .prop_map(|(keys, values)| {
            let members: Vec<_> = keys.iter().zip(values).map(|(k, v)| format!("\"{k}\": {v}")).collect();
            format!("{{{}}}", members.join(", "))
        })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn broken_json_is_broken_for_both(
        line in json(false),
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..4u8), 1..4),
    ) {
        let mut line = line.into_bytes();
        for (at, byte, how) in edits {
            let at = at.index(line.len() + 1);
            let frequent = FREQUENT[byte as usize % FREQUENT.len()];
            match how {
                0 if at < line.len() => { line.remove(at); }
                1 => line.insert(at, frequent),
                2 if at < line.len() => line[at] = byte,
                _ => line.truncate(at),
            }
        }
        check_agreement(&line)?;
    }

    #[test]
    fn noise_is_judged_alike(line in prop_oneof![
        prop::collection::vec(any::<u8>(), 0..24),
        "[\\[\\]{}\",:\\\\0-9eE.+tfnrueals \\-\u{80}]{0,16}".prop_map(String::into_bytes),
    ]) {
        check_agreement(&line)?;
    }

    #[test]
    fn any_batch_becomes_strict_json(
        items in prop::collection::vec(item(), 0..4),
        context in prop_oneof![item(), Just("null".to_owned())],
    ) {
        let line = format!("{{\"context\":{context},\"items\":[{}],\"session\":\"s\",\"seq\":1}}", items.join(","));
        let log = match protocol::decode(line.as_bytes(), &Limits::default(), Durability::Synced) {
            Ok(Request::Log(log)) => log,
            Ok(other) => return Err(TestCaseError::fail(format!("{other:?}"))),
            // A generated object may hold a key twice, a generated lot may be of a wrong type.
            Err(rejected) => {
                let message = rejected.refusal.message;
                prop_assert!(message.contains("given twice") || message.contains("lot_id"), "{message}");
                return Ok(());
            }
        };
        let Some(batch) = &log.batch else { return Ok(()) };
        let mut body = batch.body.clone();
        record::stamp(&mut body, b"2025-08-23T18:45:12.345678+00:00");
        let mut lines = Vec::new();
        record::compose(&body.items, &body.suffix, &mut lines);
        prop_assert_eq!(batch.lines_bytes, lines.len() as u64);
        let lines = String::from_utf8(lines).expect("records are UTF-8");
        prop_assert_eq!(lines.lines().count(), items.len());
        for record in lines.lines() {
            let (normal, twice) = normal_form(record.as_bytes()).map_err(|e| TestCaseError::fail(format!("{e}: {record}")))?;
            prop_assert!(!twice, "{record}");
            prop_assert_eq!(&normal, record, "records are in normal form");
            serde_json::from_str::<Box<serde_json::value::RawValue>>(record).expect("records are JSON");
        }
    }

    #[test]
    fn quantities_are_truncated_exactly(value in any::<i64>(), shift in 0..30usize, tail in "[0-9]{0,20}") {
        // The same number with its point moved left and an exponent that moves it back.
        let digits = format!("{:0>1$}", value.unsigned_abs(), shift + 1);
        let (whole, fraction) = digits.split_at(digits.len() - shift);
        let sign = if value < 0 { "-" } else { "" };
        // JSON allows no zeros in front.
        let whole = whole.trim_start_matches('0');
        let whole = if whole.is_empty() { "0" } else { whole };
        let spelling = format!("{sign}{whole}.{fraction}{tail}0e{shift}");
        let line = format!("{{\"items\":[{{\"quantity\":{spelling}}}]}}");
        let Ok(Request::Log(log)) = protocol::decode(line.as_bytes(), &Limits::default(), Durability::Synced) else {
            return Err(TestCaseError::fail("refused"));
        };
        let text = String::from_utf8(log.batch.expect("a batch").body.items).expect("UTF-8");
        prop_assert_eq!(text, format!("\"quantity\":{value}\n"), "{}", spelling);
    }
}

#[test]
fn what_ends_or_breaks_a_string_is_found_at_every_place() {
    for length in 0..40 {
        for at in 0..=length {
            for breaker in ["\0", "\x1f", "\n", "\\x", "\"", "\\ud800"] {
                let line = format!("[\"{}{breaker}{}\"]", "é".repeat(at), "\u{7f}x".repeat(length - at));
                let fault = normal_form(line.as_bytes()).expect_err("broken");
                // Behind a quote the next thing is at fault, be it a string that does not end.
                let offset = 2 + 2 * at + usize::from(breaker == "\"");
                assert_eq!(fault.at(), offset, "{line}: {fault}");
            }
            for (escape, char) in [("\\u0041", "A"), ("\\/", "/"), ("\\ud83d\\ude00", "😀"), ("\\n", "\\n")]
            {
                let around = ("x".repeat(at), "é".repeat(length - at));
                let line = format!("[\"{}{escape}{}\"]", around.0, around.1);
                assert_eq!(
                    normal_form(line.as_bytes()),
                    Ok((format!("[\"{}{char}{}\"]", around.0, around.1), false))
                );
            }
        }
    }
}
