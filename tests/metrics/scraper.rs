//! A scraper: raw HTTP over TCP or a Unix socket, and a page cut into its samples.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use crate::common::{DEADLINE, Daemon, until};

/// Where a daemon serves its page.
#[derive(Clone, Debug)]
pub enum At {
    Tcp(String),
    Unix(PathBuf),
}

pub trait Stream: Read + Write {}
impl<T: Read + Write> Stream for T {}

/// The address that the daemon says it serves, of a port that it chose.
pub fn tcp_of(daemon: &Daemon) -> At {
    let found = until("the daemon says where its metrics are", || {
        let log = daemon.place.own_log();
        let rest = log.split("metrics on http://").nth(1)?;
        rest.split('/').next().map(str::to_owned)
    });
    At::Tcp(found)
}

/// A reply: status, head in lower case, body.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl At {
    pub fn connect(&self) -> Box<dyn Stream> {
        match self {
            At::Tcp(address) => {
                let stream = TcpStream::connect(address).expect("somebody listens");
                stream.set_read_timeout(Some(3 * DEADLINE)).unwrap();
                Box::new(stream)
            }
            At::Unix(path) => {
                let stream = UnixStream::connect(path).expect("somebody listens");
                stream.set_read_timeout(Some(3 * DEADLINE)).unwrap();
                Box::new(stream)
            }
        }
    }

    /// Sends these bytes and reads to the end.
    pub fn exchange(&self, request: &[u8]) -> Option<Reply> {
        let mut stream = self.connect();
        let _ = stream.write_all(request);
        let mut bytes = Vec::new();
        // A connection that is reset has said what it had to say.
        let _ = stream.read_to_end(&mut bytes);
        let text = String::from_utf8(bytes).expect("text");
        let (head, body) = text.split_once("\r\n\r\n")?;
        let status = head.split(' ').nth(1)?.parse().ok()?;
        Some(Reply { status, head: head.to_ascii_lowercase(), body: body.to_owned() })
    }

    #[track_caller]
    pub fn get(&self, path: &str) -> Reply {
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        self.exchange(request.as_bytes()).expect("a whole reply")
    }

    /// The page's samples.
    #[track_caller]
    pub fn scrape(&self) -> Samples {
        let reply = self.get("/metrics");
        assert_eq!(reply.status, 200, "{reply:?}");
        Samples::parse(&reply.body)
    }
}

/// Samples by their names with labels, as the page spells them; families by name.
#[derive(Debug)]
pub struct Samples {
    pub values: BTreeMap<String, f64>,
    pub types: BTreeMap<String, String>,
    pub helps: BTreeMap<String, String>,
}

impl Samples {
    #[track_caller]
    pub fn parse(page: &str) -> Samples {
        let mut samples = Samples { values: BTreeMap::new(), types: BTreeMap::new(), helps: BTreeMap::new() };
        for line in page.lines() {
            let twice = if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').unwrap();
                samples.types.insert(name.to_owned(), kind.to_owned()).is_some()
            } else if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, help) = rest.split_once(' ').unwrap();
                samples.helps.insert(name.to_owned(), help.to_owned()).is_some()
            } else {
                let (name, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("no sample: {line}"));
                samples.values.insert(name.to_owned(), value.parse().unwrap()).is_some()
            };
            assert!(!twice, "twice on one page: {line}");
        }
        samples
    }

    #[track_caller]
    pub fn value(&self, name: &str) -> f64 {
        *self.values.get(name).unwrap_or_else(|| panic!("{name} is not on the page"))
    }
}

/// The memory of a process in the machine, in KiB.
pub fn resident_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}
