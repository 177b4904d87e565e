//! JSON as the daemon takes it (`NaN`, `Infinity` and `-Infinity` count as values): checks a text and finds
//! the members of its object without changing a byte. Does not judge what the values mean, and leaves to the
//! daemon what only it decides (keys given twice, nesting, lone surrogates).

use std::ops::Range;

/// Deeper nesting is refused here already, so that the stack of open brackets stays small.
const MAX_NESTING: usize = 4096;

/// What is wrong, and at which byte.
#[derive(Debug, PartialEq, Eq)]
pub struct Fault {
    pub offset: usize,
    pub what: &'static str,
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "not JSON: {} at byte {}", self.what, self.offset)
    }
}

/// Checks that `text` is one JSON object and calls `member(key, value)` for each member of it: the key's
/// text with its quotes, the value's place.
pub fn object(text: &str, mut member: impl FnMut(&str, Range<usize>)) -> Result<(), Fault> {
    let mut scan = Scan { bytes: text.as_bytes(), at: 0 };
    scan.space();
    if scan.peek() != Some(b'{') {
        return Err(scan.fault("an object `{...}` was expected"));
    }
    scan.at += 1;
    scan.space();
    if scan.peek() == Some(b'}') {
        scan.at += 1;
    } else {
        loop {
            let key = scan.at;
            scan.string()?;
            let key = key..scan.at;
            scan.expect(b':', "`:` was expected")?;
            scan.space();
            let value = scan.at;
            scan.value()?;
            member(&text[key], value..scan.at);
            scan.space();
            match scan.next() {
                Some(b',') => scan.space(),
                Some(b'}') => break,
                _ => return Err(scan.fault_before("`,` or `}` was expected")),
            }
        }
    }
    scan.end()
}

/// Checks that `text` is one JSON value.
pub fn value(text: &str) -> Result<(), Fault> {
    let mut scan = Scan { bytes: text.as_bytes(), at: 0 };
    scan.space();
    scan.value()?;
    scan.end()
}

