//! `lotlog tail`: a lot's last records, and with `-f` those that follow, through renames and truncation.
//! Whole lines only. Looks at the file several times a second: no watch can be missed or run out.

use std::collections::VecDeque;
use std::fs::{File, Metadata};
use std::io::{self, BufRead, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use lotlog::batch::encode_stem;
use lotlog::shelf::{self, Shelf, open_regular};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::cat::{Trouble, copy};
use crate::failure::Failure;
use crate::lots::{Place, no_such_lot, start_of_last, whole_lines_end};
use crate::summary::eprintln_quietly;

const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Print a lot's last records, and follow it.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The lot's id, as it was sent (not its file name)
    #[arg(value_name = "LOT")]
    lot: String,
    /// How many records to begin with
    #[arg(short = 'n', long, value_name = "N", default_value_t = 10)]
    lines: u64,
    /// Go on with what is added, until interrupted; follows through rotation, and waits for a lot that is not there yet
    #[arg(short, long)]
    follow: bool,
    #[command(flatten)]
    place: Place,
}

pub fn run(args: &Args) -> Result<(), Failure> {
    let (path, mut shelf) = args.place.shelf(&args.lot)?;
    let seen = shelf.archived.last().copied().unwrap_or(0);
    if shelf.is_empty() && !args.follow {
        return Err(no_such_lot(&args.lot, &path));
    }
    if shelf.is_empty() {
        let wait = format!("lotlog: waiting for lot `{}`: there is no {} yet", args.lot, path.display());
        eprintln_quietly(&wait);
    }
    // `path` is DATA/lots/STEM.jsonl.
    let data_dir = path.ancestors().nth(2).unwrap_or(&path).to_owned();
    let mut follower = Follower { data_dir, stem: encode_stem(&args.lot), path, file: None, seen };
    let mut live = None;
    let mut wanted = args.lines;
    if let Some(mut file) = shelf.live.take() {
        let size = file.metadata().map_err(|error| follower.reading(&error))?.len();
        let at = start_of_last(&mut file, size, wanted).map_err(|error| follower.reading(&error))?;
        if at == 0 {
            wanted -= lines_of(&mut file, wanted).map_err(|error| follower.reading(&error))?;
        } else {
            wanted = 0;
        }
        live = Some((file, at));
    }
    before_live(&shelf, wanted)?;
    if let Some((file, at)) = live {
        follower.take(file, at)?;
    }
    if !args.follow {
        return Ok(());
    }
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM, signal_hook::consts::SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(&stop))
            .map_err(|error| Failure::io(format!("cannot wait for signals: {error}")))?;
    }
    while !stop.load(Ordering::Relaxed) && !reader_has_gone() {
        follower.look()?;
    }
    Ok(())
}

/// How many whole lines a file has, if it has no more than `most`.
fn lines_of(file: &mut File, most: u64) -> io::Result<u64> {
    file.seek(SeekFrom::Start(0))?;
    let mut lines = 0;
    let mut reader = io::BufReader::new(file);
    while lines < most {
        let mut line = Vec::new();
        if reader.read_until(b'\n', &mut line)? == 0 || line.last() != Some(&b'\n') {
            break;
        }
        lines += 1;
    }
    Ok(lines)
}

/// Prints the last `wanted` lines of the archive.
fn before_live(shelf: &Shelf, mut wanted: u64) -> Result<(), Failure> {
    let mut pieces: Vec<VecDeque<Vec<u8>>> = Vec::new();
    for number in shelf.archived.iter().rev() {
        if wanted == 0 {
            break;
        }
        let opened =
            shelf.archived(*number).map_err(|error| Failure::reading(&shelf.path_of(*number), &error))?;
        let Some(archived) = opened else { continue };
        let lines =
            last_lines(archived.content, wanted).map_err(|error| Failure::reading(&archived.path, &error))?;
        wanted -= lines.len() as u64;
        pieces.push(lines);
    }
    let mut out = io::stdout().lock();
    for line in pieces.iter().rev().flatten() {
        out.write_all(line).map_err(|error| Failure::output(&error))?;
    }
    out.flush().map_err(|error| Failure::output(&error))
}

/// The last `most` lines of what can only be read from its start.
fn last_lines(file: impl Read, most: u64) -> io::Result<VecDeque<Vec<u8>>> {
    let mut lines: VecDeque<Vec<u8>> = VecDeque::new();
    let mut reader = io::BufReader::with_capacity(256 << 10, file);
    let mut line = Vec::new();
    while reader.read_until(b'\n', &mut line)? > 0 {
        lines.push_back(std::mem::take(&mut line));
        if lines.len() as u64 > most {
            line = lines.pop_front().unwrap_or_default();
            line.clear();
        }
    }
    Ok(lines)
}

