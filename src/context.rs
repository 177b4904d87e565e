//! The other half of the record: what belongs to the batch. Reads a context, takes the lot from it, and
//! writes the end of every record. Does not know the items.

use std::ops::Range;

use crate::batch::{Body, Code, LotId, Refusal, STAMP_BYTES, SessionId};
use crate::dropped::Reason;
use crate::record::BLANK_STAMP;
use crate::scan::Scanner;
use crate::tally::{Reserved, Tally};
use crate::token::{Fault, Value};

/// The known keys that are copied, in the order of the record; the first [`FLAT`] stand in it twice.
static KEYS: [&str; 6] = [
    "\"roi_target\":",
    "\"risk_threshold\":",
    "\"horizon_days\":",
    "\"lot_id\":",
    "\"opt_source\":",
    "\"opt_params\":",
];
/// How many of [`KEYS`] stand in the record outside `context` too.
const FLAT: usize = 4;
/// Where `lot_id` stands in [`KEYS`].
const LOT_ID: usize = 3;

/// What a key of a context is.
#[derive(Clone, Copy)]
enum Role {
    /// Index in [`KEYS`].
    Known(usize),
    /// The daemon's.
    Timestamp,
    /// Free-form, except that these two give way to the batch's.
    Session,
    Seq,
    /// Free-form.
    Extra,
}

fn role(key: &[u8]) -> Role {
    match key {
        b"roi_target" => Role::Known(0),
        b"risk_threshold" => Role::Known(1),
        b"horizon_days" => Role::Known(2),
        b"lot_id" => Role::Known(LOT_ID),
        b"opt_source" => Role::Known(4),
        b"opt_params" => Role::Known(5),
        b"timestamp" => Role::Timestamp,
        b"session" => Role::Session,
        b"seq" => Role::Seq,
        _ => Role::Extra,
    }
}

/// The context of one batch.
#[derive(Debug, Default)]
pub struct Context {
    /// Normalised values of the known keys.
    values: Vec<u8>,
    known: [Option<Range<usize>>; KEYS.len()],
    /// Normalised members with other keys, a comma before each, in the order sent.
    extras: Vec<u8>,
    session: Rival,
    seq: Rival,
    lot: Option<LotId>,
}

/// A `session` or `seq` sent inside the context.
#[derive(Debug, Default)]
struct Rival {
    sent: bool,
    /// Its place in `extras`; empty where its value is left out.
    at: Range<usize>,
    infinities: u64,
}

impl Context {
    /// Reads a context whose opening bracket has been read. The refusal is the one that its `lot_id` deserves.
    ///
    /// # Errors
    /// The line is not JSON.
    pub fn read(&mut self, scanner: &mut Scanner<'_>, tally: &mut Tally) -> Result<Option<Refusal>, Fault> {
        let mut refusal = None;
        while let Some(key) = scanner.next_key()? {
            let role = role(scanner.name());
            let value = scanner.value()?;
            match role {
                Role::Known(LOT_ID) => refusal = self.read_lot(value, scanner, tally)?,
                Role::Known(index) => {
                    let start = self.values.len();
                    let infinities = scanner.copy(value, &mut self.values)?;
                    tally.drop_values(bare(KEYS[index]), Reason::Infinite, infinities);
                    if is_missing(value) {
                        self.values.truncate(start);
                    } else {
                        self.known[index] = Some(start..self.values.len());
                    }
                }
                Role::Timestamp => {
                    let length = self.values.len();
                    scanner.copy(value, &mut self.values)?;
                    self.values.truncate(length);
                    tally.give_way(Reserved::Timestamp);
                }
                Role::Session | Role::Seq | Role::Extra => {
                    let start = self.extras.len();
                    self.extras.push(b',');
                    scanner.write_text(key, &mut self.extras);
                    self.extras.push(b':');
                    let infinities = scanner.copy(value, &mut self.extras)?;
                    if is_missing(value) {
                        self.extras.truncate(start);
                    }
                    let rival = Rival { sent: true, at: start..self.extras.len(), infinities };
                    match role {
                        Role::Session => self.session = rival,
                        Role::Seq => self.seq = rival,
                        _ if infinities > 0 => {
                            tally.drop_values(
                                &String::from_utf8_lossy(scanner.name()),
                                Reason::Infinite,
                                infinities,
                            );
                        }
                        _ => {}
                    }
                }
            }
        }
        Ok(refusal)
    }

