//! `lotlog send --spool`: delivers what a client could not, file by file, each batch in order and once.
//!
//! Each batch goes under the session and number it was spooled with, so that one which had been stored already is
//! not stored again. Where the daemon no longer knows the session, and behind a batch that it refuses for good, the
//! rest of the file is first written anew under a new session, synced, and delivered from there: interrupted, the
//! next attempt uses the same new numbers. Does not know who spools; the files are described in docs/spool.md.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use lotlog::client::{Client, ClientError, Refused};
use rustix::fs::{FlockOperation, flock};

use crate::Daemon;
use crate::failure::{self, Failure};
use crate::summary::eprintln_quietly;

const MAX_IN_FLIGHT: usize = 64;
const FIRST_PAUSE: Duration = Duration::from_millis(25);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
const SUFFIX: &str = ".spool";

pub fn run(dir: &Path, daemon: &Daemon, as_json: bool) -> Result<(), Failure> {
    let mut delivery = Delivery {
        dir: dir.to_owned(),
        socket: daemon.socket()?,
        timeout: daemon.timeout,
        client: None,
        pause: FIRST_PAUSE,
        last_progress: Instant::now(),
        last_trouble: String::new(),
        put_off: BTreeSet::new(),
        count: Count::default(),
    };
    let _held = lock(dir)?;
    let stopped = delivery.deliver_all().err();
    delivery.close(as_json, stopped)
}

/// The right to deliver, as long as the file is open.
fn lock(dir: &Path) -> Result<File, Failure> {
    let path = dir.join("lock");
    let opened = File::options().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
    let file = match opened {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Err(Failure::data(format!(
                "there is no directory {}, so nothing was sent: look whether the name is right (a client makes its spool \
                 with the first batch that it cannot deliver)",
                dir.display()
            )));
        }
        Err(error) => {
            return Err(Failure::io(format!(
                "cannot open {}: {error}, so nothing was sent: run this as the user whose spool it is",
                path.display()
            )));
        }
    };
    flock(&file, FlockOperation::NonBlockingLockExclusive).map_err(|errno| {
        Failure::io(format!(
            "{} is locked ({errno}): another process is delivering this spool, so nothing was sent; try again",
            path.display()
        ))
    })?;
    Ok(file)
}

/// One spooled request line: `{"session":"...","seq":N,` and the rest.
#[derive(Clone)]
struct Spooled {
    session: String,
    seq: u64,
    text: Vec<u8>,
    /// Where what follows session and number begins.
    body: usize,
}