/// Waits a moment; true once nobody can read standard output any more.
fn reader_has_gone() -> bool {
    let stdout = io::stdout();
    // Without asked-for events only a hang-up or an error ends the wait early.
    let mut fds = [PollFd::new(&stdout, PollFlags::empty())];
    let time = Timespec::try_from(LOOK_EVERY).ok();
    match poll(&mut fds, time.as_ref()) {
        Ok(ready) => ready > 0,
        // A signal: the caller looks at its flag.
        Err(_) => false,
    }
}

/// The first line of a file, which has its first batch's timestamp: no two files of a lot begin alike.
fn first_line(file: impl Read) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    io::BufReader::new(file).read_until(b'\n', &mut line)?;
    Ok(line)
}

struct Follower {
    data_dir: PathBuf,
    stem: String,
    path: PathBuf,
    file: Option<(File, u64)>,
    /// The last archived file that is known; later ones were in `lots/` since.
    seen: u64,
}

impl Follower {
    fn reading(&self, error: &io::Error) -> Failure {
        Failure::reading(&self.path, error)
    }

    /// Prints the whole lines of `file` from `at`, and goes on from there next time.
    fn take(&mut self, mut file: File, at: u64) -> Result<(), Failure> {
        let size = file.metadata().map_err(|error| self.reading(&error))?.len();
        let mut next = at;
        if size > at {
            let end = whole_lines_end(&mut file, size).map_err(|error| self.reading(&error))?;
            if end > at {
                file.seek(SeekFrom::Start(at)).map_err(|error| self.reading(&error))?;
                copy(&mut file, end - at, &mut io::stdout().lock()).map_err(|trouble| match trouble {
                    Trouble::Reading(error) => self.reading(&error),
                    Trouble::Writing(error) => Failure::output(&error),
                })?;
                next = end;
            }
        }
        self.file = Some((file, next));
        Ok(())
    }

    fn look(&mut self) -> Result<(), Failure> {
        let there = open_regular(&self.path).and_then(|file| file.metadata());
        if let Some((file, at)) = self.file.take() {
            let held = file.metadata().map_err(|error| self.reading(&error))?;
            let at = if held.len() < at {
                eprintln_quietly(&format!(
                    "lotlog: {} was cut short: from its start again",
                    name(&self.path)
                ));
                0
            } else {
                at
            };
            if there.as_ref().is_ok_and(|there| same_file(there, &held)) {
                return self.take(file, at);
            }
            self.file = Some((file, at));
        }
        self.move_on()
    }

    /// Goes on where the file in `lots/` is not the one held: that was renamed or removed, and there may have been others
    /// in its place since.
    fn move_on(&mut self) -> Result<(), Failure> {
        let shelf = match shelf::open(&self.data_dir, &self.stem) {
            Ok(shelf) => shelf,
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => return Ok(()),
            Err(error) => return Err(self.reading(&error)),
        };
        // What was added before a rename is still read from the old file, then the new ones from their start.
        let mut begins = None;
        if let Some((file, at)) = self.file.take() {
            self.take(file, at)?;
            if let Some((file, _)) = &mut self.file {
                let first = file.seek(SeekFrom::Start(0)).and_then(|_| first_line(file));
                begins = Some(first.map_err(|error| Failure::reading(&self.path, &error))?);
            }
        }
        let seen = self.seen;
        for number in shelf.archived.iter().copied().filter(|number| *number > seen) {
            // None of what is held may be waited for any more: it is in the archive, or was renamed before that.
            self.file = None;
            self.seen = number;
            self.print_archived(&shelf, number, begins.as_deref())?;
        }
        match shelf.live {
            Some(new) => self.take(new, 0),
            // Between a rename and the new file: the old one may still grow, and nothing is lost by waiting.
            None => Ok(()),
        }
    }

    /// Prints an archived file, if it is not the one that begins with `held`: that was printed while it was in `lots/`.
    fn print_archived(&self, shelf: &Shelf, number: u64, held: Option<&[u8]>) -> Result<(), Failure> {
        let open =
            || shelf.archived(number).map_err(|error| Failure::reading(&shelf.path_of(number), &error));
        let Some(archived) = open()? else { return Ok(()) };
        let first = first_line(archived.content).map_err(|error| Failure::reading(&archived.path, &error))?;
        if held == Some(&first[..]) {
            return Ok(());
        }
        let Some(mut archived) = open()? else { return Ok(()) };
        copy(&mut archived.content, u64::MAX, &mut io::stdout().lock())
            .map_err(|trouble| trouble.at(&archived.path))
    }
}

fn same_file(a: &Metadata, b: &Metadata) -> bool {
    (a.dev(), a.ino()) == (b.dev(), b.ino())
}

fn name(path: &Path) -> String {
    path.display().to_string()
}
