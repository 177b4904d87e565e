//! The daemon's own log on stderr, through tracing: one line an event, repeated ones held back and counted.
//! A thread of its own writes the lines, so that nobody waits for a slow reader of stderr.
//! Never a producer's data: events carry lots, codes, counts and paths.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::{self, IsTerminal as _, Write as _};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::callsite::Identifier;
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Metadata};
use tracing_subscriber::Layer as _;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::{Context, Filter, SubscriberExt as _};
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::config::{Level, LogFormat};

/// So many events of one kind are shown in each [`WINDOW`]; the rest is counted.
const SHOWN: u32 = 10;
/// See [`SHOWN`].
const WINDOW: Duration = Duration::from_secs(10);
/// Lines that wait for the reader of stderr; further ones are counted and lost.
const WAITING_LINES: usize = 1024;
/// How long the end of the process waits for the reader of stderr.
const LAST_LINES: Duration = Duration::from_secs(1);
/// Most bytes of an event's text in the note on those that were held back.
const SAMPLE_BYTES: usize = 120;
/// The limiter's own words, which it lets through.
const OWN_WORDS: &str = "lotlogd::held_back";

/// The running log: its level can be changed.
pub struct OwnLog {
    level: reload::Handle<LevelFilter, tracing_subscriber::Registry>,
    limiter: Arc<Limiter>,
    lines: Lines,
}

fn filter_of(level: Level) -> LevelFilter {
    match level {
        Level::Error => LevelFilter::ERROR,
        Level::Warn => LevelFilter::WARN,
        Level::Info => LevelFilter::INFO,
        Level::Debug => LevelFilter::DEBUG,
        Level::Trace => LevelFilter::TRACE,
    }
}

/// Starts the log. Once per process.
///
/// # Errors
/// When the system refuses a thread.
pub fn start(format: LogFormat, level: Level) -> io::Result<OwnLog> {
    let (level, handle) = reload::Layer::new(filter_of(level));
    let limiter = Arc::new(Limiter::default());
    // journald has its own clock, and takes the level from a prefix.
    let journald = format == LogFormat::Auto && stderr_is_journald();
    let terminal = io::stderr().is_terminal();
    let (sender, receiver) = sync_channel(WAITING_LINES);
    let lines = Lines { sender, lost: Arc::default(), priorities: journald };
    let layer = tracing_subscriber::fmt::layer()
        .with_writer(lines.clone())
        .with_target(false)
        .with_ansi(terminal && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty()));
    let layer = match format {
        LogFormat::Json => layer.json().flatten_event(true).boxed(),
        LogFormat::Auto if journald => layer.without_time().with_level(false).boxed(),
        LogFormat::Auto if terminal => layer.without_time().boxed(),
        LogFormat::Auto | LogFormat::Text => layer.boxed(),
    };
    let layer = layer.with_filter(Limited(limiter.clone(), lines.clone()));
    let (counts, lost) = (limiter.clone(), lines.lost.clone());
    std::thread::Builder::new().name("ownlog".to_owned()).spawn(move || write(&receiver, &counts, &lost))?;
    tracing_subscriber::registry().with(level).with(layer).init();
    Ok(OwnLog { level: handle, limiter, lines })
}

/// Whether stderr itself is a stream of journald's, and not only that of an ancestor.
fn stderr_is_journald() -> bool {
    let stream = std::env::var("JOURNAL_STREAM").unwrap_or_default();
    let Ok(stat) = rustix::fs::fstat(io::stderr()) else { return false };
    stream == format!("{}:{}", stat.st_dev, stat.st_ino)
}

impl OwnLog {
    /// Changes the level.
    pub fn set_level(&self, level: Level) {
        // Fails only when the subscriber is gone, with the process.
        let _ = self.level.modify(|filter| *filter = filter_of(level));
    }

