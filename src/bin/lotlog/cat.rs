//! `lotlog cat`: a lot's records as they are, the archived ones first, up to the last whole line.

use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

use crate::failure::Failure;
use crate::lots::{Place, no_such_lot, whole_lines_end};

const CHUNK_BYTES: usize = 256 << 10;

/// Print a lot's records, one JSON object a line.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The lot's id, as it was sent (not its file name)
    #[arg(value_name = "LOT")]
    lot: String,
    #[command(flatten)]
    place: Place,
}

pub fn run(args: &Args) -> Result<(), Failure> {
    let (path, shelf) = args.place.shelf(&args.lot)?;
    if shelf.is_empty() {
        return Err(no_such_lot(&args.lot, &path));
    }
    let mut out = io::stdout().lock();
    for number in &shelf.archived {
        let unreadable = |error| Failure::reading(&shelf.path_of(*number), &error);
        if let Some(archived) = shelf.archived(*number).map_err(unreadable)? {
            let mut file = archived.content;
            copy(&mut file, u64::MAX, &mut out).map_err(|trouble| trouble.at(&archived.path))?;
        }
    }
    let Some(mut file) = shelf.live else { return Ok(()) };
    let reading = |error: io::Error| Failure::reading(&path, &error);
    let size = file.metadata().map_err(reading)?.len();
    let end = whole_lines_end(&mut file, size).map_err(reading)?;
    file.seek(SeekFrom::Start(0)).map_err(reading)?;
    copy(&mut file, end, &mut out).map_err(|trouble| trouble.at(&path))
}

/// Which side of a copy failed.
pub enum Trouble {
    Reading(io::Error),
    Writing(io::Error),
}

impl Trouble {
    /// The failure, where the file read is this one.
    pub fn at(&self, path: &Path) -> Failure {
        match self {
            Trouble::Reading(error) => Failure::reading(path, error),
            Trouble::Writing(error) => Failure::output(error),
        }
    }
}

/// Copies `count` bytes from where `file` stands, or up to its end.
pub fn copy(file: &mut impl Read, mut count: u64, out: &mut impl Write) -> Result<(), Trouble> {
    let mut chunk = vec![0u8; CHUNK_BYTES.min(usize::try_from(count).unwrap_or(CHUNK_BYTES))];
    while count > 0 {
        let part = chunk.len().min(usize::try_from(count).unwrap_or(usize::MAX));
        let read = match file.read(&mut chunk[..part]) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(Trouble::Reading(error)),
        };
        out.write_all(&chunk[..read]).map_err(Trouble::Writing)?;
        count -= read as u64;
    }
    out.flush().map_err(Trouble::Writing)
}
