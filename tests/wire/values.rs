//! Section 4, items: what becomes of every kind of value under every kind of key.

use serde_json::{Value, json};

use crate::common::{Daemon, without_timestamps};
use crate::shape::{good, refused};

/// The part of the one record that is the item's, as it was written, and the reply.
#[track_caller]
fn written(daemon: &Daemon, item: &str) -> (String, Value) {
    let before = daemon.lot("unassigned").len();
    let reply = good(daemon.ask(format!(r#"{{"items":[{item}]}}"#)));
    let lines = daemon.lot("unassigned");
    assert_eq!(lines.len(), before + 1, "{item}");
    let record = without_timestamps(lines.last().unwrap());
    let item_part = record.strip_suffix(r#""context":{}}"#).expect("the context is last");
    (item_part.trim_end_matches(',').to_owned() + "}", reply)
}

/// Each item becomes this record, and nothing is dropped or overridden.
#[track_caller]
fn check(cases: &[(&str, &str)]) {
    let daemon = Daemon::start(&[]);
    for (item, expected) in cases {
        let (found, reply) = written(&daemon, item);
        assert_eq!(found, *expected, "from {item}");
        assert!(reply.get("dropped").is_none() && reply.get("overridden").is_none(), "{item}: {reply}");
    }
}

/// Each value, under this key, is left out and counted.
#[track_caller]
fn check_dropped(key: &str, values: &[&str]) {
    let daemon = Daemon::start(&[]);
    for value in values {
        let (found, reply) = written(&daemon, &format!(r#"{{"{key}":{value}}}"#));
        assert_eq!(found, "{}", "from {value}");
        assert_eq!(reply["dropped"], json!({ key: 1 }), "{value}: {reply}");
    }
}

const NUMERIC: [&str; 10] = [
    "est_price_mu",
    "est_price_sigma",
    "est_price_p50",
    "sell_p60",
    "sell_hazard_daily",
    "sell_condition_factor",
    "sell_seasonality_factor",
    "mins_per_unit",
    "predicted_price",
    "predicted_sell_p60",
];

#[test]
fn an_empty_item_is_a_record_too() {
    check(&[("{}", "{}")]);
}

#[test]
fn the_number_sent_is_the_number_stored_digit_for_digit() {
    check(&[
        (r#"{"mins_per_unit":0.1000}"#, r#"{"mins_per_unit":0.1000}"#),
        (r#"{"mins_per_unit":-0.0}"#, r#"{"mins_per_unit":-0.0}"#),
        (r#"{"mins_per_unit":1e-7}"#, r#"{"mins_per_unit":1e-7}"#),
        (r#"{"mins_per_unit":1.5E+3}"#, r#"{"mins_per_unit":1.5E+3}"#),
        (r#"{"mins_per_unit":3.14159265358979323846}"#, r#"{"mins_per_unit":3.14159265358979323846}"#),
        (r#"{"mins_per_unit":1e-999}"#, r#"{"mins_per_unit":1e-999}"#),
    ]);
}

#[test]
fn an_integer_gets_a_fraction_however_long_it_is() {
    check(&[
        (r#"{"mins_per_unit":0}"#, r#"{"mins_per_unit":0.0}"#),
        (r#"{"mins_per_unit":-7}"#, r#"{"mins_per_unit":-7.0}"#),
        (r#"{"mins_per_unit":123456789012345678901}"#, r#"{"mins_per_unit":123456789012345678901.0}"#),
    ]);
}

#[test]
fn every_numeric_field_is_converted_and_the_aliases_follow() {
    let daemon = Daemon::start(&[]);
    for key in NUMERIC {
        let (found, _) = written(&daemon, &format!(r#"{{"{key}":true}}"#));
        let expected = match key {
            "est_price_mu" => r#"{"est_price_mu":1.0,"predicted_price":1.0}"#.to_owned(),
            "sell_p60" => r#"{"sell_p60":1.0,"predicted_sell_p60":1.0}"#.to_owned(),
            "predicted_price" | "predicted_sell_p60" => "{}".to_owned(),
            key => format!(r#"{{"{key}":1.0}}"#),
        };
        assert_eq!(found, expected);
    }
}

#[test]
fn aliases_that_are_sent_are_recomputed_without_a_word() {
    check(&[
        (r#"{"predicted_price":9,"est_price_mu":2}"#, r#"{"est_price_mu":2.0,"predicted_price":2.0}"#),
        (r#"{"predicted_price":[],"predicted_sell_p60":"x"}"#, "{}"),
        (r#"{"est_price_mu":null,"predicted_price":9}"#, "{}"),
        (r#"{"sell_p60":NaN,"predicted_sell_p60":0.5}"#, "{}"),
    ]);
}

#[test]
fn an_alias_goes_with_an_original_that_was_dropped() {
    let daemon = Daemon::start(&[]);
    let (found, reply) = written(&daemon, r#"{"est_price_mu":"high","predicted_price":9}"#);
    assert_eq!((found.as_str(), &reply["dropped"]), ("{}", &json!({"est_price_mu": 1})));
}

#[test]
fn text_that_is_a_number_becomes_it_by_value() {
    let daemon = Daemon::start(&[]);
    for (text, value) in [
        ("45", 45.0),
        ("+45", 45.0),
        ("-45", -45.0),
        ("4.", 4.0),
        (".5", 0.5),
        ("-.5", -0.5),
        ("007", 7.0),
        ("00.5", 0.5),
        ("+.5e1", 5.0),
        ("1.e2", 100.0),
        ("1E+2", 100.0),
        ("1e-2", 0.01),
        (" 1 ", 1.0),
        (r"\t\n\r 1 \t\n\r", 1.0),
        (r"\f1\f", 1.0),
        ("0", 0.0),
        ("1e05", 100_000.0),
    ] {
        let (found, reply) = written(&daemon, &format!(r#"{{"mins_per_unit":"{text}"}}"#));
        let found: Value = serde_json::from_str(&found).unwrap_or_else(|e| panic!("{text}: {e}: {found}"));
        assert!(found["mins_per_unit"].is_f64(), "`{text}` became {found}");
        assert_eq!(found["mins_per_unit"], value, "{text}");
        assert!(reply.get("dropped").is_none(), "{text}: {reply}");
    }
}

#[test]
fn other_text_is_left_out_and_counted() {
    check_dropped(
        "mins_per_unit",
        &[
            r#""""#,
            r#"" ""#,
            r#"".""#,
            r#""+""#,
            r#""e1""#,
            r#""1e""#,
            r#""1e+""#,
            r#"".e1""#,
            r#""--1""#,
            r#""1 2""#,
            r#""1,5""#,
            r#""1_000""#,
            r#""0x10""#,
            r#""NaN""#,
            r#""nan""#,
            r#""Infinity""#,
            r#""inf""#,
            r#""true""#,
            r#""1f""#,
            r#""٣""#,
            r#""\u00a01""#,
            r#""1\u2003""#,
            r#""１""#,
            r#""1e400""#,
            r#""- 1""#,
        ],
    );
}

#[test]
fn arrays_objects_and_the_too_large_are_left_out_and_counted() {
    check_dropped(
        "est_price_mu",
        &["[]", "[1]", "{}", r#"{"a":1}"#, "1e309", "-1e309", "Infinity", "-Infinity"],
    );
    let digits = "9".repeat(400);
    check_dropped("est_price_mu", &[digits.as_str()]);
}

#[test]
fn dropped_values_are_counted_by_field_over_the_batch() {
    let daemon = Daemon::start(&[]);
    let items = r#"{"est_price_mu":"x","quantity":[]},{"est_price_mu":{},"sku_local":"A"},{"sku_local":[],"sell_p60":null}"#;
    let reply = good(daemon.ask(format!(r#"{{"items":[{items}]}}"#)));
    assert_eq!(reply["dropped"], json!({"est_price_mu": 2, "quantity": 1, "sku_local": 1}), "{reply}");
    assert_eq!(reply["records"], 3);
}

#[test]
fn a_quantity_is_a_whole_number_of_64_bits() {
    let cases: Vec<(String, String)> = [
        ("3", "3"),
        ("-3", "-3"),
        ("0", "0"),
        ("-0", "0"),
        ("2.9", "2"),
        ("-2.9", "-2"),
        ("-0.5", "0"),
        ("1e3", "1000"),
        ("1.25e1", "12"),
        ("12345e-3", "12"),
        ("1e-400", "0"),
        ("true", "1"),
        ("false", "0"),
        ("9223372036854775807", "9223372036854775807"),
        ("-9223372036854775808", "-9223372036854775808"),
        ("9223372036854775807.9", "9223372036854775807"),
        ("922337203685477580.7e1", "9223372036854775807"),
        ("9007199254740993.0", "9007199254740993"),
        (r#""12""#, "12"),
        (r#"" +12 ""#, "12"),
        (r#""-007""#, "-7"),
    ]
    .map(|(sent, stored)| (format!(r#"{{"quantity":{sent}}}"#), format!(r#"{{"quantity":{stored}}}"#)))
    .into();
    check(&cases.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect::<Vec<_>>());
}

#[test]
fn what_is_no_quantity_is_left_out_and_counted() {
    check_dropped(
        "quantity",
        &[
            "9223372036854775808",
            "-9223372036854775809",
            "1e19",
            "1e999999999999",
            "Infinity",
            r#""3.0""#,
            r#""1e3""#,
            r#""""#,
            r#""+""#,
            r#""9223372036854775808""#,
            r#""three""#,
            "[]",
            "{}",
        ],
    );
}

#[test]
fn null_and_nan_are_left_out_of_every_known_field_and_not_counted() {
    let daemon = Daemon::start(&[]);
    let others = ["sku_local", "asin", "upc", "ean", "upc_ean_asin", "condition_bucket", "quantity"];
    for word in ["null", "NaN"] {
        for key in NUMERIC.iter().chain(&others) {
            let (found, reply) = written(&daemon, &format!(r#"{{"{key}":{word}}}"#));
            assert_eq!(found, "{}", "{key}");
            assert!(reply.get("dropped").is_none(), "{key}: {reply}");
        }
    }
}

#[test]
fn identifiers_and_the_condition_are_any_scalar_unchanged() {
    for key in ["sku_local", "asin", "upc", "ean", "upc_ean_asin", "condition_bucket"] {
        let same: Vec<String> =
            [r#""""#, r#"" A ""#, "7", "7.50", "-0", "1e400", "true", "false", r#""012""#]
                .map(|value| format!(r#"{{"{key}":{value}}}"#))
                .into();
        check(&same.iter().map(|item| (item.as_str(), item.as_str())).collect::<Vec<_>>());
        check_dropped(key, &["[]", r#"["A"]"#, "{}", r#"{"a":1}"#, "Infinity", "-Infinity"]);
    }
}

#[test]
fn every_other_key_keeps_its_value_and_its_order() {
    check(&[
        (r#"{"b":null,"a":1.50,"Sku_local":{},"":[]}"#, r#"{"b":null,"a":1.50,"Sku_local":{},"":[]}"#),
        (
            r#"{"z":1,"sku_local":"A","y":2,"quantity":1,"x":3}"#,
            r#"{"sku_local":"A","quantity":1,"z":1,"y":2,"x":3}"#,
        ),
        (r#"{"x" : [ 1 , { "b" : 1e5 , "a" : true } ] }"#, r#"{"x":[1,{"b":1e5,"a":true}]}"#),
        (r#"{"x":123456789012345678901234567890.5e-7}"#, r#"{"x":123456789012345678901234567890.5e-7}"#),
        (
            r#"{"session":"a","seq":1,"opt_source":"b","opt_params":{},"ack":1}"#,
            r#"{"session":"a","seq":1,"opt_source":"b","opt_params":{},"ack":1}"#,
        ),
    ]);
}

#[test]
fn text_is_written_raw_where_json_allows_it() {
    check(&[
        (r#"{"x":"\u00e9\u65e5\ud83d\ude00\u007f\u2028"}"#, "{\"x\":\"é日😀\u{7f}\u{2028}\"}"),
        (r#"{"\u006b\u00e9y":1}"#, r#"{"kéy":1}"#),
        (r#"{"\u0073ku_local":"A","b":1}"#, r#"{"sku_local":"A","b":1}"#),
        (r#"{"x":"a\/b"}"#, r#"{"x":"a/b"}"#),
    ]);
}

#[test]
fn text_survives_whatever_is_in_it() {
    let daemon = Daemon::start(&[]);
    let text: String =
        (0..0x300).filter_map(char::from_u32).chain("\"\\/\u{ffff}\u{10ffff}".chars()).collect();
    let (found, _) = written(&daemon, &json!({"sku_local": text, "x": [{text.as_str(): text}]}).to_string());
    let found: Value = serde_json::from_str(&found).unwrap();
    assert_eq!(found["sku_local"], text);
    assert_eq!(found["x"][0][&text], text);
}

#[test]
fn bare_words_in_free_places_become_null() {
    check(&[
        (r#"{"x":NaN}"#, r#"{"x":null}"#),
        (r#"{"x":[NaN,{"y":NaN}]}"#, r#"{"x":[null,{"y":null}]}"#),
        (r#"{"x":"NaN"}"#, r#"{"x":"NaN"}"#),
    ]);
    let daemon = Daemon::start(&[]);
    let (found, reply) = written(&daemon, r#"{"x":Infinity,"y":[-Infinity,Infinity]}"#);
    assert_eq!(found, r#"{"x":null,"y":[null,null]}"#);
    assert_eq!(reply["dropped"], json!({"x": 1, "y": 2}), "{reply}");
}

#[test]
fn a_context_field_in_an_item_is_not_used_and_is_reported() {
    for key in ["lot_id", "timestamp", "context", "roi_target", "risk_threshold", "horizon_days"] {
        let daemon = Daemon::start(&[]);
        let (found, reply) = written(&daemon, &format!(r#"{{"a":1,"{key}":{{"x":1}},"b":2}}"#));
        assert_eq!(found, r#"{"a":1,"b":2}"#, "{key}");
        assert_eq!(reply["overridden"], json!([key]), "{reply}");
        let line = format!(
            r#"{{"context":{{"roi_target":1,"risk_threshold":2,"horizon_days":3}},"items":[{{"{key}":9}},{{"{key}":9}}]}}"#
        );
        assert_eq!(good(daemon.ask(line))["overridden"], json!([key]), "named once");
        let record = daemon.records("unassigned").pop().unwrap();
        assert_eq!((&record["roi_target"], &record["horizon_days"]), (&json!(1), &json!(3)));
    }
}

#[test]
fn nothing_of_a_batch_is_stored_when_its_last_item_is_wrong() {
    let daemon = Daemon::start(&[]);
    let items = "{},".repeat(5000) + r#"{"x":1,"x":2}"#;
    let message = refused(&daemon.ask(format!(r#"{{"items":[{items}]}}"#)), "invalid_request");
    assert!(message.contains("items[5000]"), "{message}");
    assert!(daemon.place.lots().is_empty());
}
