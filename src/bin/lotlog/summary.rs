//! What a `send` has done so far: counts, refused lines as they come, the progress bar, and the closing
//! summary for people or machines.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use lotlog::client::Reply;

use crate::failure::{DATA, Failure};
use crate::input::Input;
use crate::units;

/// Refused lines listed in the summary for machines, at most; all are counted, and all go to standard error.
const MAX_LISTED: usize = 1000;

/// A range of input lines that was not stored.
#[derive(serde::Serialize)]
struct NotStored {
    first_line: u64,
    last_line: u64,
    reason: String,
}

/// What was done so far.
pub struct Summary {
    name: String,
    started: Instant,
    bar: Option<ProgressBar>,
    batches: u64,
    records: u64,
    duplicates: u64,
    dropped: BTreeMap<String, u64>,
    overridden: BTreeMap<String, u64>,
    refused_items: u64,
    refused: Vec<NotStored>,
    unknown: Vec<NotStored>,
    unsent: Vec<NotStored>,
    reconnects: u64,
    forgotten: u64,
    session: Option<String>,
    /// The last line of the input whose every predecessor was settled.
    settled_line: u64,
    /// The last line that was sent.
    sent_line: u64,
}

impl Summary {
    pub fn new(input: &Input) -> Summary {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = match input.total_bytes() {
                Some(total) => ProgressBar::new(total).with_style(
                    ProgressStyle::with_template(
                        "{bar:30} {bytes}/{total_bytes} {msg} {elapsed} (about {eta} to go)",
                    )
                    .unwrap_or_else(|_| ProgressStyle::default_bar()),
                ),
                None => ProgressBar::new_spinner(),
            };
            bar.enable_steady_tick(Duration::from_millis(200));
            bar
        });
        Summary {
            name: input.name().to_owned(),
            started: Instant::now(),
            bar,
            batches: 0,
            records: 0,
            duplicates: 0,
            dropped: BTreeMap::new(),
            overridden: BTreeMap::new(),
            refused_items: 0,
            refused: Vec::new(),
            unknown: Vec::new(),
            unsent: Vec::new(),
            reconnects: 0,
            forgotten: 0,
            session: None,
            settled_line: 0,
            sent_line: 0,
        }
    }

    pub fn set_session(&mut self, name: &str) {
        self.session = Some(name.to_owned());
    }

    pub fn set_connection(&mut self, reconnects: u64, forgotten: u64) {
        self.reconnects = reconnects;
        self.forgotten = forgotten;
    }

    /// Moves the progress bar.
    pub fn at(&self, input: &Input) {
        if let Some(bar) = &self.bar {
            bar.set_position(input.bytes_read());
            bar.set_message(format!("{} records", units::count(self.records)));
        }
    }

    /// Everything up to this line was sent or refused.
    pub fn sent(&mut self, line: u64) {
        self.sent_line = self.sent_line.max(line);
    }

    /// A batch was stored, now or before.
    pub fn stored(&mut self, reply: &Reply, items: u64, last_line: u64) {
        self.batches += 1;
        self.records += items;
        self.duplicates += u64::from(reply.duplicate);
        for (field, count) in &reply.dropped {
            *self.dropped.entry(field.clone()).or_default() += count;
        }
        for key in &reply.overridden {
            *self.overridden.entry(key.clone()).or_default() += 1;
        }
        self.settled_line = self.settled_line.max(last_line);
    }

    /// Lines that were refused, here or by the daemon.
    pub fn refused(&mut self, first_line: u64, last_line: u64, items: u64, reason: &str) {
        self.refused_items += items;
        self.settled_line = self.settled_line.max(last_line);
        let line = NotStored { first_line, last_line, reason: reason.to_owned() };
        self.say(&line, "refused, not stored");
        if self.refused.len() < MAX_LISTED {
            self.refused.push(line);
        }
    }

    /// Lines that were sent and never answered.
    pub fn unknown(&mut self, first_line: u64, last_line: u64, reason: &str) {
        let line = NotStored { first_line, last_line, reason: reason.to_owned() };
        self.say(&line, "unknown, stored or not");
        if self.unknown.len() < MAX_LISTED {
            self.unknown.push(line);
        }
    }

    /// Lines that were not stored, because the command could not go on.
    pub fn unsent(&mut self, first_line: u64, last_line: u64, reason: &str) {
        let line = NotStored { first_line, last_line, reason: reason.to_owned() };
        self.say(&line, "not stored");
        if self.unsent.len() < MAX_LISTED {
            self.unsent.push(line);
        }
    }

    fn say(&self, line: &NotStored, what: &str) {
        let NotStored { first_line, last_line, reason } = line;
        let range = if first_line == last_line {
            first_line.to_string()
        } else {
            format!("{first_line}-{last_line}")
        };
        let text = format!("lotlog: {}:{range}: {what}: {reason}", self.name);
        match &self.bar {
            Some(bar) => bar.suspend(|| eprintln_quietly(&text)),
            None => eprintln_quietly(&text),
        }
    }

    /// Says what was done, and how the command ends. `stopped` is why it could not finish.
    pub fn close(mut self, as_json: bool, stopped: Option<Failure>) -> Result<(), Failure> {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
        let seconds = self.started.elapsed().as_secs_f64();
        if as_json {
            self.print_json(seconds, stopped.as_ref())?;
        } else if stopped.is_none() || self.sent_line > 0 {
            self.print(seconds);
        }
        if let Some(mut failure) = stopped {
            if self.sent_line > 0 {
                let Summary { name, sent_line, .. } = &self;
                failure.message += &format!("; no line of {name} after {sent_line} was sent");
                if let Some(session) = self.session.as_ref().filter(|_| failure.code != DATA) {
                    failure.message += &format!(
                        "; to go on without doubling anything, run the same command with the same input and --session {session}"
                    );
                }
            }
            return Err(failure);
        }
        if self.forgotten > 0 {
            return Err(Failure::io(format!(
                "the daemon no longer knows {} batches that it acknowledged: was it started on another data directory, or did a power cut take batches that were only `written`?",
                self.forgotten
            )));
        }
        if !self.unknown.is_empty() {
            return Err(Failure::io(
                "the fate of the lines named above is unknown: look into the lot, or send with session and seq",
            ));
        }
        if self.refused_items > 0 {
            return Err(Failure { code: DATA, message: "not everything was stored, see above".into() });
        }
        Ok(())
    }

    fn print(&self, seconds: f64) {
        let rate = (self.records as f64 / seconds.max(1e-6)) as u64;
        let mut text = format!(
            "{} records in {} batches stored in {seconds:.3} s ({} records/s)",
            units::count(self.records),
            units::count(self.batches),
            units::count(rate)
        );
        let list = |counts: &BTreeMap<String, u64>| {
            counts.iter().map(|(key, count)| format!("{key} {count}")).collect::<Vec<_>>().join(", ")
        };
        if self.duplicates > 0 {
            text += &format!("\n{} of the batches had been stored before (duplicates)", self.duplicates);
        }
        if !self.dropped.is_empty() {
            text += &format!("\nvalues that could not be used, by field: {}", list(&self.dropped));
        }
        if !self.overridden.is_empty() {
            text += &format!("\nkeys that gave way to the context, by batches: {}", list(&self.overridden));
        }
        if self.refused_items > 0 {
            text += &format!("\n{} refused, not stored", units::count(self.refused_items));
        }
        if self.reconnects > 0 {
            text += &format!("\nthe connection was made anew {} times", self.reconnects);
        }
        eprintln_quietly(&text);
    }

    fn print_json(&self, seconds: f64, stopped: Option<&Failure>) -> Result<(), Failure> {
        let summary = serde_json::json!({
            "input": self.name, "session": self.session, "batches": self.batches, "records": self.records,
            "duplicates": self.duplicates, "dropped": self.dropped, "overridden": self.overridden,
            "refused_items": self.refused_items, "refused": self.refused, "unknown": self.unknown, "unsent": self.unsent,
            "reconnects": self.reconnects, "forgotten": self.forgotten, "settled_line": self.settled_line,
            "seconds": seconds, "records_per_second": self.records as f64 / seconds.max(1e-6),
            "error": stopped.map(ToString::to_string),
        });
        writeln!(std::io::stdout(), "{summary}").map_err(|error| Failure::output(&error))
    }
}

/// A line on standard error; nobody is left to tell when that is gone.
pub fn eprintln_quietly(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}
