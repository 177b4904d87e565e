//! A producer with a ledger, on a raw socket: numbers its batches, keeps some in flight, and sends again what
//! was not answered, until it is told to stop. And a reader that never forgets what it has seen.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::judge::{Answer, Entry, Lots, vanished, whole_lines};
use super::{Connection, DEADLINE, Received};

/// A small generator of its own: the seed is printed and is all that a run depends on.
#[derive(Clone, Debug)]
pub struct Random(pub u64);

impl Random {
    pub fn number(&mut self) -> u64 {
        // splitmix64, Steele et al. 2014
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, n: u64) -> u64 {
        self.number() % n.max(1)
    }

    pub fn chance(&mut self, percent: u64) -> bool {
        self.number() % 100 < percent
    }
}

/// A number from the environment: `LOTLOG_SEED`, `LOTLOG_ROUNDS` and the like.
pub fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// What a producer sends.
#[derive(Clone, Debug)]
pub struct Load {
    /// Over so many lots, `lot-0` and on.
    pub lots: u64,
    /// The number of the first of them.
    pub first_lot: u64,
    pub most_items: u64,
    pub most_pad: u64,
    /// So many batches of a hundred ask for `synced`, the others for `written`.
    pub synced_percent: u64,
    /// Batches in flight.
    pub window: usize,
    /// Batches after which it stops by itself.
    pub most_batches: u64,
    /// Pause after each reply.
    pub pause: Duration,
    /// A refusal that may be retried ends the batch: it is in the ledger as refused. Only with a window of 1:
    /// a later batch on its way under a number that it no longer has might be stored under both.
    pub takes_no: bool,
}

impl Default for Load {
    fn default() -> Load {
        Load {
            lots: 10,
            first_lot: 0,
            most_items: 6,
            most_pad: 400,
            synced_percent: 67,
            window: 8,
            most_batches: u64::MAX,
            pause: Duration::ZERO,
            takes_no: false,
        }
    }
}

/// Run, finish what was sent, or quit at once.
#[derive(Clone, Default)]
pub struct Stop(Arc<AtomicU8>);

impl Stop {
    /// Send nothing new; stop when all is answered.
    pub fn finish(&self) {
        self.0.fetch_max(1, Ordering::SeqCst);
    }

    /// Stop where you are: what is not answered stays unknown.
    pub fn quit(&self) {
        self.0.fetch_max(2, Ordering::SeqCst);
    }

    fn level(&self) -> u8 {
        self.0.load(Ordering::SeqCst)
    }
}

/// What a producer knows at its end.
#[derive(Debug, Default)]
pub struct Ledger {
    pub entries: Vec<Entry>,
    /// Refusals by code, repeated ones too.
    pub refusals: BTreeMap<String, usize>,
    /// Replies that said `duplicate`.
    pub duplicates: usize,
    /// Connections that ended with batches in flight.
    pub breaks: usize,
    /// From sending to the reply, for each acknowledged batch, on the connection that brought it.
    pub waits: Vec<Duration>,
}

impl Ledger {
    pub fn count(&self, answer: Answer) -> usize {
        self.entries.iter().filter(|e| e.answer == answer).count()
    }
}

/// All entries of all ledgers.
pub fn entries(ledgers: &[Ledger]) -> Vec<Entry> {
    ledgers.iter().flat_map(|ledger| ledger.entries.iter().cloned()).collect()
}

/// The request that asks for a batch to be stored.
pub fn request(entry: &Entry, synced: bool) -> String {
    let pad = "x".repeat(entry.pad);
    let items: Vec<String> = (0..entry.items)
        .map(|item| {
            format!(
                r#"{{"sku_local":"{}/{}/{item}","est_price_mu":1.5,"of":{},"pad":"{pad}"}}"#,
                entry.session, entry.batch, entry.items
            )
        })
        .collect();
    format!(
        r#"{{"session":"{}","seq":{},"ack":"{}","context":{{"lot_id":"{}","opt_source":"farm"}},"items":[{}]}}"#,
        entry.session,
        entry.seq,
        if synced { "synced" } else { "written" },
        entry.lot,
        items.join(",")
    )
}

