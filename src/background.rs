//! The vault's helpers' work, what must not hold up the writer: segments prepared and removed, lot files synced for a
//! checkpoint, the journal synced. Step by step; knows nothing of sessions, tickets or threads: `lane` has those.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

pub use crate::chore::{Chore, Chored};
use crate::frame::{HEADER_BYTES, Header, segment_name};
use crate::marker::{clear_marker, write_marker};
use crate::storage::{Dir, Dirty, File, How, Storage, StorageError, WRITE_BYTES};

/// A piece of the lot files, after which others have the disk, is no smaller than this, in bytes ...
const PIECE_BYTES: u64 = 256 << 10;
/// ... and there are no more of them in one checkpoint, so that it is not late for its rests.
const MOST_PIECES: u64 = 500;

/// A segment ready for its first frame.
#[derive(Debug)]
pub struct Segment {
    /// Its header.
    pub header: Header,
    /// Its file.
    pub file: File,
    /// Its length in bytes, fully allocated.
    pub bytes: u64,
}

/// Something to do in the background.
#[derive(Debug)]
pub enum Job {
    /// Make a segment.
    Prepare {
        /// Its header.
        header: Header,
        /// An old segment of that length whose place on the disk it takes.
        old: Option<u64>,
    },
    /// Remove these segments, oldest first.
    Trim {
        /// Their numbers.
        numbers: VecDeque<u64>,
    },
    /// Sync these lot files under the marker.
    SyncLots {
        /// The files.
        files: VecDeque<Dirty>,
        /// So many of them, from the first, the kernel has begun to write to the disk.
        begun: usize,
        /// What it has begun to write since the last rest, and what it may at a time, in bytes.
        bytes: u64,
        /// See `bytes`.
        most: u64,
        /// Files that are closed after their sync.
        evicted: VecDeque<File>,
        /// Whether the `lots` directory has new names.
        names: bool,
        /// Whether the marker has been written.
        marked: bool,
    },
    /// Sync these segments of the journal, the oldest first, and make sure that they are where DATA's path leads.
    SyncJournal {
        /// Their files.
        files: VecDeque<File>,
        /// Since when the job is worked on.
        begun: Option<Instant>,
    },
    /// Work on finished files.
    Chore(Box<dyn Chore>),
}

/// After this checkpoint the journal no longer has what the file should hold: whoever took it away hears so.
fn tell_of_loss(file: &File, bytes: u64) {
    let change = match file.stat() {
        Ok(stat) if stat.links == 0 => "it was deleted".to_owned(),
        Ok(stat) if stat.bytes < bytes => {
            format!("it has {} bytes where lotlogd left at least {bytes}", stat.bytes)
        }
        _ => return,
    };
    tracing::warn!(
        ?file,
        change,
        "somebody else has changed a lot file: what is gone from it is in no journal after this checkpoint; restore it from a backup"
    );
}

/// A job's end.
#[derive(Debug)]
pub enum Done {
    /// A segment is there.
    Prepared(Segment),
    /// A segment could not be made; nothing of it is left. The old segment whose place it was to take is still there.
    NotPrepared(StorageError, Option<u64>),
    /// Segments are gone.
    Trimmed,
    /// These could not be removed for lack of space.
    NotTrimmed(VecDeque<u64>, StorageError),
    /// The lot files are synced.
    LotsSynced,
    /// The journal is synced; how long that took.
    JournalSynced(Duration),
    /// A chore is over.
    Chored(Chored),
    /// The disk failed; the latch is closed.
    Failed(StorageError),
}

/// What a part of a job came to.
pub(crate) enum Step {
    /// The job's end.
    End(Done),
    /// There is more to do.
    More,
    /// There is more to do, after a moment in which others have the disk.
    Rest,
    /// It cannot go on now; try again.
    Stalled(StorageError),
}

impl Job {
    /// A sync of lot files.
    pub fn sync_lots(files: VecDeque<Dirty>, evicted: VecDeque<File>, names: bool) -> Job {
        let all: u64 = files.iter().map(|dirty| dirty.bytes - dirty.from).sum();
        let most = PIECE_BYTES.max(all / MOST_PIECES);
        Job::SyncLots { files, begun: 0, bytes: 0, most, evicted, names, marked: false }
    }

    /// A sync of the journal.
    pub fn sync_journal(files: impl IntoIterator<Item = File>) -> Job {
        Job::SyncJournal { files: files.into_iter().collect(), begun: None }
    }

