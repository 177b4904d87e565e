//! `lotlog lots`, and where the lot files are: reads DATA/lots and DATA/archive as any reader may, up to the last newline.
//! Needs no daemon where the data directory is given.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use lotlog::batch::{decode_stem, encode_stem};
use lotlog::shelf::{self, Shelf};
use serde_json::Value;

use crate::failure::Failure;
use crate::summary::eprintln_quietly;
use crate::{Daemon, hooks, status, units};

const CHUNK_BYTES: usize = 256 << 10;
/// A last record longer than this is listed without its time, in bytes.
const MAX_LAST_RECORD_BYTES: u64 = 64 << 20;

/// Where the lot files are.
#[derive(Clone, Debug, clap::Args)]
pub struct Place {
    /// The daemon's data directory [default: asked from the daemon; without one $XDG_STATE_HOME/lotlog, else
    /// ~/.local/state/lotlog]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    #[command(flatten)]
    pub daemon: Daemon,
}

impl Place {
    /// The data directory.
    pub fn data_dir(&self) -> Result<PathBuf, Failure> {
        if let Some(dir) = &self.data_dir {
            return Ok(dir.clone());
        }
        let asked = self.daemon.connect().and_then(|mut client| status::page(&mut client));
        let told = asked.as_ref().ok().and_then(|line| serde_json::from_slice::<Value>(line).ok());
        if let Some(Value::String(dir)) = told.and_then(|page| page.get("data_dir").cloned()) {
            return Ok(dir.into());
        }
        match hooks::default_data_dir().filter(|dir| dir.is_dir()) {
            Some(dir) => Ok(dir),
            None => {
                let why = asked.err().map(|failure| failure.message).unwrap_or_default();
                Err(Failure {
                    code: crate::failure::NO_DAEMON,
                    message: format!(
                        "no data directory: {why}; without a daemon say where it is with --data-dir DIR"
                    ),
                })
            }
        }
    }

    /// The files of a lot, and the path of the one in `lots/`, which need not be there.
    pub fn shelf(&self, lot: &str) -> Result<(PathBuf, Shelf), Failure> {
        if lot.is_empty() {
            return Err(Failure::usage(
                "a lot id is not empty; batches without one are in the lot `unassigned`",
            ));
        }
        let (data_dir, stem) = (self.data_dir()?, encode_stem(lot));
        let path = data_dir.join("lots").join(format!("{stem}.jsonl"));
        let shelf = shelf::open(&data_dir, &stem).map_err(|error| Failure::reading(&path, &error))?;
        Ok((path, shelf))
    }
}

/// The failure where a lot has no file.
pub fn no_such_lot(lot: &str, path: &Path) -> Failure {
    Failure::data(format!(
        "no lot `{lot}`: there is no {}, nor an archive of it; `lotlog lots` lists what there is",
        path.display()
    ))
}

/// The end of the last whole line of `file`, looking back from `end`.
pub fn whole_lines_end(file: &mut File, end: u64) -> io::Result<u64> {
    start_of_last(file, end, 0)
}

/// Where the last `lines` whole lines before `end` begin.
pub fn start_of_last(file: &mut File, mut end: u64, lines: u64) -> io::Result<u64> {
    let mut chunk = vec![0u8; CHUNK_BYTES];
    // The newline that ends the last whole line, then one for each line in front of the first.
    let mut to_find = lines.saturating_add(1);
    while end > 0 {
        let start = end.saturating_sub(CHUNK_BYTES as u64);
        let part = &mut chunk[..(end - start) as usize];
        file.seek(SeekFrom::Start(start))?;
        file.read_exact(part)?;
        for at in memchr::memrchr_iter(b'\n', part) {
            to_find -= 1;
            if to_find == 0 {
                return Ok(start + at as u64 + 1);
            }
        }
        end = start;
    }
    Ok(0)
}

/// List the lots: records, bytes, time of the last record.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// One JSON object on standard output
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: Place,
}

#[derive(serde::Serialize)]
struct Lot {
    lot: String,
    /// In both places, archived and not.
    records: u64,
    bytes: u64,
    /// Files in the archive.
    archived: u64,
    /// The last record's `timestamp`; `null` where it has none.
    last: Option<String>,
}

