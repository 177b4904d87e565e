//! `journal/syncing`: says, with the boot's id, that lot files are being synced; left behind by a sync that failed, it
//! tells recovery that the page cache may show what the disk does not have. Knows nothing of what is synced.

use crate::storage::{Dir, File, How, Storage, StorageError};

/// Says that lot syncs of a checkpoint or of recovery are under way, and in which boot.
pub const SYNCING_MARKER: &str = "syncing";

/// Length of the marker's text: a boot id with room. It is written over in place, so that it needs no space.
const MARKER_BYTES: usize = 64;
/// Length of its file: btrfs keeps smaller ones among its metadata, and there nothing is written over in place.
const MARKER_FILE_BYTES: u64 = 4096;

/// Says, durably, that lot syncs are under way in this boot.
///
/// # Errors
/// Of the storage.
pub fn write_marker(storage: &Storage) -> Result<(), StorageError> {
    let file = put_marker(storage, &storage.boot_id())?;
    file.sync()?;
    storage.sync_dir(Dir::Journal)
}

/// Says that no lot syncs are under way. Needs no sync: after a power cut another boot's word means nothing.
///
/// # Errors
/// Of the storage.
pub fn clear_marker(storage: &Storage) -> Result<(), StorageError> {
    put_marker(storage, "").map(drop)
}

fn put_marker(storage: &Storage, boot_id: &str) -> Result<File, StorageError> {
    let file = storage.open(Dir::Journal, SYNCING_MARKER, How::Write)?;
    if file.stat()?.bytes < MARKER_FILE_BYTES {
        file.allocate(MARKER_FILE_BYTES)?;
    }
    file.write_all(0, format!("{boot_id:<MARKER_BYTES$}").as_bytes()).map_err(|(_, e)| e)?;
    Ok(file)
}

/// Whether lot syncs were under way in this boot when somebody last wrote the marker.
///
/// # Errors
/// Of the storage.
pub fn is_marked(storage: &Storage) -> Result<bool, StorageError> {
    let file = match storage.open(Dir::Journal, SYNCING_MARKER, How::Read) {
        Ok(file) => file,
        Err(e) if e.source.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        Err(e) => return Err(e),
    };
    let mut text = [0; MARKER_BYTES];
    let got = file.read_full(0, &mut text)?;
    Ok(text[..got].trim_ascii_end() == storage.boot_id().as_bytes())
}
