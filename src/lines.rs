//! Reading lot files line by line, and saying what is wrong with them, for `lotlog verify`. Knows what lotlogd
//! writes twice in a record, and so what must agree. Changes nothing.

use std::borrow::Cow;
use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use serde::Deserialize;
use serde_json::value::RawValue;
use xxhash_rust::xxh3::Xxh3;

use crate::archive::{ARCHIVE_DIR, lot_dir};
use crate::batch::{STAMP_BYTES, encode_stem};
use crate::findings::{Finding, Report};
use crate::lots::{SEAL_SUFFIX, file_name};
use crate::seal;
use crate::shelf;

/// A step back of the clock that lotlogd follows, in microseconds; a smaller one it bridges.
const CLOCK_STEP_MICROS: i64 = 3600 * 1_000_000;
/// Batches this young are no gap while a daemon runs: lot files are read one after the other.
const GAP_REST_MICROS: i64 = 60 * 1_000_000;
/// No line of lotlogd's is longer, in bytes: an item is at most a request line.
const LINE_BYTES: u64 = 1 << 30;

/// What is in a file of a lot.
type Content = Box<dyn Read + Send>;

type Raw<'a> = Option<&'a RawValue>;

#[derive(Deserialize)]
struct Line<'a> {
    #[serde(borrow)]
    est_price_mu: Raw<'a>,
    #[serde(borrow)]
    predicted_price: Raw<'a>,
    #[serde(borrow)]
    sell_p60: Raw<'a>,
    #[serde(borrow)]
    predicted_sell_p60: Raw<'a>,
    #[serde(borrow)]
    roi_target: Raw<'a>,
    #[serde(borrow)]
    risk_threshold: Raw<'a>,
    #[serde(borrow)]
    horizon_days: Raw<'a>,
    #[serde(borrow)]
    lot_id: Raw<'a>,
    #[serde(borrow)]
    timestamp: Raw<'a>,
    #[serde(borrow)]
    context: Raw<'a>,
}

#[derive(Default, Deserialize)]
struct Context<'a> {
    #[serde(borrow)]
    roi_target: Raw<'a>,
    #[serde(borrow)]
    risk_threshold: Raw<'a>,
    #[serde(borrow)]
    horizon_days: Raw<'a>,
    #[serde(borrow)]
    lot_id: Raw<'a>,
    #[serde(borrow)]
    timestamp: Raw<'a>,
    #[serde(borrow)]
    session: Raw<'a>,
    #[serde(borrow)]
    seq: Raw<'a>,
}

fn text(raw: Raw<'_>) -> &str {
    raw.map_or("", RawValue::get)
}

fn string<'a>(raw: Raw<'a>) -> Option<Cow<'a, str>> {
    serde_json::from_str::<Cow<'a, str>>(raw?.get()).ok()
}

/// The batch that the last line belongs to.
struct Batch {
    context: String,
    key: u128,
    stamp: String,
    broken: bool,
}

/// What the files of a lot that were read so far end with.
#[derive(Default)]
struct Last {
    batch: Option<Batch>,
    /// The last number of each session.
    seq: HashMap<Box<str>, u64>,
    records: u64,
    bytes: u64,
    /// Over all that was read.
    hash: Xxh3,
}

/// Which of a lot's files is read.
#[derive(Clone, Copy)]
enum Place {
    Archive,
    /// The one that is written; the journal has the truth from there on.
    Lots {
        redo: Option<u64>,
    },
}

/// All that is remembered over all lot files.
pub struct Reading<'a> {
    data_dir: &'a Path,
    report: &'a mut Report,
    names: Vec<String>,
    /// Batches by timestamp and file, and by session and number: the file and the line where each began.
    known: HashMap<u128, (u32, u64)>,
    /// The batches of each session.
    sessions: HashMap<Box<str>, Vec<Numbered>>,
}

/// A batch by its number in its session.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Numbered {
    seq: u64,
    /// The file and the line where it begins.
    index: u32,
    line: u64,
    micros: i64,
}

fn key(parts: [&[u8]; 2]) -> u128 {
    let mut hash = Xxh3::new();
    hash.update(parts[0]);
    hash.update(b"\0");
    hash.update(parts[1]);
    hash.digest128()
}

