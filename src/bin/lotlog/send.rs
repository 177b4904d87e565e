//! `lotlog send`: items become batches of one session, so that a broken connection or a daemon's restart
//! neither loses nor doubles one.
//!
//! A line that is no item is refused by its number, the others are sent, and the exit code is 65. A batch
//! that the daemon refuses for one of its items is sent again without that item, in its place.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};

use lotlog::batch::Durability;
use lotlog::client::Refused;
use lotlog::session::{Session, SessionOptions, Settled};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::Daemon;
use crate::failure::Failure;
use crate::items::{Format, Item, Items};
use crate::summary::{Summary, eprintln_quietly};
use crate::{json, requests, spool};

/// A batch is closed before its items exceed this, in bytes: far below the daemon's 16 MiB for a request.
const MAX_BATCH_BYTES: usize = 4 << 20;
/// Items in a batch, at most: the daemon's default limit.
const MAX_BATCH_ITEMS: u64 = 100_000;

/// Send items (CSV, JSONL) or ready request lines to the daemon.
///
/// CSV: a header and one item a row; an empty cell is a missing value; cells of numeric fields become numbers
/// in the record, every other stays text. JSONL: one JSON object a line, passed on as it is. Exit code 0 only
/// if every line was stored.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The input [default: standard input, as `-`]
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    /// Lot of the items [default: the context's lot_id, else the lot `unassigned`]
    #[arg(long, value_name = "ID", conflicts_with = "requests")]
    lot: Option<String>,
    /// A value of the context; JSON where it is JSON (1.25, true, {"sims":100}), else text. May be given again
    #[arg(long, value_name = "KEY=VALUE", conflicts_with = "requests")]
    context: Vec<String>,
    /// A file with the context, one JSON object; --context and --lot go before it
    #[arg(long, value_name = "FILE", conflicts_with = "requests")]
    context_json: Option<PathBuf>,
    /// Items in a batch, at most (a batch is also closed at 4 MiB)
    #[arg(long, value_name = "N", default_value_t = 500, conflicts_with = "requests",
          value_parser = clap::value_parser!(u64).range(1..=MAX_BATCH_ITEMS))]
    batch_size: u64,
    /// What an acknowledgement promises: synced or written [default: the daemon's setting]
    #[arg(long, conflicts_with = "requests")]
    ack: Option<Durability>,
    /// How the items are written [default: by the file's name, else by the first byte]
    #[arg(long, conflicts_with = "requests")]
    format: Option<Format>,
    /// Session name, to go on where an earlier run with the same input and options gave up [default: a new UUID]
    #[arg(long, value_name = "NAME", conflicts_with = "requests")]
    session: Option<String>,
    /// The input is request lines of the protocol, each sent as it is; those with session and seq are sent
    /// again after a broken connection, the others are then reported as unknown
    #[arg(long)]
    requests: bool,
    /// Deliver what a client has spooled in this directory while the daemon was away, in order and once
    #[arg(long, value_name = "DIR", conflicts_with_all = ["file", "lot", "context", "context_json", "batch_size", "ack", "format", "session", "requests"])]
    spool: Option<PathBuf>,
    /// Summary as one JSON object on standard output
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    daemon: Daemon,
}

pub fn run(args: Args) -> Result<(), Failure> {
    if let Some(dir) = &args.spool {
        return spool::run(dir, &args.daemon, args.json);
    }
    if args.requests {
        return requests::run(args.file.as_deref(), &args.daemon, args.json);
    }
    let head = head(&args)?;
    let items = Items::open(args.file.as_deref(), args.format)?;
    let resume = args.session.is_some();
    let name = args.session.clone().unwrap_or_else(|| uuid::Uuid::new_v4().to_string());
    let options = SessionOptions { timeout: args.daemon.timeout, resume, ..SessionOptions::default() };
    let session = Session::open(&args.daemon.socket()?, &name, options)?;
    tell_if_interrupted(&name)?;
    let mut summary = Summary::new(items.input());
    summary.set_session(&name);
    let mut sender = Sender { session, summary, head, sent: VecDeque::new() };
    let stopped = sender.send_all(items, args.batch_size).err();
    let Sender { session, mut summary, sent, .. } = sender;
    summary.set_connection(session.reconnects(), session.forgotten());
    if let Some(failure) = &stopped {
        let fates = session.may_be_stored().chain(std::iter::repeat(false));
        let sent: Vec<(bool, &Chunk)> = fates.zip(&sent).collect();
        for alike in sent.chunk_by(|a, b| a.0 == b.0) {
            let lines = alike.first().zip(alike.last());
            let Some(((unknown, first), (_, last))) = lines else { continue };
            let tell = if *unknown { Summary::unknown } else { Summary::unsent };
            tell(&mut summary, first.first_line(), last.last_line(), &failure.message);
        }
    }
    summary.close(args.json, stopped)
}

