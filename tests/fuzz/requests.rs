//! Request lines against the slow reader: the same lines are taken, the same codes given, the same values stored.

use lotlog::batch::Durability;
use lotlog::config::Limits;
use lotlog::inbox::Inbox;
use lotlog::protocol::{Request, decode};
use lotlog::record;

use crate::reader::{self, J, MAX_BATCH_BYTES, MAX_CONTEXT_BYTES, MAX_ITEMS, MAX_NESTING, Verdict};
use crate::{rounds, seed, sim::Random};

const STAMP: &str = "2026-01-02T03:04:05.678901+00:00";

fn limits() -> Limits {
    Limits {
        max_items: MAX_ITEMS,
        max_context_bytes: MAX_CONTEXT_BYTES,
        max_batch_bytes: MAX_BATCH_BYTES,
        max_nesting: MAX_NESTING,
        ..Limits::default()
    }
}

/// The same, but for numbers that were text: those have one value and are no integers.
fn same(stored: &J, expected: &J) -> bool {
    match (stored, expected) {
        (J::Number(text), J::Value(value)) => {
            text.contains(['.', 'e', 'E'])
                && text.parse::<f64>().is_ok_and(|n| n.to_bits() == value.to_bits())
        }
        (J::Array(a), J::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (J::Object(a), J::Object(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|((k, a), (l, b))| k == l && same(a, b))
        }
        (a, b) => a == b,
    }
}

/// Whether a line's size, as the slow reader works it out, may differ from ours: numbers respelt from text.
fn is_near_a_limit(line: &[u8]) -> bool {
    line.len() > MAX_CONTEXT_BYTES / 2
}

/// Decodes a line and compares; says what came of it.
pub fn check(line: &[u8]) -> &'static str {
    let shown = || String::from_utf8_lossy(line).into_owned();
    let verdict = reader::read(line, STAMP);
    let log = match (decode(line, &limits(), Durability::Synced), verdict) {
        (Err(rejected), Verdict::Refused(codes)) => {
            let code = rejected.refusal.code.as_str();
            assert!(codes.contains(&code), "{code}, not one of {codes:?}: {}", shown());
            return code;
        }
        (Ok(Request::Sync), Verdict::Sync) => return "sync",
        (Ok(Request::Status), Verdict::Status) => return "status",
        (Ok(Request::Log(log)), Verdict::Stored(expected)) => {
            assert_eq!(log.echo.lot.as_json(), expected.lot, "{}", shown());
            assert_eq!(log.echo.records as usize, expected.records.len(), "{}", shown());
            assert_eq!(log.echo.overridden, expected.overridden, "{}", shown());
            // Long and many names are cut short in a reply.
            if expected.dropped.len() < 200 && expected.dropped.keys().all(|key| key.len() < 60) {
                assert_eq!(log.echo.dropped, expected.dropped, "{}", shown());
            }
            let Some(batch) = log.batch else {
                assert!(expected.records.is_empty(), "{}", shown());
                return "empty";
            };
            let mut body = batch.body.clone();
            record::stamp(&mut body, STAMP.as_bytes().try_into().unwrap());
            let mut lines = Vec::new();
            record::compose(&body.items, &body.suffix, &mut lines);
            assert_eq!(lines.len() as u64, batch.lines_bytes, "{}", shown());
            assert!(!lines.contains(&0), "{}", shown());
            let lines: Vec<&[u8]> = lines.split_inclusive(|b| *b == b'\n').collect();
            assert_eq!(lines.len(), expected.records.len(), "{}", shown());
            for (line, expected) in lines.iter().zip(&expected.records) {
                let text = std::str::from_utf8(line.strip_suffix(b"\n").unwrap()).unwrap();
                serde_json::from_str::<Box<serde_json::value::RawValue>>(text).unwrap();
                let stored =
                    reader::parse(text.as_bytes(), false).unwrap_or_else(|| panic!("{text}: {}", shown()));
                let mut normal = String::new();
                reader::write(&stored, &mut normal);
                assert_eq!(normal, text, "normal form: {}", shown());
                assert!(same(&stored, expected), "{text}\nis not\n{expected:?}\nfrom {}", shown());
            }
            batch
        }
        // Sizes are worked out with numbers respelt in another way.
        (Ok(_), Verdict::Refused(codes))
            if codes.iter().all(|c| *c == "too_large") && is_near_a_limit(line) =>
        {
            return "near";
        }
        (Err(rejected), Verdict::Stored(_))
            if rejected.refusal.code.as_str() == "too_large" && is_near_a_limit(line) =>
        {
            return "near";
        }
        (ours, theirs) => panic!("{ours:?}\ninstead of {theirs:?}\nfrom {}", shown()),
    };
    // Sent again, however it is spaced, it is the same batch.
    let tree = reader::parse(line.strip_suffix(b"\r").unwrap_or(line), true).unwrap();
    let again = respaced(&tree);
    match decode(again.as_bytes(), &limits(), Durability::Synced) {
        Ok(Request::Log(second)) => {
            assert_eq!(second.batch.unwrap().content_hash, log.content_hash, "{again}")
        }
        other => panic!("{other:?} from {again}"),
    }
    "stored"
}

