//! Recorded cases and the rules, one by one.

use lotlog::batch::Code;
use serde_json::{Value, json};

use crate::{lines, log, without_stamps};

#[test]
fn every_recorded_case_gives_its_reply_and_its_records_byte_for_byte() {
    let cases: Value = serde_json::from_str(include_str!("../data/record_cases.json")).unwrap();
    let cases = cases.as_array().unwrap();
    assert_eq!(cases.len(), 27);
    for case in cases {
        let name = case["name"].as_str().unwrap();
        let expected: Vec<&str> =
            case["records"].as_array().unwrap().iter().map(|r| r.as_str().unwrap()).collect();
        match log(case["request"].as_str().unwrap().as_bytes()) {
            Err(refusal) => {
                assert_eq!(case["reply"]["ok"], false, "{name}: {refusal:?}");
                assert_eq!(case["reply"]["error"]["code"], refusal.code.as_str(), "{name}");
                assert_eq!(case["reply"]["error"]["retryable"], refusal.code.is_retryable(), "{name}");
            }
            Ok(log) => {
                let echo = log.echo.clone();
                let reply = &case["reply"];
                assert_eq!(reply["ok"], true, "{name}");
                assert_eq!(reply["records"], echo.records, "{name}");
                assert_eq!(reply["lot"].to_string(), echo.lot.as_json(), "{name}");
                assert_eq!(reply.get("dropped").cloned().unwrap_or(json!({})), json!(echo.dropped), "{name}");
                assert_eq!(
                    reply.get("overridden").cloned().unwrap_or(json!([])),
                    json!(echo.overridden),
                    "{name}"
                );
                let got: Vec<String> = lines(log).iter().map(|l| without_stamps(l)).collect();
                assert_eq!(got, expected, "{name}");
            }
        }
    }
}

#[test]
fn every_line_of_the_sample_decodes() {
    let sample = include_str!("../data/batches.jsonl");
    assert_eq!(sample.lines().count(), 62);
    for line in sample.lines() {
        for record in lines(log(line.as_bytes()).unwrap()) {
            serde_json::from_str::<Value>(&record).unwrap();
        }
    }
}

/// The text of one item's record up to the context, and what was dropped.
#[track_caller]
fn check(item: &str, expected: &str, dropped: Value) {
    let log = log(format!("{{\"items\":[{item}]}}").as_bytes()).unwrap();
    assert_eq!(json!(log.echo.dropped), dropped, "{item}");
    let record = without_stamps(&lines(log)[0]);
    let comma = if expected.is_empty() { "" } else { "," };
    assert_eq!(record, format!("{{{expected}{comma}\"context\":{{}}}}"), "{item}");
}

#[track_caller]
fn check_number(sent: &str, stored: &str) {
    check(&format!("{{\"mins_per_unit\":{sent}}}"), &format!("\"mins_per_unit\":{stored}"), json!({}));
}

#[track_caller]
fn check_dropped(field: &str, sent: &str) {
    check(&format!("{{\"{field}\":{sent}}}"), "", json!({ field: 1 }));
}

#[track_caller]
fn check_quantity(sent: &str, stored: &str) {
    check(&format!("{{\"quantity\":{sent}}}"), &format!("\"quantity\":{stored}"), json!({}));
}

#[test]
fn numbers_are_stored_digit_for_digit_and_integers_get_a_fraction() {
    for same in
        ["1.0", "-0.0", "1e5", "1E5", "1.50e-300", "0.1000000000000000055511151231257827", "1e-400", "2.5E+3"]
    {
        check_number(same, same);
    }
    check_number("45", "45.0");
    check_number("-0", "-0.0");
    check_number("12345678901234567890123", "12345678901234567890123.0");
    check_number("true", "1.0");
    check_number("false", "0.0");
}

#[test]
fn text_that_is_a_number_becomes_it_spelt_as_json() {
    for (sent, stored) in [
        ("\"45\"", "45.0"),
        ("\"+45.50\"", "45.50"),
        ("\"-.5\"", "-0.5"),
        ("\"5.\"", "5.0"),
        ("\"007\"", "7.0"),
        ("\"00.5\"", "0.5"),
        ("\"1e5\"", "1e5"),
        ("\"1.E-3\"", "1.0E-3"),
        ("\" \\t\\n\\r\\u000b\\f1.5 \"", "1.5"),
        ("\"\\u0031\"", "1.0"),
    ] {
        check_number(sent, stored);
    }
    for text in [
        "", " ", ".", "+", "-", "1e", "1e+", "e5", "1_000", "1,5", "0x10", "NaN", "Infinity", "inf", "1 2",
        "--1", "1e400", "\\u00a01", "１",
    ] {
        check_dropped("mins_per_unit", &format!("\"{text}\""));
    }
}

