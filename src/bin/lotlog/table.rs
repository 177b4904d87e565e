//! CSV rows as items (RFC 4180, comma, double quotes; `\n` or `\r\n`). An empty cell is a missing value;
//! every cell is sent as text, of which the daemon makes the numbers, so that identifiers keep their zeros.
//! A row that is not whole is refused by its line; nothing is guessed.

use crate::failure::Failure;
use crate::input::{Input, Line, MAX_LINE_BYTES};
use crate::items::{Item, Refusal};

/// The columns, as JSON keys with their colon, and whether each is `quantity`.
pub struct Columns {
    keys: Vec<(String, bool)>,
}

impl Columns {
    /// Reads the header.
    pub fn read(input: &mut Input) -> Result<Option<Columns>, Failure> {
        let fault = |line: u64, name: &str, why: &str| {
            Failure::data(format!("{name}:{line}: the header is unusable, so nothing was sent: {why}"))
        };
        let (line, cells) = match read_row(input)? {
            None => return Ok(None),
            Some(Ok(row)) => row,
            Some(Err(refusal)) => return Err(fault(refusal.first_line, input.name(), &refusal.why)),
        };
        let mut keys: Vec<(String, bool)> = Vec::with_capacity(cells.len());
        let mut seen = std::collections::HashSet::new();
        for (at, cell) in cells.iter().enumerate() {
            let name = cell.trim();
            if name.is_empty() {
                let why =
                    format!("column {} has no name; name it, or leave it out (pandas: index=False)", at + 1);
                return Err(fault(line, input.name(), &why));
            }
            if !seen.insert(name.to_owned()) {
                return Err(fault(line, input.name(), &format!("two columns are named `{name}`")));
            }
            keys.push((format!("{}:", quoted(name)), name == "quantity"));
        }
        Ok(Some(Columns { keys }))
    }

    /// The next row as an item.
    pub fn next(&self, input: &mut Input) -> Result<Option<Result<Item, Refusal>>, Failure> {
        let (line, cells) = match read_row(input)? {
            None => return Ok(None),
            Some(Ok(row)) => row,
            Some(Err(refusal)) => return Ok(Some(Err(refusal))),
        };
        if cells.len() != self.keys.len() {
            let why = format!("{} cells where the header has {}", cells.len(), self.keys.len());
            return Ok(Some(Err(Refusal { first_line: line, last_line: line, why })));
        }
        let mut text = String::from("{");
        for (cell, (key, is_quantity)) in cells.iter().zip(&self.keys) {
            if cell.is_empty() {
                continue;
            }
            if text.len() > 1 {
                text.push(',');
            }
            text.push_str(key);
            match decimal_number(cell).filter(|_| *is_quantity) {
                Some(number) => text.push_str(&number),
                None => text.push_str(&quoted(cell)),
            }
        }
        text.push('}');
        Ok(Some(Ok(Item { line, text })))
    }
}

/// A JSON string.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// `3.0` as pandas writes an integer column with gaps: the daemon takes whole numbers only as text, so a
/// decimal one is spelt as a JSON number. `None` for anything else.
fn decimal_number(cell: &str) -> Option<String> {
    let cell = cell.trim_matches([' ', '\t']);
    let (sign, digits) = match cell.strip_prefix('-') {
        Some(digits) => ("-", digits),
        None => ("", cell.strip_prefix('+').unwrap_or(cell)),
    };
    let (whole, fraction) = digits.split_once('.')?;
    let all_digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    if !all_digits(whole) || !all_digits(fraction) || (whole.is_empty() && fraction.is_empty()) {
        return None;
    }
    let whole = whole.trim_start_matches('0');
    let or_zero = |text: &str| if text.is_empty() { "0".to_owned() } else { text.to_owned() };
    Some(format!("{sign}{}.{}", or_zero(whole), or_zero(fraction)))
}

type Row = (u64, Vec<String>);

/// The next row that is not blank, with the number of its first line.
fn read_row(input: &mut Input) -> Result<Option<Result<Row, Refusal>>, Failure> {
    let mut text = Vec::new();
    let first_line = loop {
        text.clear();
        match input.append_line(&mut text)? {
            None => return Ok(None),
            Some(Line::Text) if text.iter().all(|b| *b == b'\r') => {}
            Some(Line::Text) => break input.line_number(),
            Some(Line::TooLong) => return Ok(Some(Err(too_long(input.line_number(), input.line_number())))),
        }
    };
    let mut cells = Cells::default();
    let mut done = 0;
    loop {
        // A `\r` at the end of the row is part of the line's end, unless a quoted cell goes on.
        if let Err(why) = cells.feed(&text[done..]) {
            let last_line = input.line_number();
            return Ok(Some(Err(Refusal { first_line, last_line, why: why.to_owned() })));
        }
        if cells.state != State::Quoted {
            break;
        }
        text.push(b'\n');
        done = text.len() - 1;
        match input.append_line(&mut text)? {
            Some(Line::Text) => {}
            Some(Line::TooLong) => return Ok(Some(Err(too_long(first_line, input.line_number())))),
            None => {
                let why =
                    "a quote is opened and never closed: everything up to the end of the input".to_owned();
                return Ok(Some(Err(Refusal { first_line, last_line: input.line_number(), why })));
            }
        }
    }
    Ok(Some(match cells.finish() {
        Some(cells) => Ok((first_line, cells)),
        None => Err(Refusal {
            first_line,
            last_line: input.line_number(),
            why: "not UTF-8: save it as UTF-8".into(),
        }),
    }))
}

