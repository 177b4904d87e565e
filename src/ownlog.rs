//! The daemon's own log on stderr, through tracing: one line an event, repeated ones held back and counted.
//! Never a producer's data: events carry lots, codes, counts and paths.

use std::collections::HashMap;
use std::io::IsTerminal as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::callsite::Identifier;
use tracing::level_filters::LevelFilter;
use tracing::{Event, Metadata};
use tracing_subscriber::Layer as _;
use tracing_subscriber::layer::{Context, Filter, SubscriberExt as _};
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::config::{Level, LogFormat};

/// So many events of one kind are shown in each [`WINDOW`]; the rest is counted.
const SHOWN: u32 = 10;
/// See [`SHOWN`].
const WINDOW: Duration = Duration::from_secs(10);

/// The running log: its level can be changed.
pub struct OwnLog {
    level: reload::Handle<LevelFilter, tracing_subscriber::Registry>,
    limiter: Arc<Limiter>,
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
pub fn start(format: LogFormat, level: Level) -> OwnLog {
    let (level, handle) = reload::Layer::new(filter_of(level));
    let limiter = Arc::new(Limiter::default());
    // journald has its own clock.
    let under_journald = std::env::var_os("JOURNAL_STREAM").is_some();
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_target(false)
        .with_ansi(std::io::stderr().is_terminal());
    let lines = match format {
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
        _ if under_journald || std::io::stderr().is_terminal() => lines.without_time().boxed(),
        _ => lines.boxed(),
    };
    let lines = lines.with_filter(Limited(limiter.clone()));
    tracing_subscriber::registry().with(level).with(lines).init();
    OwnLog { level: handle, limiter }
}

impl OwnLog {
    /// Changes the level.
    pub fn set_level(&self, level: Level) {
        // Fails only when the subscriber is gone, with the process.
        let _ = self.level.modify(|filter| *filter = filter_of(level));
    }

    /// Says what was held back and not yet told; before the process ends.
    pub fn finish(&self) {
        for (message, held) in self.limiter.take_held() {
            tracing::info!(event = message, count = held, "similar events were held back");
        }
    }
}

#[derive(Debug)]
struct Seen {
    since: Instant,
    shown: u32,
    held: u64,
    place: String,
}

/// Counts events by their place in the program.
#[derive(Debug, Default)]
struct Limiter(Mutex<HashMap<Identifier, Seen>>);

impl Limiter {
    /// Whether to show an event now, and how many before it were held back.
    fn admit(&self, metadata: &Metadata<'_>, now: Instant) -> (bool, u64) {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let place = || format!("{}:{}", metadata.file().unwrap_or("?"), metadata.line().unwrap_or(0));
        let seen = seen.entry(metadata.callsite()).or_insert_with(|| Seen {
            since: now,
            shown: 0,
            held: 0,
            place: place(),
        });
        let mut told = 0;
        if now.duration_since(seen.since) >= WINDOW {
            told = std::mem::take(&mut seen.held);
            seen.since = now;
            seen.shown = 0;
        }
        if seen.shown < SHOWN {
            seen.shown += 1;
            return (true, told);
        }
        seen.held += 1;
        (false, told)
    }

    fn take_held(&self) -> Vec<(String, u64)> {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let held = seen.values_mut().filter(|s| s.held > 0);
        held.map(|s| (s.place.clone(), std::mem::take(&mut s.held))).collect()
    }
}

struct Limited(Arc<Limiter>);

impl<S> Filter<S> for Limited {
    fn enabled(&self, _: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        true
    }

    fn event_enabled(&self, event: &Event<'_>, _: &Context<'_, S>) -> bool {
        let (shown, held) = self.0.admit(event.metadata(), Instant::now());
        if held > 0 {
            tracing::info!(count = held, "events like the next one were held back");
        }
        shown
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeated_events_are_held_back_and_counted() {
        let limiter = Limiter::default();
        let span = tracing::info_span!("x");
        let metadata = span.metadata();
        // Without a subscriber a span has no metadata; the macro's callsite is what is wanted.
        let Some(metadata) = metadata else {
            let collector = tracing_subscriber::registry();
            return tracing::subscriber::with_default(collector, repeated_events_are_held_back_and_counted);
        };
        let start = Instant::now();
        let shown = (0..100).filter(|_| limiter.admit(metadata, start).0).count();
        assert_eq!(shown as u32, SHOWN);
        assert_eq!(limiter.admit(metadata, start + WINDOW), (true, 100 - u64::from(SHOWN)));
        assert_eq!(limiter.admit(metadata, start + WINDOW), (true, 0));
        assert!(limiter.take_held().is_empty());
    }
}
