//! `lotlog send --requests`: ready request lines, each sent as it is, many in flight.
//!
//! A line with a session may be sent any number of times, so after a broken connection it is sent again. One
//! without would be stored twice if its reply was all that got lost: it is reported as unknown instead.

use std::collections::VecDeque;
use std::path::Path;
use std::time::{Duration, Instant};

use lotlog::client::{Client, ClientError, Refused, Reply};

use crate::Daemon;
use crate::failure::{self, Failure};
use crate::input::{Input, Line};
use crate::json;
use crate::summary::Summary;

const MAX_IN_FLIGHT: usize = 64;
const MAX_IN_FLIGHT_BYTES: usize = 8 << 20;
const FIRST_PAUSE: Duration = Duration::from_millis(25);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

pub fn run(file: Option<&Path>, daemon: &Daemon, as_json: bool) -> Result<(), Failure> {
    let mut input = Input::open(file)?;
    let client = daemon.connect()?;
    let mut pipe = Pipe {
        path: daemon.socket()?,
        timeout: daemon.timeout,
        client: Some(client),
        send_failed: false,
        stopped_reading: false,
        summary: Summary::new(&input),
        flights: VecDeque::new(),
        flight_bytes: 0,
        again: VecDeque::new(),
        pause: FIRST_PAUSE,
        not_before: Instant::now(),
        last_progress: Instant::now(),
        last_trouble: String::new(),
        reconnects: 0,
    };
    let stopped = pipe.send_all(&mut input).err();
    if let Some(failure) = &stopped {
        pipe.report_unknown(&failure.message);
    }
    pipe.summary.set_connection(pipe.reconnects, 0);
    pipe.summary.close(as_json, stopped)
}

struct Request {
    line: u64,
    text: Vec<u8>,
    /// Its session, as JSON text.
    session: Option<String>,
    /// Whether sending it twice does no harm.
    repeatable: bool,
    /// A connection ended without its answer.
    maybe_stored: bool,
}