/// A signal ends this process as ever; but first it says how to go on, because nobody else knows the session.
fn tell_if_interrupted(session: &str) -> Result<(), Failure> {
    let text = format!(
        "lotlog: interrupted: what was not answered is of unknown fate; to go on without doubling anything, run the same \
         command with the same input and --session {session}"
    );
    let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM, SIGHUP])
        .map_err(|error| Failure::io(format!("cannot wait for signals: {error}")))?;
    std::thread::spawn(move || {
        if let Some(signal) = signals.forever().next() {
            eprintln_quietly(&text);
            let _ = signal_hook::low_level::emulate_default_handler(signal);
        }
    });
    Ok(())
}

/// The items of one batch in flight.
struct Chunk {
    batch: u64,
    items: Vec<Item>,
    bytes: usize,
}

impl Chunk {
    fn of(items: Vec<Item>) -> Chunk {
        Chunk { batch: 0, bytes: items.iter().map(|item| item.text.len() + 1).sum(), items }
    }

    fn first_line(&self) -> u64 {
        self.items.first().map_or(0, |item| item.line)
    }

    fn last_line(&self) -> u64 {
        self.items.last().map_or(0, |item| item.line)
    }
}

struct Sender {
    session: Session,
    summary: Summary,
    /// The request up to its items.
    head: String,
    /// What was submitted and is not settled, in the session's order.
    sent: VecDeque<Chunk>,
}

impl Sender {
    fn send_all(&mut self, mut items: Items, batch_size: u64) -> Result<(), Failure> {
        self.check_context()?;
        let mut chunk = Chunk::of(Vec::new());
        while let Some(next) = items.next()? {
            match next {
                Err(refusal) => {
                    self.summary.refused(refusal.first_line, refusal.last_line, 1, &refusal.why);
                }
                Ok(item) => {
                    if !chunk.items.is_empty() && chunk.bytes + item.text.len() > MAX_BATCH_BYTES {
                        self.submit(std::mem::replace(&mut chunk, Chunk::of(Vec::new())))?;
                    }
                    chunk.bytes += item.text.len() + 1;
                    chunk.items.push(item);
                    if chunk.items.len() as u64 >= batch_size {
                        self.submit(std::mem::replace(&mut chunk, Chunk::of(Vec::new())))?;
                        self.summary.at(items.input());
                    }
                }
            }
        }
        if !chunk.items.is_empty() {
            self.submit(chunk)?;
        }
        while let Some(settled) = self.session.next_settled()? {
            self.settle(settled)?;
        }
        Ok(())
    }

    /// An empty batch stores nothing and uses no number: it shows whether the context is good before any
    /// item is sent.
    fn check_context(&mut self) -> Result<(), Failure> {
        self.session.submit(&self.request(&[]))?;
        match self.session.next_settled()? {
            Some(Settled { result: Err(refused), .. }) => {
                Err(Failure::data(format!("the context was refused, so nothing was sent: {refused}")))
            }
            _ => Ok(()),
        }
    }

    fn request(&self, items: &[Item]) -> String {
        let mut text = String::with_capacity(
            self.head.len() + items.iter().map(|item| item.text.len() + 1).sum::<usize>() + 2,
        );
        text.push_str(&self.head);
        for (at, item) in items.iter().enumerate() {
            if at > 0 {
                text.push(',');
            }
            text.push_str(&item.text);
        }
        text.push_str("]}");
        text
    }

    fn submit(&mut self, mut chunk: Chunk) -> Result<(), Failure> {
        while self.session.is_full() {
            if let Some(settled) = self.session.next_settled()? {
                self.settle(settled)?;
            }
        }
        let submitted = self.session.submit(&self.request(&chunk.items));
        chunk.batch = *submitted.as_ref().unwrap_or(&0);
        self.summary.sent(chunk.last_line());
        // Also where the session has just ended: it may have gone out.
        self.sent.push_back(chunk);
        submitted?;
        Ok(())
    }