fn too_long(first_line: u64, last_line: u64) -> Refusal {
    Refusal { first_line, last_line, why: format!("a row longer than {} MiB", MAX_LINE_BYTES >> 20) }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Start,
    Plain,
    Quoted,
    /// After a quote inside a quoted cell: its end, or the first half of a doubled one.
    Closing,
}

#[derive(Default)]
struct Cells {
    state: State,
    cell: Vec<u8>,
    cells: Vec<Vec<u8>>,
}

impl Cells {
    fn feed(&mut self, text: &[u8]) -> Result<(), &'static str> {
        for (at, &byte) in text.iter().enumerate() {
            let ends_row = byte == b'\r' && at + 1 == text.len();
            self.state = match (self.state, byte) {
                (State::Quoted, b'"') => State::Closing,
                (State::Quoted, _) => {
                    self.cell.push(byte);
                    State::Quoted
                }
                (State::Closing, b'"') => {
                    self.cell.push(b'"');
                    State::Quoted
                }
                (state, _) if ends_row => state,
                (_, b',') => {
                    self.cells.push(std::mem::take(&mut self.cell));
                    State::Start
                }
                (State::Closing, _) => {
                    return Err("text after a closing quote: double the quotes inside a cell");
                }
                (State::Start, b'"') => State::Quoted,
                _ => {
                    self.cell.push(byte);
                    State::Plain
                }
            };
        }
        Ok(())
    }

    fn finish(mut self) -> Option<Vec<String>> {
        self.cells.push(self.cell);
        self.cells.into_iter().map(|cell| String::from_utf8(cell).ok()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Line and text of an item; or the lines of a refused row and a part of the reason.
    type Expected<'a> = Result<(u64, &'a str), (u64, u64, &'a str)>;

    #[track_caller]
    fn check(csv: &str, expected: &[Expected<'_>]) {
        let mut input = Input::of(csv.as_bytes(), MAX_LINE_BYTES);
        let columns = Columns::read(&mut input).expect("header").expect("not empty");
        for expected in expected {
            match (columns.next(&mut input).expect("memory").expect("a row"), expected) {
                (Ok(item), Ok((line, text))) => assert_eq!((item.line, item.text.as_str()), (*line, *text)),
                (Err(refusal), Err((first, last, why))) => {
                    assert_eq!((refusal.first_line, refusal.last_line), (*first, *last));
                    assert!(refusal.why.contains(why), "{}", refusal.why);
                }
                (got, _) => panic!("{:?} where {expected:?} was expected", got.map(|item| item.text)),
            }
        }
        assert!(columns.next(&mut input).expect("memory").is_none());
    }

    #[test]
    fn a_cell_is_text_and_an_empty_one_is_missing() {
        check(
            "sku_local,upc,est_price_mu,quantity\r\nS1,007,12,3\r\n,,,\n\nS2,\"\",,\n",
            &[
                Ok((2, r#"{"sku_local":"S1","upc":"007","est_price_mu":"12","quantity":"3"}"#)),
                Ok((3, "{}")),
                Ok((5, r#"{"sku_local":"S2"}"#)),
            ],
        );
    }

    #[test]
    fn quotes_commas_and_newlines_inside_a_cell_are_kept() {
        check(
            "a,b\n\"x, y\",\"say \"\"hi\"\"\"\n\"two\r\nlines\",27\"\nlast,Ø",
            &[
                Ok((2, r#"{"a":"x, y","b":"say \"hi\""}"#)),
                Ok((3, r#"{"a":"two\r\nlines","b":"27\""}"#)),
                Ok((5, r#"{"a":"last","b":"Ø"}"#)),
            ],
        );
    }

    #[test]
    fn a_quantity_with_a_fraction_is_spelt_as_a_number() {
        check(
            "quantity,mins_per_unit\n3.0,3.0\n +.5,x\n-007.,1\n1e3,1\n",
            &[
                Ok((2, r#"{"quantity":3.0,"mins_per_unit":"3.0"}"#)),
                Ok((3, r#"{"quantity":0.5,"mins_per_unit":"x"}"#)),
                Ok((4, r#"{"quantity":-7.0,"mins_per_unit":"1"}"#)),
                Ok((5, r#"{"quantity":"1e3","mins_per_unit":"1"}"#)),
            ],
        );
    }

    #[test]
    fn a_row_that_is_not_whole_is_refused_by_its_line() {
        check(
            "a,b\n1\n1,2,3\n\"x\"y,2\nok,1\n\"open,2\nmore\n",
            &[
                Err((2, 2, "1 cells")),
                Err((3, 3, "3 cells")),
                Err((4, 4, "after a closing quote")),
                Ok((5, r#"{"a":"ok","b":"1"}"#)),
                Err((6, 7, "never closed")),
            ],
        );
    }

    #[test]
    fn a_header_with_a_nameless_or_doubled_column_is_refused() {
        for (csv, why) in [(",a\n1,2\n", "column 1 has no name"), ("a,b,a\n", "two columns are named `a`")] {
            let failure = Columns::read(&mut Input::of(csv.as_bytes(), 1000)).err().expect("refused");
            assert!(failure.message.contains(why), "{failure}");
        }
    }
}
