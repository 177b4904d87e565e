//! JSON's tokens as places in a line, and what can be wrong with a line. Knows no scanner.

use std::fmt;

/// Longest line whose places the packed tokens can hold, in bytes.
pub const MAX_PLACE_BYTES: usize = 1 << 30;

/// Where and why a line is not JSON. Packed into one word, like the tokens, so that every step of the scanner
/// answers in registers: as plain structs they cost a third of its speed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Fault(u64);

impl Fault {
    /// A fault at byte offset `at`.
    pub fn new(at: usize, what: What) -> Fault {
        Fault((at as u64) << 8 | what as u64)
    }

    /// Byte offset in the line.
    pub fn at(self) -> usize {
        (self.0 >> 8) as usize
    }

    /// Why.
    pub fn what(self) -> What {
        What::ALL[(self.0 & 0xff) as usize % What::ALL.len()]
    }
}

impl fmt::Debug for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// Why a line is not JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// Bytes that are not UTF-8.
    Utf8,
    /// Nothing but white space.
    Empty,
    /// No value where one must stand.
    Value,
    /// `NaN`, `Infinity` or `-Infinity` where the caller does not take them.
    BareWord,
    /// No key where one must stand.
    Key,
    /// No `:` behind a key.
    Colon,
    /// Neither `,` nor `}` behind a member.
    MemberEnd,
    /// Neither `,` nor `]` behind an element.
    ElementEnd,
    /// A number that JSON does not know.
    Number,
    /// An escape that JSON does not know.
    Escape,
    /// Half of a surrogate pair.
    Surrogate,
    /// A raw control character in a string.
    Control,
    /// A string without its closing quote.
    OpenString,
    /// Something behind the value.
    Trailing,
    /// Nested deeper than `max_nesting`.
    Nesting,
    /// Longer than [`MAX_PLACE_BYTES`].
    TooLong,
}

impl What {
    const ALL: [What; 16] = [
        What::Utf8,
        What::Empty,
        What::Value,
        What::BareWord,
        What::Key,
        What::Colon,
        What::MemberEnd,
        What::ElementEnd,
        What::Number,
        What::Escape,
        What::Surrogate,
        What::Control,
        What::OpenString,
        What::Trailing,
        What::Nesting,
        What::TooLong,
    ];
}

const _: () = assert!(What::TooLong as usize == What::ALL.len() - 1);

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let why = match self.what() {
            What::Utf8 => "not UTF-8",
            What::Empty => "empty line",
            What::Value => "expected a value",
            What::BareWord => "a bare NaN or Infinity is taken only inside items and context",
            What::Key => "expected a key in double quotes",
            What::Colon => "expected `:` behind the key",
            What::MemberEnd => "expected `,` or `}`",
            What::ElementEnd => "expected `,` or `]`",
            What::Number => "not a JSON number",
            What::Escape => "not a JSON escape",
            What::Surrogate => "half of a surrogate pair",
            What::Control => "a raw control character in a string",
            What::OpenString => "a string without its closing quote",
            What::Trailing => "something behind the end of the value",
            What::Nesting => "nested deeper than max_nesting",
            What::TooLong => "a line longer than 1 GiB",
        };
        write!(f, "{why} at byte {}", self.at())
    }
}

/// A place in the line and two flags, in one word.
#[inline]
fn pack(start: usize, end: usize, flags: u64) -> u64 {
    debug_assert!(start <= end && end <= MAX_PLACE_BYTES);
    (start as u64) << 32 | ((end - start) as u64) << 2 | flags
}

#[inline]
fn unpack(word: u64) -> (usize, usize) {
    let start = (word >> 32) as usize;
    (start, start + ((word as u32) >> 2) as usize)
}

/// A string token: its place in the line without the quotes, and whether it holds escapes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Text(u64);

impl Text {
    /// A string from behind its opening quote to its closing one.
    #[inline]
    pub fn new(start: usize, end: usize, escaped: bool) -> Text {
        Text(pack(start, end, u64::from(escaped)))
    }

    /// From behind the opening quote to the closing one.
    #[inline]
    pub fn place(self) -> (usize, usize) {
        unpack(self.0)
    }

    /// Whether a backslash stands in it.
    #[inline]
    pub fn escaped(self) -> bool {
        self.0 & 1 != 0
    }
}

/// A number token: its place in the line and its shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Number(u64);

impl Number {
    /// A number; an integer has neither fraction nor exponent.
    #[inline]
    pub fn new(start: usize, end: usize, integer: bool, exponent: bool) -> Number {
        Number(pack(start, end, u64::from(integer) | u64::from(exponent) << 1))
    }

    /// From its first byte to behind its last.
    #[inline]
    pub fn place(self) -> (usize, usize) {
        unpack(self.0)
    }

    /// Neither fraction nor exponent.
    #[inline]
    pub fn integer(self) -> bool {
        self.0 & 1 != 0
    }

    /// With an exponent.
    #[inline]
    pub fn exponent(self) -> bool {
        self.0 & 2 != 0
    }
}

/// A value's first token; of an array or object only the opening bracket has been read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // JSON's own words
pub enum Value {
    Null,
    True,
    False,
    Nan,
    Infinity,
    Number(Number),
    Text(Text),
    Array,
    Object,
}