/// The same request with blanks and every non-ASCII character escaped.
fn respaced(value: &J) -> String {
    match value {
        J::Nan => "NaN".to_owned(),
        J::Infinity => "Infinity".to_owned(),
        J::Text(text) => escaped(text),
        J::Array(list) => format!("[ {} ]", list.iter().map(respaced).collect::<Vec<_>>().join(" , ")),
        J::Object(members) => {
            let members =
                members.iter().map(|(key, value)| format!("{}\t: {}", escaped(key), respaced(value)));
            format!("{{ {} }}", members.collect::<Vec<_>>().join(" ,"))
        }
        other => {
            let mut out = String::new();
            reader::write(other, &mut out);
            out
        }
    }
}

fn escaped(text: &str) -> String {
    let units = text.encode_utf16().map(|unit| match u8::try_from(unit) {
        Ok(b) if b.is_ascii_alphanumeric() => (b as char).to_string(),
        _ => format!("\\u{unit:04X}"),
    });
    format!("\"{}\"", units.collect::<String>())
}

/// The sample lines and the recorded cases, cut down to what the limits here take.
pub fn samples() -> Vec<Vec<u8>> {
    let mut samples = Vec::new();
    for line in include_str!("../data/batches.jsonl").lines() {
        let Some(J::Object(mut members)) = reader::parse(line.as_bytes(), true) else { panic!("{line}") };
        for (key, value) in &mut members {
            if let (true, J::Array(items)) = (key == "items", value) {
                items.truncate(2);
            }
        }
        samples.push(respaced(&J::Object(members)).into_bytes());
    }
    let cases: serde_json::Value = serde_json::from_str(include_str!("../data/record_cases.json")).unwrap();
    samples
        .extend(cases.as_array().unwrap().iter().map(|c| c["request"].as_str().unwrap().as_bytes().to_vec()));
    samples
}

/// Values at the edges of the rules.
const VALUES: &[&str] = &[
    "null",
    "true",
    "NaN",
    "Infinity",
    "-Infinity",
    "0",
    "-0",
    "-0.0",
    "45",
    "1e5",
    "1E+400",
    "-1e-400",
    "0.10",
    "9223372036854775807",
    "9223372036854775808",
    "-9223372036854775808.9",
    "1.5e1",
    "123456789e-3",
    "0e9999999999",
    "5e-1",
    "99999999999999999999e-2",
    "\"\"",
    "\" 45 \"",
    "\"+.5\"",
    "\"5.\"",
    "\"-00.10e+02\"",
    "\"1e999\"",
    "\"inf\"",
    "\"nan\"",
    "\"1_0\"",
    "\"0x10\"",
    "\"\\u00a05\"",
    "\"+7\"",
    "\" -12\\n\"",
    "\"1.0\"",
    "\"\\ud83d\\ude00\"",
    "\"\\u0000\"",
    "\"a/b \\u00d8\"",
    "[]",
    "{}",
    "[1,[NaN,{\"a\":-Infinity}]]",
    "{\"a\":{\"a\":null}}",
    "\"..\"",
    "\"synced\"",
    "\"written\"",
    "\"sync\"",
    "\"log\"",
    "\"s\"",
    "[[[[[[[[]]]]]]]]",
    "\"\\u007f\\u2028\"",
    "01",
    "1.",
    "+1",
];
/// Keys that mean something somewhere.
const KEYS: &[&str] = &[
    "op",
    "items",
    "context",
    "session",
    "seq",
    "ack",
    "lot_id",
    "timestamp",
    "roi_target",
    "risk_threshold",
    "horizon_days",
    "opt_source",
    "opt_params",
    "sku_local",
    "asin",
    "est_price_mu",
    "predicted_price",
    "sell_p60",
    "predicted_sell_p60",
    "quantity",
    "condition_bucket",
    "mins_per_unit",
    "upc",
    "title",
    "x",
    "\\u00e9",
    "\\u0073eq",
];

