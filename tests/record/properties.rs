//! Properties over any input: our scanner and serde_json agree, what is stored is strict JSON, numbers keep
//! their digits.

use lotlog::batch::Code;
use lotlog::scan::Scanner;
use proptest::prelude::*;
use serde_json::Value;

use crate::{lines, log};

/// Any JSON value as text, with blanks and escapes as producers write them.
fn json_text() -> impl Strategy<Value = String> {
    let number = prop_oneof![
        "-?(0|[1-9][0-9]{0,20})",
        "-?(0|[1-9][0-9]{0,5})\\.[0-9]{1,20}",
        "-?(0|[1-9][0-9]{0,3})(\\.[0-9]{1,3})?[eE][+-]?[0-9]{1,2}",
    ];
    let string = prop_oneof![
        any::<String>().prop_map(|s| serde_json::to_string(&s).unwrap()),
        "\"(\\\\u00[0-9a-f]{2}|\\\\[\"\\\\/bfnrt]|[a-zé日]| ){0,8}\"",
    ];
    let leaf = prop_oneof![
        Just("null".to_owned()),
        Just("true".to_owned()),
        Just("false".to_owned()),
        number,
        string
    ];
    leaf.prop_recursive(4, 40, 6, |inner| {
        let blank = "[ \t]{0,2}";
        prop_oneof![
            (proptest::collection::vec(inner.clone(), 0..6), blank)
                .prop_map(|(list, b)| format!("[{b}{}{b}]", list.join(&format!("{b},{b}")))),
            (proptest::collection::btree_map("[a-zA-Z_é]{1,8}", inner, 0..6), blank).prop_map(|(map, b)| {
                let members: Vec<String> = map.iter().map(|(k, v)| format!("\"{k}\"{b}:{b}{v}")).collect();
                format!("{{{b}{}{b}}}", members.join(&format!(",{b}")))
            }),
        ]
    })
}

/// An item of a few keys in any order, sometimes one of them twice, and in spellings that mean the same.
fn item_of_few_keys() -> impl Strategy<Value = String> {
    let key = prop_oneof![
        6 => Just("\"sku_local\""),
        6 => Just("\"est_price_mu\""),
        4 => Just("\"sell_p60\""),
        4 => Just("\"quantity\""),
        3 => Just("\"title\""),
        3 => Just("\"titles\""),
        1 => Just("\"t\\u0069tle\""),
        1 => Just("\"est_price_\\u006du\""),
        1 => Just("\"lot_id\""),
        1 => Just("\"predicted_price\""),
    ];
    let value = prop_oneof![
        4 => Just("1.5"),
        2 => Just("7"),
        1 => Just("-0"),
        1 => Just("\"a\""),
        1 => Just("\"\\u00e9\""),
        1 => Just("null"),
        1 => Just("{\"title\":[1,{\"sku_local\":2}]}"),
    ];
    let blank = prop_oneof![8 => Just(""), 1 => Just(" "), 1 => Just("\t")];
    let twice = proptest::bool::weighted(0.1);
    (proptest::collection::vec((key, value, blank), 0..8), twice).prop_map(|(mut members, twice)| {
        if !twice {
            let mut seen = std::collections::HashSet::new();
            members.retain(|(key, ..)| seen.insert(serde_json::from_str::<String>(key).unwrap()));
        }
        let members: Vec<String> = members.iter().map(|(k, v, b)| format!("{b}{k}{b}:{b}{v}{b}")).collect();
        format!("{{{}}}", members.join(","))
    })
}

fn normal(text: &str) -> Option<String> {
    let mut scanner = Scanner::new(text.as_bytes(), 64).ok()?;
    let mut out = Vec::new();
    let first = scanner.value().ok()?;
    scanner.copy(first, &mut out).ok()?;
    scanner.finish().ok()?;
    Some(String::from_utf8(out).unwrap())
}