pub fn run(args: &Args) -> Result<(), Failure> {
    let data_dir = args.place.data_dir()?;
    let dir = data_dir.join("lots");
    let stems = match shelf::stems(&data_dir) {
        Ok(stems) => stems,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let message = format!("{} is no data directory of lotlogd: it has no lots/", data_dir.display());
            return Err(Failure::data(message));
        }
        Err(error) => return Err(Failure::reading(&dir, &error)),
    };
    let (mut lots, mut passed_over) = (Vec::new(), 0u64);
    for stem in stems {
        let (Some(id), path) = (decode_stem(&stem), dir.join(format!("{stem}.jsonl"))) else { continue };
        match shelf::open(&data_dir, &stem).and_then(|shelf| survey(id, shelf)) {
            Ok(lot) => lots.extend(lot),
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                passed_over += 1;
                eprintln_quietly(&format!("lotlog: passed over: {}: {error}", path.display()));
            }
            Err(error) => return Err(Failure::reading(&path, &error)),
        }
    }
    lots.sort_by(|a, b| a.lot.cmp(&b.lot));
    let text = if args.json {
        serde_json::json!({ "data_dir": data_dir, "lots": lots }).to_string() + "\n"
    } else {
        table(&lots)
    };
    std::io::stdout().write_all(text.as_bytes()).map_err(|error| Failure::output(&error))?;
    match passed_over {
        0 => Ok(()),
        _ => Err(Failure::data(format!(
            "{} lots are not in the list, see above: `lotlog verify` says what is wrong with them",
            units::count(passed_over)
        ))),
    }
}

/// Reads all of a lot; `None` where it has no file, like an archive that retention has emptied.
fn survey(lot: String, mut shelf: Shelf) -> io::Result<Option<Lot>> {
    if shelf.is_empty() {
        return Ok(None);
    }
    let mut all = Lot { lot, records: 0, bytes: 0, archived: 0, last: None };
    for number in std::mem::take(&mut shelf.archived) {
        if let Some(mut archived) = shelf.archived(number)? {
            all.archived += 1;
            add(&mut all, &mut archived.content)?;
        }
    }
    if let Some(mut live) = shelf.live {
        add(&mut all, &mut live)?;
    }
    Ok(Some(all))
}

/// Adds the whole lines of one of a lot's files.
fn add(lot: &mut Lot, file: &mut impl Read) -> io::Result<()> {
    let mut chunk = vec![0u8; CHUNK_BYTES];
    // The line that is not ended yet, and the last one that is.
    let (mut open, mut last, mut open_bytes) = (Vec::new(), Vec::new(), 0u64);
    loop {
        let count = match file.read(&mut chunk) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let mut rest = &chunk[..count];
        if let Some(end) = memchr::memrchr(b'\n', rest) {
            lot.records += memchr::memchr_iter(b'\n', rest).count() as u64;
            lot.bytes += open_bytes + end as u64 + 1;
            open_bytes = 0;
            match memchr::memrchr(b'\n', &rest[..end]) {
                Some(before) => last = rest[before + 1..end].to_vec(),
                None => {
                    last = std::mem::take(&mut open);
                    last.extend_from_slice(&rest[..end]);
                }
            }
            open.clear();
            rest = &rest[end + 1..];
        }
        open_bytes += rest.len() as u64;
        if open.len() as u64 <= MAX_LAST_RECORD_BYTES {
            open.extend_from_slice(rest);
        }
    }
    if !last.is_empty() {
        let record: Option<Value> = serde_json::from_slice(&last).ok();
        lot.last = record.and_then(|record| record.get("timestamp")?.as_str().map(str::to_owned));
    }
    Ok(())
}

fn table(lots: &[Lot]) -> String {
    // An id may hold anything, line breaks too: what would break the table is shown escaped.
    let shown = |lot: &Lot| {
        if lot.lot.chars().any(char::is_control) { format!("{:?}", lot.lot) } else { lot.lot.clone() }
    };
    let width = lots.iter().map(|lot| shown(lot).chars().count()).max().unwrap_or(0).max(3);
    let mut text =
        format!("{:width$}  {:>12}  {:>10}  {:>8}  LAST RECORD\n", "LOT", "RECORDS", "BYTES", "ARCHIVED");
    for lot in lots {
        let last = lot.last.as_deref().unwrap_or("-");
        let (records, bytes) = (units::count(lot.records), units::bytes(lot.bytes));
        let archived = units::count(lot.archived);
        text += &format!("{:width$}  {records:>12}  {bytes:>10}  {archived:>8}  {last}\n", shown(lot));
    }
    text
}
