//! `journal/rebase`: where the redo of changed lots begins, recorded before any lot is touched, so that every
//! later attempt of the same recovery writes at the same place. And the form that small files of the journal share.

use std::collections::HashMap;
use std::io;

use crate::storage::{Dir, How, Storage, StorageError};

/// What recovery keeps of where rebased lots begin, until the new chain counts.
pub const REBASE_NAME: &str = "rebase";

/// The bases that an earlier, unfinished recovery from checkpoint `id` has recorded, by stem.
///
/// # Errors
/// Of the storage.
pub fn read(storage: &Storage, id: u128) -> Result<HashMap<String, u64>, StorageError> {
    let lines = parse_lines(storage, REBASE_NAME, |head| head == head_of(id))?;
    Ok(lines.unwrap_or_default().into_iter().collect())
}

/// Records bases, durably.
///
/// # Errors
/// Of the storage.
pub fn write<'a>(
    storage: &Storage,
    id: u128,
    bases: impl Iterator<Item = (&'a str, u64)>,
) -> Result<(), StorageError> {
    write_lines(storage, REBASE_NAME, &head_of(id), bases)
}

fn head_of(id: u128) -> String {
    format!("{id:032x}")
}

/// Writes a small file of the journal's, durably and in one step: a head, then a number for each of some stems.
///
/// # Errors
/// Of the storage.
pub(crate) fn write_lines<'a>(
    storage: &Storage,
    name: &str,
    head: &str,
    lines: impl Iterator<Item = (&'a str, u64)>,
) -> Result<(), StorageError> {
    let mut text = format!("{head}\n");
    for (stem, number) in lines {
        text.push_str(&format!("{number} {stem}\n"));
    }
    text.push_str(&format!("{:08x}\n", crc32c::crc32c(text.as_bytes())));
    let new = format!("{name}.new");
    let file = storage.open(Dir::Journal, &new, How::Replace)?;
    file.write_all(0, text.as_bytes()).map_err(|(_, e)| e)?;
    file.sync()?;
    storage.rename(Dir::Journal, &new, name, true)?;
    storage.sync_dir(Dir::Journal)
}

/// The lines of such a file; `None` where there is none, or none that is whole and has this head.
///
/// # Errors
/// Of the storage.
pub(crate) fn parse_lines(
    storage: &Storage,
    name: &str,
    is_head: impl Fn(&str) -> bool,
) -> Result<Option<Vec<(String, u64)>>, StorageError> {
    let file = match storage.open(Dir::Journal, name, How::Read) {
        Ok(file) => file,
        Err(e) if e.source.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e),
    };
    let mut bytes = vec![0; usize::try_from(file.stat()?.bytes).unwrap_or(0)];
    let got = file.read_full(0, &mut bytes)?;
    Ok(parse(&bytes[..got], is_head))
}

fn parse(bytes: &[u8], is_head: impl Fn(&str) -> bool) -> Option<Vec<(String, u64)>> {
    let text = std::str::from_utf8(bytes).ok()?;
    let (body, crc) = text.strip_suffix('\n')?.rsplit_once('\n')?;
    let body = &text[..body.len() + 1];
    if u32::from_str_radix(crc, 16).ok()? != crc32c::crc32c(body.as_bytes()) {
        return None;
    }
    let mut lines = body.lines();
    if !is_head(lines.next()?) {
        return None;
    }
    lines
        .map(|line| {
            line.split_once(' ').and_then(|(number, stem)| Some((stem.to_owned(), number.parse().ok()?)))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rebase_file_of_another_checkpoint_or_damaged_counts_for_nothing() {
        let body = format!("{:032x}\n12 a\n0 b%20c\n", 7);
        let whole = format!("{body}{:08x}\n", crc32c::crc32c(body.as_bytes()));
        let bases = vec![("a".to_owned(), 12), ("b%20c".to_owned(), 0)];
        let parse = |bytes: &[u8], id| parse(bytes, |head| head == head_of(id));
        assert_eq!(parse(whole.as_bytes(), 7), Some(bases));
        assert_eq!(parse(whole.as_bytes(), 8), None);
        for at in 0..whole.len() {
            assert_eq!(parse(&whole.as_bytes()[..at], 7), None, "cut at {at}");
            let mut flipped = whole.clone().into_bytes();
            flipped[at] ^= 1;
            assert_eq!(parse(&flipped, 7), None, "flip at {at}");
        }
    }
}
