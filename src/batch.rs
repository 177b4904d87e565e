//! The cargo: what travels from the front to the vault and back. Pure values; the constructors are the
//! only validation, so a value that exists is valid. Knows neither the wire's JSON nor the disk.

use std::fmt;
use std::sync::Arc;

/// Longest lot id, in bytes of its encoded file stem.
pub const MAX_LOT_STEM_BYTES: usize = 200;
/// Longest session name, in bytes.
pub const MAX_SESSION_BYTES: usize = 64;

/// What a good reply promises. Ordered: `Written < Synced`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Durability {
    /// Survives any death of the daemon; power loss may take the last second.
    Written,
    /// Survives power loss and a kernel crash.
    Synced,
}

impl Durability {
    /// The word of the wire, the configuration and the status page.
    pub fn as_str(self) -> &'static str {
        match self {
            Durability::Written => "written",
            Durability::Synced => "synced",
        }
    }
}

impl std::str::FromStr for Durability {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "written" => Ok(Durability::Written),
            "synced" => Ok(Durability::Synced),
            other => Err(format!("`{other}` is neither `synced` nor `written`")),
        }
    }
}

impl fmt::Display for Durability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A lot's identity: its file stem, and the id as JSON text for replies.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LotId {
    stem: Arc<str>,
    json: Arc<str>,
}

impl LotId {
    /// The lot of batches that name none.
    pub fn unassigned() -> LotId {
        LotId { stem: "unassigned".into(), json: "\"unassigned\"".into() }
    }

    /// A lot named by text. `json` is the id as JSON (quoted and escaped, or the integer as it was spelt).
    ///
    /// # Errors
    /// [`Code::InvalidLotId`] when the id is empty or its encoded stem exceeds [`MAX_LOT_STEM_BYTES`].
    pub fn new(id: &str, json: &str) -> Result<LotId, Refusal> {
        if id.is_empty() {
            return Err(Refusal::new(
                Code::InvalidLotId,
                "context.lot_id is empty, so the batch has no file: leave the key out for the lot `unassigned`, or name the lot",
            ));
        }
        let stem = encode_stem(id);
        if stem.len() > MAX_LOT_STEM_BYTES {
            return Err(Refusal::new(
                Code::InvalidLotId,
                format!(
                    "context.lot_id takes {} bytes as a file name and {MAX_LOT_STEM_BYTES} are allowed: shorten it (each byte outside A-Z a-z 0-9 . _ - counts three)",
                    stem.len()
                ),
            ));
        }
        Ok(LotId { stem: stem.into(), json: json.into() })
    }

    /// The file name without `.jsonl`.
    pub fn stem(&self) -> &str {
        &self.stem
    }

    /// The id as JSON text, as it was sent.
    pub fn as_json(&self) -> &str {
        &self.json
    }
}

/// Encodes a lot id as a file stem: every byte outside `A-Za-z0-9._-`, and a leading `.`, becomes `%XX`.
pub fn encode_stem(id: &str) -> String {
    use fmt::Write as _;
    let mut stem = String::with_capacity(id.len());
    for (at, byte) in id.bytes().enumerate() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' => stem.push(byte as char),
            b'.' if at > 0 => stem.push('.'),
            _ => {
                // Writing to a String cannot fail.
                let _ = write!(stem, "%{byte:02X}");
            }
        }
    }
    stem
}

/// The lot id behind a file stem; `None` where no id encodes to it.
pub fn decode_stem(stem: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(stem.len());
    let mut rest = stem.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        if first == b'%' {
            let hex = std::str::from_utf8(tail.get(..2)?).ok()?;
            bytes.push(u8::from_str_radix(hex, 16).ok()?);
            rest = &tail[2..];
        } else {
            bytes.push(first);
            rest = tail;
        }
    }
    let id = String::from_utf8(bytes).ok()?;
    (!id.is_empty() && encode_stem(&id) == stem).then_some(id)
}

/// The name of one optimisation run of one producer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SessionId(Box<str>);

impl SessionId {
    /// A session name: 1 to 64 of `A-Z a-z 0-9 . _ : -`; `None` for anything else.
    pub fn new(name: &str) -> Option<SessionId> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b':' | b'-');
        let valid = !name.is_empty() && name.len() <= MAX_SESSION_BYTES && name.bytes().all(allowed);
        valid.then(|| SessionId(name.into()))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Bytes of a timestamp as records spell it, e.g. `2025-08-23T18:45:12.345678+00:00`.
pub const STAMP_BYTES: usize = 32;

/// The normalised text of a batch: what the journal keeps, and all that its lines are composed from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Body {
    /// One line per item: the record's text from its first key up to the context, without braces, ended
    /// by `\n` (an empty item is an empty line).
    pub items: Vec<u8>,
    /// The end of every record of the batch, from the flattened context to the closing `}` and `\n`, with
    /// the timestamp's [`STAMP_BYTES`] bytes at the places of `stamp_at`.
    pub suffix: Vec<u8>,
    /// Where the timestamp stands in `suffix`.
    pub stamp_at: [usize; 2],
}

