//! The wire: request lines in; the reply lines are in `answers`. Pure: no sockets, no clock.

pub use crate::answers::{Echo, empty_reply, log_reply, refusal_reply, sync_reply};
use crate::batch::{Batch, Body, Code, Durability, Refusal, SessionId};
use crate::config::Limits;
use crate::context::Context;
use crate::dropped::Counts;
use crate::item::Items;
use crate::order::{self, Order};
use crate::record;
use crate::scan::Scanner;
use crate::tally::{Tallied, Tally};
use crate::text;
use crate::token::{Fault, Value, What};
use crate::units::format_bytes;

/// A decoded request.
#[derive(Debug)]
pub enum Request {
    /// `{"op":"log"}`.
    Log(Box<Log>),
    /// `{"op":"sync"}`.
    Sync,
    /// `{"op":"status"}`.
    Status,
    /// An operator's.
    Order(Order),
}

/// A `log` request: the batch, and what its reply will say beside the outcome.
#[derive(Debug)]
pub struct Log {
    /// The batch; `None` where it has no items and nothing is to be stored.
    pub batch: Option<Batch>,
    /// What the good reply of this request repeats.
    pub echo: Echo,
    /// Values that could not be used, by field and reason, where there are any.
    pub dropped: Option<Box<Counts<u64>>>,
}

/// A request that was refused while it was decoded, with its sequence number if one could be read.
#[derive(Debug)]
pub struct Rejected {
    /// The `seq` of the request.
    pub seq: Option<u64>,
    /// Why.
    pub refusal: Refusal,
}

/// The keys of a request.
const KEYS: [&str; 6] = ["op", "session", "seq", "ack", "context", "items"];
/// Less than this reserved for nothing is not given back, in bytes: that costs more than it frees.
const SPARE_BYTES: usize = 4 << 10;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Op {
    Log,
    Sync,
    Status,
    Order(order::Op),
}

/// What has been read of a request. The first thing wrong with it is kept, and the scan goes on: a line that
/// turns out not to be JSON is refused as that.
struct Draft<'l> {
    limits: &'l Limits,
    op: Op,
    ack: Option<Durability>,
    session: Option<SessionId>,
    seq: Option<u64>,
    context: Context,
    items: Items,
    has_items: bool,
    tally: Tally,
    /// The first key that only `log` knows.
    of_log: Option<&'static str>,
    /// What operators' requests have, and the first key that only they know.
    orders: order::Keys,
    of_orders: Option<&'static str>,
    problem: Option<Refusal>,
    /// Where values go that nobody wants.
    waste: Vec<u8>,
}

/// Decodes one request line (without its `\n`).
///
/// # Errors
/// The refusal to answer with.
pub fn decode(line: &[u8], limits: &Limits, default_ack: Durability) -> Result<Request, Rejected> {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let mut draft = Draft {
        limits,
        op: Op::Log,
        ack: None,
        session: None,
        seq: None,
        context: Context::default(),
        items: Items::default(),
        has_items: false,
        tally: Tally::default(),
        of_log: None,
        orders: order::Keys::default(),
        of_orders: None,
        problem: None,
        waste: Vec::new(),
    };
    let read = Scanner::new(line, limits.max_nesting).and_then(|mut scanner| draft.read(&mut scanner));
    let seq = draft.seq;
    match read {
        Err(fault) => {
            let limit = match fault.what() {
                What::Nesting => format!(" (max_nesting = {})", limits.max_nesting),
                _ => String::new(),
            };
            let message = format!("the line is not JSON, so nothing was stored: {fault}{limit}");
            Err(Rejected { seq: None, refusal: Refusal::new(Code::InvalidJson, message) })
        }
        Ok(()) => draft.finish(default_ack).map_err(|refusal| Rejected { seq, refusal }),
    }
}

fn invalid(message: impl Into<String>) -> Refusal {
    Refusal::new(Code::InvalidRequest, message)
}

fn unknown(name: &str) -> String {
    let name = text::excerpt(name);
    format!(
        "key `{name}` is not known at the top level of a request, so nothing was stored: put it into context or leave it out"
    )
}