/// The record that its item must have become, by the contract.
pub fn record(entry: &Entry, item: usize, stamp: &str) -> String {
    let Entry { lot, session, batch, seq, items, pad, .. } = entry;
    let pad = "x".repeat(*pad);
    format!(
        concat!(
            r#"{{"sku_local":"{session}/{batch}/{item}","est_price_mu":1.5,"predicted_price":1.5,"#,
            r#""of":{items},"pad":"{pad}","lot_id":"{lot}","timestamp":"{stamp}","#,
            r#""context":{{"lot_id":"{lot}","opt_source":"farm","timestamp":"{stamp}","#,
            r#""session":"{session}","seq":{seq}}}}}"#
        ),
        session = session,
        batch = batch,
        item = item,
        items = items,
        pad = pad,
        lot = lot,
        stamp = stamp,
        seq = seq
    )
}

/// Told of each batch before it is first sent, and again whenever its answer changes.
pub type Tell = Box<dyn FnMut(&Entry) + Send>;

struct Producer {
    socket: PathBuf,
    name: String,
    random: Random,
    load: Load,
    stop: Stop,
    ledger: Ledger,
    /// Batches without a final answer, in order, and what they ask for.
    open: VecDeque<(usize, bool)>,
    /// How many of them are on the wire, and since when.
    on_the_wire: VecDeque<Instant>,
    next_seq: u64,
    /// A past to go on from, and no answer yet: the power may have taken the last `written` batches.
    asks_where: bool,
    tell: Tell,
}

/// Sends until stopped or done; the session is `name`.
pub fn produce(socket: &Path, name: &str, seed: u64, load: Load, stop: Stop) -> Ledger {
    go_on(socket, name, seed, load, stop, Vec::new(), Box::new(|_| {}))
}

/// [`produce`], going on after a power cut where `past` ends: first what was not answered is sent again.
pub fn go_on(
    socket: &Path,
    name: &str,
    seed: u64,
    load: Load,
    stop: Stop,
    past: Vec<Entry>,
    tell: Tell,
) -> Ledger {
    assert!(!load.takes_no || load.window == 1);
    let mut producer = Producer {
        socket: socket.to_owned(),
        name: name.to_owned(),
        random: Random(seed),
        load,
        stop,
        asks_where: !past.is_empty(),
        ledger: Ledger { entries: past, ..Ledger::default() },
        open: VecDeque::new(),
        on_the_wire: VecDeque::new(),
        next_seq: 1,
        tell,
    };
    producer.reopen(1);
    while let Some(mut connection) = producer.connect() {
        if producer.converse(&mut connection) {
            break;
        }
        producer.on_the_wire.clear();
    }
    producer.ledger
}

/// [`produce`] in a thread for each of `count` producers, sessions `prefix0` and on.
pub fn farm(
    socket: &Path,
    prefix: &str,
    count: u64,
    seed: u64,
    load: &Load,
    stop: &Stop,
) -> Vec<std::thread::JoinHandle<Ledger>> {
    (0..count)
        .map(|n| {
            let (socket, name, load, stop) =
                (socket.to_owned(), format!("{prefix}{n}"), load.clone(), stop.clone());
            std::thread::spawn(move || produce(&socket, &name, seed.wrapping_add(n), load, stop))
        })
        .collect()
}

impl Producer {
    fn has_more(&self) -> bool {
        self.stop.level() == 0 && (self.ledger.entries.len() as u64) < self.load.most_batches
    }

    /// A connection, as soon as there is a daemon; `None` when there is nothing more to do.
    fn connect(&mut self) -> Option<Connection> {
        let begun = Instant::now();
        loop {
            if self.stop.level() == 2 || (self.open.is_empty() && !self.has_more()) {
                return None;
            }
            if let Some(connection) = Connection::try_open(&self.socket) {
                return Some(connection);
            }
            assert!(begun.elapsed() < 6 * DEADLINE, "{}: nobody listens", self.name);
            std::thread::sleep(Duration::from_millis(3));
        }
    }