#[test]
fn what_is_no_number_is_left_out_and_counted() {
    for value in ["[]", "[1]", "{}", "{\"a\":1}", "1e309", "-1e309", "Infinity", "-Infinity", "\"abc\""] {
        for field in ["est_price_mu", "est_price_sigma", "sell_p60", "sell_condition_factor", "quantity"] {
            check_dropped(field, value);
        }
    }
    let many_digits = format!("1{}", "0".repeat(400));
    check_dropped("est_price_mu", &many_digits);
    check_number(&format!("0.{}", "3".repeat(500)), &format!("0.{}", "3".repeat(500)));
    for value in ["null", "NaN"] {
        check(&format!("{{\"est_price_mu\":{value},\"quantity\":{value},\"asin\":{value}}}"), "", json!({}));
    }
}

#[test]
fn quantities_are_exact_integers_cut_toward_zero() {
    for (sent, stored) in [
        ("2", "2"),
        ("2.999", "2"),
        ("-2.999", "-2"),
        ("-0.5", "0"),
        ("-0", "0"),
        ("1e3", "1000"),
        ("12345e-2", "123"),
        ("1.5e1", "15"),
        ("0e999999999999999999999", "0"),
        ("1e-999999999999999999999", "0"),
        ("9223372036854775807", "9223372036854775807"),
        ("9223372036854775807.9", "9223372036854775807"),
        ("-9223372036854775808", "-9223372036854775808"),
        ("0.0009223372036854775807e22", "9223372036854775807"),
        ("true", "1"),
        ("false", "0"),
        ("\" +007 \"", "7"),
        ("\"-3\"", "-3"),
    ] {
        check_quantity(sent, stored);
    }
    for sent in [
        "9223372036854775808",
        "-9223372036854775809",
        "1e19",
        "1e999999999999999999999",
        "\"3.0\"",
        "\"1e3\"",
        "\"9223372036854775808\"",
        "\"\"",
    ] {
        check_dropped("quantity", sent);
    }
}

#[test]
fn identifiers_are_any_scalar_unchanged() {
    for value in [
        "\"007\"",
        "7",
        "7.0",
        "1e2",
        "true",
        "false",
        "\"\"",
        "\"a\\\"b\\\\c\\n\\u0001\"",
        "123456789012345678901234567890",
    ] {
        for field in ["sku_local", "asin", "upc", "ean", "upc_ean_asin", "condition_bucket"] {
            check(&format!("{{\"{field}\":{value}}}"), &format!("\"{field}\":{value}"), json!({}));
        }
    }
    check_dropped("sku_local", "[1]");
    check_dropped("condition_bucket", "{}");
    check_dropped("asin", "Infinity");
}

