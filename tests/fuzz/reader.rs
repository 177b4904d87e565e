//! A slow reader of request lines, written from docs/protocol.md and not from the code: it builds the whole tree,
//! then says which codes a line may be refused with, or what must be stored.

use std::collections::BTreeMap;

/// JSON with the words that producers add, numbers as they were spelt.
#[derive(Clone, Debug, PartialEq)]
pub enum J {
    Null,
    Nan,
    Infinity,
    Bool(bool),
    Number(String),
    Text(String),
    Array(Vec<J>),
    Object(Vec<(String, J)>),
    /// What text became: compared by its value.
    Value(f64),
}

/// Limits small enough to be met.
pub const MAX_ITEMS: usize = 6;
pub const MAX_CONTEXT_BYTES: usize = 600;
pub const MAX_BATCH_BYTES: usize = 6000;
pub const MAX_NESTING: usize = 8;

struct Parser<'a> {
    rest: &'a str,
}

impl Parser<'_> {
    fn blanks(&mut self) {
        self.rest = self.rest.trim_start_matches([' ', '\t', '\n', '\r']);
    }

    fn eat(&mut self, token: &str) -> bool {
        match self.rest.strip_prefix(token) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn text(&mut self) -> Option<String> {
        let bytes = self.rest.as_bytes();
        if bytes.first() != Some(&b'"') {
            return None;
        }
        let mut end = 1;
        while *bytes.get(end)? != b'"' {
            end += if bytes[end] == b'\\' { 2 } else { 1 };
        }
        let text = serde_json::from_str(self.rest.get(..end + 1)?).ok()?;
        self.rest = &self.rest[end + 1..];
        Some(text)
    }

    fn number(&mut self) -> Option<String> {
        let end = self.rest.find(|c: char| !matches!(c, '0'..='9' | '+' | '-' | '.' | 'e' | 'E'));
        let text = &self.rest[..end.unwrap_or(self.rest.len())];
        // The grammar is serde_json's; it knows no number beyond a double, so the exponent is looked at apart.
        let (mantissa, power) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
        let digits = power.strip_prefix(['+', '-']).unwrap_or(power);
        let good = !digits.is_empty()
            && digits.bytes().all(|b| b.is_ascii_digit())
            && !mantissa.contains('+')
            && json_mantissa(mantissa);
        self.rest = &self.rest[text.len()..];
        good.then(|| text.to_owned())
    }

    /// `bare`: whether NaN and the infinities are values here. `depth`: levels that are open.
    fn value(&mut self, depth: usize, bare: bool) -> Option<J> {
        self.blanks();
        for (word, value) in [("null", J::Null), ("true", J::Bool(true)), ("false", J::Bool(false))] {
            if self.eat(word) {
                return Some(value);
            }
        }
        for (word, value) in [("NaN", J::Nan), ("Infinity", J::Infinity), ("-Infinity", J::Infinity)] {
            if self.eat(word) {
                return bare.then_some(value);
            }
        }
        match self.rest.as_bytes().first()? {
            b'"' => self.text().map(J::Text),
            b'-' | b'0'..=b'9' => self.number().map(J::Number),
            open @ (b'[' | b'{') => {
                if depth >= MAX_NESTING {
                    return None;
                }
                let object = *open == b'{';
                self.rest = &self.rest[1..];
                let (mut list, mut members) = (Vec::new(), Vec::new());
                let close = if object { "}" } else { "]" };
                self.blanks();
                if self.eat(close) {
                    return Some(if object { J::Object(members) } else { J::Array(list) });
                }
                loop {
                    if object {
                        self.blanks();
                        let key = self.text()?;
                        self.blanks();
                        if !self.eat(":") {
                            return None;
                        }
                        let inner = bare || (depth == 0 && (key == "context" || key == "items"));
                        // The value itself must be an object or an array for its inside to be free.
                        self.blanks();
                        let opens = match key.as_str() {
                            "context" => self.rest.starts_with('{'),
                            _ => self.rest.starts_with('['),
                        };
                        let value = self.value(depth + 1, bare || (inner && opens))?;
                        members.push((key, value));
                    } else {
                        list.push(self.value(depth + 1, bare)?);
                    }
                    self.blanks();
                    if self.eat(close) {
                        return Some(if object { J::Object(members) } else { J::Array(list) });
                    }
                    if !self.eat(",") {
                        return None;
                    }
                }
            }
            _ => None,
        }
    }
}

fn json_mantissa(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
    let all = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    all(whole) && all(fraction) && (whole == "0" || !whole.starts_with('0'))
}