fn micros(stamp: &str) -> Option<i64> {
    chrono::DateTime::parse_from_rfc3339(stamp).ok().map(|time| time.timestamp_micros())
}

impl<'a> Reading<'a> {
    /// Nothing read yet.
    pub fn new(data_dir: &'a Path, report: &'a mut Report) -> Reading<'a> {
        Reading { data_dir, report, names: Vec::new(), known: HashMap::new(), sessions: HashMap::new() }
    }

    /// Reads one lot: its archived files, then the one in `lots/`, of which the journal has the truth from `redo` on.
    pub fn lot(&mut self, stem: &str, redo: Option<u64>) {
        let file = format!("lots/{}", file_name(stem));
        if let Ok(meta) = self.data_dir.join(&file).symlink_metadata()
            && !meta.is_file()
        {
            let what = match (meta.is_symlink(), meta.is_dir()) {
                (true, _) => "a symbolic link".to_owned(),
                (_, true) => "a directory".to_owned(),
                _ => format!("{:?}", meta.file_type()),
            };
            self.report.find(Finding::of_file("not_a_file", file, what));
            return;
        }
        // Looked for before the lot is read: what has one does not grow any more.
        let footer = shelf::footer(self.data_dir, stem);
        let mut shelf = match shelf::open(self.data_dir, stem) {
            Ok(shelf) => shelf,
            Err(error) => return self.report.find(Finding::of_file("unreadable", file, error.to_string())),
        };
        if shelf.is_empty() {
            return;
        }
        self.report.lots += 1;
        let mut last = Last::default();
        for number in std::mem::take(&mut shelf.archived) {
            let dir = format!("{ARCHIVE_DIR}/{}", lot_dir(stem));
            match shelf.archived(number) {
                Ok(Some(archived)) => {
                    self.report.archived += 1;
                    let name = archived.path.file_name().unwrap_or_default().to_string_lossy();
                    self.one(format!("{dir}/{name}"), archived.content, stem, Place::Archive, &mut last);
                }
                Ok(None) => {}
                Err(error) => self.report.find(Finding::of_file("unreadable", dir, error.to_string())),
            }
        }
        if let Some(live) = shelf.live {
            self.one(file, Box::new(live), stem, Place::Lots { redo }, &mut last);
        }
        let file = format!("lots/{stem}{SEAL_SUFFIX}");
        match footer
            .map(|footer| footer.map(|text| seal::broken(&text, last.records, last.bytes, &last.hash)))
        {
            Ok(Some(None)) => self.report.sealed += 1,
            Ok(Some(Some(what))) => self.report.find(Finding::of_file("seal_broken", file, what)),
            Ok(None) => {}
            Err(error) => self.report.find(Finding::of_file("unreadable", file, error.to_string())),
        }
    }

    /// Reads one file of a lot.
    fn one(&mut self, name: String, file: Content, stem: &str, place: Place, last: &mut Last) {
        let index = self.names.len() as u32;
        self.names.push(name.clone());
        if let Err(error) = self.read(file, stem, index, place, last) {
            // What the system did not say, the compression's checksum did.
            let kind = if error.raw_os_error().is_some() { "unreadable" } else { "archive_damaged" };
            self.report.find(Finding::of_file(kind, name, error.to_string()));
        }
    }

    fn read(
        &mut self,
        file: Content,
        stem: &str,
        index: u32,
        place: Place,
        last: &mut Last,
    ) -> io::Result<()> {
        // What is in the archive is finished, whoever runs.
        let (running, redo) = match place {
            Place::Archive => (false, None),
            Place::Lots { redo } => (self.report.daemon_running, redo),
        };
        let mut reader = BufReader::with_capacity(1 << 20, file);
        let (mut line, mut offset, mut bytes) = (0u64, 0u64, Vec::new());
        loop {
            bytes.clear();
            let mut got = (&mut reader).take(LINE_BYTES).read_until(b'\n', &mut bytes)? as u64;
            if got == 0 {
                break;
            }
            line += 1;
            let too_long = got == LINE_BYTES && bytes.last() != Some(&b'\n');
            if too_long {
                got += reader.skip_until(b'\n')? as u64;
            }
            let in_journal = redo.is_some_and(|from| offset + got > from);
            if bytes.last() != Some(&b'\n') && !too_long {
                // An append may be in flight, or the next start completes it from the journal.
                if !running && !in_journal {
                    let what = format!("{got} bytes without an end");
                    self.report.find(Finding::at(
                        "torn_tail",
                        &*self.names[index as usize],
                        Some(line),
                        offset,
                        what,
                    ));
                }
                break;
            }
            self.report.records += 1;
            self.report.bytes += got;
            last.records += 1;
            last.bytes += got;
            last.hash.update(&bytes);
            let found = if too_long {
                Err(("not_json", format!("{got} bytes: longer than any record")))
            } else {
                self.line(&bytes, stem, index, line, last)
            };
            if let Err((kind, message)) = found
                && (running || !in_journal)
            {
                let name = &*self.names[index as usize];
                self.report.find(Finding::at(kind, name, Some(line), offset, message));
            }
            offset += got;
        }
        if line == 0 && (running || redo.is_none()) {
            let name = &*self.names[index as usize];
            self.report.find(Finding::of_file("empty_file", name, "0 bytes"));
        }
        Ok(())
    }

    /// Judges one line; what is wrong with it, if anything: its kind and a message.
    fn line(
        &mut self,
        bytes: &[u8],
        stem: &str,
        index: u32,
        line: u64,
        last: &mut Last,
    ) -> Result<(), (&'static str, String)> {
        let line_text = std::str::from_utf8(bytes).map_err(|error| ("not_json", error.to_string()))?;
        let record: Line<'_> = match serde_json::from_str(line_text) {
            Ok(record) => record,
            Err(_) if memchr::memchr(0, bytes).is_some() => {
                let first = memchr::memchr(0, bytes).unwrap_or(0);
                return Err(("nul", format!("the first at byte {first} of the line")));
            }
            Err(error) if error.is_data() && bytes.first() != Some(&b'{') => {
                return Err(("foreign_line", "no object".to_owned()));
            }
            Err(error) => return Err(("not_json", error.to_string())),
        };
        let stamp = string(record.timestamp).filter(|stamp| stamp.len() == STAMP_BYTES);
        let (Some(stamp), Some(context)) = (stamp, record.context) else {
            return Err(("foreign_line", "it has no timestamp and context of lotlogd's".to_owned()));
        };
        let (raw, context): (&str, Context<'_>) =
            (context.get(), serde_json::from_str(context.get()).unwrap_or_default());
        let pairs = [
            ("est_price_mu and predicted_price", record.est_price_mu, record.predicted_price),
            ("sell_p60 and predicted_sell_p60", record.sell_p60, record.predicted_sell_p60),
            ("roi_target and context.roi_target", record.roi_target, context.roi_target),
            ("risk_threshold and context.risk_threshold", record.risk_threshold, context.risk_threshold),
            ("horizon_days and context.horizon_days", record.horizon_days, context.horizon_days),
            ("lot_id and context.lot_id", record.lot_id, context.lot_id),
            ("timestamp and context.timestamp", record.timestamp, context.timestamp),
        ];
        let unlike = pairs.iter().find(|(_, one, other)| text(*one) != text(*other));
        let altered = unlike.map(|(which, one, other)| {
            ("altered", format!("{which}: `{}` and `{}`", short(text(*one)), short(text(*other))))
        });
        if let Some(altered) = altered.clone().filter(|_| text(record.timestamp) != text(context.timestamp)) {
            // Nobody can tell which batch it belongs to.
            return Err(altered);
        }
        let seq = context.seq.and_then(|seq| seq.get().parse::<u64>().ok());
        let named = string(context.session).zip(seq);
        let stamped = key([stem.as_bytes(), stamp.as_bytes()]);
        let this = named.as_ref().map_or(stamped, |(session, seq)| {
            !key([session.as_bytes(), &seq.to_le_bytes()]) ^ u128::from(index)
        });
        let mut order = Ok(());
        match &mut last.batch {
            Some(batch) if batch.key == this && batch.stamp == *stamp => {
                if batch.context != raw && !batch.broken {
                    batch.broken = true;
                    return Err(("altered", "the lines of one batch have different contexts".to_owned()));
                }
            }
            _ => {
                self.report.batches += 1;
                let before = last.batch.take();
                order = self.begins(&stamp, named, (stamped, index, line), before.as_ref(), &mut last.seq);
                let (context, stamp) = (raw.to_owned(), stamp.to_string());
                last.batch = Some(Batch { context, key: this, stamp, broken: false });
            }
        }
        let lot = match text(context.lot_id) {
            "" => encode_stem("unassigned"),
            id if id.starts_with('"') => encode_stem(&string(context.lot_id).unwrap_or_default()),
            id => encode_stem(id),
        };
        match altered {
            Some(altered) => Err(altered),
            None if lot != stem => Err(("wrong_lot", format!("its lot is {}", short(&lot)))),
            None => order,
        }
    }

    /// Judges the first line of a batch by what came before.
    fn begins(
        &mut self,
        stamp: &str,
        named: Option<(Cow<'_, str>, u64)>,
        (stamped, index, line): (u128, u32, u64),
        before: Option<&Batch>,
        last_seq: &mut HashMap<Box<str>, u64>,
    ) -> Result<(), (&'static str, String)> {
        match self.known.insert(stamped, (index, line)) {
            Some((other, first)) if other == index => {
                return Err(("split_batch", format!("this batch began on line {first}")));
            }
            Some((other, first)) if named.is_none() => {
                let name = &self.names[other as usize];
                return Err(("doubled", format!("the batch of {stamp} is in {name} on line {first} too")));
            }
            _ => {}
        }
        let now = micros(stamp).unwrap_or(0);
        let back = before.filter(|before| *before.stamp >= *stamp).and_then(|before| micros(&before.stamp));
        if let Some((session, seq)) = named {
            let at = self.known.insert(key([session.as_bytes(), &seq.to_le_bytes()]), (index, line));
            if let Some((other, first)) = at {
                let name = &self.names[other as usize];
                return Err((
                    "doubled",
                    format!("session {session} seq {seq} is in {name} on line {first} too"),
                ));
            }
            self.sessions.entry(session.as_ref().into()).or_default().push(Numbered {
                seq,
                index,
                line,
                micros: now,
            });
            let last = last_seq.insert(session.as_ref().into(), seq).unwrap_or(0);
            if last > seq {
                return Err((
                    "out_of_order",
                    format!("session {session}: seq {seq} stands behind seq {last}"),
                ));
            }
        }
        match back {
            Some(last) if last.saturating_sub(now) < CLOCK_STEP_MICROS => {
                Err(("out_of_order", format!("{stamp} stands behind a later timestamp")))
            }
            Some(last) => {
                let hours = last.saturating_sub(now) / CLOCK_STEP_MICROS;
                Err(("clock_step", format!("back by {hours} hours to {stamp}")))
            }
            None => Ok(()),
        }
    }

    /// After all lot files: numbers of sessions that stand nowhere. `now_micros` is the wall clock.
    pub fn gaps(&mut self, now_micros: i64) {
        if self.report.to_be_written > 0 {
            // The journal may have what is missing.
            return;
        }
        let mut names: Vec<_> = self.sessions.keys().cloned().collect();
        names.sort_unstable();
        for session in names {
            let Some(rows) = self.sessions.get_mut(&session) else { continue };
            rows.sort_unstable();
            let mut missing = Vec::new();
            for pair in rows.windows(2) {
                let (one, next) = (pair[0], pair[1]);
                let young = self.report.daemon_running && next.micros > now_micros - GAP_REST_MICROS;
                if next.seq > one.seq + 1 && !young {
                    missing.push((one.seq + 1, next.seq - 1, one.index, one.line));
                }
            }
            for (from, to, index, line) in missing {
                let which = if from == to { format!("seq {from}") } else { format!("seq {from} to {to}") };
                let message =
                    format!("session {session}: {which}, behind the batch that begins on this line");
                let name = &*self.names[index as usize];
                self.report.find(Finding::at("gap", name, Some(line), 0, message));
            }
        }
    }
}

/// At most so much of a value that it fits into a message.
fn short(text: &str) -> String {
    if text.chars().count() > 60 {
        text.chars().take(60).chain("...".chars()).collect()
    } else {
        text.to_owned()
    }
}