    fn read_lot(
        &mut self,
        value: Value,
        scanner: &mut Scanner<'_>,
        tally: &mut Tally,
    ) -> Result<Option<Refusal>, Fault> {
        let start = self.values.len();
        let infinities = scanner.copy(value, &mut self.values)?;
        if is_missing(value) {
            self.values.truncate(start);
            tally.drop_values("lot_id", Reason::Infinite, infinities);
            return Ok(None);
        }
        match lot_of(value, &self.values[start..], scanner) {
            Ok(lot) => {
                self.known[LOT_ID] = Some(start..self.values.len());
                self.lot = Some(lot);
                Ok(None)
            }
            Err(refusal) => Ok(Some(refusal)),
        }
    }

    /// The lot that a value names, outside of a context.
    ///
    /// # Errors
    /// The line is not JSON.
    pub fn lot_of(value: Value, scanner: &mut Scanner<'_>) -> Result<Result<LotId, Refusal>, Fault> {
        let mut json = Vec::new();
        scanner.copy(value, &mut json)?;
        Ok(lot_of(value, &json, scanner))
    }

    /// The lot of the batch.
    pub fn lot(&self) -> LotId {
        self.lot.clone().unwrap_or_else(LotId::unassigned)
    }

    /// Settles `session` and `seq` keys sent inside the context: they give way to the batch's, if it has
    /// them; otherwise they are keys like others.
    pub fn settle(&mut self, has_session: bool, tally: &mut Tally) {
        let mut gone: Vec<Range<usize>> = Vec::new();
        for (rival, key) in [(&self.session, Reserved::Session), (&self.seq, Reserved::Seq)] {
            if !has_session {
                tally.drop_values(key.as_str(), Reason::Infinite, rival.infinities);
            } else if rival.sent {
                tally.give_way(key);
                gone.push(rival.at.clone());
            }
        }
        // From behind, so that the places before stay true.
        gone.sort_by_key(|at| std::cmp::Reverse(at.start));
        for at in gone {
            self.extras.drain(at);
        }
    }

    /// Writes `suffix` and `stamp_at` of a body, the timestamp blank; gives the bytes of the `context` object.
    pub fn write(&self, session: Option<(&SessionId, u64)>, body: &mut Body) -> usize {
        let out = &mut body.suffix;
        out.reserve(2 * self.values.len() + self.extras.len() + 512);
        self.write_known(0..FLAT, out);
        body.stamp_at[0] = write_stamp(out);
        out.extend_from_slice(b",\"context\":");
        let start = out.len();
        out.push(b'{');
        self.write_known(0..KEYS.len(), out);
        body.stamp_at[1] = write_stamp(out);
        if let Some((session, seq)) = session {
            // A session's alphabet needs no escapes.
            out.extend_from_slice(format!(",\"session\":\"{}\",\"seq\":{seq}", session.as_str()).as_bytes());
        }
        out.extend_from_slice(&self.extras);
        out.push(b'}');
        let context_bytes = out.len() - start;
        out.extend_from_slice(b"}\n");
        context_bytes
    }

    fn write_known(&self, which: Range<usize>, out: &mut Vec<u8>) {
        for (key, place) in KEYS.iter().zip(&self.known).take(which.end).skip(which.start) {
            if let Some(place) = place {
                out.extend_from_slice(key.as_bytes());
                out.extend_from_slice(&self.values[place.clone()]);
                out.push(b',');
            }
        }
    }
}

fn lot_of(value: Value, json: &[u8], scanner: &Scanner<'_>) -> Result<LotId, Refusal> {
    let json = String::from_utf8_lossy(json).into_owned();
    match value {
        Value::Text(token) => LotId::new(&scanner.text(token), &json),
        Value::Number(number) if number.integer() => LotId::new(&json, &json),
        _ => Err(Refusal::new(
            Code::InvalidRequest,
            format!(
                "{} is neither a string nor an integer, so nothing was stored: send the lot's id as one of them, or leave the key out",
                scanner.path()
            ),
        )),
    }
}

/// Writes the timestamp member; gives the place of its text.
fn write_stamp(out: &mut Vec<u8>) -> usize {
    out.extend_from_slice(b"\"timestamp\":\"");
    let at = out.len();
    out.extend_from_slice(&BLANK_STAMP);
    out.push(b'"');
    debug_assert_eq!(out.len(), at + STAMP_BYTES + 1);
    at
}

/// A value that is left out at the first level of a context.
fn is_missing(value: Value) -> bool {
    matches!(value, Value::Null | Value::Nan | Value::Infinity)
}

/// A written key without its quotes and colon.
fn bare(key: &str) -> &str {
    key.trim_end_matches(':').trim_matches('"')
}