/// A line as a tree; `None` where it is not JSON.
pub fn parse(line: &[u8], bare: bool) -> Option<J> {
    let text = std::str::from_utf8(line).ok()?;
    let mut parser = Parser { rest: text };
    let value = parser.value(0, bare)?;
    parser.blanks();
    parser.rest.is_empty().then_some(value)
}

/// A value in normal form; bare words as null.
pub fn write(value: &J, out: &mut String) {
    match value {
        J::Null | J::Nan | J::Infinity => out.push_str("null"),
        J::Bool(bool) => out.push_str(&bool.to_string()),
        J::Number(text) => out.push_str(text),
        J::Value(value) => out.push_str(&format!("{value:?}")),
        J::Text(text) => out.push_str(&serde_json::to_string(text).unwrap()),
        J::Array(list) => {
            out.push('[');
            for (at, value) in list.iter().enumerate() {
                out.push_str(if at > 0 { "," } else { "" });
                write(value, out);
            }
            out.push(']');
        }
        J::Object(members) => {
            out.push('{');
            for (at, (key, value)) in members.iter().enumerate() {
                out.push_str(if at > 0 { "," } else { "" });
                out.push_str(&serde_json::to_string(key).unwrap());
                out.push(':');
                write(value, out);
            }
            out.push('}');
        }
    }
}

fn text_of(value: &J) -> String {
    let mut out = String::new();
    write(value, &mut out);
    out
}

fn infinities(value: &J) -> u64 {
    match value {
        J::Infinity => 1,
        J::Array(list) => list.iter().map(infinities).sum(),
        J::Object(members) => members.iter().map(|(_, value)| infinities(value)).sum(),
        _ => 0,
    }
}

/// A value with its bare words made null.
fn plain(value: &J) -> J {
    match value {
        J::Nan | J::Infinity => J::Null,
        J::Array(list) => J::Array(list.iter().map(plain).collect()),
        J::Object(members) => J::Object(members.iter().map(|(k, v)| (k.clone(), plain(v))).collect()),
        other => other.clone(),
    }
}

fn twice(value: &J) -> bool {
    match value {
        J::Array(list) => list.iter().any(twice),
        J::Object(members) => {
            let mut keys: Vec<&String> = members.iter().map(|(key, _)| key).collect();
            keys.sort();
            keys.windows(2).any(|pair| pair[0] == pair[1]) || members.iter().any(|(_, value)| twice(value))
        }
        _ => false,
    }
}

/// What a good line becomes.
#[derive(Debug, Default)]
pub struct Stored {
    pub lot: String,
    pub records: Vec<J>,
    pub dropped: BTreeMap<String, u64>,
    pub overridden: Vec<&'static str>,
}

