//! What a connection has read and not yet decoded, cut into lines. Pure bytes: knows neither sockets nor JSON.

/// An empty inbox keeps at most this many bytes allocated, because thousands of connections are idle.
const KEEP_BYTES: usize = 1 << 10;

/// Bytes in the order of arrival; lines are taken from the front.
#[derive(Debug, Default)]
pub struct Inbox {
    bytes: Vec<u8>,
    /// Where the first line that is not yet consumed starts.
    start: usize,
    /// No newline lies between `start` and here.
    searched: usize,
    /// The newline that ends the first line.
    newline: Option<usize>,
}

impl Inbox {
    /// Bytes held that are not consumed.
    pub fn len(&self) -> usize {
        self.bytes.len() - self.start
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds bytes at the end.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.start > 0 {
            self.bytes.drain(..self.start);
            self.searched -= self.start;
            self.newline = self.newline.map(|at| at - self.start);
            self.start = 0;
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// Whether the first line is whole; looks at each byte once.
    pub fn has_line(&mut self) -> bool {
        if self.newline.is_none() {
            self.newline =
                memchr::memchr(b'\n', &self.bytes[self.searched..]).map(|offset| self.searched + offset);
            self.searched = self.newline.unwrap_or(self.bytes.len());
        }
        self.newline.is_some()
    }

    /// The first line as far as it is there, without `\n` and a `\r` before it.
    pub fn line(&mut self) -> &[u8] {
        let end = if self.has_line() { self.searched } else { self.bytes.len() };
        let line = &self.bytes[self.start..end];
        line.strip_suffix(b"\r").unwrap_or(line)
    }

    /// Bytes that [`Inbox::consume_line`] would remove.
    pub fn line_bytes(&mut self) -> usize {
        if self.has_line() { self.searched + 1 - self.start } else { 0 }
    }

    /// Removes the first line with its newline, if it is whole.
    pub fn consume_line(&mut self) {
        let bytes = self.line_bytes();
        self.newline = None;
        self.start += bytes;
        self.searched = self.start;
        if self.start == self.bytes.len() {
            self.clear();
        }
    }

    /// Removes everything.
    pub fn clear(&mut self) {
        let mut bytes = std::mem::take(&mut self.bytes);
        bytes.clear();
        if bytes.capacity() > KEEP_BYTES {
            // Not shrunk: what would be left of it keeps the allocator from giving its page back.
            bytes = Vec::new();
        }
        *self = Inbox { bytes, ..Inbox::default() };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(pieces: &[&[u8]]) -> (Vec<Vec<u8>>, usize) {
        let (mut inbox, mut lines) = (Inbox::default(), Vec::new());
        for piece in pieces {
            inbox.push(piece);
            while inbox.has_line() {
                lines.push(inbox.line().to_vec());
                inbox.consume_line();
            }
        }
        (lines, inbox.len())
    }

    #[test]
    fn lines_are_cut_however_the_bytes_arrive() {
        let text = b"one\n\ntwo\r\n\r\nthree\rfour\n";
        let expected: Vec<Vec<u8>> =
            [&b"one"[..], b"", b"two", b"", b"three\rfour"].map(<[u8]>::to_vec).into();
        for size in 1..=text.len() {
            let pieces: Vec<&[u8]> = text.chunks(size).collect();
            assert_eq!(lines(&pieces), (expected.clone(), 0), "pieces of {size}");
        }
    }

    #[test]
    fn an_unfinished_line_stays_and_can_be_looked_at() {
        let mut inbox = Inbox::default();
        inbox.push(b"a\nunfin");
        inbox.consume_line();
        inbox.push(b"ished\r");
        assert!(!inbox.has_line());
        assert_eq!(inbox.line(), b"unfinished");
        assert_eq!((inbox.len(), inbox.line_bytes()), (11, 0));
        inbox.push(b"\n");
        assert_eq!(inbox.line(), b"unfinished");
        assert_eq!(inbox.line_bytes(), 12);
    }

    #[test]
    fn an_emptied_inbox_gives_its_memory_back() {
        let mut inbox = Inbox::default();
        inbox.push(&[b'x'; 100_000]);
        inbox.push(b"\n");
        inbox.consume_line();
        assert!(inbox.is_empty() && inbox.bytes.capacity() <= KEEP_BYTES);
    }
}
