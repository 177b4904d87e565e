//! Input lines, bounded and numbered, from a file or standard input. Does not know what stands in them.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use crate::failure::{Failure, next_step};

/// The longest input line, in bytes; a longer one is refused and passed over. The daemon's own limit for a
/// whole request is 16 MiB unless configured higher.
pub const MAX_LINE_BYTES: usize = 64 << 20;

/// A source of lines.
pub struct Input {
    reader: BufReader<Box<dyn Read>>,
    name: String,
    line_number: u64,
    bytes_read: u64,
    total_bytes: Option<u64>,
    max_line_bytes: usize,
}

/// One line.
pub enum Line {
    /// Its text is in the buffer, without `\n`.
    Text,
    /// It was longer than the limit and was passed over.
    TooLong,
}

impl Input {
    /// Opens a file, or standard input for `-` and for none. A UTF-8 byte order mark is passed over.
    pub fn open(path: Option<&Path>) -> Result<Input, Failure> {
        let (source, name, total_bytes): (Box<dyn Read>, String, Option<u64>) = match path {
            Some(path) if path != Path::new("-") => {
                let file = File::open(path).map_err(|error| Failure::reading(path, &error))?;
                let about = file.metadata().map_err(|error| Failure::reading(path, &error))?;
                if about.is_dir() {
                    return Err(Failure::reading(path, &io::ErrorKind::IsADirectory.into()));
                }
                (Box::new(file), path.display().to_string(), about.is_file().then_some(about.len()))
            }
            _ => (Box::new(io::stdin()), "standard input".to_owned(), None),
        };
        let mut input = Input::new(source, name);
        input.total_bytes = total_bytes;
        if input.peek()?.starts_with(b"\xEF\xBB\xBF") {
            input.reader.consume(3);
            input.bytes_read += 3;
        }
        Ok(input)
    }

    fn new(source: Box<dyn Read>, name: String) -> Input {
        let reader = BufReader::with_capacity(256 << 10, source);
        Input {
            reader,
            name,
            line_number: 0,
            bytes_read: 0,
            total_bytes: None,
            max_line_bytes: MAX_LINE_BYTES,
        }
    }

    /// For messages: the path or `standard input`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The number of the line read last, from 1.
    pub fn line_number(&self) -> u64 {
        self.line_number
    }

    pub fn bytes_read(&self) -> u64 {
        self.bytes_read
    }

    pub fn total_bytes(&self) -> Option<u64> {
        self.total_bytes
    }

    /// What comes next, without taking it; empty at the end.
    pub fn peek(&mut self) -> Result<&[u8], Failure> {
        let name = &self.name;
        loop {
            match self.reader.fill_buf() {
                // Asked a second time, because a borrow cannot leave the loop; the buffer answers at once.
                Ok(_) => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    return Err(Failure::io(format!("cannot read {name}: {error}; {}", next_step(&error))));
                }
            }
        }
        Ok(self.reader.buffer())
    }

    /// Appends the next line to `line`, without its `\n`; `None` at the end. The limit counts what `line` held.
    pub fn append_line(&mut self, line: &mut Vec<u8>) -> Result<Option<Line>, Failure> {
        let limit = self.max_line_bytes;
        let mut too_long = false;
        let mut any = false;
        loop {
            let chunk = self.peek()?;
            if chunk.is_empty() {
                break;
            }
            any = true;
            let end = memchr::memchr(b'\n', chunk);
            let text = &chunk[..end.unwrap_or(chunk.len())];
            if line.len() + text.len() > limit {
                too_long = true;
            } else if !too_long {
                line.extend_from_slice(text);
            }
            let used = text.len() + usize::from(end.is_some());
            self.reader.consume(used);
            self.bytes_read += used as u64;
            if end.is_some() {
                break;
            }
        }
        self.line_number += u64::from(any);
        Ok(any.then_some(if too_long { Line::TooLong } else { Line::Text }))
    }
}

#[cfg(test)]
impl Input {
    /// Lines of a text held in memory.
    pub fn of(text: &[u8], max_line_bytes: usize) -> Input {
        let mut input = Input::new(Box::new(io::Cursor::new(text.to_vec())), "test".to_owned());
        input.max_line_bytes = max_line_bytes;
        input
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_numbered_and_one_too_long_is_passed_over() {
        let mut input = Input::of(b"one\n\n0123456789\nlast", 8);
        let mut seen = Vec::new();
        loop {
            let mut line = Vec::new();
            match input.append_line(&mut line).expect("memory") {
                Some(Line::Text) => seen.push((input.line_number(), String::from_utf8(line).expect("ASCII"))),
                Some(Line::TooLong) => seen.push((input.line_number(), "too long".into())),
                None => break,
            }
        }
        let expected = [(1, "one"), (2, ""), (3, "too long"), (4, "last")];
        assert_eq!(seen, expected.map(|(number, text)| (number, text.to_owned())));
    }
}