impl Draft<'_> {
    fn blame(&mut self, refusal: Refusal) {
        self.problem.get_or_insert(refusal);
    }

    fn skip(&mut self, value: Value, scanner: &mut Scanner<'_>) -> Result<(), Fault> {
        self.waste.clear();
        scanner.copy(value, &mut self.waste).map(drop)
    }

    fn read(&mut self, scanner: &mut Scanner<'_>) -> Result<(), Fault> {
        match scanner.value()? {
            Value::Object => {
                while scanner.next_key()?.is_some() {
                    match KEYS.iter().find(|key| key.as_bytes() == scanner.name()) {
                        Some(key) => self.member(key, scanner)?,
                        None => {
                            let name = String::from_utf8_lossy(scanner.name()).into_owned();
                            self.member(&name, scanner)?;
                        }
                    }
                }
            }
            other => {
                self.skip(other, scanner)?;
                self.blame(invalid(
                    "a request is a JSON object, so this line was not carried out: send {\"op\":...}",
                ));
            }
        }
        scanner.finish()?;
        if let Some(twice) = scanner.twice() {
            let message = format!(
                "{} is given twice in its object, so nothing was stored: send each key once",
                twice.path
            );
            self.blame(invalid(message));
        }
        Ok(())
    }

    fn member(&mut self, name: &str, scanner: &mut Scanner<'_>) -> Result<(), Fault> {
        let known = KEYS.into_iter().find(|key| *key == name && *key != "op");
        if let Some(key) = known {
            self.of_log.get_or_insert(key);
        }
        if let Some(key) = order::KEYS.into_iter().find(|key| *key == name) {
            self.of_orders.get_or_insert(key);
        }
        let value = scanner.value()?;
        match (name, value) {
            ("op" | "context" | "session" | "seq" | "ack" | "lot_id" | "all", Value::Null) => {}
            ("all", Value::True | Value::False) => self.orders.all = matches!(value, Value::True),
            ("lot_id", Value::Text(_) | Value::Number(_)) => match Context::lot_of(value, scanner)? {
                Ok(lot) => self.orders.lot = Some(lot),
                Err(refusal) => self.blame(refusal),
            },
            ("op", Value::Text(token)) => match &*scanner.text(token) {
                "log" => self.op = Op::Log,
                "sync" => self.op = Op::Sync,
                "status" => self.op = Op::Status,
                other => match order::Op::named(other) {
                    Some(op) => self.op = Op::Order(op),
                    None => {
                        let op = text::excerpt(other);
                        let known = "it is log, sync or status, or for operators reload, rotate or seal";
                        self.blame(invalid(format!("op `{op}` is not known: {known}")));
                    }
                },
            },
            ("session", Value::Text(token)) => {
                self.session = SessionId::new(&scanner.text(token));
                if self.session.is_none() {
                    self.blame(invalid("session must be 1 to 64 of A-Z a-z 0-9 . _ : -, so nothing was stored: a UUID will do"));
                }
            }
            ("seq", Value::Number(number)) if number.integer() => {
                let seq =
                    scanner.spelling(number).parse::<i64>().ok().and_then(|seq| u64::try_from(seq).ok());
                self.seq = seq.filter(|seq| *seq > 0);
                if self.seq.is_none() {
                    self.blame(invalid("seq must be from 1 to 2^63-1, so nothing was stored: number the batches of a session 1, 2, 3"));
                }
            }
            ("ack", Value::Text(token)) => match scanner.text(token).parse() {
                Ok(ack) => self.ack = Some(ack),
                Err(_) => self.blame(invalid("ack must be \"synced\" or \"written\", so nothing was stored")),
            },
            ("context", Value::Object) => {
                scanner.bare_words = true;
                let refusal = self.context.read(scanner, &mut self.tally)?;
                scanner.bare_words = false;
                if let Some(refusal) = refusal {
                    self.blame(refusal);
                }
            }
            ("items", Value::Array) => self.read_items(scanner)?,
            _ => {
                self.skip(value, scanner)?;
                self.blame(invalid(match name {
                    "op" | "session" => format!("{name} must be a string, so nothing was stored"),
                    "ack" => "ack must be \"synced\" or \"written\", so nothing was stored".to_owned(),
                    "seq" => "seq must be an integer, so nothing was stored: number the batches of a session 1, 2, 3".to_owned(),
                    "context" => "context must be an object, so nothing was stored".to_owned(),
                    "items" => "items must be an array of objects, so nothing was stored".to_owned(),
                    "lot_id" | "all" => format!("{name} has a wrong type, so nothing was done: lot_id is text or an integer, all is true"),
                    _ => unknown(name),
                }));
            }
        }
        Ok(())
    }

    fn read_items(&mut self, scanner: &mut Scanner<'_>) -> Result<(), Fault> {
        self.has_items = true;
        // Usual items grow by a third: the two aliases.
        let rest = scanner.bytes().len() - scanner.at();
        self.items.reserve(rest + rest / 4);
        scanner.bare_words = true;
        let mut count = 0;
        while scanner.next_element()? {
            let value = scanner.value()?;
            match value {
                Value::Object if count < self.limits.max_items => {
                    self.items.read(scanner, &mut self.tally)?
                }
                Value::Object => self.skip(value, scanner)?,
                _ => {
                    self.skip(value, scanner)?;
                    self.blame(invalid(format!(
                        "items[{count}] must be an object, so nothing of the batch was stored"
                    )));
                }
            }
            count += 1;
        }
        scanner.bare_words = false;
        if count > self.limits.max_items {
            let most = self.limits.max_items;
            self.blame(too_large(format!("the batch has {count} items, max_items is {most}: split it")));
        }
        Ok(())
    }

    fn finish(mut self, default_ack: Durability) -> Result<Request, Refusal> {
        if let Some(problem) = self.problem {
            return Err(problem);
        }
        let (op, request) = match self.op {
            Op::Log => ("log", None),
            Op::Sync => ("sync", Some(Request::Sync)),
            Op::Status => ("status", Some(Request::Status)),
            Op::Order(op) => (op.as_str(), None),
        };
        let takes = |key: &&str| matches!(self.op, Op::Order(op) if op.takes(key));
        let strange = self.of_orders.filter(|key| !takes(key));
        if let Some(key) = strange.or(self.of_log.filter(|_| self.op != Op::Log)) {
            return Err(invalid(match self.op {
                Op::Log => unknown(key),
                _ => format!("key `{key}` is not known to op {op}: leave it out"),
            }));
        }
        if let Op::Order(op) = self.op {
            return op.order(self.orders).map(Request::Order);
        }
        if let Some(request) = request {
            return Ok(request);
        }
        if !self.has_items {
            return Err(invalid(
                "items is missing, so nothing was stored: send an array of objects, [] for none",
            ));
        }
        let session = match (self.session.take(), self.seq) {
            (Some(session), Some(seq)) => Some((session, seq)),
            (None, None) => None,
            (Some(_), None) => {
                return Err(invalid("session needs seq, so nothing was stored: number its batches 1, 2, 3"));
            }
            (None, Some(_)) => {
                return Err(invalid("seq needs session, so nothing was stored: name the producer's run"));
            }
        };
        self.context.settle(session.is_some(), &mut self.tally);
        let lot = self.context.lot();
        let ack = self.ack.unwrap_or(default_ack);
        let mut body = Body::default();
        let context_bytes = self.context.write(session.as_ref().map(|(name, seq)| (name, *seq)), &mut body);
        if context_bytes > self.limits.max_context_bytes {
            let most = size(self.limits.max_context_bytes);
            return Err(too_large(format!(
                "the context takes {context_bytes} bytes in each record, max_context_bytes is {most}: shorten it"
            )));
        }
        let (records, empty) = (self.items.records(), self.items.empty());
        body.items = self.items.finish(&mut self.tally);
        let lines_bytes = record::bytes_of_lines(body.items.len(), records, empty, body.suffix.len());
        if lines_bytes > self.limits.max_batch_bytes as u64 {
            let most = size(self.limits.max_batch_bytes);
            return Err(too_large(format!(
                "the batch takes {lines_bytes} bytes as records, max_batch_bytes is {most}: split it, or shorten the context"
            )));
        }
        let Tallied { dropped, by_reason, overridden } = self.tally.finish();
        // At most max_items, which fits (asserted in `config`).
        let records = records as u32;
        let echo = Echo { lot: lot.clone(), records, seq: self.seq, ack, dropped, overridden };
        let batch = (records > 0).then(|| {
            // The text outlives its line: give back what was reserved for nothing.
            if body.items.capacity() - body.items.len() > SPARE_BYTES {
                body.items.shrink_to_fit();
            }
            Batch {
                content_hash: record::content_hash(&lot, &body),
                lot,
                session,
                ack,
                records,
                lines_bytes,
                body,
            }
        });
        Ok(Request::Log(Box::new(Log { batch, echo, dropped: by_reason })))
    }
}

/// A limit as the operator wrote it, and in bytes.
pub fn size(bytes: usize) -> String {
    format!("{} ({bytes} bytes)", format_bytes(bytes as u64))
}

fn too_large(message: String) -> Refusal {
    Refusal::new(Code::TooLarge, message)
}