    /// Sends and hears until the connection ends (`false`) or all is done (`true`).
    fn converse(&mut self, connection: &mut Connection) -> bool {
        loop {
            let window = if self.asks_where { 1 } else { self.load.window };
            while self.open.len() < window && self.has_more() {
                self.think();
            }
            let mut bytes = Vec::new();
            for (at, synced) in self.open.iter().take(window).skip(self.on_the_wire.len()) {
                bytes.extend_from_slice(request(&self.ledger.entries[*at], *synced).as_bytes());
                bytes.push(b'\n');
            }
            connection.send_what_goes(&bytes);
            self.on_the_wire.resize(self.open.len().min(window), Instant::now());
            let Some((at, synced)) = self.open.front().copied() else { return true };
            let reply = match connection.receive() {
                Received::Line(line) => serde_json::from_slice::<Value>(&line).expect("a reply is JSON"),
                Received::End(_) => {
                    self.ledger.breaks += 1;
                    return false;
                }
                Received::Nothing => {
                    self.ledger.entries[at].answer = Answer::Stuck;
                    (self.tell)(&self.ledger.entries[at]);
                    return true;
                }
            };
            if self.stop.level() == 2 {
                return true;
            }
            if !self.hear(at, synced, &reply) {
                return false;
            }
            std::thread::sleep(self.load.pause);
        }
    }

    /// The next batch.
    fn think(&mut self) {
        let entry = Entry {
            lot: format!("lot-{}", self.load.first_lot + self.random.below(self.load.lots)),
            session: self.name.clone(),
            batch: self.ledger.entries.len() as u64,
            seq: self.next_seq,
            items: 1 + self.random.below(self.load.most_items) as usize,
            pad: self.random.below(self.load.most_pad + 1) as usize,
            answer: Answer::Unknown,
        };
        self.next_seq += 1;
        let synced = self.random.chance(self.load.synced_percent);
        self.open.push_back((self.ledger.entries.len(), synced));
        (self.tell)(&entry);
        self.ledger.entries.push(entry);
    }

    /// Sends again what is not answered, and what has a number that the daemon still waits for.
    fn reopen(&mut self, expected: u64) {
        self.open.clear();
        self.next_seq = expected;
        for (at, entry) in self.ledger.entries.iter().enumerate() {
            if entry.answer == Answer::Unknown {
                self.open.push_back((at, self.random.chance(self.load.synced_percent)));
            }
            if entry.answer != Answer::Refused {
                self.next_seq = self.next_seq.max(entry.seq + 1);
            }
        }
    }

    /// The daemon expects an earlier number: the batches from there on are not stored, which is right of
    /// `written` ones alone. They are sent again, or given up for others; then they must never turn up.
    fn fall_back(&mut self, expected: u64) {
        let answer = if self.random.chance(50) { Answer::Unknown } else { Answer::Refused };
        for entry in self.ledger.entries.iter_mut().filter(|e| e.seq >= expected) {
            match entry.answer {
                Answer::Unknown | Answer::Written => {
                    entry.answer = answer;
                    (self.tell)(entry);
                }
                Answer::Refused => {}
                kept => panic!("{}: seq {} was {kept:?}, but {expected} is expected", self.name, entry.seq),
            }
        }
        self.reopen(expected);
    }

    /// Takes in the reply to the oldest batch; `false`: begin anew on another connection.
    fn hear(&mut self, at: usize, synced: bool, reply: &Value) -> bool {
        let sent = self.on_the_wire.pop_front().expect("a reply to something on the wire");
        let asked_where = std::mem::take(&mut self.asks_where);
        if reply["ok"] == true {
            let durability = if synced { "synced" } else { "written" };
            assert_eq!(reply["durability"], durability, "{reply}");
            let entry = &mut self.ledger.entries[at];
            assert_eq!((&reply["seq"], &reply["lot"]), (&entry.seq.into(), &entry.lot.as_str().into()));
            entry.answer = if synced { Answer::Synced } else { Answer::Written };
            self.ledger.duplicates += usize::from(reply["duplicate"] == true);
            self.ledger.waits.push(sent.elapsed());
            self.open.pop_front();
            (self.tell)(&self.ledger.entries[at]);
            return true;
        }
        if asked_where && reply["error"]["code"] == "out_of_sequence" {
            self.fall_back(reply["error"]["expected"].as_u64().expect("the number that is expected"));
            return true;
        }
        self.asks_where = asked_where;
        let code = reply["error"]["code"].as_str().expect("a refusal has a code").to_owned();
        assert_eq!(reply["error"]["retryable"], true, "{}: {reply}", self.name);
        *self.ledger.refusals.entry(code).or_default() += 1;
        if self.load.takes_no {
            // Its number is free: the next batch takes it.
            self.ledger.entries[at].answer = Answer::Refused;
            (self.tell)(&self.ledger.entries[at]);
            self.open.pop_front();
            self.next_seq -= 1;
        }
        std::thread::sleep(Duration::from_millis(20));
        false
    }
}