#[test]
fn text_is_written_with_the_fewest_escapes() {
    check(
        r#"{"x":"\/\u0041\u00e9\ud83d\ude00\b\f\t\u001f\u007f"}"#,
        "\"x\":\"/Aé😀\\b\\f\\t\\u001f\u{7f}\"",
        json!({}),
    );
    check(r#"{"k\u0065y":1}"#, r#""key":1"#, json!({}));
    check(r#"{"sk\u0075_local":"A"}"#, r#""sku_local":"A""#, json!({}));
}

#[test]
fn bare_words_in_free_places_become_null_and_infinities_are_counted_there() {
    check(
        r#"{"x":NaN,"y":Infinity,"z":[NaN,-Infinity,{"a":Infinity}]}"#,
        r#""x":null,"y":null,"z":[null,null,{"a":null}]"#,
        json!({"y":1,"z":2}),
    );
    let log = log(br#"{"context":{"roi_target":NaN,"risk_threshold":Infinity,"m":NaN,"n":-Infinity,"lot_id":Infinity,"opt_params":{"a":NaN,"b":Infinity}},"items":[{}]}"#).unwrap();
    assert_eq!(json!(log.echo.dropped), json!({"risk_threshold":1,"n":1,"lot_id":1,"opt_params":1}));
    assert_eq!(without_stamps(&lines(log)[0]), r#"{"context":{"opt_params":{"a":null,"b":null}}}"#);
}

#[test]
fn context_keys_sent_in_items_give_way_in_the_order_of_the_record() {
    let request = br#"{"items":[{"context":1,"a":1},{"timestamp":null,"lot_id":[{}],"roi_target":2,"horizon_days":1,"risk_threshold":0}]}"#;
    let log = log(request).unwrap();
    let expected = ["roi_target", "risk_threshold", "horizon_days", "lot_id", "timestamp", "context"];
    assert_eq!(log.echo.overridden, expected);
    let records = lines(log);
    assert_eq!(without_stamps(&records[0]), r#"{"a":1,"context":{}}"#);
    assert_eq!(without_stamps(&records[1]), r#"{"context":{}}"#);
}

#[test]
fn session_and_seq_sent_in_the_context_give_way_to_the_batchs() {
    let request = br#"{"session":"s","seq":7,"context":{"a":1,"session":"other","b":2,"seq":Infinity,"c":3},"items":[{}]}"#;
    let with = log(request).unwrap();
    assert_eq!(with.echo.overridden, ["session", "seq"]);
    assert_eq!(json!(with.echo.dropped), json!({}));
    assert_eq!(without_stamps(&lines(with)[0]), r#"{"context":{"session":"s","seq":7,"a":1,"b":2,"c":3}}"#);
    let alone = log(br#"{"context":{"session":"other","seq":9},"items":[{}]}"#).unwrap();
    assert!(alone.echo.overridden.is_empty());
    assert_eq!(without_stamps(&lines(alone)[0]), r#"{"context":{"session":"other","seq":9}}"#);
}

#[test]
fn a_lot_id_is_text_or_an_integer_and_names_its_file() {
    for (sent, stem, json) in [
        (r#""A/B \u00d8""#, "A%2FB%20%C3%98", "\"A/B Ø\""),
        ("7", "7", "7"),
        ("-7", "-7", "-7"),
        (r#"".x""#, "%2Ex", "\".x\""),
        ("null", "unassigned", "\"unassigned\""),
        ("NaN", "unassigned", "\"unassigned\""),
    ] {
        let log = log(format!("{{\"context\":{{\"lot_id\":{sent}}},\"items\":[{{}}]}}").as_bytes()).unwrap();
        assert_eq!((log.echo.lot.stem(), log.echo.lot.as_json()), (stem, json), "{sent}");
    }
    let refused = |sent: &str| {
        log(format!("{{\"context\":{{\"lot_id\":{sent}}},\"items\":[{{}}]}}").as_bytes()).unwrap_err().code
    };
    for sent in ["1.0", "1e3", "true", "[]", "{}"] {
        assert_eq!(refused(sent), Code::InvalidRequest, "{sent}");
    }
    assert_eq!(refused("\"\""), Code::InvalidLotId);
    assert_eq!(refused(&format!("\"{}\"", "x".repeat(201))), Code::InvalidLotId);
    assert_eq!(refused(&format!("\"{}\"", "ä".repeat(34))), Code::InvalidLotId);
    assert!(
        log(format!("{{\"context\":{{\"lot_id\":\"{}\"}},\"items\":[{{}}]}}", "x".repeat(200)).as_bytes())
            .is_ok()
    );
}

#[test]
fn a_retry_has_the_hash_of_its_original_and_other_content_has_not() {
    let hash = |context: &str, items: &str, seq: u64| {
        let line = format!("{{\"session\":\"s\",\"seq\":{seq},\"context\":{context},\"items\":{items}}}");
        log(line.as_bytes()).unwrap().batch.unwrap().content_hash
    };
    let original = hash(r#"{"lot_id":"L","timestamp":"x"}"#, r#"[{"a":1}]"#, 1);
    assert_eq!(original, hash(r#"{ "timestamp" : "y", "lot_id":"\u004c"}"#, r#"[ {"a" : 1} ]"#, 1));
    for (context, items) in [
        (r#"{"lot_id":"M"}"#, r#"[{"a":1}]"#),
        (r#"{"lot_id":"L"}"#, r#"[{"a":2}]"#),
        (r#"{"lot_id":"L"}"#, r#"[{"a":1},{}]"#),
        (r#"{"lot_id":"L","k":1}"#, r#"[{"a":1}]"#),
    ] {
        assert_ne!(original, hash(context, items, 1), "{context} {items}");
    }
}

#[test]
fn a_thousand_keys_in_one_object_do_not_take_quadratic_time() {
    let keys: Vec<String> = (0..200_000).map(|n| format!("\"k{n}\":0")).collect();
    let begun = std::time::Instant::now();
    let twice = format!("{{\"items\":[{{{},\"k77\":1}}]}}", keys.join(","));
    assert_eq!(log(twice.as_bytes()).unwrap_err().code, Code::InvalidRequest);
    let once = format!("{{\"items\":[{{{}}}]}}", keys.join(","));
    assert!(log(once.as_bytes()).is_ok());
    // Pairwise it would be 2e10 comparisons: minutes.
    assert!(begun.elapsed() < std::time::Duration::from_secs(10), "{:?}", begun.elapsed());
}
