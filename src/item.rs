//! One half of the record: what belongs to the item. Puts its known keys in order, converts their values, and
//! copies the others. Does not know the context.

use std::ops::Range;

use crate::dropped::Reason;
use crate::number;
use crate::scan::{Scanner, Spelt};
use crate::tally::{Reserved, Tally};
use crate::token::{Fault, Number, Text, Value};

/// What is stored of a field's values.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Any scalar, unchanged.
    Scalar,
    /// A number with a fraction or exponent.
    Number,
    /// A signed integer of 64 bits.
    Quantity,
}

/// A known key of an item.
struct Field {
    name: &'static str,
    /// The key as it is written, with its colon.
    key: &'static str,
    /// The key of its second copy, likewise.
    alias: &'static str,
    kind: Kind,
}

const fn field(name: &'static str, key: &'static str, kind: Kind) -> Field {
    Field { name, key, alias: "", kind }
}

/// The known keys, in the order of the record.
static FIELDS: [Field; 15] = [
    field("sku_local", "\"sku_local\":", Kind::Scalar),
    field("asin", "\"asin\":", Kind::Scalar),
    field("upc", "\"upc\":", Kind::Scalar),
    field("ean", "\"ean\":", Kind::Scalar),
    field("upc_ean_asin", "\"upc_ean_asin\":", Kind::Scalar),
    Field { alias: "\"predicted_price\":", ..field("est_price_mu", "\"est_price_mu\":", Kind::Number) },
    field("est_price_sigma", "\"est_price_sigma\":", Kind::Number),
    field("est_price_p50", "\"est_price_p50\":", Kind::Number),
    Field { alias: "\"predicted_sell_p60\":", ..field("sell_p60", "\"sell_p60\":", Kind::Number) },
    field("sell_hazard_daily", "\"sell_hazard_daily\":", Kind::Number),
    field("condition_bucket", "\"condition_bucket\":", Kind::Scalar),
    field("sell_condition_factor", "\"sell_condition_factor\":", Kind::Number),
    field("sell_seasonality_factor", "\"sell_seasonality_factor\":", Kind::Number),
    field("mins_per_unit", "\"mins_per_unit\":", Kind::Number),
    field("quantity", "\"quantity\":", Kind::Quantity),
];

/// What a key of an item is.
#[derive(Clone, Copy)]
enum Role {
    /// Index in [`FIELDS`].
    Known(u8),
    /// Recomputed.
    Alias,
    /// The context's.
    Reserved(Reserved),
    /// Free-form.
    Extra,
}

fn role(key: &[u8]) -> Role {
    match key {
        b"sku_local" => Role::Known(0),
        b"asin" => Role::Known(1),
        b"upc" => Role::Known(2),
        b"ean" => Role::Known(3),
        b"upc_ean_asin" => Role::Known(4),
        b"est_price_mu" => Role::Known(5),
        b"est_price_sigma" => Role::Known(6),
        b"est_price_p50" => Role::Known(7),
        b"sell_p60" => Role::Known(8),
        b"sell_hazard_daily" => Role::Known(9),
        b"condition_bucket" => Role::Known(10),
        b"sell_condition_factor" => Role::Known(11),
        b"sell_seasonality_factor" => Role::Known(12),
        b"mins_per_unit" => Role::Known(13),
        b"quantity" => Role::Known(14),
        b"predicted_price" | b"predicted_sell_p60" => Role::Alias,
        b"roi_target" => Role::Reserved(Reserved::RoiTarget),
        b"risk_threshold" => Role::Reserved(Reserved::RiskThreshold),
        b"horizon_days" => Role::Reserved(Reserved::HorizonDays),
        b"lot_id" => Role::Reserved(Reserved::LotId),
        b"timestamp" => Role::Reserved(Reserved::Timestamp),
        b"context" => Role::Reserved(Reserved::Context),
        _ => Role::Extra,
    }
}

/// A key that an item of this batch had at this place among its keys, and what it is.
#[derive(Clone, Copy)]
struct Step {
    spelt: Spelt,
    role: Role,
}

/// How far an item's keys have followed the layout.
#[derive(Default)]
struct Walk {
    /// Steps taken.
    step: usize,
    /// Whether the item lacked some of them.
    skipped: bool,
}

/// A key that was read.
struct Key {
    role: Role,
    token: Text,
    spelt: Option<Spelt>,
}

/// So many keys of the layout may be missing in a row before an item counts as laid out otherwise.
const MISSING_KEYS: usize = 4;

/// Where a known key's value waits until its turn.
#[derive(Clone, Copy, Default)]
struct Slot {
    start: u32,
    end: u32,
    home: Home,
}

impl Slot {
    /// Places are those of tokens, or of text respelt from them: they fit.
    #[inline]
    fn new((start, end): (usize, usize), home: Home) -> Slot {
        Slot { start: start as u32, end: end as u32, home }
    }