/// The names in a directory.
fn names(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).into_iter().flatten();
    let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// The lots of a data directory, up to their last bytes: what is archived, then what is in `lots/`.
pub fn lot_files(data: &Path) -> Lots {
    let (lots, archive) = (data.join("lots"), data.join("archive"));
    let live = names(&lots).into_iter().filter_map(|name| name.strip_suffix(".jsonl").map(str::to_owned));
    let archived =
        names(&archive).into_iter().filter_map(|name| name.strip_prefix("lot=").map(str::to_owned));
    let stems: BTreeSet<String> = live.chain(archived).collect();
    stems.into_iter().filter_map(|stem| lot_file(&lots, &archive, &stem).map(|bytes| (stem, bytes))).collect()
}

/// One archived file, as it was before it was compressed.
fn archived_file(dir: &Path, number: &str) -> Option<Vec<u8>> {
    if let Ok(bytes) = std::fs::read(dir.join(format!("{number}.jsonl"))) {
        return Some(bytes);
    }
    let packed = std::fs::read(dir.join(format!("{number}.jsonl.zst"))).ok()?;
    Some(zstd::decode_all(&packed[..]).expect("a compressed file is whole as soon as it has its name"))
}

/// One lot, as it was at one moment; `None` where it has no file.
fn lot_file(lots: &Path, archive: &Path, stem: &str) -> Option<Vec<u8>> {
    let (live, dir) = (lots.join(format!("{stem}.jsonl")), archive.join(format!("lot={stem}")));
    loop {
        let opened = File::open(&live).ok();
        let archived = names(&dir);
        // Moved to the archive meanwhile: looked at again.
        let id = |meta: std::fs::Metadata| (meta.dev(), meta.ino());
        let held = opened.as_ref().map(|file| id(file.metadata().unwrap()));
        if held != std::fs::metadata(&live).ok().map(id) {
            continue;
        }
        if opened.is_none() && archived.is_empty() {
            return None;
        }
        let mut bytes = Vec::new();
        let numbers: BTreeSet<&str> = archived.iter().filter_map(|name| name.get(..20)).collect();
        for number in numbers {
            bytes.extend(archived_file(&dir, number).expect("nothing is removed from the archive"));
        }
        if let Some(mut file) = opened {
            file.read_to_end(&mut bytes).unwrap();
        }
        return Some(bytes);
    }
}

/// A reader: what it has seen must never disappear.
pub struct Watcher {
    stop: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<(usize, Lots)>,
}

impl Watcher {
    pub fn start(data: PathBuf) -> Watcher {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            let (mut gone, mut seen) = (0, Lots::new());
            while !stopped.load(Ordering::SeqCst) {
                let now: Lots =
                    lot_files(&data).into_iter().map(|(stem, bytes)| (stem, whole_lines(bytes))).collect();
                gone += vanished(&seen, &now);
                seen = now;
                std::thread::sleep(Duration::from_millis(15));
            }
            (gone, seen)
        });
        Watcher { stop, thread }
    }

    /// How often something of a lot was gone, the last look included.
    pub fn vanished(self, data: &Path) -> usize {
        self.stop.store(true, Ordering::SeqCst);
        let (gone, seen) = self.thread.join().expect("the watcher ends");
        gone + vanished(&seen, &lot_files(data))
    }
}
