//! JSON strings: their end, their escapes, their normal form, and excerpts of them for messages. Knows
//! nothing of values and objects.

use std::borrow::Cow;

/// What is wrong with an escape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadEscape {
    /// JSON does not know it.
    Unknown,
    /// It is half of a surrogate pair.
    HalfPair,
}

/// Most bytes of a producer's text in a message.
pub const EXCERPT_BYTES: usize = 200;

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGHS: u64 = 0x8080_8080_8080_8080;

/// Index at or behind `from` of the first quote, backslash or control character; the length if there is none.
#[inline]
pub fn find_special(bytes: &[u8], from: usize) -> usize {
    let mut at = from;
    // Eight bytes at a time: the classic tests for a zero byte and a byte below 0x20. A false alarm can only
    // stand above a true one, so the lowest is exact.
    while let Some(chunk) = bytes.get(at..at + 8) {
        let mut word = [0; 8];
        word.copy_from_slice(chunk);
        let word = u64::from_le_bytes(word);
        let zero = |x: u64| x.wrapping_sub(ONES) & !x;
        let control = word.wrapping_sub(ONES * 0x20) & !word;
        let quote = zero(word ^ (ONES * u64::from(b'"')));
        let backslash = zero(word ^ (ONES * u64::from(b'\\')));
        let found = (control | quote | backslash) & HIGHS;
        if found != 0 {
            return at + (found.trailing_zeros() / 8) as usize;
        }
        at += 8;
    }
    while let Some(byte) = bytes.get(at) {
        if *byte < 0x20 || *byte == b'"' || *byte == b'\\' {
            return at;
        }
        at += 1;
    }
    at
}

/// Whether two texts of one length are the same, for texts as short as keys: a call costs more than they do.
#[inline(always)]
pub fn same(one: &[u8], other: &[u8]) -> bool {
    let word = |bytes: &[u8], at: usize| bytes[at..].first_chunk::<8>().map(|word| u64::from_le_bytes(*word));
    let length = one.len();
    if length != other.len() {
        return false;
    }
    if length < 8 {
        return one == other;
    }
    let mut at = 0;
    while at + 8 < length {
        if word(one, at) != word(other, at) {
            return false;
        }
        at += 8;
    }
    word(one, length - 8) == word(other, length - 8)
}

/// Index behind the escape whose backslash stands at `at`, a surrogate pair being one escape.
///
/// # Errors
/// What is wrong with it.
pub fn escape_end(bytes: &[u8], at: usize) -> Result<usize, BadEscape> {
    match bytes.get(at + 1) {
        Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => Ok(at + 2),
        Some(b'u') => match unit(bytes, at) {
            None => Err(BadEscape::Unknown),
            Some(0xd800..=0xdbff) => match unit(bytes, at + 6) {
                Some(0xdc00..=0xdfff) => Ok(at + 12),
                _ => Err(BadEscape::HalfPair),
            },
            Some(0xdc00..=0xdfff) => Err(BadEscape::HalfPair),
            Some(_) => Ok(at + 6),
        },
        _ => Err(BadEscape::Unknown),
    }
}

/// The 16 bits of the `\uXXXX` that begins at `at`.
fn unit(bytes: &[u8], at: usize) -> Option<u32> {
    let [b'\\', b'u', hex @ ..] = bytes.get(at..at + 6)? else { return None };
    hex.iter().try_fold(0, |unit, digit| Some(unit << 4 | (*digit as char).to_digit(16)?))
}

/// What a valid raw string is made of.
enum Piece<'t> {
    Run(&'t str),
    Char(char),
}

/// Takes a valid raw string apart, in order.
fn pieces(raw: &str) -> impl Iterator<Item = Piece<'_>> {
    let mut rest = raw;
    std::iter::from_fn(move || {
        let bytes = rest.as_bytes();
        if bytes.first() != Some(&b'\\') {
            let (run, tail) = rest.split_at(memchr::memchr(b'\\', bytes).unwrap_or(rest.len()));
            rest = tail;
            return (!run.is_empty()).then_some(Piece::Run(run));
        }
        let end = escape_end(bytes, 0).ok()?;
        let char = match (bytes.get(1)?, end) {
            (b'b', _) => '\x08',
            (b'f', _) => '\x0c',
            (b'n', _) => '\n',
            (b'r', _) => '\r',
            (b't', _) => '\t',
            (b'u', 12) => {
                char::from_u32(0x1_0000 + ((unit(bytes, 0)? & 0x3ff) << 10) + (unit(bytes, 6)? & 0x3ff))?
            }
            (b'u', _) => char::from_u32(unit(bytes, 0)?)?,
            (itself, _) => *itself as char,
        };
        rest = rest.get(end..)?;
        Some(Piece::Char(char))
    })
}

/// Appends a valid raw string, unescaped.
pub fn unescape_into(raw: &str, out: &mut String) {
    for piece in pieces(raw) {
        match piece {
            Piece::Run(run) => out.push_str(run),
            Piece::Char(char) => out.push(char),
        }
    }
}

/// A valid raw string, unescaped.
pub fn unescape(raw: &str, escaped: bool) -> Cow<'_, str> {
    if !escaped {
        return Cow::Borrowed(raw);
    }
    let mut text = String::with_capacity(raw.len());
    unescape_into(raw, &mut text);
    Cow::Owned(text)
}

/// Appends a valid raw string with quotes in normal form: only what must be escaped is, in the shortest way.
pub fn write_normal(raw: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    for piece in pieces(raw) {
        match piece {
            Piece::Run(run) => out.extend_from_slice(run.as_bytes()),
            Piece::Char(char) => match char {
                '"' => out.extend_from_slice(b"\\\""),
                '\\' => out.extend_from_slice(b"\\\\"),
                '\x08' => out.extend_from_slice(b"\\b"),
                '\x0c' => out.extend_from_slice(b"\\f"),
                '\n' => out.extend_from_slice(b"\\n"),
                '\r' => out.extend_from_slice(b"\\r"),
                '\t' => out.extend_from_slice(b"\\t"),
                '\0'..'\x20' => {
                    let hex = |nibble: u32| char::from_digit(nibble, 16).map_or(b'0', |c| c as u8);
                    out.extend_from_slice(b"\\u00");
                    out.extend_from_slice(&[hex(char as u32 >> 4), hex(char as u32 & 15)]);
                }
                _ => out.extend_from_slice(char.encode_utf8(&mut [0; 4]).as_bytes()),
            },
        }
    }
    out.push(b'"');
}

/// A producer's text for a message: cut, where it is long, at [`EXCERPT_BYTES`].
pub fn excerpt(text: &str) -> Cow<'_, str> {
    if text.len() <= EXCERPT_BYTES {
        return Cow::Borrowed(text);
    }
    Cow::Owned(format!("{}...", &text[..text.floor_char_boundary(EXCERPT_BYTES)]))
}
