//! A strict JSON scanner (RFC 8259) that goes over a line once: it validates, hands out tokens as places in
//! the line, and copies values in normal form (compact, non-ASCII raw, fewest escapes). It finds keys given
//! twice. Iterative, so that nesting costs no stack. Knows neither requests nor records; never parses a number.

use std::borrow::Cow;

use crate::text;
use crate::token::{Fault, MAX_PLACE_BYTES, Number, Text, Value, What};

/// Up to this many keys an object's new key is compared with those before it; beyond, they are sorted once.
const PAIRWISE_KEYS: usize = 32;

/// Place of an unescaped key: in the line, or, from the line's length on, in `Scanner::unescaped`.
#[derive(Clone, Copy, Debug)]
struct Name {
    start: u32,
    end: u32,
}

/// An array or object that has not ended.
#[derive(Clone, Copy, Debug)]
struct Frame {
    is_object: bool,
    /// Elements or members begun.
    count: usize,
    /// Where its keys begin in `Scanner::keys`.
    keys_from: usize,
    /// Where its unescaped keys begin in `Scanner::unescaped`.
    unescaped_from: usize,
    /// One bit for each signature of a key: a key whose bit is clear is new.
    seen: u64,
}

/// A key as an object of the line has spelt it, from its opening quote to behind its colon.
#[derive(Clone, Copy, Debug)]
pub struct Spelt {
    start: u32,
    end: u32,
    /// The bit of its signature in [`Frame::seen`].
    bit: u64,
}

/// A key that stands twice in its object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Twice {
    /// Byte offset where it was noticed.
    pub at: usize,
    /// Path of the key.
    pub path: String,
}

/// The scanner of one line.
#[derive(Debug)]
pub struct Scanner<'l> {
    line: &'l str,
    at: usize,
    max_nesting: usize,
    /// Whether `NaN`, `Infinity` and `-Infinity` are taken for values.
    pub bare_words: bool,
    frames: Vec<Frame>,
    keys: Vec<Name>,
    unescaped: String,
    twice: Option<Twice>,
}

impl Spelt {
    /// The key between its quotes.
    #[inline]
    pub fn token(self) -> Text {
        Text::new(self.start as usize + 1, self.end as usize - 2, false)
    }

    /// From its opening quote to behind its colon.
    #[inline]
    pub fn place(self) -> (usize, usize) {
        (self.start as usize, self.end as usize)
    }
}

impl<'l> Scanner<'l> {
    /// A scanner at the start of `line`, which nests at most `max_nesting` levels.
    ///
    /// # Errors
    /// The line is not UTF-8, or too long for tokens.
    pub fn new(line: &'l [u8], max_nesting: usize) -> Result<Scanner<'l>, Fault> {
        if line.len() > MAX_PLACE_BYTES {
            return Err(Fault::new(MAX_PLACE_BYTES, What::TooLong));
        }
        let line = std::str::from_utf8(line).map_err(|e| Fault::new(e.valid_up_to(), What::Utf8))?;
        Ok(Scanner {
            line,
            at: 0,
            max_nesting,
            bare_words: false,
            frames: Vec::with_capacity(8),
            keys: Vec::with_capacity(PAIRWISE_KEYS),
            unescaped: String::new(),
            twice: None,
        })
    }

    /// Byte offset of what comes next.
    pub fn at(&self) -> usize {
        self.at
    }

    /// The first key found to stand twice in its object.
    pub fn twice(&self) -> Option<&Twice> {
        self.twice.as_ref()
    }

    /// The line's bytes.
    pub fn bytes(&self) -> &'l [u8] {
        self.line.as_bytes()
    }

