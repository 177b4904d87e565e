//! The guest's disk: a [`Cache`] behind the network block device protocol, one client, one request after the
//! other, and a moment at which it stops for good. See the NBD project's `doc/proto.md`.

use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::cache::Cache;

/// When the power goes: at the n-th write or flush from now on, if one is set.
#[derive(Default)]
pub struct Fuse {
    left: Mutex<Option<u64>>,
}

impl Fuse {
    pub fn light(&self, requests: u64) {
        *self.left.lock().expect("the fuse") = Some(requests);
    }

    /// One more request: is it the one?
    fn burns(&self) -> bool {
        let mut left = self.left.lock().expect("the fuse");
        match left.as_mut() {
            Some(0 | 1) => true,
            Some(n) => {
                *n -= 1;
                false
            }
            None => false,
        }
    }
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// At a write, which may be torn.
    Write,
    /// At a flush, which nobody may count on.
    Flush,
    /// The client went.
    Gone,
}

fn number<const N: usize>(stream: &mut UnixStream) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn read_u32(stream: &mut UnixStream) -> io::Result<u32> {
    number(stream).map(u32::from_be_bytes)
}

/// A disk that answers no more, as long as this is kept.
pub struct Silent(#[allow(dead_code)] UnixStream);

/// Serves the first client until the fuse is burnt or the client has gone; a flush takes `flush_time`. After
/// the last request the disk is silent, but not gone: whoever acknowledges without it betrays himself.
pub fn serve(
    listener: &UnixListener,
    cache: &mut Cache,
    bytes: u64,
    flush_time: Duration,
    fuse: &Arc<Fuse>,
) -> io::Result<(End, Silent)> {
    let (mut stream, _) = listener.accept()?;
    let end = shake_hands(&mut stream, bytes).and_then(|()| transmit(&mut stream, cache, flush_time, fuse));
    let end = match end {
        Err(e)
            if [ErrorKind::UnexpectedEof, ErrorKind::ConnectionReset, ErrorKind::BrokenPipe]
                .contains(&e.kind()) =>
        {
            End::Gone
        }
        end => end?,
    };
    Ok((end, Silent(stream)))
}

const HAS_FLAGS_FLUSH_FUA: u16 = 1 | 4 | 8;

fn shake_hands(stream: &mut UnixStream, bytes: u64) -> io::Result<()> {
    const FIXED_NEWSTYLE: u16 = 1;
    const EXPORT_NAME: u32 = 1;
    const GO: u32 = 7;
    stream.write_all(b"NBDMAGICIHAVEOPT")?;
    stream.write_all(&FIXED_NEWSTYLE.to_be_bytes())?;
    let zeroes = read_u32(stream)? & 2 == 0;
    loop {
        let _magic: [u8; 8] = number(stream)?;
        let option = read_u32(stream)?;
        let mut data = vec![0; read_u32(stream)? as usize];
        stream.read_exact(&mut data)?;
        let mut reply = |kind: u32, data: &[u8]| {
            let mut bytes = 0x0003_e889_0455_65a9_u64.to_be_bytes().to_vec();
            bytes.extend(option.to_be_bytes());
            bytes.extend(kind.to_be_bytes());
            bytes.extend((data.len() as u32).to_be_bytes());
            bytes.extend(data);
            stream.write_all(&bytes)
        };
        let export = [&bytes.to_be_bytes()[..], &HAS_FLAGS_FLUSH_FUA.to_be_bytes()].concat();
        match option {
            GO => {
                reply(3, &[&[0, 0][..], &export].concat())?;
                return reply(1, &[]);
            }
            EXPORT_NAME => {
                stream.write_all(&export)?;
                return stream.write_all(&[0; 124][..if zeroes { 124 } else { 0 }]);
            }
            _ => reply((1 << 31) | 1, &[])?,
        }
    }
}

fn transmit(
    stream: &mut UnixStream,
    cache: &mut Cache,
    flush_time: Duration,
    fuse: &Fuse,
) -> io::Result<End> {
    const READ: u16 = 0;
    const WRITE: u16 = 1;
    const CLOSE: u16 = 2;
    const FLUSH: u16 = 3;
    loop {
        let header: [u8; 28] = number(stream)?;
        let field = |from: usize, to: usize| header[from..to].iter().fold(0, |n, b| n << 8 | u64::from(*b));
        if field(0, 4) != 0x2560_9513 {
            return Err(io::Error::other("not a request of NBD"));
        }
        let (fua, kind, offset, length) =
            (field(4, 6) & 1 == 1, field(6, 8) as u16, field(16, 24), field(24, 28) as usize);
        let mut data = Vec::new();
        let mut error = 0_u32;
        match kind {
            READ => {
                data.resize(length, 0);
                cache.read(offset, &mut data)?;
            }
            WRITE => {
                let mut bytes = vec![0; length];
                stream.read_exact(&mut bytes)?;
                if fuse.burns() {
                    // Never answered: even what asked for FUA may be torn.
                    cache.write(offset, &bytes, false)?;
                    return Ok(End::Write);
                }
                cache.write(offset, &bytes, fua)?;
            }
            FLUSH if fuse.burns() => return Ok(End::Flush),
            FLUSH => {
                std::thread::sleep(flush_time);
                cache.flush()?;
            }
            CLOSE => return Ok(End::Gone),
            _ => error = 22,
        }
        let mut reply = 0x6744_6698_u32.to_be_bytes().to_vec();
        reply.extend(error.to_be_bytes());
        reply.extend(&header[8..16]);
        reply.extend(&data);
        stream.write_all(&reply)?;
    }
}
