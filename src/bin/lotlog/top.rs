//! `lotlog top`: how the daemon is doing, live. Asks `status` and looks at the lot files' sizes; the daemon does
//! nothing for it that it does not do for `lotlog status`.

use std::collections::HashMap;
use std::path::Path;
use std::time::{Duration, Instant};

use lotlog::client::Client;
use serde_json::Value;

use crate::failure::Failure;
use crate::terminal::{self, Event, Terminal};
use crate::view::{self, Disk, Lots, Sample};
use crate::{Daemon, status, units};

/// How long the daemon may take for one answer: a screen that stands still says nothing.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// More lot files than this are not looked at each time.
const MOST_LOTS: usize = 50_000;
/// So many of the busiest are kept: no screen has more rows.
const BUSIEST: usize = 200;

/// Show how the daemon is doing, live: rates, latencies, busiest lots, disk. `q` ends it.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Time between two looks (units ms, s, m)
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = interval)]
    interval: Duration,
    /// End after so many looks
    #[arg(short = 'n', long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    #[command(flatten)]
    daemon: Daemon,
}

fn interval(text: &str) -> Result<Duration, String> {
    let time = units::duration(text)?;
    if time < Duration::from_millis(100) { Err("less than 100ms".to_owned()) } else { Ok(time) }
}

pub fn run(args: &Args) -> Result<(), Failure> {
    if !terminal::is_there() {
        return Err(Failure::usage("top needs a terminal: use `lotlog status --json` in scripts"));
    }
    let socket = args.daemon.socket()?;
    let terminal = Terminal::open().map_err(|error| Failure::output(&error))?;
    let mut client = None;
    let mut known = HashMap::new();
    let mut before: Option<Sample> = None;
    let mut looks = 0;
    loop {
        let page = ask(&mut client, &socket, args.daemon.timeout.min(ANSWER_TIMEOUT));
        let now = Sample::new(page, Instant::now(), |data| (look_at_lots(data, &mut known), disk(data)));
        let next = now.taken + args.interval;
        looks += 1;
        loop {
            let (columns, rows) = terminal.size();
            let lines = view::frame(&socket, before.as_ref(), &now, columns, rows);
            terminal.show(&lines).map_err(|error| Failure::output(&error))?;
            if args.count.is_some_and(|count| looks >= count) {
                return Ok(());
            }
            match terminal.wait(next).map_err(|error| Failure::output(&error))? {
                Event::Quit => return Ok(()),
                Event::Resized => {}
                Event::Time => break,
            }
        }
        before = Some(now);
    }
}

/// The status page, over the connection that is there, or a new one.
fn ask(client: &mut Option<Client>, socket: &Path, timeout: Duration) -> Result<Value, String> {
    let mut over = match client.take() {
        Some(client) => client,
        None => Client::connect(socket, timeout).map_err(|error| error.to_string())?,
    };
    let page = status::page(&mut over).map_err(|failure| failure.message)?;
    *client = Some(over);
    serde_json::from_slice(&page).map_err(|error| error.to_string())
}

/// How the lots have grown since the last look.
fn look_at_lots(data: &Path, known: &mut HashMap<String, u64>) -> Result<Lots, String> {
    let directory = data.join("lots");
    let unreadable = |error: std::io::Error| format!("{}: {error}", directory.display());
    let mut sizes = HashMap::new();
    for entry in std::fs::read_dir(&directory).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        let Some(stem) = name.strip_suffix(".jsonl") else { continue };
        if sizes.len() == MOST_LOTS {
            return Err(format!("more than {MOST_LOTS} lots: too many to look at each time"));
        }
        // It may be renamed or removed at any time.
        if let Ok(meta) = entry.metadata() {
            sizes.insert(stem.to_owned(), meta.len());
        }
    }
    let first = known.is_empty();
    let mut lots = Lots { count: sizes.len(), written_to: 0, busiest: Vec::new() };
    for (stem, size) in &sizes {
        let before = known.get(stem).copied().unwrap_or(if first { *size } else { 0 });
        let grown = size.saturating_sub(before);
        lots.written_to += usize::from(grown > 0);
        lots.busiest.push((stem.clone(), grown, *size));
    }
    lots.busiest.sort_by(|a, b| (b.1, b.2, &a.0).cmp(&(a.1, a.2, &b.0)));
    lots.busiest.truncate(BUSIEST);
    *known = sizes;
    Ok(lots)
}

fn disk(data: &Path) -> Option<Disk> {
    let fs = rustix::fs::statvfs(data).ok()?;
    Some(Disk {
        free: fs.f_bavail.saturating_mul(fs.f_frsize),
        size: fs.f_blocks.saturating_mul(fs.f_frsize),
    })
}
