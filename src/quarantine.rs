//! What somebody else left in a lot file is set aside here, never overwritten and never deleted by the daemon:
//! a copy named by lot, offset and content, so that the same bytes are copied once, and a note beside it.

use xxhash_rust::xxh3::Xxh3;

use crate::storage::{Dir, File, How, Storage, StorageError};

/// Bytes copied at a time.
const COPY_BYTES: usize = 256 << 10;

/// So many names are tried for a copy where something else has them.
const MOST_NAMES: usize = 100;
/// How a note begins.
const NOTE: &str = "lotlogd has set aside";

/// Why something with the name of an unfinished lot file is set aside.
pub const TOOK_A_FRESH_NAME: &str =
    "It had the name that lotlogd gives to a lot file before its first record is in it.";

/// Bytes to be set aside, and all that their note says.
#[derive(Clone, Copy, Debug)]
pub struct Piece<'a> {
    /// The lot's stem.
    pub stem: &'a str,
    /// The file's name in `lots/`.
    pub name: &'a str,
    /// The file itself.
    pub file: &'a File,
    /// From this byte on.
    pub from: u64,
    /// Up to this one.
    pub to: u64,
    /// Why, as a sentence.
    pub why: &'a str,
    /// When, in microseconds since 1970.
    pub wall_micros: i64,
}

/// What stands under the name of a copy.
#[derive(Debug, PartialEq, Eq)]
enum There {
    Nothing,
    /// The copy, cut short by a crash.
    Part,
    Copy,
    /// Something of somebody else's.
    Other,
}

/// Copies a piece aside, durably, and says why in a note beside the copy. Gives the copy's name below DATA. Done
/// again after a crash it finds its copy, and completes what is missing.
///
/// # Errors
/// Of the storage.
pub fn set_aside(storage: &Storage, piece: Piece<'_>) -> Result<String, StorageError> {
    let Piece { stem, file, from, to, .. } = piece;
    let mut hash = Xxh3::new();
    each_chunk(file, from, to, |chunk| {
        hash.update(chunk);
        Ok(())
    })?;
    let base = format!("{stem}.{from}.{:016x}", hash.digest());
    for number in 1..=MOST_NAMES {
        let name = if number == 1 { base.clone() } else { format!("{base}-{number}") };
        let (copy, note) = (copy_there(storage, &name, piece)?, note_there(storage, &name)?);
        if copy == There::Other || note == There::Other {
            continue;
        }
        // Where it is there already, the attempt that made it may have died before its sync: written anew.
        let copy = storage.open(Dir::Quarantine, &name, How::Replace)?;
        let mut at = 0;
        each_chunk(file, from, to, |chunk| {
            copy.write_all(at, chunk).map_err(|(_, e)| e)?;
            at += chunk.len() as u64;
            Ok(())
        })?;
        copy.sync()?;
        if note != There::Copy {
            let note = storage.open(Dir::Quarantine, &format!("{name}.txt"), How::Replace)?;
            note.write_all(0, note_text(&name, piece).as_bytes()).map_err(|(_, e)| e)?;
            note.sync()?;
        }
        storage.sync_dir(Dir::Quarantine)?;
        return Ok(format!("{}{name}", Dir::Quarantine.prefix()));
    }
    let what = format!("copy to {}{base}", Dir::Quarantine.prefix());
    Err(StorageError { what, source: std::io::Error::other("something else has this name") })
}