/// serde_json's verdict, its number range aside: it refuses numbers beyond a double, which JSON does not.
fn serde_takes(text: &[u8]) -> Option<bool> {
    match serde_json::from_slice::<&serde_json::value::RawValue>(text) {
        Ok(_) => Some(true),
        Err(e)
            if e.to_string().contains("recursion limit") || e.to_string().contains("number out of range") =>
        {
            None
        }
        Err(_) => Some(false),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn any_json_is_copied_as_strict_compact_json_of_the_same_value(text in json_text()) {
        let copy = normal(&text).expect("it is JSON");
        let (before, after): (Value, Value) = (serde_json::from_str(&text).unwrap(), serde_json::from_str(&copy).unwrap());
        prop_assert_eq!(before, after);
        prop_assert_eq!(normal(&copy), Some(copy.clone()), "normal form is its own normal form");
        prop_assert!(!copy.bytes().any(|b| b < 0x20));
    }

    #[test]
    fn any_item_becomes_one_line_of_strict_json(item in json_text()) {
        let request = format!("{{\"items\":[{{\"extra\":{item},\"est_price_mu\":{item},\"sku_local\":{item},\"quantity\":{item}}}]}}");
        let records = lines(log(request.as_bytes()).unwrap());
        prop_assert_eq!(records.len(), 1);
        let record: Value = serde_json::from_str(&records[0]).unwrap();
        prop_assert_eq!(&record["extra"], &serde_json::from_str::<Value>(&item).unwrap());
        prop_assert_eq!(record.get("predicted_price"), record.get("est_price_mu"));
        prop_assert!(record["quantity"].is_null() || record["quantity"].is_i64());
        prop_assert!(record["est_price_mu"].is_null() || record["est_price_mu"].is_f64());
    }

    #[test]
    fn every_double_is_stored_digit_for_digit(bits: u64) {
        let value = f64::from_bits(bits);
        prop_assume!(value.is_finite());
        for text in [format!("{value:?}"), format!("{value:e}")] {
            let request = format!("{{\"items\":[{{\"sell_p60\":{text}}}]}}");
            let record = lines(log(request.as_bytes()).unwrap()).remove(0);
            let stored = record.split("\"sell_p60\":").nth(1).unwrap().split(',').next().unwrap().to_owned();
            let spelt = if text.contains(['.', 'e']) { text.clone() } else { format!("{text}.0") };
            prop_assert_eq!(&stored, &spelt);
            prop_assert_eq!(stored.parse::<f64>().unwrap().to_bits(), bits);
            // The same as text.
            let request = format!("{{\"items\":[{{\"sell_p60\":\" {text}\"}}]}}");
            let record = lines(log(request.as_bytes()).unwrap()).remove(0);
            let stored = record.split("\"sell_p60\":").nth(1).unwrap().split(',').next().unwrap().to_owned();
            prop_assert_eq!(stored.parse::<f64>().unwrap().to_bits(), bits);
        }
    }

    #[test]
    fn mutated_json_gets_serde_jsons_verdict(
        text in json_text(),
        edits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..3u8), 1..4),
    ) {
        let mut bytes = text.into_bytes();
        for (place, byte, kind) in edits {
            let at = place.index(bytes.len().max(1)).min(bytes.len().saturating_sub(1));
            let byte = *b"{}[]\",:\\0-+.eE nutf\x01\xff\xc3".get(byte as usize % 30).unwrap_or(&byte);
            match kind {
                0 if !bytes.is_empty() => drop(bytes.remove(at)),
                1 if !bytes.is_empty() => bytes[at] = byte,
                _ => bytes.insert(at, byte),
            }
        }
        if let Some(expected) = serde_takes(&bytes) {
            let ours = std::str::from_utf8(&bytes).ok().and_then(normal).is_some();
            prop_assert_eq!(ours, expected, "{}", String::from_utf8_lossy(&bytes));
        }
    }

    #[test]
    fn any_bytes_are_refused_or_taken_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        if let Err(refusal) = log(&bytes) {
            prop_assert!([Code::InvalidJson, Code::InvalidRequest].contains(&refusal.code));
        }
    }

    #[test]
    fn a_request_cut_anywhere_is_not_json(place: prop::sample::Index) {
        let request = br#"{"op":"log","session":"s","seq":1,"context":{"lot_id":"L","x":[1,{"a":null}]},"items":[{"sku_local":"\u00e9"},{}]}"#;
        let refusal = log(&request[..place.index(request.len())]).unwrap_err();
        prop_assert_eq!(refusal.code, Code::InvalidJson);
        prop_assert!(refusal.message.contains("byte") || refusal.message.contains("empty"));
    }

    #[test]
    fn an_item_is_read_the_same_alone_and_among_others(items in proptest::collection::vec(item_of_few_keys(), 1..7)) {
        let alone: Vec<_> = items.iter().map(|item| log(format!("{{\"items\":[{item}]}}").as_bytes()).map(lines)).collect();
        let together = log(format!("{{\"items\":[{}]}}", items.join(",")).as_bytes()).map(lines);
        match together {
            Ok(records) => {
                let alone: Vec<String> = alone.into_iter().flat_map(|one| one.unwrap()).collect();
                prop_assert_eq!(records, alone);
            }
            Err(refusal) => {
                prop_assert_eq!(refusal.code, Code::InvalidRequest);
                prop_assert!(alone.iter().any(Result::is_err), "only together refused: {}", refusal.message);
            }
        }
    }
}