struct Scan<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Scan<'_> {
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn next(&mut self) -> Option<u8> {
        let byte = self.peek();
        self.at += 1;
        byte
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\r' | b'\n')) {
            self.at += 1;
        }
    }

    fn fault(&self, what: &'static str) -> Fault {
        Fault { offset: self.at.min(self.bytes.len()), what }
    }

    fn fault_before(&self, what: &'static str) -> Fault {
        Fault { offset: (self.at - 1).min(self.bytes.len()), what }
    }

    fn expect(&mut self, byte: u8, what: &'static str) -> Result<(), Fault> {
        self.space();
        if self.peek() != Some(byte) {
            return Err(self.fault(what));
        }
        self.at += 1;
        Ok(())
    }

    fn end(&mut self) -> Result<(), Fault> {
        self.space();
        if self.peek().is_none() { Ok(()) } else { Err(self.fault("something follows the value")) }
    }

    /// One value, however nested, without recursion: `open` holds the brackets that wait for their ends.
    fn value(&mut self) -> Result<(), Fault> {
        let mut open: Vec<u8> = Vec::new();
        loop {
            self.space();
            match self.peek() {
                Some(bracket @ (b'{' | b'[')) => {
                    self.at += 1;
                    self.space();
                    if self.peek() == Some(bracket + 2) {
                        self.at += 1;
                    } else {
                        if open.len() >= MAX_NESTING {
                            return Err(self.fault("nested too deeply"));
                        }
                        open.push(bracket);
                        if bracket == b'{' {
                            self.key()?;
                        }
                        continue;
                    }
                }
                Some(b'"') => self.string()?,
                Some(b'-' | b'0'..=b'9') => self.number()?,
                _ => self.word()?,
            }
            // A value has ended: close what it ends, up to the next comma.
            loop {
                let Some(&bracket) = open.last() else { return Ok(()) };
                self.space();
                match self.next() {
                    Some(b',') => {
                        if bracket == b'{' {
                            self.space();
                            self.key()?;
                        }
                        break;
                    }
                    Some(close) if close == bracket + 2 => {
                        open.pop();
                    }
                    _ => return Err(self.fault_before("`,` or a closing bracket was expected")),
                }
            }
        }
    }

    fn key(&mut self) -> Result<(), Fault> {
        self.string()?;
        self.expect(b':', "`:` was expected")
    }

    fn string(&mut self) -> Result<(), Fault> {
        if self.peek() != Some(b'"') {
            return Err(self.fault("a key in double quotes was expected"));
        }
        self.at += 1;
        loop {
            match self.next() {
                Some(b'"') => return Ok(()),
                Some(b'\\') => match self.next() {
                    Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => {}
                    Some(b'u') => {
                        for _ in 0..4 {
                            if !self.next().is_some_and(|b| b.is_ascii_hexdigit()) {
                                return Err(self.fault_before("four hex digits were expected"));
                            }
                        }
                    }
                    _ => return Err(self.fault_before("an unknown escape")),
                },
                Some(byte) if byte >= 0x20 => {}
                Some(_) => return Err(self.fault_before("a control character inside a string")),
                None => return Err(self.fault_before("a string without its end")),
            }
        }
    }

    fn digits(&mut self) -> Result<(), Fault> {
        let from = self.at;
        while self.peek().is_some_and(|b| b.is_ascii_digit()) {
            self.at += 1;
        }
        if self.at > from { Ok(()) } else { Err(self.fault("a digit was expected")) }
    }

    fn number(&mut self) -> Result<(), Fault> {
        if self.peek() == Some(b'-') {
            self.at += 1;
            if self.peek() == Some(b'I') {
                return self.word();
            }
        }
        if self.peek() == Some(b'0') {
            self.at += 1
        } else {
            self.digits()?
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digits()?;
        }
        Ok(())
    }

    fn word(&mut self) -> Result<(), Fault> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        for word in ["true", "false", "null", "NaN", "Infinity"] {
            if rest.starts_with(word.as_bytes()) {
                self.at += word.len();
                return Ok(());
            }
        }
        Err(self.fault("a value was expected"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_producers_send_is_taken() {
        for text in [
            "{}",
            " {\"a\": [1, -2.5e-3, {\"b\": []}], \"c\": NaN, \"d\": -Infinity, \"e\": \"x\\u00e9\\n\"} \r",
            "{\"a\":{\"b\":{\"c\":{}}},\"d\":[[],[[]]],\"e\":true}",
        ] {
            assert_eq!(object(text, |_, _| {}), Ok(()), "{text}");
        }
    }

    #[test]
    fn members_are_found_byte_for_byte() {
        let text = r#"{"session" : "a\"}", "seq":1.50,"items":[{"session":"no"}] }"#;
        let mut seen = Vec::new();
        object(text, |key, value| seen.push((key.to_owned(), text[value].to_owned()))).expect("valid");
        let expected =
            [("\"session\"", r#""a\"}""#), ("\"seq\"", "1.50"), ("\"items\"", r#"[{"session":"no"}]"#)];
        assert_eq!(seen, expected.map(|(k, v)| (k.to_owned(), v.to_owned())));
    }

    #[test]
    fn what_is_no_single_object_is_a_fault_with_its_place() {
        for (text, offset) in [
            ("", 0),
            ("[1]", 0),
            ("{\"a\":1},{\"b\":2}", 7),
            ("{}],\"context\":{\"lot_id\":\"x\"},\"items\":[{}", 2),
            ("{\"a\":01}", 6),
            ("{\"a\":+1}", 5),
            ("{\"a\":1,}", 7),
            ("{\"a\":[1,]}", 8),
            ("{\"a\":[1}}", 7),
            ("{\"a\":\"x", 7),
            ("{\"a\":\"\\x\"}", 7),
            ("{\"a\":\"\t\"}", 6),
            ("{\"a\":nan}", 5),
            ("{'a':1}", 1),
            ("{\"a\" 1}", 5),
            ("{\"a\":.5}", 5),
        ] {
            let fault = object(text, |_, _| {}).expect_err(text);
            assert_eq!(fault.offset, offset, "{text}: {fault}");
        }
        assert!(value(&"[".repeat(100_000)).is_err());
    }

    /// Cuts and flips of a valid text never panic, and what serde_json takes is taken.
    #[test]
    fn no_cut_or_flip_panics_and_strict_json_is_always_taken() {
        let text = r#"{"a":[1,2.5e3,"x\u12ab\\",{"b":null,"c":[true,false]}],"d":-0.0}"#;
        for at in 0..text.len() {
            assert!(object(&text[..at], |_, _| {}).is_err(), "cut at {at}");
            for byte in 0x20..0x7f {
                let mut bytes = text.as_bytes().to_vec();
                bytes[at] = byte;
                let flipped = String::from_utf8(bytes).expect("ASCII");
                let strict = serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(&flipped);
                if strict.is_ok() {
                    assert_eq!(object(&flipped, |_, _| {}), Ok(()), "{flipped}");
                }
            }
        }
    }
}