/// A line changed in one way or more.
fn changed(random: &mut Random, samples: &[Vec<u8>]) -> Vec<u8> {
    let mut line = samples[random.below(samples.len())].clone();
    for _ in 0..random.below(4) {
        let at = random.below(line.len() + 1);
        let colons: Vec<usize> = (0..line.len()).filter(|at| line[*at] == b':').collect();
        let opens: Vec<usize> = (0..line.len()).filter(|at| line[*at] == b'{').collect();
        let value = VALUES[random.below(VALUES.len())];
        let key = KEYS[random.below(KEYS.len())];
        match random.below(9) {
            0 if at < line.len() => line[at] ^= 1 << random.below(8),
            1 => line.truncate(at),
            2 if at < line.len() => drop(line.remove(at)),
            3 => line.insert(at, b"\"\\,:[]{}0-.eE \x1f\xc3\xa9\xed\x00"[random.below(18)]),
            // A value in the place of another, where that is a scalar.
            4 | 5 if !colons.is_empty() => {
                let from = colons[random.below(colons.len())] + 1;
                let length = line[from..].iter().position(|b| b",}]".contains(b)).unwrap_or(0);
                line.splice(from..from + length, value.bytes());
            }
            6 | 7 if !opens.is_empty() => {
                let from = opens[random.below(opens.len())] + 1;
                let comma = if line[from..].trim_ascii_start().starts_with(b"}") { "" } else { "," };
                line.splice(from..from, format!("\"{key}\":{value}{comma}").bytes());
            }
            _ => {
                let end = (at + random.below(40)).min(line.len());
                let copy = line[at..end].to_vec();
                let to = random.below(line.len() + 1);
                line.splice(to..to, copy);
            }
        }
    }
    line
}

#[test]
fn lines_are_taken_refused_and_stored_as_the_contract_says() {
    let (samples, seed) = (samples(), seed());
    let mut counts = std::collections::BTreeMap::<&str, u64>::new();
    for sample in &samples {
        *counts.entry(check(sample)).or_default() += 1;
    }
    for round in 0..rounds(20_000) {
        let mut random = Random(seed.wrapping_add(round));
        let line = changed(&mut random, &samples);
        *counts.entry(check(&line)).or_default() += 1;
    }
    println!("lines: {counts:?}");
    assert!(counts["stored"] > 10, "{counts:?}");
}

#[test]
fn lines_are_the_same_however_their_bytes_arrive() {
    let (samples, seed) = (samples(), seed());
    for round in 0..rounds(200) {
        let mut random = Random(seed.wrapping_add(round));
        let mut input = Vec::new();
        for _ in 0..1 + random.below(5) {
            input.extend(changed(&mut random, &samples));
            input.extend_from_slice([&b"\n"[..], b"\r\n", b"\n\n"][random.below(3)]);
        }
        let end = input.len() - random.below(20).min(input.len());
        let input = &input[..end];
        // Without a carriage return before the end.
        let bare = |line: &'_ [u8]| line.strip_suffix(b"\r").unwrap_or(line).to_vec();
        let mut expected: Vec<Vec<u8>> = input.split(|b| *b == b'\n').map(bare).collect();
        expected.pop();
        let loose = input.rsplit(|b| *b == b'\n').next().unwrap_or_default();
        let most = [1, 2, 7, 4096][random.below(4)];
        let (mut inbox, mut at, mut got) = (Inbox::default(), 0, 0);
        while at < input.len() {
            let some = (1 + random.below(most)).min(input.len() - at);
            inbox.push(&input[at..at + some]);
            at += some;
            // Taken at once or later.
            while inbox.has_line() && (at == input.len() || random.chance(70)) {
                assert_eq!(inbox.line(), expected[got], "LOTLOG_SEED={}", seed.wrapping_add(round));
                inbox.consume_line();
                got += 1;
            }
        }
        assert_eq!(
            (got, inbox.len()),
            (expected.len(), loose.len()),
            "LOTLOG_SEED={}",
            seed.wrapping_add(round)
        );
    }
}
