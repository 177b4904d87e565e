//! A disk with a volatile write cache: what was written since the last flush may be gone after a power cut, or
//! any part of it be there, in any order, torn within a request. Knows nothing of who writes.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::common::producer::Random;

pub const SECTOR: u64 = 512;

/// What of the cache survives a cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Survive {
    Nothing,
    Everything,
    /// Each piece of each request by itself, so many of a hundred.
    Pieces(u64),
    /// Each request by itself, whole, but the last, which is torn.
    Requests(u64),
    /// What came before one request; that one is torn.
    Early,
    /// What came after one request; that one is torn.
    Late,
}

impl Survive {
    pub fn any(random: &mut Random) -> Survive {
        match random.below(8) {
            0 => Survive::Nothing,
            1 => Survive::Everything,
            2 | 3 => Survive::Pieces(5 + random.below(91)),
            4 | 5 => Survive::Requests(5 + random.below(91)),
            6 => Survive::Early,
            _ => Survive::Late,
        }
    }
}

/// One sector as a request left it.
struct Version {
    request: u64,
    bytes: Box<[u8]>,
}

pub struct Cache {
    platter: File,
    /// Written since the last flush, by sector, oldest first.
    pending: HashMap<u64, Vec<Version>>,
    /// Number of the first request that is not flushed, and of the next one.
    first: u64,
    next: u64,
    pub flushes: u64,
    pub fua: u64,
}

impl Cache {
    pub fn new(platter: File) -> Cache {
        Cache { platter, pending: HashMap::new(), first: 0, next: 0, flushes: 0, fua: 0 }
    }

    /// Requests since the last flush.
    pub fn unflushed(&self) -> u64 {
        self.next - self.first
    }

    pub fn writes(&self) -> u64 {
        self.next
    }

    /// Reads what was written last, durable or not. Whole sectors.
    pub fn read(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        assert!(offset.is_multiple_of(SECTOR) && into.len().is_multiple_of(SECTOR as usize));
        self.platter.read_exact_at(into, offset)?;
        for (n, chunk) in into.chunks_mut(SECTOR as usize).enumerate() {
            if let Some(version) = self.pending.get(&(offset / SECTOR + n as u64)).and_then(|v| v.last()) {
                chunk.copy_from_slice(&version.bytes);
            }
        }
        Ok(())
    }

    /// Takes a write; with `fua` it is durable at once, as what it covers.
    pub fn write(&mut self, offset: u64, bytes: &[u8], fua: bool) -> io::Result<()> {
        assert!(offset.is_multiple_of(SECTOR) && bytes.len().is_multiple_of(SECTOR as usize));
        let request = self.next;
        self.next += 1;
        self.fua += u64::from(fua);
        for (n, chunk) in bytes.chunks(SECTOR as usize).enumerate() {
            let sector = offset / SECTOR + n as u64;
            if fua {
                self.pending.remove(&sector);
            } else {
                self.pending.entry(sector).or_default().push(Version { request, bytes: chunk.into() });
            }
        }
        if fua { self.platter.write_all_at(bytes, offset) } else { Ok(()) }
    }

    /// Everything written so far is durable.
    pub fn flush(&mut self) -> io::Result<()> {
        for (sector, versions) in self.pending.drain() {
            if let Some(last) = versions.last() {
                self.platter.write_all_at(&last.bytes, sector * SECTOR)?;
            }
        }
        self.first = self.next;
        self.flushes += 1;
        Ok(())
    }

    /// What the cut leaves of the cache, as sectors to lay over the platter; a piece is `piece` bytes.
    pub fn survivors(&self, how: Survive, seed: u64, piece: u64) -> Vec<(u64, &[u8])> {
        let draw = |a: u64, b: u64| Random(seed ^ a.wrapping_mul(0x9E37_79B9) ^ (b << 20)).number() % 100;
        let torn = self.first + Random(seed).below(self.unflushed().max(1));
        let last = self.next.saturating_sub(1);
        let survives = |request: u64, piece: u64| match how {
            Survive::Nothing => false,
            Survive::Everything => true,
            Survive::Pieces(percent) => draw(request, piece + 1) < percent,
            Survive::Requests(_) if request == last => draw(request, piece + 1) < 50,
            Survive::Requests(percent) => draw(request, 0) < percent,
            Survive::Early => request < torn || (request == torn && draw(request, piece + 1) < 50),
            Survive::Late => request > torn || (request == torn && draw(request, piece + 1) < 50),
        };
        let mut left = Vec::new();
        for (sector, versions) in &self.pending {
            let newest = versions.iter().rev().find(|v| survives(v.request, sector * SECTOR / piece));
            left.extend(newest.map(|v| (*sector, &*v.bytes)));
        }
        left
    }

