//! The live view of `lotlog top` as lines that fit the screen. Pure: knows neither the terminal nor the daemon.

use std::path::{Path, PathBuf};
use std::time::Instant;

use serde_json::Value;

use crate::{status, units};

/// Wide enough for each value of the table.
const LABEL_COLUMNS: usize = 10;
const NUMBER_COLUMNS: usize = 16;
/// Characters of the disk's bar.
const BAR: usize = 20;

/// The lot files as one look found them.
#[derive(Debug)]
pub struct Lots {
    pub count: usize,
    /// How many have grown since the look before.
    pub written_to: usize,
    /// Stem, bytes grown, size; the busiest first.
    pub busiest: Vec<(String, u64, u64)>,
}

/// DATA's file system.
#[derive(Clone, Copy, Debug)]
pub struct Disk {
    pub free: u64,
    pub size: u64,
}

/// One look.
#[derive(Debug)]
pub struct Sample {
    pub taken: Instant,
    /// The status page, or why there is none.
    page: Result<Value, String>,
    data: PathBuf,
    lots: Result<Lots, String>,
    disk: Option<Disk>,
}

impl Sample {
    /// A page, and what is found where it says that the data is.
    pub fn new(
        page: Result<Value, String>,
        taken: Instant,
        look: impl FnOnce(&Path) -> (Result<Lots, String>, Option<Disk>),
    ) -> Sample {
        let data = page.as_ref().ok().and_then(|page| page["data_dir"].as_str()).map(PathBuf::from);
        let (lots, disk) = data.as_ref().map_or((Err("not known".to_owned()), None), |data| look(data));
        Sample { taken, page, data: data.unwrap_or_default(), lots, disk }
    }

    fn number(&self, key: &str) -> u64 {
        self.page.as_ref().ok().and_then(|page| page[key].as_u64()).unwrap_or(0)
    }

    fn is_of(&self, other: &Sample) -> bool {
        self.number("pid") == other.number("pid")
    }
}

/// What is on the screen: `now`, and rates since `before`.
pub fn frame(
    socket: &Path,
    before: Option<&Sample>,
    now: &Sample,
    columns: usize,
    rows: usize,
) -> Vec<String> {
    // Counts of another process are no measure.
    let before = before.filter(|before| before.page.is_ok() && before.is_of(now));
    let mut lines = match &now.page {
        Ok(page) => of_page(socket, before, now, page),
        Err(why) => vec![
            format!("lotlog top   {}", socket.display()),
            String::new(),
            format!("no answer: {why}"),
            "It is asked again and again; q ends this.".to_owned(),
        ],
    };
    lines.truncate(rows);
    let mut lines: Vec<String> = lines.iter().map(|line| clipped(line, columns)).collect();
    if let Some(first) = lines.first_mut() {
        *first = format!("\x1b[7m{first:columns$}\x1b[m");
    }
    lines
}

fn of_page(socket: &Path, before: Option<&Sample>, now: &Sample, page: &Value) -> Vec<String> {
    let word = |key: &str| page[key].as_str().unwrap_or("?").to_owned();
    let seconds = before.map(|before| (now.taken - before.taken).as_secs_f64());
    let rate = |key: &str| {
        let (before, seconds) = (before?, seconds?);
        Some(now.number(key).saturating_sub(before.number(key)) as f64 / seconds)
    };
    let per_second = |rate: Option<f64>, show: &dyn Fn(u64) -> String| match rate {
        Some(rate) => format!("{}/s", show(rate.round() as u64)),
        None => "-".to_owned(),
    };
    let row = |label: &str, first: String, second: String| {
        format!("{label:LABEL_COLUMNS$}{first:>NUMBER_COLUMNS$}{second:>NUMBER_COLUMNS$}")
    };
    let counted = |label: &str, key: &str, show: &dyn Fn(u64) -> String| {
        row(label, per_second(rate(key), show), show(now.number(key)))
    };
    let quantiles = |label: &str, key: &str| {
        let of = |name: &str| units::latency(page[key][name].as_f64().unwrap_or(0.0));
        let head = format!("{label:LABEL_COLUMNS$}");
        format!("{head}  p50 {:>9}  p99 {:>9}  max {:>9}", of("p50"), of("p99"), of("max"))
    };
    let state = if page["failed"] == true {
        "FAILED: the writer has stopped, the daemon exits"
    } else if page["no_space"] == true {
        "NO SPACE: batches are refused until there is room"
    } else {
        "takes batches"
    };
    let uptime = status::uptime(page["uptime_seconds"].as_f64().unwrap_or(0.0));
    let mut lines = vec![
        format!(
            "lotlog top   lotlogd {}   pid {}   up {uptime}   {}   {}",
            word("version"),
            now.number("pid"),
            word("durability"),
            socket.display()
        ),
        format!("{:LABEL_COLUMNS$}  {state}", "state"),
        row("", "now".to_owned(), "since the start".to_owned()),
        counted("records", "records", &units::count),
        counted("batches", "batches", &units::count),
        counted("written", "bytes_written", &units::bytes),
        counted("duplicates", "duplicates", &units::count),
        counted("syncs", "syncs", &units::count),
        quantiles("ack", "ack_seconds"),
        quantiles("sync", "sync_seconds"),
    ];
    let refused: Vec<String> = page["refused"]
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(_, count)| **count != 0)
        .map(|(code, count)| format!("{code} {count}"))
        .collect();
    let refused = if refused.is_empty() { "nothing".to_owned() } else { refused.join("  ") };
    lines.push(format!("{:LABEL_COLUMNS$}  {refused}", "refused"));
    lines.push(format!(
        "{:LABEL_COLUMNS$}  {} in flight over {} connections, {} batches not yet in their lot files",
        "queue",
        units::bytes(now.number("queue_bytes")),
        units::count(now.number("connections")),
        units::count(now.number("lsn").saturating_sub(now.number("synced_lsn")))
    ));
    lines.push(format!("{:LABEL_COLUMNS$}  {}", "journal", units::bytes(now.number("journal_bytes"))));
    lines.push(format!("{:LABEL_COLUMNS$}  {}", "disk", of_disk(now)));
    match &now.lots {
        Ok(lots) => {
            lines.push(format!(
                "{:LABEL_COLUMNS$}  {}, {} written to since the last look",
                "lots",
                units::count(lots.count as u64),
                units::count(lots.written_to as u64)
            ));
            lines.push(String::new());
            lines.push(format!("{:>NUMBER_COLUMNS$}{:>NUMBER_COLUMNS$}  BUSIEST LOTS", "WRITTEN", "SIZE"));
            for (stem, grown, size) in &lots.busiest {
                let grown = seconds.map(|seconds| *grown as f64 / seconds);
                let grown = per_second(grown, &units::bytes);
                lines.push(format!(
                    "{grown:>NUMBER_COLUMNS$}{:>NUMBER_COLUMNS$}  {stem}",
                    units::bytes(*size)
                ));
            }
        }
        Err(why) => lines.push(format!("{:LABEL_COLUMNS$}  {why}", "lots")),
    }
    lines
}

