//! JSON's tokens as places in a line, and what can be wrong with a line. Knows no scanner.

use std::fmt;

/// Where and why a line is not JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Byte offset in the line.
    pub at: usize,
    /// Why.
    pub what: What,
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
    /// Nested deeper than this many levels.
    Nesting(usize),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let why = match self.what {
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
            What::Nesting(limit) => {
                return write!(f, "nested deeper than max_nesting = {limit} at byte {}", self.at);
            }
        };
        write!(f, "{why} at byte {}", self.at)
    }
}

/// A string token: its place in the line without the quotes, and whether it holds escapes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Text {
    /// Behind the opening quote.
    pub start: usize,
    /// At the closing quote.
    pub end: usize,
    /// Whether a backslash stands in it.
    pub escaped: bool,
}

/// A number token: its place in the line and its shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Number {
    /// First byte.
    pub start: usize,
    /// Behind the last byte.
    pub end: usize,
    /// Neither fraction nor exponent.
    pub integer: bool,
    /// With an exponent.
    pub exponent: bool,
}

/// A value's first token; of an array or object only the opening bracket has been read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // JSON's own words
pub enum Value {
    Null,
    Bool(bool),
    Nan,
    Infinity,
    Number(Number),
    Text(Text),
    Array,
    Object,
}