/// One call of a producer: one context and its items, for one lot; normalised and within every limit.
#[derive(Clone, Debug)]
pub struct Batch {
    /// Its lot.
    pub lot: LotId,
    /// The producer's session and the batch's number in it.
    pub session: Option<(SessionId, u64)>,
    /// The acknowledgement asked for.
    pub ack: Durability,
    /// Number of items, at least 1.
    pub records: u32,
    /// Bytes of its lines in the lot file.
    pub lines_bytes: u64,
    /// Hash of lot, context without timestamp, and items, as normalised: tells a retry from a conflict.
    pub content_hash: u128,
    /// The normalised text.
    pub body: Body,
}

/// The error codes of the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)] // the words themselves; docs/protocol.md has the table
pub enum Code {
    InvalidJson,
    InvalidRequest,
    InvalidLotId,
    TooLarge,
    OutOfSequence,
    Conflict,
    Forbidden,
    Timeout,
    Busy,
    NoSpace,
    LotSealed,
    ShuttingDown,
    LotUnavailable,
    IoError,
}

impl Code {
    /// Every code, in the order of the contract.
    pub const ALL: [Code; 14] = [
        Code::InvalidJson,
        Code::InvalidRequest,
        Code::InvalidLotId,
        Code::TooLarge,
        Code::OutOfSequence,
        Code::Conflict,
        Code::Forbidden,
        Code::Timeout,
        Code::Busy,
        Code::NoSpace,
        Code::LotSealed,
        Code::ShuttingDown,
        Code::LotUnavailable,
        Code::IoError,
    ];

    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Code::InvalidJson => "invalid_json",
            Code::InvalidRequest => "invalid_request",
            Code::InvalidLotId => "invalid_lot_id",
            Code::TooLarge => "too_large",
            Code::OutOfSequence => "out_of_sequence",
            Code::Conflict => "conflict",
            Code::Forbidden => "forbidden",
            Code::Timeout => "timeout",
            Code::Busy => "busy",
            Code::NoSpace => "no_space",
            Code::LotSealed => "lot_sealed",
            Code::ShuttingDown => "shutting_down",
            Code::LotUnavailable => "lot_unavailable",
            Code::IoError => "io_error",
        }
    }

    /// Whether the same request may succeed later.
    pub fn is_retryable(self) -> bool {
        matches!(
            self,
            Code::Timeout
                | Code::Busy
                | Code::NoSpace
                | Code::ShuttingDown
                | Code::LotUnavailable
                | Code::IoError
        )
    }
}

/// A request that was not carried out, not one item of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The code of the wire.
    pub code: Code,
    /// Names the thing, the consequence and the next step.
    pub message: String,
    /// The sequence number the session expects, with `out_of_sequence`.
    pub expected: Option<u64>,
}

impl Refusal {
    /// A refusal without an expected number.
    pub fn new(code: Code, message: impl Into<String>) -> Refusal {
        Refusal { code, message: message.into(), expected: None }
    }
}

/// How the vault answered a submission.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Stored under `lsn`, as durable as `durability` says.
    Stored {
        /// Number of the batch among all that this daemon stored.
        lsn: u64,
        /// What is promised.
        durability: Durability,
    },
    /// Stored before; nothing was stored now.
    Duplicate {
        /// Records and lsn of the stored batch, where it is its session's last.
        last: Option<(u32, u64)>,
        /// What is promised.
        durability: Durability,
    },
    /// A `sync` request: everything up to `lsn` is synced and in the lot files.
    Synced {
        /// The last lsn given out, 0 before the first.
        lsn: u64,
    },
    /// A `rotate` request: so many files went to the archive, and so many could not.
    Rotated {
        /// The last lsn given out.
        lsn: u64,
        /// Files moved.
        files: u64,
        /// Files that could not be moved.
        skipped: u64,
    },
    /// A `seal` request: the lot is closed.
    Sealed {
        /// The last lsn given out before.
        lsn: u64,
        /// Its records.
        records: u64,
        /// Their bytes.
        bytes: u64,
    },
    /// Not stored.
    Refused(Refusal),
    /// Nobody can know: the connection must end without a reply.
    Unknown,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stems_are_reversible_and_cannot_leave_the_directory() {
        for id in ["A", "TEST_LOT_001", "estate/Nord Ø", "..", ".", ".hidden", "a.b", "100%", "x\0y", "日本"]
        {
            let stem = encode_stem(id);
            assert_eq!(decode_stem(&stem).as_deref(), Some(id), "{stem}");
            assert!(!stem.contains('/') && !stem.starts_with('.'), "{stem}");
        }
        assert_eq!(encode_stem("estate/Nord Ø"), "estate%2FNord%20%C3%98");
        assert_eq!(encode_stem(".."), "%2E.");
        for stem in ["", "%", "%2", "%zz", "%41", ".x", "a b", "%+1"] {
            assert_eq!(decode_stem(stem), None, "{stem}");
        }
    }

    #[test]
    fn session_names_are_held_to_their_alphabet() {
        assert!(SessionId::new("run-7f3a.b_c:D").is_some());
        assert!(SessionId::new(&"x".repeat(64)).is_some());
        for bad in ["", "a b", "ä", "a/b", &"x".repeat(65)] {
            assert!(SessionId::new(bad).is_none(), "{bad}");
        }
    }
}
