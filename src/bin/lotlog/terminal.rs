//! A terminal as a live view needs it: its own screen, keys without Enter, its size, and everything as it was in
//! the end, whatever ends the command. Does not know what is shown.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::termios::{LocalModes, OptionalActions, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr};

/// A screen of its own, without a cursor.
const ENTER: &[u8] = b"\x1b[?1049h\x1b[?25l";
const LEAVE: &[u8] = b"\x1b[?25h\x1b[?1049l";
/// Where the terminal does not tell its size.
const USUAL_SIZE: (usize, usize) = (80, 24);

/// What ended a wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The time has come.
    Time,
    /// The size has changed.
    Resized,
    /// `q`, Escape, Ctrl-C or Ctrl-D, or a signal that ends a process.
    Quit,
}

/// The terminal, until it is dropped.
pub struct Terminal {
    before: Termios,
    resized: Arc<AtomicBool>,
    ended: Arc<AtomicBool>,
}

/// Whether a person sits at both ends.
pub fn is_there() -> bool {
    isatty(io::stdin()) && isatty(io::stdout())
}

impl Terminal {
    /// Takes the terminal.
    pub fn open() -> io::Result<Terminal> {
        let (resized, ended) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        signal_hook::flag::register(signal_hook::consts::SIGWINCH, resized.clone())?;
        for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGHUP, signal_hook::consts::SIGINT]
        {
            signal_hook::flag::register(signal, ended.clone())?;
        }
        let before = tcgetattr(io::stdin())?;
        let mut during = before.clone();
        // Ctrl-C comes as a byte: the terminal is given back before the end.
        during.local_modes -= LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG;
        tcsetattr(io::stdin(), OptionalActions::Flush, &during)?;
        let terminal = Terminal { before, resized, ended };
        io::stdout().write_all(ENTER)?;
        Ok(terminal)
    }

    /// Columns and rows.
    pub fn size(&self) -> (usize, usize) {
        match tcgetwinsize(io::stdout()) {
            Ok(size) if size.ws_col > 0 && size.ws_row > 0 => {
                (usize::from(size.ws_col), usize::from(size.ws_row))
            }
            _ => USUAL_SIZE,
        }
    }

    /// Shows these lines, which fit, from the top; in one write, so that nothing flickers.
    pub fn show(&self, lines: &[String]) -> io::Result<()> {
        let mut text = String::from("\x1b[H");
        for (at, line) in lines.iter().enumerate() {
            // No newline behind the last row: the screen would scroll.
            text += if at > 0 { "\r\n" } else { "" };
            text += line;
            text += "\x1b[K";
        }
        text += "\x1b[J";
        let mut out = io::stdout().lock();
        out.write_all(text.as_bytes())?;
        out.flush()
    }

    /// Waits until `until`, or for something earlier.
    pub fn wait(&self, until: Instant) -> io::Result<Event> {
        loop {
            if self.ended.load(Ordering::Relaxed) {
                return Ok(Event::Quit);
            }
            if self.resized.swap(false, Ordering::Relaxed) {
                return Ok(Event::Resized);
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(Event::Time);
            }
            let timeout = Timespec::try_from(left).ok();
            let stdin = io::stdin();
            match poll(&mut [PollFd::new(&stdin, PollFlags::IN)], timeout.as_ref()) {
                Ok(0) | Err(rustix::io::Errno::INTR) => {}
                Ok(_) => {
                    let mut keys = [0; 64];
                    let got = rustix::io::read(&stdin, &mut keys)?;
                    // A terminal that is gone gives nothing any more. An arrow key begins with Escape too.
                    let key = &keys[..got];
                    if key.is_empty() || key == b"\x1b" || key.iter().any(|b| b"qQ\x03\x04".contains(b)) {
                        return Ok(Event::Quit);
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let mut out = io::stdout().lock();
        let _ = out.write_all(LEAVE).and_then(|()| out.flush());
        let _ = tcsetattr(io::stdin(), OptionalActions::Flush, &self.before);
    }
}