    /// Does a part of the job; `hurry`: without sparing others.
    pub(crate) fn step(&mut self, storage: &Storage, hurry: &AtomicBool) -> Step {
        match self {
            Job::Prepare { header, old } => Step::End(prepare(storage, *header, *old, hurry)),
            Job::Trim { numbers } => {
                let Some(number) = numbers.front() else {
                    let result = storage.sync_dir(Dir::Journal);
                    return Step::End(result.map_or_else(Done::Failed, |()| Done::Trimmed));
                };
                match storage.unlink(Dir::Journal, &segment_name(*number)) {
                    Ok(()) => {
                        numbers.pop_front();
                        Step::More
                    }
                    // A file system that copies on write needs space to remove a name.
                    // Another time: what else is asked of this lane, somebody may be waiting for.
                    Err(error) if error.is_no_space() => {
                        Step::End(Done::NotTrimmed(std::mem::take(numbers), error))
                    }
                    Err(error) => Step::End(Done::Failed(storage.stop(error))),
                }
            }
            Job::SyncLots { files, begun, bytes, most, evicted, names, marked } => {
                let result = if !*marked {
                    match write_marker(storage) {
                        // No space or no descriptor, for now: nothing has been promised yet.
                        Err(error) if storage.failure().is_none() => return Step::Stalled(error),
                        result => {
                            *marked = true;
                            result
                        }
                    }
                } else if let Some(dirty) = files.get_mut(*begun) {
                    let piece = (dirty.bytes - dirty.from).min(*most - *bytes);
                    if piece > 0 {
                        dirty.file.begin_write_back(dirty.from, piece);
                        dirty.from += piece;
                        *bytes += piece;
                    }
                    if dirty.from == dirty.bytes {
                        *begun += 1;
                    }
                    if *bytes == *most {
                        *bytes = 0;
                        return Step::Rest;
                    }
                    return Step::More;
                } else if let Some(Dirty { file, bytes, .. }) = files.pop_front() {
                    file.sync().map(|()| tell_of_loss(&file, bytes))
                } else if let Some(file) = evicted.pop_front() {
                    file.sync()
                } else if *names {
                    *names = false;
                    storage.sync_dir(Dir::Lots)
                } else {
                    return match clear_marker(storage) {
                        Err(error) if storage.failure().is_none() => Step::Stalled(error),
                        result => Step::End(result.map_or_else(Done::Failed, |()| Done::LotsSynced)),
                    };
                };
                result.map_or_else(|e| Step::End(Done::Failed(e)), |()| Step::More)
            }
            Job::Chore(chore) => match chore.step(storage) {
                Ok(None) => Step::More,
                Ok(Some(chored)) => Step::End(Done::Chored(chored)),
                Err(error) if storage.failure().is_some() => Step::End(Done::Failed(error)),
                Err(why) => Step::End(Done::Chored(Chored::NotDone { stem: chore.stem().into(), why })),
            },
            Job::SyncJournal { files, begun } => {
                let begun = *begun.get_or_insert_with(Instant::now);
                let result = match files.pop_front() {
                    Some(file) => file.sync().and_then(|()| file.check_name()),
                    None => Ok(()),
                };
                let result =
                    result.and_then(|()| if files.is_empty() { storage.check_place() } else { Ok(()) });
                match result {
                    Err(error) => Step::End(Done::Failed(error)),
                    Ok(()) if files.is_empty() => Step::End(Done::JournalSynced(begun.elapsed())),
                    Ok(()) => Step::More,
                }
            }
        }
    }
}

fn prepare(storage: &Storage, header: Header, old: Option<u64>, hurry: &AtomicBool) -> Done {
    if let Some(number) = old {
        let name = preparing_name(header.number);
        match storage.rename(Dir::Journal, &segment_name(number), &name, true) {
            Err(error) if storage.failure().is_some() => return Done::Failed(error),
            Err(error) => return Done::NotPrepared(error, old),
            Ok(()) => {}
        }
        // Under its old name nobody may find other bytes.
        if let Err(error) = storage.sync_dir(Dir::Journal) {
            return Done::Failed(error);
        }
    }
    match prepare_segment(storage, header, old.is_some(), hurry) {
        Ok(segment) => Done::Prepared(segment),
        Err(error) if storage.failure().is_some() => Done::Failed(error),
        Err(error) => Done::NotPrepared(error, None),
    }
}

/// Suffix of what is not finished in `journal/`.
pub const PREPARING_SUFFIX: &str = ".new";

/// The name of a segment while it is prepared.
pub fn preparing_name(number: u64) -> String {
    format!("{number:016x}{PREPARING_SUFFIX}")
}

/// Makes a segment: allocated and zeroed to its full length, header synced, renamed, directory synced.
/// Zeros are written, not just allocated: a sync of bytes that overwrite written blocks need not touch the
/// file system's own journal, which made it about twice as fast on ext4. An old segment in its place is written
/// already: its frames name another segment, so nobody can take them for this one's.
///
/// # Errors
/// Of the storage; lack of space shows here, and then nothing is left of it.
pub fn prepare_segment(
    storage: &Storage,
    header: Header,
    recycled: bool,
    hurry: &AtomicBool,
) -> Result<Segment, StorageError> {
    make_segment(storage, header, recycled, hurry).inspect_err(|_| {
        // A failed disk does not take this any more, and the next recovery removes it.
        let _ = storage.unlink(Dir::Journal, &preparing_name(header.number));
    })
}

fn make_segment(
    storage: &Storage,
    header: Header,
    recycled: bool,
    hurry: &AtomicBool,
) -> Result<Segment, StorageError> {
    let bytes = header.bytes;
    let name = preparing_name(header.number);
    // An old segment has this length: written over in place it needs no space.
    let file = storage.open(Dir::Journal, &name, How::Write)?;
    file.allocate(bytes)?;
    file.write_all(0, &header.encode()).map_err(|(_, e)| e)?;
    let zeros = vec![0; WRITE_BYTES];
    let mut at = HEADER_BYTES;
    while at < bytes && !recycled {
        if at > HEADER_BYTES && !hurry.load(Relaxed) {
            // Piece by piece: a sync of the journal that comes meanwhile must not wait for all of them. That takes
            // several times as long, and who needs this segment would wait for that.
            file.sync()?;
        }
        let some = zeros.len().min(usize::try_from(bytes - at).unwrap_or(usize::MAX));
        file.write_all(at, &zeros[..some]).map_err(|(_, e)| e)?;
        at += some as u64;
    }
    file.sync()?;
    storage.rename(Dir::Journal, &name, &segment_name(header.number), true)?;
    storage.sync_dir(Dir::Journal)?;
    let file = file.renamed(Dir::Journal, &segment_name(header.number));
    Ok(Segment { header, file, bytes })
}
