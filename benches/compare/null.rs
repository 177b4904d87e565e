//! The bound: a daemon that does as little as a daemon can that takes these requests and leaves these lines. One
//! thread reads from all connections, cuts lines, finds the items by what stands between them, copies each with its
//! batch's context and appends them with one write a batch. It validates nothing, numbers nothing, survives
//! nothing, and knows only the bench's own requests: what it reaches is what the machine gives, not what a daemon
//! could be. Runs as a child of the bench, so that its processor time can be told from the producers'.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use rustix::event::epoll;

use crate::records::Composer;

/// One read takes at most so much: more than a socket holds.
const READ_BYTES: usize = 256 << 10;
const MAX_EVENTS: usize = 256;
/// Most lot files that it holds open: a process may have no more than some 20,000 in many places.
const MOST_OPEN_LOTS: usize = 16 << 10;
/// The journal is written over from its beginning when it is full, as a daemon does that recycles its segments.
const JOURNAL_BYTES: u64 = 256 << 20;
const LISTENER: u64 = u64::MAX;
const REPLY: &[u8] = b"{\"ok\":true,\"records\":50,\"durability\":\"none\"}\n";

/// What it does before it replies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Nothing.
    Bound,
    /// One `syncfs` for all batches that are ready together.
    Syncfs,
    /// All requests that are ready together go to a journal, with one `fdatasync`; the lot files are not synced.
    Journal,
}

impl Mode {
    pub fn parse(word: &str) -> Option<Mode> {
        [Mode::Bound, Mode::Syncfs, Mode::Journal].into_iter().find(|mode| mode.as_str() == word)
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Mode::Bound => "bound",
            Mode::Syncfs => "syncfs",
            Mode::Journal => "journal",
        }
    }
}

/// A connection, and what has come of a request that is not whole.
struct Peer {
    stream: UnixStream,
    pending: Vec<u8>,
}

struct Null {
    mode: Mode,
    lots_dir: PathBuf,
    lots: HashMap<Vec<u8>, File>,
    journal: Option<(File, u64)>,
    /// The lines of one batch.
    lines: Vec<u8>,
    composer: Composer,
}

/// Serves until it is killed.
pub fn serve(mode: Mode, socket: &Path, dir: &Path) -> io::Result<()> {
    crate::process::die_with_parent()?;
    crate::process::raise_file_limit();
    let lots_dir = dir.join("lots");
    std::fs::create_dir_all(&lots_dir)?;
    let journal = if mode == Mode::Journal { Some((prepared(&dir.join("journal"))?, 0)) } else { None };
    let mut null = Null {
        mode,
        lots_dir,
        lots: HashMap::new(),
        journal,
        lines: Vec::new(),
        composer: Composer::default(),
    };
    let listener = UnixListener::bind(socket)?;
    let poll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    epoll::add(&poll, &listener, epoll::EventData::new_u64(LISTENER), epoll::EventFlags::IN)?;
    let mut peers: Vec<Option<Peer>> = Vec::new();
    let mut events: Vec<epoll::Event> = Vec::with_capacity(MAX_EVENTS);
    // One buffer for all, so that it stays in the processor's cache.
    let mut inbox = vec![0; READ_BYTES];
    // The requests of a group and whose they are; only where a sync stands between them and their replies.
    let mut group: Vec<u8> = Vec::new();
    let mut waiting: Vec<(usize, usize)> = Vec::new();
    loop {
        events.clear();
        epoll::wait(&poll, rustix::buffer::spare_capacity(&mut events), None)?;
        for event in &events {
            let at = event.data.u64();
            if at == LISTENER {
                let (stream, _) = listener.accept()?;
                epoll::add(
                    &poll,
                    &stream,
                    epoll::EventData::new_u64(peers.len() as u64),
                    epoll::EventFlags::IN,
                )?;
                peers.push(Some(Peer { stream, pending: Vec::new() }));
                continue;
            }
            let at = at as usize;
            let Some(peer) = &mut peers[at] else { continue };
            let got = match peer.stream.read(&mut inbox) {
                Ok(0) | Err(_) => {
                    peers[at] = None; // closing it takes it out of the poll
                    continue;
                }
                Ok(got) => got,
            };
            let mut whole: &[u8] = &inbox[..got];
            if !peer.pending.is_empty() || inbox[got - 1] != b'\n' {
                peer.pending.extend_from_slice(&inbox[..got]);
                whole = &peer.pending;
            }
            let Some(end) = memchr::memrchr(b'\n', whole) else { continue };
            let requests = &whole[..=end];
            let replies = if mode == Mode::Bound {
                null.store(requests)?
            } else {
                group.extend_from_slice(requests);
                memchr::memchr_iter(b'\n', requests).count()
            };
            if !peer.pending.is_empty() {
                peer.pending.drain(..=end);
            }
            if mode == Mode::Bound {
                reply(peer, replies);
            } else {
                waiting.push((at, replies));
            }
        }
        if !waiting.is_empty() {
            null.commit(&group)?;
            group.clear();
            for (at, replies) in waiting.drain(..) {
                if let Some(peer) = &mut peers[at] {
                    reply(peer, replies);
                }
            }
        }
    }
}

/// All replies of one connection go out together. Who is gone needs none.
fn reply(peer: &mut Peer, replies: usize) {
    let _ = if replies == 1 {
        peer.stream.write_all(REPLY)
    } else {
        peer.stream.write_all(&REPLY.repeat(replies))
    };
}

impl Null {
    fn commit(&mut self, group: &[u8]) -> io::Result<()> {
        if let Some((journal, at)) = &mut self.journal {
            if *at + group.len() as u64 > JOURNAL_BYTES {
                *at = 0;
            }
            journal.write_all_at(group, *at)?;
            *at += group.len() as u64;
            journal.sync_data()?;
        }
        self.store(group)?;
        if self.mode == Mode::Syncfs {
            rustix::fs::syncfs(File::open(&self.lots_dir)?)?;
        }
        Ok(())
    }

    /// Appends the lines of these requests to their lots' files.
    fn store(&mut self, requests: &[u8]) -> io::Result<usize> {
        let mut stored = 0;
        let mut from = 0;
        for end in memchr::memchr_iter(b'\n', requests) {
            self.store_one(&requests[from..end])?;
            from = end + 1;
            stored += 1;
        }
        Ok(stored)
    }

    fn store_one(&mut self, request: &[u8]) -> io::Result<()> {
        self.lines.clear();
        let lot = self.composer.compose(request, b"", &mut self.lines)?;
        if let Some(file) = self.lots.get_mut(lot) {
            return file.write_all(&self.lines);
        }
        let name = String::from_utf8_lossy(lot).into_owned() + ".jsonl";
        let mut file = OpenOptions::new().append(true).create(true).open(self.lots_dir.join(name))?;
        file.write_all(&self.lines)?;
        if self.lots.len() >= MOST_OPEN_LOTS {
            // Any will do: which is the oldest takes a book that this does not keep.
            let any = self.lots.keys().next().cloned();
            any.and_then(|lot| self.lots.remove(&lot));
        }
        self.lots.insert(lot.to_vec(), file);
        Ok(())
    }
}

/// A journal that is wholly allocated and written, so that a sync of what is written over it has no metadata to write.
fn prepared(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o640).open(path)?;
    let zeros = vec![0; 1 << 20];
    for at in (0..JOURNAL_BYTES).step_by(zeros.len()) {
        file.write_all_at(&zeros, at)?;
    }
    file.sync_all()?;
    Ok(file)
}