fn of_disk(now: &Sample) -> String {
    let Some(Disk { free, size }) = now.disk.filter(|disk| disk.size > 0) else {
        return format!("{} cannot be looked at", now.data.display());
    };
    let used = 1.0 - free as f64 / size as f64;
    let full = (used * BAR as f64).round() as usize;
    let bar = format!("{}{}", "#".repeat(full.min(BAR)), "-".repeat(BAR.saturating_sub(full)));
    format!("[{bar}] {:.0} % used, {} free  {}", used * 100.0, units::bytes(free), now.data.display())
}

/// As much of a line as fits, without what could move the cursor: file names may hold anything.
fn clipped(line: &str, columns: usize) -> String {
    line.chars().take(columns).map(|c| if c.is_control() { '?' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::time::Duration;

    fn sample(pid: u64, records: u64, at: Instant) -> Sample {
        let page = json!({"version":"0.1.0","pid":pid,"uptime_seconds":3725,"durability":"synced","records":records,
            "refused":{"no_space":2,"busy":0},"data_dir":"/d","ack_seconds":{"p50":0.0004,"p99":0.0213,"max":0.05}});
        Sample::new(Ok(page), at, |_| {
            let busiest = vec![("A".to_owned(), 4096, 10_000), ("evil\x1b[2J".to_owned(), 0, 5)];
            (Ok(Lots { count: 2, written_to: 1, busiest }), Some(Disk { free: 25, size: 100 }))
        })
    }

    fn shown(before: Option<&Sample>, now: &Sample, columns: usize, rows: usize) -> Vec<String> {
        frame(Path::new("/run/socket"), before, now, columns, rows)
    }

    #[test]
    fn rates_are_those_since_the_last_look_and_none_over_a_restart() {
        let start = Instant::now();
        let (first, second) = (sample(1, 100, start), sample(1, 1100, start + Duration::from_secs(2)));
        let lines = shown(Some(&first), &second, 100, 50);
        let line = |word: &str| lines.iter().find(|line| line.starts_with(word)).unwrap();
        assert!(line("records").contains("500/s") && line("records").contains("1,100"), "{lines:#?}");
        assert!(line("ack").contains("p99  21.30 ms"), "{lines:#?}");
        assert!(line("refused").ends_with("no_space 2"), "{lines:#?}");
        assert!(line("disk").contains("[###############-----] 75 % used"), "{lines:#?}");
        assert!(lines.iter().any(|l| l.contains("2.0 KiB/s") && l.ends_with("  A")), "{lines:#?}");
        let restarted = sample(2, 7, start + Duration::from_secs(4));
        let lines = shown(Some(&second), &restarted, 100, 50);
        assert!(!lines.iter().any(|line| line.contains("/s ")), "{lines:#?}");
    }

    #[test]
    fn a_screen_of_any_size_is_filled_and_not_left() {
        let now = sample(1, 1, Instant::now());
        for (columns, rows) in [(1, 1), (20, 5), (80, 24), (300, 100)] {
            let lines = shown(None, &now, columns, rows);
            assert!(lines.len() <= rows, "{lines:?}");
            for line in &lines[1..] {
                assert!(line.chars().count() <= columns, "{line}");
                assert!(!line.contains('\x1b'), "{line:?}");
            }
        }
        let away = Sample::new(Err("nobody listens".to_owned()), Instant::now(), |_| unreachable!());
        assert!(shown(None, &away, 80, 24).iter().any(|line| line.contains("nobody listens")));
    }
}