impl Request {
    fn new(line: u64, text: Vec<u8>) -> Request {
        let mut request = Request { line, text, session: None, repeatable: false, maybe_stored: false };
        let Ok(text) = std::str::from_utf8(&request.text) else { return request };
        let (mut session, mut has_seq, mut is_log) = (None, false, true);
        let scanned = json::object(text, |key, value| match (key, &text[value]) {
            (r#""session""#, "null") | (r#""seq""#, "null") | (r#""op""#, "null") => {}
            (r#""session""#, value) => session = Some(value.to_owned()),
            (r#""seq""#, _) => has_seq = true,
            (r#""op""#, value) => is_log = value == r#""log""#,
            _ => {}
        });
        if scanned.is_ok() {
            request.repeatable = !is_log || (session.is_some() && has_seq);
            request.session = session;
        }
        request
    }
}

struct Pipe {
    path: std::path::PathBuf,
    timeout: Duration,
    client: Option<Client>,
    send_failed: bool,
    /// The daemon's last reply said that it reads no more of this connection: what followed was not executed.
    stopped_reading: bool,
    summary: Summary,
    flights: VecDeque<Request>,
    flight_bytes: usize,
    /// To be sent again before anything new, once no reply is due any more.
    again: VecDeque<Request>,
    pause: Duration,
    not_before: Instant,
    last_progress: Instant,
    last_trouble: String,
    reconnects: u64,
}

impl Pipe {
    fn send_all(&mut self, input: &mut Input) -> Result<(), Failure> {
        loop {
            let mut text = Vec::new();
            let read = input.append_line(&mut text)?;
            let line = input.line_number();
            match read {
                None => break,
                Some(Line::TooLong) => self.summary.refused(line, line, 1, "the line is longer than 64 MiB"),
                Some(Line::Text) if text.iter().all(u8::is_ascii_whitespace) => {}
                Some(Line::Text) => {
                    let request = Request::new(line, text);
                    while self.is_full() {
                        self.step()?;
                    }
                    self.summary.at(input);
                    self.send(request);
                }
            }
        }
        while !self.flights.is_empty() || !self.again.is_empty() {
            self.step()?;
        }
        Ok(())
    }

    /// Nothing new may be sent while something is to be sent again, or the order of a session would break.
    fn is_full(&self) -> bool {
        self.client.is_none()
            || self.send_failed
            || !self.again.is_empty()
            || self.flights.len() >= MAX_IN_FLIGHT
            || self.flight_bytes >= MAX_IN_FLIGHT_BYTES
    }

    fn send(&mut self, request: Request) {
        let Some(client) = &mut self.client else { return self.again.push_back(request) };
        if self.flights.is_empty() {
            self.last_progress = Instant::now();
        }
        client.set_timeout(self.timeout);
        match client.send_line(&request.text) {
            Ok(()) => {
                self.summary.sent(request.line);
                self.flight_bytes += request.text.len();
                self.flights.push_back(request);
            }
            // A line that was not handed over whole is never executed.
            Err(error) => {
                self.last_trouble = error.to_string();
                self.send_failed = true;
                self.again.push_back(request);
            }
        }
    }

    fn step(&mut self) -> Result<(), Failure> {
        let deadline = self.last_progress + self.timeout;
        let now = Instant::now();
        if let Some(client) = self.client.as_mut().filter(|_| !self.flights.is_empty() || self.send_failed) {
            client.set_timeout(deadline.saturating_duration_since(now));
            return match client.recv_reply() {
                Ok(reply) => self.take(reply),
                Err(error @ (ClientError::Closed { .. } | ClientError::Io { .. })) => {
                    self.disconnected(&error);
                    Ok(())
                }
                Err(ClientError::TimedOut { .. }) => Err(self.gave_up()),
                Err(error) => Err(error.into()),
            };
        }
        if now >= deadline || self.not_before > deadline {
            return Err(self.gave_up());
        }
        if now < self.not_before {
            std::thread::sleep(self.not_before - now);
            return Ok(());
        }
        if self.client.is_none() {
            match Client::connect(&self.path, deadline - now) {
                Ok(client) => {
                    self.client = Some(client);
                    self.reconnects += 1;
                }
                Err(error) => {
                    self.last_trouble = error.to_string();
                    self.back_off();
                }
            }
            return Ok(());
        }
        // All replies are in: what is to be sent again goes, in its order.
        let mut again = std::mem::take(&mut self.again);
        let since = self.last_progress;
        while let Some(request) = again.pop_front() {
            if self.send_failed || self.flights.len() >= MAX_IN_FLIGHT {
                again.push_front(request);
                break;
            }
            self.send(request);
        }
        self.last_progress = since;
        self.again.append(&mut again);
        Ok(())
    }

    fn take(&mut self, reply: Reply) -> Result<(), Failure> {
        let Some(request) = self.flights.pop_front() else {
            // About the connection itself.
            let why =
                reply.error.map_or_else(|| "an answer to nothing".to_owned(), |error| error.to_string());
            self.last_trouble = why;
            return Ok(());
        };
        self.flight_bytes -= request.text.len();
        self.stopped_reading = false;
        let Some(refused) = reply.error.as_ref() else {
            self.progress();
            // The page of a `status` counts records too, all that were ever stored.
            let records = if reply.lot.is_some() { reply.records.unwrap_or(0) } else { 0 };
            self.summary.stored(&reply, records, request.line);
            return Ok(());
        };
        // Not `too_large`: only a line's ends the connection, and a batch's looks the same.
        self.stopped_reading = matches!(refused.code.as_str(), "timeout" | "busy" | "forbidden");
        if refused.retryable || self.follows_one_put_off(&request, refused) {
            if refused.retryable {
                self.last_trouble = refused.to_string();
                self.back_off();
            }
            let at = self.again.partition_point(|other| other.line < request.line);
            self.again.insert(at, request);
        } else {
            self.progress();
            self.summary.refused(request.line, request.line, 1, &refused.to_string());
        }
        Ok(())
    }

    fn follows_one_put_off(&self, request: &Request, refused: &Refused) -> bool {
        refused.code == "out_of_sequence"
            && request.session.is_some()
            && self.again.iter().any(|other| other.line < request.line && other.session == request.session)
    }

    fn progress(&mut self) {
        self.last_progress = Instant::now();
        self.pause = FIRST_PAUSE;
    }

    fn back_off(&mut self) {
        self.not_before = Instant::now() + self.pause;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
    }

    fn disconnected(&mut self, error: &ClientError) {
        self.client = None;
        self.send_failed = false;
        let mut unanswered = std::mem::take(&mut self.flights);
        self.flight_bytes = 0;
        let mut put_off = std::mem::take(&mut self.again);
        for mut request in unanswered.drain(..) {
            request.maybe_stored |= !self.stopped_reading;
            if request.repeatable || self.stopped_reading {
                put_off.push_back(request);
            } else {
                let why =
                    format!("{error}, and without session and seq sending it again could store it twice");
                self.summary.unknown(request.line, request.line, &why);
            }
        }
        put_off.make_contiguous().sort_by_key(|request| request.line);
        self.again = put_off;
        self.stopped_reading = false;
        if self.last_trouble.is_empty() {
            self.last_trouble = error.to_string();
        }
        self.back_off();
    }

    fn gave_up(&self) -> Failure {
        let last = if self.last_trouble.is_empty() { "no reply" } else { &self.last_trouble };
        Failure {
            code: if self.client.is_none() { failure::NO_DAEMON } else { failure::IO },
            message: format!(
                "the daemon at {} stored nothing for {:?}; last: {last}",
                self.path.display(),
                self.timeout
            ),
        }
    }

    fn report_unknown(&mut self, why: &str) {
        for request in std::mem::take(&mut self.flights) {
            self.summary.unknown(request.line, request.line, why);
        }
        // Refused for now, or not sent at all.
        for request in std::mem::take(&mut self.again) {
            let tell = if request.maybe_stored { Summary::unknown } else { Summary::unsent };
            tell(&mut self.summary, request.line, request.line, why);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_line_with_session_and_seq_or_without_effect_is_repeatable() {
        for (text, repeatable) in [
            (r#"{"session":"a","seq":1,"items":[{"x":NaN}]}"#, true),
            (r#"{"session":"a","items":[]}"#, false),
            (r#"{"session":null,"seq":null,"items":[]}"#, false),
            (r#"{"items":[{"session":"a","seq":1}]}"#, false),
            (r#"{"op":"sync"}"#, true),
            (r#"{"op":"log","items":[]}"#, false),
            ("not json", false),
        ] {
            assert_eq!(Request::new(1, text.into()).repeatable, repeatable, "{text}");
        }
    }
}