    /// Lays survivors over an image.
    pub fn lay(image: &File, survivors: &[(u64, &[u8])]) -> io::Result<()> {
        survivors.iter().try_for_each(|(sector, bytes)| image.write_all_at(bytes, sector * SECTOR))
    }
}

/// The model on trial.
pub fn check() {
    let cache = |sectors: u64| {
        let platter = tempfile::tempfile().expect("a temporary file");
        platter.set_len(sectors * SECTOR).expect("its length");
        Cache::new(platter)
    };
    let sectors = |byte: u8, count: usize| vec![byte; count * SECTOR as usize];
    let view = |cache: &Cache, sector: u64| {
        let mut bytes = sectors(0, 1);
        cache.read(sector * SECTOR, &mut bytes).expect("a read");
        bytes[0]
    };
    let platter = |cache: &Cache, sector: u64| {
        let mut byte = [0];
        cache.platter.read_exact_at(&mut byte, sector * SECTOR).expect("a read");
        byte[0]
    };

    let mut disk = cache(64);
    disk.write(0, &sectors(1, 8), false).expect("a write");
    assert_eq!((view(&disk, 7), platter(&disk, 7)), (1, 0), "a write is seen, and not durable");
    disk.flush().expect("a flush");
    assert_eq!(platter(&disk, 7), 1, "a flush makes it durable");
    assert!(disk.survivors(Survive::Everything, 1, 512).is_empty(), "nothing is left to lose");
    disk.write(0, &sectors(2, 8), false).expect("a write");
    disk.write(0, &sectors(3, 4), false).expect("a write");
    disk.write(0, &sectors(4, 1), true).expect("a write");
    assert_eq!((view(&disk, 0), platter(&disk, 0)), (4, 4), "FUA is durable at once");
    assert_eq!((view(&disk, 1), platter(&disk, 1)), (3, 1), "and takes nothing else along");
    disk.write(0, &sectors(5, 1), false).expect("a write");
    assert_eq!(view(&disk, 0), 5, "the last write is what is read");
    assert_eq!(disk.unflushed(), 4);
    assert!(disk.survivors(Survive::Nothing, 1, 512).is_empty());
    let mut all = disk.survivors(Survive::Everything, 1, 512);
    all.sort_unstable();
    let all: Vec<u8> = all.iter().map(|(_, bytes)| bytes[0]).collect();
    assert_eq!(all, [5, 3, 3, 3, 2, 2, 2, 2], "of each sector the last version");

    // What the cuts are made of: each outcome must come up.
    let mut disk = cache(64);
    for byte in 1..=3 {
        disk.write(0, &sectors(byte, 16), false).expect("a write");
    }
    let outcome = |how, seed, piece| {
        let mut bytes = [0_u8; 16];
        for (sector, left) in disk.survivors(how, seed, piece) {
            bytes[sector as usize] = left[0];
        }
        bytes
    };
    let any = |how, piece, wanted: &dyn Fn(&[u8; 16]) -> bool| {
        (0..200).any(|seed| wanted(&outcome(how, seed, piece)))
    };
    assert!(any(Survive::Pieces(50), 512, &|b| (0..=3).all(|v| b.contains(&v))), "sectors of every age");
    let even = |b: &[u8; 16]| b.chunks(8).all(|page| page.iter().all(|v| *v == page[0]));
    assert!(!any(Survive::Pieces(50), 4096, &|b| !even(b)), "no tear within 4 KiB where the disk has none");
    assert!(any(Survive::Pieces(50), 4096, &|b| b[0] == 1 && b[8] == 3), "a tear between two of 4 KiB");
    let torn_over_the_first = |b: &[u8; 16]| b.contains(&1) && !b.contains(&2) && b.contains(&3);
    assert!(any(Survive::Requests(50), 512, &torn_over_the_first), "one lost between two");
    assert!(any(Survive::Early, 512, &|b| b.contains(&1) && b.contains(&2) && !b.contains(&3)), "one torn");
    assert!(any(Survive::Late, 512, &|b| b == &[3; 16]), "the early ones lost");
    assert_eq!(outcome(Survive::Pieces(50), 7, 512), outcome(Survive::Pieces(50), 7, 512), "by the seed");
}
