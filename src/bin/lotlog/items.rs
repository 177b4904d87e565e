//! Items from CSV or JSONL, one after the other, each with the line it came from. A JSONL item's text is
//! passed on byte for byte.

use std::path::Path;

use crate::failure::Failure;
use crate::input::{Input, Line, MAX_LINE_BYTES};
use crate::json;
use crate::table::Columns;

/// How items are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// A header and one item a row; an empty cell is a missing value.
    Csv,
    /// One JSON object a line.
    Jsonl,
}

/// One item.
pub struct Item {
    /// Its first input line, from 1.
    pub line: u64,
    /// A JSON object in one line.
    pub text: String,
}

/// Input that is no item.
#[derive(Debug)]
pub struct Refusal {
    pub first_line: u64,
    pub last_line: u64,
    pub why: String,
}

/// The items of an input.
pub struct Items {
    input: Input,
    columns: Option<Columns>,
}

impl Items {
    /// Opens an input. Without `format` it goes by the name's end, then by the first byte.
    pub fn open(path: Option<&Path>, format: Option<Format>) -> Result<Items, Failure> {
        let mut input = Input::open(path)?;
        let extension = path.and_then(Path::extension).map(|end| end.to_ascii_lowercase());
        let format = match (format, extension.as_deref().and_then(|end| end.to_str())) {
            (Some(format), _) => format,
            (None, Some("csv")) => Format::Csv,
            (None, Some("jsonl" | "ndjson")) => Format::Jsonl,
            (None, end) => match input.peek()?.iter().find(|byte| !byte.is_ascii_whitespace()) {
                // Taken for CSV, it would be a header without a row.
                Some(b'[') => {
                    return Err(Failure::data(format!(
                        "{} begins as a JSON array, so nothing was sent: give one object a line (`jq -c '.[]'` makes that of \
                         an array; pandas: lines=True), or say --format csv if it is a table",
                        input.name()
                    )));
                }
                Some(b'{') => Format::Jsonl,
                _ if end == Some("json") => Format::Jsonl,
                _ => Format::Csv,
            },
        };
        let columns = match format {
            Format::Csv => Columns::read(&mut input)?,
            Format::Jsonl => None,
        };
        Ok(Items { input, columns })
    }

    pub fn input(&self) -> &Input {
        &self.input
    }

    /// The next item, or what is refused in its place.
    pub fn next(&mut self) -> Result<Option<Result<Item, Refusal>>, Failure> {
        if let Some(columns) = &self.columns {
            return columns.next(&mut self.input);
        }
        loop {
            let mut text = Vec::new();
            let read = self.input.append_line(&mut text)?;
            let line = self.input.line_number();
            let refuse = |why: String| Ok(Some(Err(Refusal { first_line: line, last_line: line, why })));
            match read {
                None => return Ok(None),
                Some(Line::TooLong) => return refuse(format!("longer than {} MiB", MAX_LINE_BYTES >> 20)),
                Some(Line::Text) if text.iter().all(u8::is_ascii_whitespace) => continue,
                Some(Line::Text) => {}
            }
            let Ok(text) = String::from_utf8(text) else { return refuse("not UTF-8".to_owned()) };
            return match json::object(&text, |_, _| {}) {
                Ok(()) => Ok(Some(Ok(Item { line, text }))),
                Err(fault) => refuse(fault.to_string()),
            };
        }
    }
}