/// What must come of a line.
#[derive(Debug)]
pub enum Verdict {
    /// Refused, with one of these codes.
    Refused(Vec<&'static str>),
    Stored(Stored),
    Sync,
    Status,
}

const IDENTIFIERS: [&str; 5] = ["sku_local", "asin", "upc", "ean", "upc_ean_asin"];
const ORDER: [&str; 15] = [
    "sku_local",
    "asin",
    "upc",
    "ean",
    "upc_ean_asin",
    "est_price_mu",
    "est_price_sigma",
    "est_price_p50",
    "sell_p60",
    "sell_hazard_daily",
    "condition_bucket",
    "sell_condition_factor",
    "sell_seasonality_factor",
    "mins_per_unit",
    "quantity",
];
const FLAT: [&str; 4] = ["roi_target", "risk_threshold", "horizon_days", "lot_id"];
const GIVES_WAY: [&str; 8] =
    ["roi_target", "risk_threshold", "horizon_days", "lot_id", "timestamp", "context", "session", "seq"];

fn blank(c: char) -> bool {
    " \t\n\r\x0b\x0c".contains(c)
}

/// `Ok(None)`: missing. `Err`: dropped.
fn known(key: &str, value: &J) -> Result<Option<J>, ()> {
    if matches!(value, J::Null | J::Nan) {
        return Ok(None);
    }
    if matches!(value, J::Infinity | J::Array(_) | J::Object(_)) {
        return Err(());
    }
    if IDENTIFIERS.contains(&key) || key == "condition_bucket" {
        return Ok(Some(value.clone()));
    }
    let stored = match (key, value) {
        ("quantity", J::Bool(bool)) => Some(J::Number(u8::from(*bool).to_string())),
        ("quantity", J::Number(text)) => truncated(text).map(J::Number),
        ("quantity", J::Text(text)) => {
            let text = text.trim_matches(blank);
            let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
            let good = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
            good.then(|| text.parse::<i64>().ok()).flatten().map(|n| J::Number(n.to_string()))
        }
        (_, J::Bool(bool)) => Some(J::Number(if *bool { "1.0" } else { "0.0" }.to_owned())),
        (_, J::Number(text)) => {
            let point = if text.contains(['.', 'e', 'E']) { "" } else { ".0" };
            text.parse::<f64>().is_ok_and(f64::is_finite).then(|| J::Number(format!("{text}{point}")))
        }
        (_, J::Text(text)) => {
            let text = text.trim_matches(blank);
            // Rust's own grammar for floats, without its words.
            let words = text.contains(|c: char| c.is_ascii_alphabetic() && c != 'e' && c != 'E');
            text.parse::<f64>().ok().filter(|n| n.is_finite() && !words).map(J::Value)
        }
        _ => None,
    };
    stored.map(Some).ok_or(())
}

/// The integer part of a number by its digits, if it has 64 bits.
fn truncated(text: &str) -> Option<String> {
    let (mantissa, power) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let negative = mantissa.starts_with('-');
    let mantissa = mantissa.trim_start_matches('-');
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{fraction}");
    if digits.bytes().all(|b| b == b'0') {
        return Some("0".to_owned());
    }
    let power = power.parse::<i64>().unwrap_or(if power.starts_with('-') { -100_000 } else { 100_000 });
    let point = whole.len() as i64 + power.clamp(-100_000, 100_000);
    let mut integer = String::new();
    for at in 0..point.max(0) as usize {
        integer.push(digits.as_bytes().get(at).copied().unwrap_or(b'0') as char);
    }
    let integer = integer.trim_start_matches('0');
    if integer.len() > 19 {
        return None;
    }
    let value: i128 = format!("0{integer}").parse().ok()?;
    i64::try_from(if negative { -value } else { value }).ok().map(|n| n.to_string())
}

fn count(dropped: &mut BTreeMap<String, u64>, key: &str, by: u64) {
    if by > 0 {
        *dropped.entry(key.to_owned()).or_default() += by;
    }
}

/// Bytes of a lot's file stem.
fn stem_bytes(id: &str) -> usize {
    let plain =
        |(at, b): (usize, u8)| b.is_ascii_alphanumeric() || b"_-".contains(&b) || (b == b'.' && at > 0);
    id.bytes().enumerate().map(|place| if plain(place) { 1 } else { 3 }).sum()
}

/// Reads a request line.
pub fn read(line: &[u8], stamp: &str) -> Verdict {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let Some(tree) = parse(line, false) else { return Verdict::Refused(vec!["invalid_json"]) };
    let mut codes = Vec::new();
    if twice(&tree) {
        codes.push("invalid_request");
    }
    let J::Object(members) = &tree else { return Verdict::Refused(vec!["invalid_request"]) };
    let get =
        |key: &str| members.iter().rev().find(|(k, _)| k == key).map(|(_, v)| v).filter(|v| **v != J::Null);
    let op = match get("op") {
        None => "log",
        Some(J::Text(op)) if ["log", "sync", "status"].contains(&op.as_str()) => op.as_str(),
        Some(_) => {
            codes.push("invalid_request");
            "log"
        }
    };
    for (key, _) in members {
        let of_log = ["context", "items", "session", "seq", "ack"].contains(&key.as_str());
        if !(key == "op" || (of_log && op == "log")) {
            codes.push("invalid_request");
        }
    }
    let session = get("session");
    let allowed = |c: char| c.is_ascii_alphanumeric() || "._:-".contains(c);
    let good_session = match session {
        None => true,
        Some(J::Text(name)) => (1..=64).contains(&name.len()) && name.chars().all(allowed),
        Some(_) => false,
    };
    let seq = get("seq");
    let good_seq = match seq {
        None => true,
        Some(J::Number(text)) => text.parse::<i64>().is_ok_and(|seq| seq > 0),
        Some(_) => false,
    };
    let good_ack = match get("ack") {
        None => true,
        Some(J::Text(ack)) => ack == "synced" || ack == "written",
        Some(_) => false,
    };
    let empty = Vec::new();
    let (context, good_context) = match get("context") {
        None => (&empty, true),
        Some(J::Object(context)) => (context, true),
        Some(_) => (&empty, false),
    };
    let none = Vec::new();
    let (items, good_items) = match get("items") {
        Some(J::Array(items)) => (items, items.iter().all(|item| matches!(item, J::Object(_)))),
        _ => (&none, op != "log" && get("items").is_none()),
    };
    let paired = session.is_some() == seq.is_some();
    if !(good_session && good_seq && good_ack && good_context && good_items && paired) {
        codes.push("invalid_request");
    }
    if items.len() > MAX_ITEMS {
        codes.push("too_large");
    }
    let lot_id = context.iter().rev().find(|(key, _)| key == "lot_id").map(|(_, value)| value);
    let mut lot = "\"unassigned\"".to_owned();
    match lot_id {
        None | Some(J::Null | J::Nan | J::Infinity) => {}
        Some(J::Text(id)) if id.is_empty() || stem_bytes(id) > 200 => codes.push("invalid_lot_id"),
        Some(J::Number(id)) if !id.contains(['.', 'e', 'E']) && id.len() > 200 => {
            codes.push("invalid_lot_id")
        }
        Some(J::Number(id)) if id.contains(['.', 'e', 'E']) => codes.push("invalid_request"),
        Some(id @ (J::Text(_) | J::Number(_))) => lot = text_of(id),
        Some(_) => codes.push("invalid_request"),
    }
    let has_session = session.is_some();
    let mut stored = Stored { lot, ..Stored::default() };
    let mut gave_way = Vec::new();
    let context_of = |key: &str| {
        let value = context.iter().rev().find(|(k, _)| k == key).map(|(_, value)| value)?;
        (!matches!(value, J::Null | J::Nan | J::Infinity)).then(|| (key.to_owned(), plain(value)))
    };
    let flat: Vec<(String, J)> = FLAT.iter().filter_map(|key| context_of(key)).collect();
    let stamp = ("timestamp".to_owned(), J::Text(stamp.to_owned()));
    let mut inner = flat.clone();
    inner.extend(["opt_source", "opt_params"].iter().filter_map(|key| context_of(key)));
    inner.push(stamp.clone());
    if let (Some(J::Text(name)), Some(J::Number(seq))) = (session, seq) {
        inner.push(("session".to_owned(), J::Text(name.clone())));
        inner.push(("seq".to_owned(), J::Number(seq.clone())));
    }
    for (key, value) in context {
        if key == "timestamp" || (has_session && (key == "session" || key == "seq")) {
            gave_way.push(key.as_str());
            continue;
        }
        count(&mut stored.dropped, key, infinities(value));
        let known = FLAT.contains(&key.as_str()) || key == "opt_source" || key == "opt_params";
        if !known && !matches!(value, J::Null | J::Nan | J::Infinity) {
            inner.push((key.clone(), plain(value)));
        }
    }
    let inner = J::Object(inner);
    if text_of(&inner).len() > MAX_CONTEXT_BYTES {
        codes.push("too_large");
    }
    let mut bytes = 0;
    for item in items {
        let J::Object(item) = item else { continue };
        let mut record = Vec::new();
        for key in ORDER {
            let Some((_, value)) = item.iter().rev().find(|(k, _)| k == key) else { continue };
            match known(key, value) {
                Ok(None) => {}
                Err(()) => count(&mut stored.dropped, key, 1),
                Ok(Some(value)) => {
                    record.push((key.to_owned(), value.clone()));
                    let alias = [("est_price_mu", "predicted_price"), ("sell_p60", "predicted_sell_p60")];
                    if let Some((_, alias)) = alias.iter().find(|(original, _)| *original == key) {
                        record.push(((*alias).to_owned(), value));
                    }
                }
            }
        }
        for (key, value) in item {
            let name = key.as_str();
            if ORDER.contains(&name) || name == "predicted_price" || name == "predicted_sell_p60" {
                continue;
            }
            if FLAT.contains(&name) || name == "timestamp" || name == "context" {
                gave_way.push(name);
                continue;
            }
            count(&mut stored.dropped, key, infinities(value));
            record.push((key.clone(), plain(value)));
        }
        record.extend(flat.iter().cloned());
        record.push(stamp.clone());
        record.push(("context".to_owned(), inner.clone()));
        let record = J::Object(record);
        bytes += text_of(&record).len() + 1;
        stored.records.push(record);
    }
    if bytes > MAX_BATCH_BYTES {
        codes.push("too_large");
    }
    stored.overridden = GIVES_WAY.into_iter().filter(|key| gave_way.contains(key)).collect();
    if !codes.is_empty() {
        return Verdict::Refused(codes);
    }
    match op {
        "sync" => Verdict::Sync,
        "status" => Verdict::Status,
        _ => Verdict::Stored(stored),
    }
}
