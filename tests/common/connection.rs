//! A raw connection: bytes out, lines in, and a deadline on both.

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;

use serde_json::Value;

use super::DEADLINE;

/// What came in.
#[derive(Debug, PartialEq)]
pub enum Received {
    Line(Vec<u8>),
    /// The daemon closed; these bytes were no whole line.
    End(Vec<u8>),
    /// Nothing came before the deadline.
    Nothing,
}

pub struct Connection {
    stream: UnixStream,
    pending: Vec<u8>,
    /// Up to here `pending` has no newline.
    searched: usize,
}

impl Connection {
    pub fn try_open(socket: &Path) -> Option<Connection> {
        let stream = UnixStream::connect(socket).ok()?;
        stream.set_read_timeout(Some(DEADLINE)).ok()?;
        stream.set_write_timeout(Some(DEADLINE)).ok()?;
        Some(Connection { stream, pending: Vec::new(), searched: 0 })
    }

    /// The stream, for what only a socket can do.
    pub fn stream(&self) -> &UnixStream {
        &self.stream
    }

    /// Exactly these bytes.
    #[track_caller]
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).expect("the daemon reads what is sent");
    }

    /// As many of these bytes as the daemon takes before it closes.
    pub fn send_what_goes(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
    }

    /// A line and its newline.
    #[track_caller]
    pub fn send_line(&mut self, line: impl AsRef<[u8]>) {
        self.send([line.as_ref(), b"\n"].concat());
    }

    /// No more requests.
    pub fn close_writing(&mut self) {
        self.stream.shutdown(Shutdown::Write).expect("half a close");
    }

    /// The next line, the end, or nothing in time.
    pub fn receive(&mut self) -> Received {
        let mut chunk = vec![0; 64 * 1024];
        loop {
            if let Some(at) = self.pending[self.searched..].iter().position(|b| *b == b'\n') {
                let rest = self.pending.split_off(self.searched + at + 1);
                let mut line = std::mem::replace(&mut self.pending, rest);
                line.pop();
                self.searched = 0;
                return Received::Line(line);
            }
            self.searched = self.pending.len();
            match self.stream.read(&mut chunk) {
                Ok(0) => return Received::End(std::mem::take(&mut self.pending)),
                Ok(n) => self.pending.extend_from_slice(&chunk[..n]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::ConnectionReset => {
                    return Received::End(std::mem::take(&mut self.pending));
                }
                Err(_) => return Received::Nothing,
            }
        }
    }

    /// The next reply.
    #[track_caller]
    pub fn reply(&mut self) -> Value {
        match self.receive() {
            Received::Line(line) => serde_json::from_slice(&line)
                .unwrap_or_else(|e| panic!("{e}: no reply is {:?}", String::from_utf8_lossy(&line))),
            other => panic!("a reply was expected, not {other:?}"),
        }
    }

    /// One request and its reply.
    #[track_caller]
    pub fn ask(&mut self, line: impl AsRef<[u8]>) -> Value {
        self.send_line(line);
        self.reply()
    }

    /// The daemon closes, and says nothing more.
    #[track_caller]
    pub fn expect_end(&mut self) {
        assert_eq!(self.receive(), Received::End(Vec::new()), "the connection should end here");
    }
}
