//! `lotlog cat`: a lot's records as they are, up to the last whole line.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};

use crate::failure::Failure;
use crate::lots::{Place, open, opening, whole_lines_end};

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
    let path = args.place.lot_file(&args.lot)?;
    let mut file = open(&path).map_err(|error| opening(&args.lot, &path, &error))?;
    let reading = |error: io::Error| Failure::reading(&path, &error);
    let size = file.metadata().map_err(reading)?.len();
    let end = whole_lines_end(&mut file, size).map_err(reading)?;
    file.seek(SeekFrom::Start(0)).map_err(reading)?;
    copy(&mut file, end, &mut io::stdout().lock()).map_err(|trouble| match trouble {
        Trouble::Reading(error) => Failure::reading(&path, &error),
        Trouble::Writing(error) => Failure::output(&error),
    })
}

/// Which side of a copy failed.
pub enum Trouble {
    Reading(io::Error),
    Writing(io::Error),
}

/// Copies `count` bytes from where `file` stands, or up to its end.
pub fn copy(file: &mut File, mut count: u64, out: &mut impl Write) -> Result<(), Trouble> {
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