    fn settle(&mut self, settled: Settled) -> Result<(), Failure> {
        let Some(chunk) = self.sent.pop_front().filter(|chunk| chunk.batch == settled.batch) else {
            return Err(Failure::io("batches were settled out of order: this is a defect of lotlog"));
        };
        match settled.result {
            Ok(reply) => {
                self.summary.stored(&reply, chunk.items.len() as u64, chunk.last_line());
                Ok(())
            }
            Err(refused) => self.retry_without_the_culprit(chunk, &refused),
        }
    }

    /// What remains of a refused batch goes again, in its place; only a culprit is refused for good.
    fn retry_without_the_culprit(&mut self, chunk: Chunk, refused: &Refused) -> Result<(), Failure> {
        let (first, last, count) = (chunk.first_line(), chunk.last_line(), chunk.items.len());
        let about_items = matches!(refused.code.as_str(), "invalid_json" | "invalid_request" | "too_large");
        let mut items = chunk.items;
        let remains: Vec<Vec<Item>> = match item_named(&refused.message).filter(|at| *at < count) {
            _ if !about_items || count == 1 => {
                self.summary.refused(first, last, count as u64, &refused.to_string());
                return Ok(());
            }
            Some(culprit) => {
                let line = items.remove(culprit).line;
                self.summary.refused(line, line, 1, &refused.to_string());
                vec![items]
            }
            None => {
                let second = items.split_off(count / 2);
                vec![items, second]
            }
        };
        let requests: Vec<String> = remains.iter().map(|items| self.request(items)).collect();
        let first_batch = self.session.replace_refused(&requests)?;
        for (at, items) in remains.into_iter().enumerate() {
            let chunk = Chunk { batch: first_batch + at as u64, ..Chunk::of(items) };
            self.sent.insert(at, chunk);
        }
        Ok(())
    }
}

/// The index in the path `items[3]` that a message names.
fn item_named(message: &str) -> Option<usize> {
    let (_, rest) = message.split_once("items[")?;
    rest.split_once(']')?.0.parse().ok()
}

/// The request up to its items: acknowledgement and context.
fn head(args: &Args) -> Result<String, Failure> {
    let mut members = match &args.context_json {
        Some(path) => context_file(path)?,
        None => Vec::new(),
    };
    let mut set = |key: &str, value: String, from_flag: bool| {
        let key = serde_json::Value::from(key).to_string();
        match members.iter_mut().find(|(name, _, _)| *name == key) {
            Some((name, _, true)) if from_flag => {
                return Err(Failure::usage(format!("--context and --lot give {name} twice")));
            }
            Some(member) => *member = (key, value, from_flag),
            None => members.push((key, value, from_flag)),
        }
        Ok(())
    };
    for pair in &args.context {
        let Some((key, value)) = pair.split_once('=').filter(|(key, _)| !key.is_empty()) else {
            return Err(Failure::usage(format!("--context {pair}: write KEY=VALUE")));
        };
        let value = match json::value(value) {
            Ok(()) => one_line(value),
            Err(_) => serde_json::Value::from(value).to_string(),
        };
        set(key, value, true)?;
    }
    if let Some(lot) = &args.lot {
        set("lot_id", serde_json::Value::from(lot.as_str()).to_string(), true)?;
    }
    let ack = args.ack.map(|ack| format!(r#""ack":"{ack}","#)).unwrap_or_default();
    let context =
        members.iter().map(|(key, value, _)| format!("{key}:{value}")).collect::<Vec<_>>().join(",");
    Ok(format!(r#"{{{ack}"context":{{{context}}},"items":["#))
}

type Member = (String, String, bool);

fn context_file(path: &Path) -> Result<Vec<Member>, Failure> {
    let text = std::fs::read(path).map_err(|error| Failure::reading(path, &error))?;
    let fault = |why: String| Failure::data(format!("{}: nothing was sent: {why}", path.display()));
    let text = String::from_utf8(text).map_err(|_| fault("not UTF-8".into()))?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let mut members = Vec::new();
    json::object(text, |key, value| members.push((key.to_owned(), one_line(&text[value]), false)))
        .map_err(|why| fault(why.to_string()))?;
    Ok(members)
}

/// Newlines of valid JSON stand only between its tokens: a blank does as well.
fn one_line(json: &str) -> String {
    json.replace(['\n', '\r'], " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_item_of_a_refusal_is_read_from_its_path() {
        assert_eq!(item_named("items[17].a: key given twice"), Some(17));
        assert_eq!(item_named("`items[0]` is not an object"), Some(0));
        assert_eq!(item_named("items must be an array"), None);
        assert_eq!(item_named("items[x]"), None);
    }
}