impl Spooled {
    fn parse(text: &[u8]) -> Option<Spooled> {
        let rest = text.strip_prefix(br#"{"session":""#)?;
        let end = memchr::memchr(b'"', rest)?;
        let session = std::str::from_utf8(&rest[..end]).ok()?;
        lotlog::batch::SessionId::new(session)?;
        let rest = rest[end..].strip_prefix(br#"","seq":"#)?;
        let digits = memchr::memchr(b',', rest)?;
        let seq = std::str::from_utf8(&rest[..digits]).ok()?.parse().ok().filter(|seq| *seq > 0)?;
        let body = text.len() - (rest.len() - digits - 1);
        Some(Spooled { session: session.to_owned(), seq, text: text.to_owned(), body })
    }

    fn renumbered(&self, session: &str, seq: u64) -> Vec<u8> {
        let mut text = format!(r#"{{"session":"{session}","seq":{seq},"#).into_bytes();
        text.extend_from_slice(&self.text[self.body..]);
        text
    }
}

#[derive(Default)]
struct Count {
    delivered: u64,
    records: u64,
    duplicates: u64,
    refused: u64,
    renumbered: u64,
    files_left: u64,
}

enum End {
    /// All of the run is stored.
    Stored,
    /// One was refused for good. None behind it is stored, unless its number was used for other content.
    Refused { at: usize, refused: Refused },
    /// Its lot is refused for now.
    PutOff(Refused),
}

struct Delivery {
    dir: PathBuf,
    socket: PathBuf,
    timeout: Duration,
    client: Option<Client>,
    pause: Duration,
    last_progress: Instant,
    last_trouble: String,
    /// Sessions with a batch that was put off: those behind it must not go before it.
    put_off: BTreeSet<String>,
    count: Count,
}

impl Delivery {
    fn deliver_all(&mut self) -> Result<(), Failure> {
        let entries = fs::read_dir(&self.dir).map_err(|error| Failure::reading(&self.dir, &error))?;
        let mut names: Vec<String> = entries
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter(|name| name.ends_with(SUFFIX) && self.is_a_file(name))
            .collect();
        names.sort();
        self.count.files_left = names.len() as u64;
        for name in names {
            if self.deliver_file(&name)? {
                self.count.files_left -= 1;
            }
        }
        Ok(())
    }

    /// A pipe would be waited for without end, and no client has made it.
    fn is_a_file(&self, name: &str) -> bool {
        let path = self.dir.join(name);
        let odd = fs::metadata(&path).is_ok_and(|found| !found.is_file());
        if odd {
            eprintln_quietly(&format!(
                "lotlog: {} is no file, so it is passed over: remove it",
                path.display()
            ));
        }
        !odd
    }

    /// Whether all of the file was delivered, or set aside.
    fn deliver_file(&mut self, name: &str) -> Result<bool, Failure> {
        let path = self.dir.join(name);
        loop {
            let text = match fs::read(&path) {
                Ok(text) => text,
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(true),
                Err(error) => return Err(Failure::reading(&path, &error)),
            };
            // Behind the last newline is a torn end, which only a disk that lies can leave.
            let whole = memchr::memrchr(b'\n', &text).map_or(0, |at| at + 1);
            let mut lines: Vec<Spooled> = Vec::new();
            for line in text[..whole].split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
                match Spooled::parse(line) {
                    Some(line) => lines.push(line),
                    None => self.set_aside(name, line, "it is no request line of a spool")?,
                }
            }
            let mut from = 0;
            let left = loop {
                let Some(first) = lines.get(from) else { break None };
                if self.put_off.contains(&first.session) {
                    return Ok(false);
                }
                let follows = |(at, line): &(usize, &Spooled)| {
                    line.session == first.session && line.seq == first.seq + *at as u64
                };
                let run = lines[from..].iter().enumerate().take_while(follows).count();
                match self.deliver_run(&lines[from..from + run])? {
                    End::Stored => from += run,
                    End::PutOff(refused) => {
                        eprintln_quietly(&format!("lotlog: {name}: kept for later: {refused}"));
                        self.put_off.insert(first.session.clone());
                        return Ok(false);
                    }
                    End::Refused { at, refused } => {
                        break Some(self.after_refusal(
                            name,
                            &lines[from + at..from + run],
                            &lines[from + run..],
                            &refused,
                        )?);
                    }
                }
            };
            match left {
                Some(lines) if !lines.is_empty() => self.replace(name, &lines)?,
                _ => {
                    fs::remove_file(&path).map_err(|error| {
                        Failure::io(format!("cannot remove {}, which is delivered: {error}", path.display()))
                    })?;
                    return Ok(true);
                }
            }
        }
    }

    /// What the file must hold now: the rest of the run, under a new session where its numbers cannot be used any more,
    /// and what stood behind it.
    fn after_refusal(
        &mut self,
        name: &str,
        rest: &[Spooled],
        behind: &[Spooled],
        refused: &Refused,
    ) -> Result<Vec<Vec<u8>>, Failure> {
        let mut rest = rest;
        if refused.code == "out_of_sequence" {
            if refused.expected == Some(1) {
                eprintln_quietly(&format!(
                    "lotlog: {name}: the daemon does not know session {} any more: {} batches go under a new one; any of them that it had stored before it forgot is now stored twice",
                    rest[0].session,
                    rest.len()
                ));
            }
        } else {
            self.set_aside(name, &rest[0].text, &refused.to_string())?;
            rest = &rest[1..];
            if refused.code == "conflict" {
                // That number is used up, so those behind it were the next, and may be stored by now: they keep theirs.
                return Ok(rest.iter().chain(behind).map(|line| line.text.clone()).collect());
            }
        }
        self.count.renumbered += rest.len() as u64;
        let session = uuid::Uuid::new_v4().to_string();
        let renumbered = rest.iter().zip(1..).map(|(line, seq)| line.renumbered(&session, seq));
        Ok(renumbered.chain(behind.iter().map(|line| line.text.clone())).collect())
    }

    /// Sends lines of one session, numbered without gaps.
    fn deliver_run(&mut self, run: &[Spooled]) -> Result<End, Failure> {
        let (mut answered, mut sent) = (0, 0);
        self.last_progress = Instant::now();
        while answered < run.len() {
            if self.client.is_none() {
                sent = answered;
                self.connect()?;
            }
            let Some(client) = &mut self.client else { continue };
            client.set_timeout(self.timeout);
            while sent < run.len() && sent - answered < MAX_IN_FLIGHT {
                sent += 1;
                match client.send_line(&run[sent - 1].text) {
                    Ok(()) => {}
                    // What it had answered is still read, then comes the end.
                    Err(ClientError::Closed { .. } | ClientError::Io { .. }) => break,
                    Err(error) => return Err(error.into()),
                }
            }
            let reply = match client.recv_reply() {
                Ok(reply) => reply,
                Err(error @ (ClientError::Closed { .. } | ClientError::Io { .. })) => {
                    self.last_trouble = error.to_string();
                    self.client = None;
                    self.back_off()?;
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            let Some(refused) = reply.error else {
                answered += 1;
                self.last_progress = Instant::now();
                self.pause = FIRST_PAUSE;
                self.count.duplicates += u64::from(reply.duplicate);
                if !reply.duplicate {
                    self.count.delivered += 1;
                    self.count.records += reply.records.unwrap_or(0);
                }
                continue;
            };
            if refused.code == "forbidden" {
                return Err(Failure { code: failure::NO_DAEMON, message: refused.to_string() });
            }
            for _ in answered + 1..sent {
                if client.recv_reply().is_err() {
                    self.client = None;
                    break;
                }
            }
            sent = answered;
            if refused.code == "lot_unavailable" {
                return Ok(End::PutOff(refused));
            } else if !refused.retryable {
                return Ok(End::Refused { at: answered, refused });
            }
            self.last_trouble = refused.to_string();
            self.back_off()?;
        }
        Ok(End::Stored)
    }

    fn connect(&mut self) -> Result<(), Failure> {
        match Client::connect(&self.socket, self.timeout) {
            Ok(client) => self.client = Some(client),
            // Nobody was there from the beginning: that is said at once.
            Err(error) if self.last_trouble.is_empty() => return Err(error.into()),
            Err(error) => {
                self.last_trouble = error.to_string();
                self.back_off()?;
            }
        }
        Ok(())
    }

    fn back_off(&mut self) -> Result<(), Failure> {
        if self.last_progress.elapsed() + self.pause > self.timeout {
            return Err(Failure::io(format!(
                "nothing was stored for {:?}, so the rest stays in the spool; last: {}",
                self.timeout, self.last_trouble
            )));
        }
        std::thread::sleep(self.pause);
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        Ok(())
    }

    /// Keeps a batch for a person: it would be refused again.
    fn set_aside(&mut self, name: &str, line: &[u8], why: &str) -> Result<(), Failure> {
        let path = self.dir.join(name).with_extension("refused");
        let there = fs::read(&path).unwrap_or_default();
        if !there.split(|byte| *byte == b'\n').any(|other| other == line) {
            File::options()
                .create(true)
                .append(true)
                .mode(0o600)
                .open(&path)
                .and_then(|mut file| file.write_all(&[line, b"\n"].concat()).and_then(|()| file.sync_all()))
                .and_then(|()| File::open(&self.dir)?.sync_all())
                .map_err(|error| writing(&path, &error))?;
        }
        self.count.refused += 1;
        eprintln_quietly(&format!(
            "lotlog: {}: a batch was refused and is kept there: {why}",
            path.display()
        ));
        Ok(())
    }

    /// Puts other lines in the place of a file's, as a whole.
    fn replace(&self, name: &str, lines: &[Vec<u8>]) -> Result<(), Failure> {
        let path = self.dir.join(name);
        let unfinished = self.dir.join(format!("{name}.{}.new", std::process::id()));
        let write = || {
            let mut file =
                File::options().create(true).write(true).truncate(true).mode(0o600).open(&unfinished)?;
            for line in lines {
                file.write_all(line)?;
                file.write_all(b"\n")?;
            }
            file.sync_all()?;
            fs::rename(&unfinished, &path)?;
            File::open(&self.dir)?.sync_all()
        };
        write().map_err(|error| {
            let _ = fs::remove_file(&unfinished);
            writing(&path, &error)
        })
    }

    fn close(self, as_json: bool, stopped: Option<Failure>) -> Result<(), Failure> {
        let Count { delivered, records, duplicates, refused, renumbered, files_left } = self.count;
        if as_json {
            let summary = serde_json::json!({
                "spool": self.dir.display().to_string(), "delivered_batches": delivered, "delivered_records": records,
                "duplicates": duplicates, "refused": refused, "renumbered": renumbered, "files_left": files_left,
                "error": stopped.as_ref().map(ToString::to_string),
            });
            writeln!(std::io::stdout(), "{summary}").map_err(|error| Failure::output(&error))?;
        } else {
            eprintln_quietly(&format!(
                "{records} records in {delivered} batches delivered; {duplicates} batches had been stored before, {refused} were refused, {files_left} files are left in {}",
                self.dir.display()
            ));
        }
        match stopped {
            Some(failure) => Err(failure),
            None if refused > 0 => {
                Err(Failure::data("not everything was stored: see the files .refused in the spool"))
            }
            None if files_left > 0 => {
                Err(Failure::io("some lots are refused for now: run the same again later"))
            }
            None => Ok(()),
        }
    }
}

fn writing(path: &Path, error: &std::io::Error) -> Failure {
    Failure::io(format!(
        "cannot write {}: {error}; what was not delivered is still in the spool",
        path.display()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spooled_line_is_taken_apart_and_numbered_anew() {
        let line = Spooled::parse(br#"{"session":"a-1","seq":12,"context":{},"items":[{}]}"#);
        let line = line.expect("it is one");
        assert_eq!((line.session.as_str(), line.seq), ("a-1", 12));
        assert_eq!(line.renumbered("b", 1), br#"{"session":"b","seq":1,"context":{},"items":[{}]}"#);
        for odd in [
            &b"{}"[..],
            br#"{"session":"a","seq":0,}"#,
            br#"{"session":"a b","seq":1,}"#,
            br#"{"session":"a","seq":"#,
        ] {
            assert!(Spooled::parse(odd).is_none());
        }
    }
}