    /// A number as it is spelt.
    #[inline]
    pub fn spelling(&self, number: Number) -> &'l str {
        let (start, end) = number.place();
        self.line.get(start..end).unwrap_or_default()
    }

    /// A string without its quotes as it stands in the line.
    fn raw(&self, token: Text) -> &'l str {
        let (start, end) = token.place();
        self.line.get(start..end).unwrap_or_default()
    }

    /// A string, unescaped.
    pub fn text(&self, token: Text) -> Cow<'l, str> {
        text::unescape(self.raw(token), token.escaped())
    }

    /// The place in the line of a string with its quotes, where that already is its normal form.
    #[inline]
    pub fn verbatim(&self, token: Text) -> Option<(usize, usize)> {
        let (start, end) = token.place();
        (!token.escaped()).then_some((start - 1, end + 1))
    }

    /// Appends a string with its quotes in normal form.
    #[inline]
    pub fn write_text(&self, token: Text, out: &mut Vec<u8>) {
        match self.verbatim(token) {
            Some((start, end)) => out.extend_from_slice(&self.bytes()[start..end]),
            None => text::write_normal(self.raw(token), out),
        }
    }

    /// The key, unescaped, of the member that is being read; valid until the next key.
    #[inline]
    pub fn name(&self) -> &[u8] {
        self.keys.last().map_or(&[], |name| name_in(self.line, &self.unescaped, *name))
    }

    /// Reads a value's first token.
    ///
    /// # Errors
    /// No value that JSON knows stands here.
    #[inline(always)]
    pub fn value(&mut self) -> Result<Value, Fault> {
        self.skip_blanks();
        match self.peek() {
            Some(b'"') => {
                self.at += 1;
                self.string().map(Value::Text)
            }
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b'{') => self.open(true),
            Some(b'[') => self.open(false),
            Some(b't') => self.word("true", Value::True),
            Some(b'f') => self.word("false", Value::False),
            Some(b'n') => self.word("null", Value::Null),
            Some(b'N') => self.bare_word("NaN", Value::Nan),
            Some(b'I') => self.bare_word("Infinity", Value::Infinity),
            None if self.frames.is_empty() => self.fault(What::Empty),
            _ => self.fault(What::Value),
        }
    }

    /// Goes to the next key of the innermost open container, an object; `None` where it has ended.
    ///
    /// # Errors
    /// Neither a key with its colon nor the object's end stands here.
    #[inline]
    pub fn next_key(&mut self) -> Result<Option<Text>, Fault> {
        self.skip_blanks();
        let count = self.frames.last().map_or(0, |frame| frame.count);
        match self.peek() {
            Some(b'}') => {
                self.at += 1;
                self.close_object();
                return Ok(None);
            }
            Some(b',') if count > 0 => {
                self.at += 1;
                self.skip_blanks();
            }
            _ if count > 0 => return self.fault(What::MemberEnd),
            _ => {}
        }
        if self.peek() != Some(b'"') {
            return self.fault(What::Key);
        }
        self.at += 1;
        let token = self.string()?;
        let name = self.keep_name(token);
        self.note_key(name);
        self.skip_blanks();
        if self.peek() != Some(b':') {
            return self.fault(What::Colon);
        }
        self.at += 1;
        Ok(Some(token))
    }

    /// Where the key that was read last stands, if it is spelt without escapes and blanks.
    #[inline]
    pub fn spelt(&self) -> Option<Spelt> {
        let name = self.keys.last()?;
        let plain = self.at == name.end as usize + 2;
        plain.then(|| Spelt { start: name.start - 1, end: name.end + 2, bit: 1 << signature(self.name()) })
    }

    /// Goes to the next key of the innermost open container, an object, if it is spelt as `spelt`; goes nowhere
    /// otherwise. It is not compared with the keys before it: only for keys known to differ from them. Gives
    /// where it stands now.
    #[inline]
    pub fn next_key_is(&mut self, spelt: Spelt) -> Option<Spelt> {
        let bytes = self.line.as_bytes();
        let frame = self.frames.last_mut()?;
        let mut at = self.at;
        if frame.count > 0 {
            if bytes.get(at) != Some(&b',') {
                return None;
            }
            at += 1;
        }
        while let Some(b' ') = bytes.get(at) {
            at += 1;
        }
        let known = &bytes[spelt.start as usize..spelt.end as usize];
        let end = at + known.len();
        if !text::same(bytes.get(at..end)?, known) {
            return None;
        }
        self.at = end;
        frame.count += 1;
        frame.seen |= spelt.bit;
        let (start, end) = (at as u32, end as u32);
        self.keys.push(Name { start: start + 1, end: end - 2 });
        Some(Spelt { start, end, bit: spelt.bit })
    }

    /// Goes to the next element of the innermost open container, an array; `false` where it has ended.
    ///
    /// # Errors
    /// Neither a comma nor the array's end stands here.
    #[inline]
    pub fn next_element(&mut self) -> Result<bool, Fault> {
        self.skip_blanks();
        let next = self.peek();
        let Some(frame) = self.frames.last_mut() else { return self.fault(What::ElementEnd) };
        match next {
            Some(b']') => {
                self.at += 1;
                self.frames.pop();
                return Ok(false);
            }
            Some(b',') if frame.count > 0 => self.at += 1,
            _ if frame.count > 0 => return self.fault(What::ElementEnd),
            _ => {}
        }
        frame.count += 1;
        // `[1,]`: the bracket must not be taken for the array's end when the value is asked for.
        Ok(true)
    }

    /// Appends the value that begins with `first` in normal form, reading it to its end. Bare words become
    /// `null`; gives the number of infinities among them.
    ///
    /// # Errors
    /// The value is not JSON.
    pub fn copy(&mut self, first: Value, out: &mut Vec<u8>) -> Result<u64, Fault> {
        let mut infinities = 0;
        let floor = self.frames.len();
        self.write_first(first, out, &mut infinities);
        if !matches!(first, Value::Array | Value::Object) {
            return Ok(infinities);
        }
        while let Some(&Frame { is_object, count, .. }) = self.frames.last()
            && self.frames.len() >= floor
        {
            if is_object {
                let Some(key) = self.next_key()? else {
                    out.push(b'}');
                    continue;
                };
                if count > 0 {
                    out.push(b',');
                }
                self.write_text(key, out);
                out.push(b':');
            } else {
                if !self.next_element()? {
                    out.push(b']');
                    continue;
                }
                if count > 0 {
                    out.push(b',');
                }
            }
            let value = self.value()?;
            self.write_first(value, out, &mut infinities);
        }
        Ok(infinities)
    }

    /// Ends the line.
    ///
    /// # Errors
    /// Something but white space follows.
    pub fn finish(&mut self) -> Result<(), Fault> {
        self.skip_blanks();
        if self.at < self.line.len() { self.fault(What::Trailing) } else { Ok(()) }
    }

    /// Where the scanner stands, e.g. `items[3].x`; at most about [`text::EXCERPT_BYTES`] bytes.
    pub fn path(&self) -> String {
        let mut path = String::new();
        for (level, frame) in self.frames.iter().enumerate() {
            if frame.count == 0 {
                break;
            }
            if !frame.is_object {
                path.push_str(&format!("[{}]", frame.count - 1));
            } else {
                let next_from = self.frames.get(level + 1).map_or(self.keys.len(), |inner| inner.keys_from);
                let name = next_from.checked_sub(1).and_then(|last| self.keys.get(last));
                if !path.is_empty() {
                    path.push('.');
                }
                if let Some(name) = name {
                    let bytes = name_in(self.line, &self.unescaped, *name);
                    path.push_str(&text::excerpt(&String::from_utf8_lossy(bytes)));
                }
            }
            if path.len() > text::EXCERPT_BYTES {
                break;
            }
        }
        text::excerpt(&path).into_owned()
    }

    #[inline]
    fn write_first(&self, value: Value, out: &mut Vec<u8>, infinities: &mut u64) {
        match value {
            Value::Text(token) => self.write_text(token, out),
            Value::Number(number) => out.extend_from_slice(self.spelling(number).as_bytes()),
            Value::True => out.extend_from_slice(b"true"),
            Value::False => out.extend_from_slice(b"false"),
            Value::Null | Value::Nan => out.extend_from_slice(b"null"),
            Value::Infinity => {
                *infinities += 1;
                out.extend_from_slice(b"null");
            }
            Value::Array => out.push(b'['),
            Value::Object => out.push(b'{'),
        }
    }

    #[inline]
    fn peek(&self) -> Option<u8> {
        self.line.as_bytes().get(self.at).copied()
    }

    #[inline]
    fn skip_blanks(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.peek() {
            self.at += 1;
        }
    }

    #[cold]
    fn fault<T>(&self, what: What) -> Result<T, Fault> {
        Err(Fault::new(self.at, what))
    }

    fn word(&mut self, word: &str, value: Value) -> Result<Value, Fault> {
        if !self.bytes()[self.at..].starts_with(word.as_bytes()) {
            return self.fault(What::Value);
        }
        self.at += word.len();
        Ok(value)
    }

    fn bare_word(&mut self, word: &str, value: Value) -> Result<Value, Fault> {
        let start = self.at;
        self.word(word, value)?;
        if self.bare_words { Ok(value) } else { Err(Fault::new(start, What::BareWord)) }
    }

    fn open(&mut self, is_object: bool) -> Result<Value, Fault> {
        if self.frames.len() >= self.max_nesting {
            return self.fault(What::Nesting);
        }
        self.at += 1;
        let (keys_from, unescaped_from) = (self.keys.len(), self.unescaped.len());
        self.frames.push(Frame { is_object, count: 0, keys_from, unescaped_from, seen: 0 });
        Ok(if is_object { Value::Object } else { Value::Array })
    }

    #[inline]
    fn number(&mut self) -> Result<Value, Fault> {
        let bytes = self.bytes();
        let start = self.at;
        let mut at = start;
        let digits = |mut at: usize| {
            while let Some(b'0'..=b'9') = bytes.get(at) {
                at += 1;
            }
            at
        };
        // At least one digit must stand at `from`.
        let some_digits = |from: usize| match digits(from) {
            end if end > from => Ok(end),
            end => Err(Fault::new(end, What::Number)),
        };
        if bytes[at] == b'-' {
            at += 1;
            if bytes.get(at) == Some(&b'I') {
                return self.bare_word("-Infinity", Value::Infinity);
            }
        }
        at = if bytes.get(at) == Some(&b'0') { at + 1 } else { some_digits(at)? };
        let (mut integer, mut exponent) = (true, false);
        if bytes.get(at) == Some(&b'.') {
            at = some_digits(at + 1)?;
            integer = false;
        }
        if let Some(b'e' | b'E') = bytes.get(at) {
            at += 1;
            if let Some(b'+' | b'-') = bytes.get(at) {
                at += 1;
            }
            at = some_digits(at)?;
            (integer, exponent) = (false, true);
        }
        self.at = at;
        Ok(Value::Number(Number::new(start, at, integer, exponent)))
    }

    /// Reads a string from behind its opening quote to behind its closing one.
    #[inline]
    fn string(&mut self) -> Result<Text, Fault> {
        let bytes = self.bytes();
        let start = self.at;
        let mut at = start;
        let mut escaped = false;
        loop {
            at = text::find_special(bytes, at);
            match bytes.get(at) {
                Some(b'"') => {
                    self.at = at + 1;
                    return Ok(Text::new(start, at, escaped));
                }
                Some(b'\\') => {
                    escaped = true;
                    at = text::escape_end(bytes, at).map_err(|bad| match bad {
                        text::BadEscape::Unknown => Fault::new(at, What::Escape),
                        text::BadEscape::HalfPair => Fault::new(at, What::Surrogate),
                    })?;
                }
                Some(_) => return Err(Fault::new(at, What::Control)),
                None => return Err(Fault::new(start - 1, What::OpenString)),
            }
        }
    }

    #[inline]
    fn keep_name(&mut self, token: Text) -> Name {
        let (start, end) = if token.escaped() {
            let start = self.line.len() + self.unescaped.len();
            text::unescape_into(self.raw(token), &mut self.unescaped);
            (start, self.line.len() + self.unescaped.len())
        } else {
            token.place()
        };
        // Both texts are at most MAX_PLACE_BYTES long: unescaping never makes one longer.
        Name { start: start as u32, end: end as u32 }
    }

    /// Adds a key to the innermost object, looking for it among those before while they are few.
    #[inline]
    fn note_key(&mut self, name: Name) {
        let Some(frame) = self.frames.last_mut() else { return };
        let text = name_in(self.line, &self.unescaped, name);
        let bit = 1u64 << signature(text);
        let before = &self.keys[frame.keys_from..];
        let twice = frame.seen & bit != 0
            && before.len() < PAIRWISE_KEYS
            && before.iter().any(|other| name_in(self.line, &self.unescaped, *other) == text);
        frame.seen |= bit;
        frame.count += 1;
        self.keys.push(name);
        if twice {
            self.note_twice();
        }
    }

    fn close_object(&mut self) {
        let Some(&Frame { keys_from, unescaped_from, .. }) = self.frames.last() else { return };
        if self.keys.len() - keys_from > PAIRWISE_KEYS && self.twice.is_none() {
            let text = |name: &Name| name_in(self.line, &self.unescaped, *name);
            let keys = &mut self.keys[keys_from..];
            keys.sort_unstable_by(|a, b| text(a).cmp(text(b)));
            if let Some(pair) = keys.windows(2).find(|pair| text(&pair[0]) == text(&pair[1])) {
                let name = pair[1];
                self.keys.truncate(keys_from);
                self.keys.push(name);
                self.note_twice();
            }
        }
        self.keys.truncate(keys_from);
        self.unescaped.truncate(unescaped_from);
        self.frames.pop();
    }

    #[cold]
    fn note_twice(&mut self) {
        if self.twice.is_none() {
            self.twice = Some(Twice { at: self.at, path: self.path() });
        }
    }
}

#[inline]
fn name_in<'a>(line: &'a str, unescaped: &'a str, name: Name) -> &'a [u8] {
    let (start, end) = (name.start as usize, name.end as usize);
    match start.checked_sub(line.len()) {
        None => &line.as_bytes()[start..end],
        Some(start) => &unescaped.as_bytes()[start..end - line.len()],
    }
}

/// 6 bits of a key, cheap and different for most keys of one object.
#[inline]
fn signature(key: &[u8]) -> u32 {
    let (Some(&first), Some(&last)) = (key.first(), key.last()) else { return 0 };
    let mixed = u32::from_le_bytes([first, last, key[key.len() / 2], key.len() as u8]);
    mixed.wrapping_mul(0x9e37_79b1) >> 26
}