    /// Says what was held back and not yet told, and waits a moment for the last lines; before the process ends.
    pub fn finish(&self) {
        say(self.limiter.take_held(None));
        let deadline = Instant::now() + LAST_LINES;
        let (written, told) = sync_channel(1);
        let mut last = Line::Last(written);
        while let Err(refused) = self.lines.sender.try_send(last) {
            let std::sync::mpsc::TrySendError::Full(again) = refused else { return };
            if Instant::now() >= deadline {
                return;
            }
            last = again;
            std::thread::sleep(Duration::from_millis(5));
        }
        // Nobody reads stderr: the process ends all the same.
        let _ = told.recv_timeout(deadline.saturating_duration_since(Instant::now()));
    }
}

/// What the writing thread is handed.
#[derive(Debug)]
enum Line {
    /// A line to write.
    Text(Vec<u8>),
    /// Something is held back: look when to tell of it.
    Held,
    /// Answer when everything before is written.
    Last(SyncSender<()>),
}

/// The way to the writing thread.
#[derive(Clone, Debug)]
struct Lines {
    sender: SyncSender<Line>,
    lost: Arc<AtomicU64>,
    /// Whether lines begin with syslog's number of their level.
    priorities: bool,
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = OneLine<'a>;

    fn make_writer(&'a self) -> OneLine<'a> {
        OneLine { lines: self, prefix: "" }
    }

    fn make_writer_for(&'a self, metadata: &Metadata<'_>) -> OneLine<'a> {
        let prefix = match *metadata.level() {
            _ if !self.priorities => "",
            tracing::Level::ERROR => "<3>",
            tracing::Level::WARN => "<4>",
            tracing::Level::INFO => "<6>",
            _ => "<7>",
        };
        OneLine { lines: self, prefix }
    }
}

/// Takes one event's line, which comes in one call.
struct OneLine<'a> {
    lines: &'a Lines,
    prefix: &'static str,
}

impl io::Write for OneLine<'_> {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        let line = [self.prefix.as_bytes(), text].concat();
        if self.lines.sender.try_send(Line::Text(line)).is_err() {
            self.lines.lost.fetch_add(1, Relaxed);
        }
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The writing thread. Asleep while there is nothing to write and nothing held back.
fn write(lines: &Receiver<Line>, limiter: &Limiter, lost: &AtomicU64) {
    loop {
        let line = match limiter.next_due() {
            None => lines.recv().map_err(RecvTimeoutError::from),
            Some(due) => lines.recv_timeout(due.saturating_duration_since(Instant::now())),
        };
        match line {
            // A stderr that is gone is nothing to die of.
            Ok(Line::Text(text)) => drop(io::stderr().write_all(&text)),
            Ok(Line::Held) => {}
            Ok(Line::Last(written)) => drop(written.try_send(())),
            Err(RecvTimeoutError::Timeout) => say(limiter.take_held(Some(Instant::now()))),
            Err(RecvTimeoutError::Disconnected) => return,
        }
        let lines = lost.swap(0, Relaxed);
        if lines > 0 {
            tracing::warn!(target: OWN_WORDS, lines, "lines of this log were lost: stderr was read too slowly");
        }
    }
}

/// Tells of events that were held back, as seriously as they were.
fn say(held: Vec<Held>) {
    for Held { sample, count, level } in held {
        if level <= tracing::Level::WARN {
            tracing::warn!(target: OWN_WORDS, count, like = sample, "similar events were held back");
        } else {
            tracing::info!(target: OWN_WORDS, count, like = sample, "similar events were held back");
        }
    }
}

/// Events that were not shown.
#[derive(Debug, PartialEq)]
struct Held {
    /// The text of the first event from that place.
    sample: String,
    count: u64,
    level: tracing::Level,
}

#[derive(Debug)]
struct Seen {
    since: Instant,
    shown: u32,
    held: u64,
    sample: String,
    level: tracing::Level,
}

/// Whether an event is shown.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Admission {
    Shown,
    /// The first of its window that is not: from now on somebody must tell of it.
    FirstHeld,
    Held,
}

/// Counts events by their place in the program: bounded by the program's text.
#[derive(Debug, Default)]
struct Limiter(Mutex<HashMap<Identifier, Seen>>);