    #[inline]
    fn place(self) -> Range<usize> {
        self.start as usize..self.end as usize
    }
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Home {
    /// As it stands in the line, its key right before it included.
    #[default]
    Member,
    /// As it stands in the line.
    Line,
    /// Likewise, but an integer that must not look like one.
    LineInteger,
    /// In the normaliser's own text.
    Respelt,
}

/// Normalises the items of one batch.
#[derive(Default)]
pub struct Items {
    /// The lines of `Body::items`.
    text: Vec<u8>,
    records: usize,
    empty: usize,
    /// The keys of the items so far, in the order that most have: all different from one another.
    layout: Vec<Step>,
    slots: [Slot; FIELDS.len()],
    respelt: Vec<u8>,
    extras: Vec<u8>,
    dropped: [[u64; Reason::ALL.len()]; FIELDS.len()],
}

impl Items {
    /// Reserves room for about `bytes` of text.
    pub fn reserve(&mut self, bytes: usize) {
        self.text.reserve(bytes);
    }

    /// Number of items read.
    pub fn records(&self) -> usize {
        self.records
    }

    /// How many of them are empty.
    pub fn empty(&self) -> usize {
        self.empty
    }

    /// The normalised text, and into `tally` what was dropped.
    pub fn finish(self, tally: &mut Tally) -> Vec<u8> {
        for (field, counts) in FIELDS.iter().zip(self.dropped) {
            for (reason, count) in Reason::ALL.into_iter().zip(counts).filter(|(_, count)| *count > 0) {
                tally.drop_values(field.name, reason, count);
            }
        }
        self.text
    }

    /// Reads an item whose opening bracket has been read.
    ///
    /// # Errors
    /// The line is not JSON.
    pub fn read(&mut self, scanner: &mut Scanner<'_>, tally: &mut Tally) -> Result<(), Fault> {
        self.respelt.clear();
        self.extras.clear();
        let mut present = 0u32;
        let mut walk = Walk::default();
        while let Some(Key { role, token, spelt }) = self.next_key(&mut walk, scanner)? {
            match role {
                Role::Known(index) => {
                    let value = scanner.value()?;
                    if let Some(mut slot) = self.known(index as usize, value, scanner)? {
                        if let Some((start, end)) = spelt.map(Spelt::place)
                            && slot.home == Home::Line
                            && slot.start as usize == end
                        {
                            slot = Slot::new((start, slot.end as usize), Home::Member);
                        }
                        self.slots[index as usize] = slot;
                        present |= 1 << index;
                    }
                }
                Role::Extra => {
                    scanner.write_text(token, &mut self.extras);
                    self.extras.push(b':');
                    let value = scanner.value()?;
                    let infinities = scanner.copy(value, &mut self.extras)?;
                    self.extras.push(b',');
                    if infinities > 0 {
                        tally.drop_values(
                            &String::from_utf8_lossy(scanner.name()),
                            Reason::Infinite,
                            infinities,
                        );
                    }
                }
                Role::Reserved(reserved) => {
                    self.skip(scanner)?;
                    tally.give_way(reserved);
                }
                Role::Alias => self.skip(scanner)?,
            }
        }
        self.write(scanner.bytes(), present);
        Ok(())
    }

    /// The next key of an item; `None` where it has ended. Most items of a batch have the same keys in the same
    /// order, so those of the items before are tried first: nothing more need then be known of them.
    #[inline]
    fn next_key(&mut self, walk: &mut Walk, scanner: &mut Scanner<'_>) -> Result<Option<Key>, Fault> {
        for at in walk.step..self.layout.len().min(walk.step + MISSING_KEYS) {
            let Step { spelt, role } = self.layout[at];
            if let Some(spelt) = scanner.next_key_is(spelt) {
                walk.skipped |= at > walk.step;
                walk.step = at + 1;
                return Ok(Some(Key { role, token: spelt.token(), spelt: Some(spelt) }));
            }
        }
        let Some(token) = scanner.next_key()? else { return Ok(None) };
        let (role, spelt) = (role(scanner.name()), scanner.spelt());
        // What followed may hold this very key, and so may what was skipped: the layout's keys stay different.
        self.layout.truncate(walk.step);
        if let Some(spelt) = spelt
            && self.layout.len() == walk.step
            && !walk.skipped
        {
            self.layout.push(Step { spelt, role });
        }
        walk.step += 1;
        Ok(Some(Key { role, token, spelt }))
    }