fn note_text(name: &str, Piece { name: lot_file, from, to, why, wall_micros, .. }: Piece<'_>) -> String {
    let when = chrono::DateTime::from_timestamp_micros(wall_micros).unwrap_or_default();
    format!(
        "{NOTE} what is beside this note: {name}, {} bytes.\n\
         \n\
         Where it stood: lots/{lot_file}, from byte {from} up to byte {to}\n\
         When:           {} (UTC)\n\
         Why:            {why}\n\
         What it means:  somebody else wrote or changed these bytes; lotlogd needed their place, so it copied them here first.\n\
         \x20               Each acknowledged batch is in the lot file, or in the journal on its way there. Only where the daemon's log\n\
         \x20               tells of a torn tail of the journal at that time, whole records here may be the last copy of its last group.\n\
         What to do:     find out who writes to lots/ and stop it; put what you need of this where it belongs, not into a lot\n\
         \x20               file; then delete both files. lotlogd never deletes them.\n",
        to - from,
        when.format("%Y-%m-%d %H:%M:%S"),
    )
}

/// What stands where the copy goes.
fn copy_there(storage: &Storage, name: &str, piece: Piece<'_>) -> Result<There, StorageError> {
    let Some(stat) = storage.stat(Dir::Quarantine, name)? else { return Ok(There::Nothing) };
    let whole = piece.to - piece.from;
    if !stat.regular || stat.bytes > whole {
        return Ok(There::Other);
    }
    let copy = storage.open(Dir::Quarantine, name, How::Read)?;
    let (mut at, mut there) = (0, if stat.bytes == whole { There::Copy } else { There::Part });
    let mut buffer = vec![0; COPY_BYTES];
    each_chunk(piece.file, piece.from, piece.from + stat.bytes, |chunk| {
        let got = copy.read_full(at, &mut buffer[..chunk.len()])?;
        at += got as u64;
        if buffer[..got] != chunk[..got] {
            // After a crash what was not synced may read as NUL.
            let part = buffer[..got].iter().zip(chunk).all(|(is, ours)| is == ours || *is == 0);
            there = if part && there != There::Other { There::Part } else { There::Other };
        }
        Ok(())
    })?;
    Ok(there)
}

/// What stands where the note goes.
fn note_there(storage: &Storage, name: &str) -> Result<There, StorageError> {
    let name = format!("{name}.txt");
    let Some(stat) = storage.stat(Dir::Quarantine, &name)? else { return Ok(There::Nothing) };
    if !stat.regular {
        return Ok(There::Other);
    }
    let mut text = vec![0; usize::try_from(stat.bytes).unwrap_or(0).min(COPY_BYTES)];
    storage.open(Dir::Quarantine, &name, How::Read)?.read_full(0, &mut text)?;
    let head = text.iter().zip(NOTE.as_bytes());
    Ok(if text.starts_with(NOTE.as_bytes()) && text.ends_with(b"\n") {
        There::Copy
    } else if head.clone().all(|(is, ours)| is == ours || *is == 0) {
        There::Part
    } else {
        There::Other
    })
}

fn each_chunk(
    file: &File,
    from: u64,
    to: u64,
    mut each: impl FnMut(&[u8]) -> Result<(), StorageError>,
) -> Result<(), StorageError> {
    let mut buffer = vec![0; COPY_BYTES];
    let mut at = from;
    while at < to {
        let some = buffer.len().min(usize::try_from(to - at).unwrap_or(usize::MAX));
        let got = file.read_full(at, &mut buffer[..some])?;
        if got == 0 {
            break;
        }
        each(&buffer[..got])?;
        at += got as u64;
    }
    Ok(())
}

/// Where the last whole line of a file of `bytes` ends: 0 where there is none.
///
/// # Errors
/// Of the storage.
pub fn last_line_end(file: &File, bytes: u64) -> Result<u64, StorageError> {
    let mut end = bytes;
    let mut buffer = vec![0; 4096];
    while end > 0 {
        let some = buffer.len().min(usize::try_from(end).unwrap_or(usize::MAX));
        let start = end - some as u64;
        let got = file.read_full(start, &mut buffer[..some])?;
        if let Some(at) = memchr::memrchr(b'\n', &buffer[..got]) {
            return Ok(start + at as u64 + 1);
        }
        end = start;
        buffer.resize(COPY_BYTES, 0);
    }
    Ok(0)
}