impl Limiter {
    fn admit(&self, metadata: &Metadata<'_>, now: Instant, sample: impl FnOnce() -> String) -> Admission {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = seen.entry(metadata.callsite()).or_insert_with(|| Seen {
            since: now,
            shown: 0,
            held: 0,
            sample: sample(),
            level: *metadata.level(),
        });
        // What is held belongs to this window until it was told.
        if seen.held == 0 && now.duration_since(seen.since) >= WINDOW {
            seen.since = now;
            seen.shown = 0;
        }
        if seen.shown < SHOWN {
            seen.shown += 1;
            return Admission::Shown;
        }
        seen.held += 1;
        if seen.held == 1 { Admission::FirstHeld } else { Admission::Held }
    }

    /// When something held back is next to be told of.
    fn next_due(&self) -> Option<Instant> {
        let seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        seen.values().filter(|s| s.held > 0).map(|s| s.since + WINDOW).min()
    }

    /// Takes what was held in windows that have ended by `now`; without it in all.
    fn take_held(&self, now: Option<Instant>) -> Vec<Held> {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let over = |s: &Seen| now.is_none_or(|now| now.duration_since(s.since) >= WINDOW);
        let held = seen.values_mut().filter(|s| s.held > 0 && over(s));
        held.map(|s| {
            let count = std::mem::take(&mut s.held);
            Held { sample: s.sample.clone(), count, level: s.level }
        })
        .collect()
    }
}

struct Limited(Arc<Limiter>, Lines);

impl<S> Filter<S> for Limited {
    fn enabled(&self, _: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        true
    }

    fn event_enabled(&self, event: &Event<'_>, _: &Context<'_, S>) -> bool {
        let metadata = event.metadata();
        // Who asks for debug wants every event.
        if metadata.target() == OWN_WORDS || *metadata.level() > tracing::Level::INFO {
            return true;
        }
        let sample = || {
            let mut sample = Sample(String::new());
            event.record(&mut sample);
            sample.0
        };
        let admission = self.0.admit(metadata, Instant::now(), sample);
        if admission == Admission::FirstHeld {
            // Where the thread is that far behind it looks again soon enough.
            let _ = self.1.sender.try_send(Line::Held);
        }
        admission == Admission::Shown
    }
}

/// The text of an event, without its fields.
struct Sample(String);

impl Visit for Sample {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        if field.name() == "message" {
            // Writing to a String cannot fail.
            let _ = write!(self.0, "{value:?}");
            self.0.truncate(self.0.floor_char_boundary(SAMPLE_BYTES));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeated_events_are_held_back_and_counted_when_their_window_ends() {
        let limiter = Limiter::default();
        let span = tracing::info_span!("x");
        // Without a subscriber a span has no metadata; the macro's callsite is what is wanted.
        let Some(metadata) = span.metadata() else {
            let collector = tracing_subscriber::registry();
            return tracing::subscriber::with_default(
                collector,
                repeated_events_are_held_back_and_counted_when_their_window_ends,
            );
        };
        let start = Instant::now();
        let admit = |now| limiter.admit(metadata, now, || "no space".to_owned());
        let held = |count| vec![Held { sample: "no space".to_owned(), count, level: tracing::Level::INFO }];
        let all: Vec<Admission> = (0..100).map(|_| admit(start)).collect();
        assert_eq!(all.iter().filter(|a| **a == Admission::Shown).count() as u32, SHOWN);
        assert_eq!(all.iter().filter(|a| **a == Admission::FirstHeld).count(), 1);
        assert_eq!(limiter.next_due(), Some(start + WINDOW));
        assert_eq!(limiter.take_held(Some(start)), vec![], "the window has not ended");
        assert_eq!(admit(start + WINDOW), Admission::Held, "not before it was told of");
        assert_eq!(limiter.take_held(Some(start + WINDOW)), held(101 - u64::from(SHOWN)));
        assert_eq!((limiter.next_due(), limiter.take_held(None)), (None, vec![]));
        assert_eq!(admit(start + WINDOW), Admission::Shown);
        for _ in 0..SHOWN {
            admit(start + WINDOW);
        }
        assert_eq!(limiter.take_held(None), held(1), "at the end all is told");
    }
}