    /// Writes the item's line: its known keys in order, then the others. What stands in the line as it is
    /// to be written is copied together.
    fn write(&mut self, line: &[u8], mut present: u32) {
        let before = self.text.len();
        let mut run = 0..0;
        while present != 0 {
            let index = present.trailing_zeros() as usize;
            present &= present - 1;
            let (field, slot) = (&FIELDS[index], self.slots[index]);
            let place = slot.place();
            if slot.home == Home::Member && run.start < run.end && place.start == run.end + 1 {
                // Two members side by side: only a comma stands between them.
                run.end = place.end;
            } else {
                self.write_run(line, &mut run);
                if slot.home == Home::Member {
                    run = place.clone();
                }
            }
            let (value, tail): (&[u8], &[u8]) = match slot.home {
                Home::Member if field.alias.is_empty() => continue,
                Home::Member => {
                    self.write_run(line, &mut run);
                    (&line[place.start + field.key.len()..place.end], b",")
                }
                Home::Line => (&line[place], b","),
                Home::LineInteger => (&line[place], b".0,"),
                Home::Respelt => (&self.respelt[place], b","),
            };
            let keys = if slot.home == Home::Member { ["", field.alias] } else { [field.key, field.alias] };
            for key in keys {
                if !key.is_empty() {
                    self.text.extend_from_slice(key.as_bytes());
                    self.text.extend_from_slice(value);
                    self.text.extend_from_slice(tail);
                }
            }
        }
        self.write_run(line, &mut run);
        self.text.extend_from_slice(&self.extras);
        if self.text.len() > before {
            self.text.pop(); // the last comma
        } else {
            self.empty += 1;
        }
        self.text.push(b'\n');
        self.records += 1;
    }

    #[inline]
    fn write_run(&mut self, line: &[u8], run: &mut Range<usize>) {
        if run.start < run.end {
            self.text.extend_from_slice(&line[run.clone()]);
            self.text.push(b',');
            *run = 0..0;
        }
    }

    /// Converts a known key's value; `None` where it is missing or unusable, which is counted.
    #[inline]
    fn known(
        &mut self,
        index: usize,
        value: Value,
        scanner: &mut Scanner<'_>,
    ) -> Result<Option<Slot>, Fault> {
        let kind = FIELDS[index].kind;
        let slot = match (value, kind) {
            (Value::Null | Value::Nan, _) => return Ok(None),
            (Value::Infinity, _) => None,
            (Value::Array | Value::Object, _) => {
                self.skip_rest(value, scanner)?;
                None
            }
            (Value::Number(number), Kind::Number) => number_slot(number, scanner),
            (Value::Text(token), Kind::Scalar) => Some(match scanner.verbatim(token) {
                Some(place) => Slot::new(place, Home::Line),
                None => self.respell(|out| scanner.write_text(token, out)),
            }),
            (Value::Number(number), Kind::Scalar) => Some(Slot::new(number.place(), Home::Line)),
            (Value::Number(number), Kind::Quantity) if number::is_plain_integer(scanner.spelling(number)) => {
                Some(Slot::new(number.place(), Home::Line))
            }
            (Value::Number(number), Kind::Quantity) => {
                number::truncate(scanner.spelling(number)).map(|quantity| self.integer(quantity))
            }
            (Value::Text(token), Kind::Number) => self.number_text(token, scanner),
            (Value::Text(token), Kind::Quantity) => {
                number::integer(&scanner.text(token)).map(|quantity| self.integer(quantity))
            }
            (Value::True, Kind::Scalar) => Some(self.respell(|out| out.extend_from_slice(b"true"))),
            (Value::False, Kind::Scalar) => Some(self.respell(|out| out.extend_from_slice(b"false"))),
            (Value::True, Kind::Number) => Some(self.respell(|out| out.extend_from_slice(b"1.0"))),
            (Value::False, Kind::Number) => Some(self.respell(|out| out.extend_from_slice(b"0.0"))),
            (Value::True, Kind::Quantity) => Some(self.integer(1)),
            (Value::False, Kind::Quantity) => Some(self.integer(0)),
        };
        if slot.is_none() {
            self.dropped[index][why_unusable(value) as usize] += 1;
        }
        Ok(slot)
    }

    fn number_text(&mut self, token: Text, scanner: &Scanner<'_>) -> Option<Slot> {
        let start = self.respelt.len();
        number::respell(&scanner.text(token), &mut self.respelt)
            .then(|| Slot::new((start, self.respelt.len()), Home::Respelt))
    }

    fn integer(&mut self, value: i64) -> Slot {
        self.respell(|out| out.extend_from_slice(value.to_string().as_bytes()))
    }

    fn respell(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> Slot {
        let start = self.respelt.len();
        write(&mut self.respelt);
        Slot::new((start, self.respelt.len()), Home::Respelt)
    }

    fn skip(&mut self, scanner: &mut Scanner<'_>) -> Result<(), Fault> {
        let value = scanner.value()?;
        self.skip_rest(value, scanner)
    }

    fn skip_rest(&mut self, value: Value, scanner: &mut Scanner<'_>) -> Result<(), Fault> {
        let length = self.respelt.len();
        scanner.copy(value, &mut self.respelt)?;
        self.respelt.truncate(length);
        Ok(())
    }
}

/// Why this value of a known key could not be used.
#[cold]
fn why_unusable(value: Value) -> Reason {
    match value {
        Value::Infinity => Reason::Infinite,
        Value::Array | Value::Object => Reason::NotScalar,
        Value::Text(_) => Reason::NotNumber,
        _ => Reason::OutOfRange,
    }
}

#[inline]
fn number_slot(number: Number, scanner: &Scanner<'_>) -> Option<Slot> {
    let home = if number.integer() { Home::LineInteger } else { Home::Line };
    let fits = number::fits_double(scanner.spelling(number), number.exponent());
    fits.then(|| Slot::new(number.place(), home))
}
