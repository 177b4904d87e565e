//! What somebody else left in a lot file is set aside here, never overwritten and never deleted by the daemon:
//! a copy named by lot, offset and content, so that the same bytes are copied once, and a note beside it.

use xxhash_rust::xxh3::Xxh3;

use crate::storage::{Dir, File, How, Storage, StorageError};

/// Bytes copied at a time.
const COPY_BYTES: usize = 256 << 10;

/// Copies the bytes of `file` from `from` up to `to` aside, durably, and says why in a note. Gives the copy's
/// name below DATA.
///
/// # Errors
/// Of the storage.
pub fn set_aside(
    storage: &Storage,
    stem: &str,
    file: &File,
    from: u64,
    to: u64,
    why: &str,
) -> Result<String, StorageError> {
    let mut hash = Xxh3::new();
    each_chunk(file, from, to, |chunk| {
        hash.update(chunk);
        Ok(())
    })?;
    let name = format!("{stem}.{from}.{:016x}", hash.digest());
    let path = format!("{}{name}", Dir::Quarantine.prefix());
    if storage.stat(Dir::Quarantine, &name)?.is_some_and(|stat| stat.bytes == to - from) {
        return Ok(path);
    }
    let copy = storage.open(Dir::Quarantine, &name, How::Replace)?;
    let mut at = 0;
    each_chunk(file, from, to, |chunk| {
        copy.write_all(at, chunk).map_err(|(_, e)| e)?;
        at += chunk.len() as u64;
        Ok(())
    })?;
    copy.sync()?;
    let note = storage.open(Dir::Quarantine, &format!("{name}.txt"), How::Replace)?;
    let text = format!(
        "What is beside this note ({name}, {} bytes) stood in lots/{stem}.jsonl from byte {from} on.\n\
         {why}\n\
         It was not written by lotlogd as part of a batch, so it was copied here before the place was used.\n\
         Nothing in it was ever acknowledged. Look at it, put what you need where it belongs, then delete both files.\n",
        to - from
    );
    note.write_all(0, text.as_bytes()).map_err(|(_, e)| e)?;
    note.sync()?;
    storage.sync_dir(Dir::Quarantine)?;
    Ok(path)
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
