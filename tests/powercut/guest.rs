//! What the tool does inside the guest: producers that go on where the last power cut left them, and a reader
//! that tells what it saw. Both write to a virtio-serial port, line by line.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::common::judge::Entry;
use super::common::producer::{Load, Random, Stop, go_on};
use super::ledger;

/// A port, of which each line goes out, with the guest's time, before anything else happens.
#[derive(Clone)]
struct Port(Arc<Mutex<File>>);

impl Port {
    fn open(path: &str) -> Port {
        Port(Arc::new(Mutex::new(File::options().write(true).open(path).expect("the port opens"))))
    }

    fn say(&self, line: &str) {
        let mut port = self.0.lock().expect("the port");
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        port.write_all(format!("{line} @{now}\n").as_bytes()).expect("the port takes a line");
    }

    /// A panic, which is a finding, goes out as well.
    fn hears_panics(&self) {
        let port = self.clone();
        std::panic::set_hook(Box::new(move |info| {
            eprintln!("{info}");
            port.say(&format!("! {}", info.to_string().replace('\n', " ")));
        }));
    }
}

/// What a producer process needs to know, as words: the part of its command line after the port.
pub struct Orders {
    pub sessions: Vec<String>,
    pub seed: u64,
    pub lots: u64,
    pub most_items: u64,
    pub most_pad: u64,
    pub synced_percent: u64,
    pub window: usize,
    pub pause_micros: u64,
}

impl Orders {
    pub fn any(sessions: Vec<String>, lots: u64, random: &mut Random) -> Orders {
        let pick = |random: &mut Random, of: &[u64]| of[random.below(of.len() as u64) as usize];
        Orders {
            sessions,
            seed: random.number(),
            lots,
            most_items: pick(random, &[1, 4, 8, 40]),
            most_pad: pick(random, &[40, 300, 1000, 4000]),
            synced_percent: pick(random, &[0, 30, 67, 67, 100]),
            window: pick(random, &[1, 4, 16]) as usize,
            pause_micros: pick(random, &[0, 0, 2000, 20_000]),
        }
    }

    pub fn words(&self) -> String {
        let Orders { sessions, seed, lots, most_items, most_pad, synced_percent, window, pause_micros } =
            self;
        let sessions = sessions.join(",");
        format!("{sessions} {seed} {lots} {most_items} {most_pad} {synced_percent} {window} {pause_micros}")
    }

    fn from_words(words: &[String]) -> Orders {
        let number = |at: usize| words[at].parse::<u64>().expect("a number");
        Orders {
            sessions: words[0].split(',').map(str::to_owned).collect(),
            seed: number(1),
            lots: number(2),
            most_items: number(3),
            most_pad: number(4),
            synced_percent: number(5),
            window: number(6) as usize,
            pause_micros: number(7),
        }
    }
}

/// `produce SOCKET LEDGER PORT ORDERS...`: a thread for each session, for ever.
pub fn produce(words: &[String]) {
    let port = Port::open(&words[2]);
    port.hears_panics();
    let orders = Orders::from_words(&words[3..]);
    let past = BufReader::new(File::open(&words[1]).expect("the ledger opens"));
    let past: Vec<Entry> =
        past.lines().map(|line| ledger::entry(&line.expect("a line")).expect("an entry")).collect();
    let load = Load {
        lots: orders.lots,
        most_items: orders.most_items,
        most_pad: orders.most_pad,
        synced_percent: orders.synced_percent,
        window: orders.window,
        pause: Duration::from_micros(orders.pause_micros),
        ..Load::default()
    };
    let threads: Vec<_> = orders
        .sessions
        .iter()
        .enumerate()
        .map(|(n, session)| {
            let socket = PathBuf::from(&words[0]);
            let past: Vec<Entry> = past.iter().filter(|e| e.session == *session).cloned().collect();
            let (session, load, port) = (session.clone(), load.clone(), port.clone());
            let seed = orders.seed.wrapping_add(n as u64);
            let tell = Box::new(move |entry: &Entry| port.say(&ledger::line(entry)));
            std::thread::spawn(move || go_on(&socket, &session, seed, load, Stop::default(), past, tell))
        })
        .collect();
    for thread in threads {
        let _ = thread.join();
    }
}

/// What a reader saw of one file.
struct Seen {
    file: File,
    /// Read up to here, and this of it behind the last newline.
    bytes: u64,
    loose: Vec<u8>,
    crc: u32,
    whole: u64,
}

/// `watch LOTS PORT`: says `V FILE BYTES CRC` of what it sees up to the last newline, again and again.
pub fn watch(words: &[String]) {
    let port = Port::open(&words[1]);
    port.hears_panics();
    let mut files: BTreeMap<PathBuf, Seen> = BTreeMap::new();
    loop {
        let names = std::fs::read_dir(Path::new(&words[0])).into_iter().flatten().flatten();
        for path in
            names.map(|name| name.path()).filter(|path| path.extension().is_some_and(|e| e == "jsonl"))
        {
            let seen = files.entry(path.clone()).or_insert_with(|| {
                let file = File::open(&path).expect("a lot file opens");
                Seen { file, bytes: 0, loose: Vec::new(), crc: 0, whole: 0 }
            });
            seen.file.seek(SeekFrom::Start(seen.bytes)).expect("a place to go on");
            let mut more = Vec::new();
            seen.bytes += seen.file.read_to_end(&mut more).expect("a lot file is read") as u64;
            seen.loose.extend(more);
            let Some(end) = seen.loose.iter().rposition(|b| *b == b'\n') else { continue };
            let whole: Vec<u8> = seen.loose.drain(..=end).collect();
            seen.crc = crc32c::crc32c_append(seen.crc, &whole);
            seen.whole += whole.len() as u64;
            let name = path.file_stem().and_then(|name| name.to_str()).expect("a name");
            port.say(&format!("V {name} {} {}", seen.whole, seen.crc));
        }
        std::thread::sleep(Duration::from_millis(30));
    }
}
