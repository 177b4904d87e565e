//! Bytes of a segment, a window at a time: what is read does not depend on how long the segment is, and stays in
//! the processor's cache until it is looked at. Knows neither frames nor what they mean.

use std::convert::Infallible;

use crate::frame::segment_name;
use crate::storage::{Dir, File, How, Storage, StorageError};

/// Bytes of a segment read at a time.
const READ_BYTES: usize = 1 << 20;

/// Bytes that can be looked at from any offset on; quick where the offsets grow.
pub(crate) trait Bytes {
    /// Why they cannot be had.
    type Error;

    /// Some of the bytes from `offset` on: at least `least`, unless they end before.
    fn at(&mut self, offset: u64, least: usize) -> Result<&[u8], Self::Error>;
}

impl Bytes for &[u8] {
    type Error = Infallible;

    fn at(&mut self, offset: u64, _: usize) -> Result<&[u8], Infallible> {
        Ok(usize::try_from(offset).ok().and_then(|at| self.get(at..)).unwrap_or_default())
    }
}

/// A window on a segment's file.
#[derive(Debug)]
pub(crate) struct Window {
    file: File,
    /// Nothing is read from here on.
    end: u64,
    /// Where in the file `buffer` begins.
    start: u64,
    buffer: Vec<u8>,
    /// So much of `buffer` has been read.
    filled: usize,
}

impl Window {
    /// Opens a segment, of which no more than `most` bytes are looked at; gives its file's length too.
    pub(crate) fn open(storage: &Storage, number: u64, most: u64) -> Result<(Window, u64), StorageError> {
        let file = storage.open(Dir::Journal, &segment_name(number), How::Read)?;
        let length = file.stat()?.bytes;
        Ok((Window { file, end: length.min(most), start: 0, buffer: Vec::new(), filled: 0 }, length))
    }

    fn there(&self, offset: u64) -> Option<&[u8]> {
        let from = usize::try_from(offset.checked_sub(self.start)?).ok()?;
        self.buffer[..self.filled].get(from..)
    }
}

impl Bytes for Window {
    type Error = StorageError;

    fn at(&mut self, offset: u64, least: usize) -> Result<&[u8], StorageError> {
        let have = self.there(offset).map_or(0, <[u8]>::len);
        if have < least && offset + (have as u64) < self.end {
            self.buffer.copy_within(self.filled - have..self.filled, 0);
            (self.start, self.filled) = (offset, have);
            let left = usize::try_from(self.end - offset).unwrap_or(usize::MAX);
            let wanted = least.max(READ_BYTES).min(left);
            if self.buffer.len() < wanted {
                self.buffer.resize(wanted, 0);
            }
            let got = self.file.read_full(offset + have as u64, &mut self.buffer[have..wanted])?;
            self.filled += got;
            if self.filled < wanted {
                // Somebody has cut it meanwhile.
                self.end = offset + self.filled as u64;
            }
        }
        Ok(self.there(offset).unwrap_or_default())
    }
}
