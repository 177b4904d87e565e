//! Damage at random: ranges flipped, cut out, zeroed, doubled, moved, swapped, inserted, overwritten; files
//! deleted, copied, renamed, cut; two directories mixed.

use lotlog::storage::{Dir, Disk, How};

use crate::sim::*;

/// Makes a file, in the place of one that may be there.
pub fn put(world: &mut World, dir: Dir, name: &str, bytes: &[u8]) {
    let disk = SimDisk::new(std::mem::take(world));
    let file = disk.open(dir, name, How::Replace).unwrap();
    file.write_at(0, bytes).unwrap();
    file.sync().unwrap();
    disk.sync_dir(dir, None).unwrap();
    *world = disk.world.lock().unwrap().clone();
}

/// Where a mutation's choices come from: a generator, or a fuzzer's bytes.
pub trait Choices {
    /// A number below `n`, which is at least 1.
    fn below(&mut self, n: usize) -> usize;
}

impl Choices for Random {
    fn below(&mut self, n: usize) -> usize {
        Random::below(self, n)
    }
}

/// Changes a directory in one way; says how. `other` is another directory to take from.
pub fn change(world: &mut World, other: &World, dir: Dir, random: &mut impl Choices) -> String {
    let names = world.names(dir);
    if names.is_empty() {
        return String::new();
    }
    let name = names[random.below(names.len())].clone();
    let second = names[random.below(names.len())].clone();
    let bytes = world.read(dir, &name).unwrap();
    let used = bytes.iter().rposition(|b| *b != 0).map_or(0, |at| at + 1);
    let whole = match random.below(12) {
        0 => {
            world.remove(dir, &name);
            "deleted".to_owned()
        }
        1 => {
            put(world, dir, &second, &bytes);
            format!("copied over {second}")
        }
        2 => {
            // A name that follows, or one that is nobody's.
            let to = match u64::from_str_radix(name.trim_end_matches(".wal"), 16) {
                Ok(number) if random.below(5) > 0 => {
                    format!("{:016x}.wal", number + 1 + random.below(4) as u64)
                }
                _ => format!("{name}.old"),
            };
            world.rename(dir, &name, &to);
            format!("renamed to {to}")
        }
        3 if other.read(dir, &name).is_some() => {
            put(world, dir, &name, &other.read(dir, &name).unwrap());
            "replaced by that of another directory".to_owned()
        }
        _ => String::new(),
    };
    if !whole.is_empty() {
        return format!("; {name} {whole}");
    }
    let ours = bytes;
    let theirs = other.read(dir, &name).unwrap_or_default();
    let mut how = String::new();
    world.edit(dir, &name, |b| how = change_bytes(b, used, &ours, &theirs, random));
    format!("; {name}: {how}")
}

/// Changes a file's bytes in one way, mostly where something was written.
fn change_bytes(
    b: &mut Vec<u8>,
    used: usize,
    ours: &[u8],
    theirs: &[u8],
    random: &mut impl Choices,
) -> String {
    if used == 0 {
        b.extend_from_slice(b"something");
        return "written to".to_owned();
    }
    let limit = used + 100;
    let most = *[8, 64, 512, 4096, used].get(random.below(5)).unwrap();
    let align = *[1, 8, 512].get(random.below(3)).unwrap();
    let at = (random.below(limit) / align * align).min(b.len().saturating_sub(1));
    let length = 1 + random.below(most);
    let end = (at + length).min(b.len());
    let to = (random.below(limit) / align * align).min(b.len().saturating_sub(1));
    let room = (to + (end - at)).min(b.len());
    match random.below(10) {
        0 => {
            let bit = random.below(8);
            b[at] ^= 1 << bit;
            format!("bit {bit} of byte {at} flipped")
        }
        1 => {
            b.drain(at..end);
            format!("{at}..{end} cut out")
        }
        2 => {
            b[at..end].fill(0);
            format!("{at}..{end} zeroed")
        }
        3 => {
            let copy = ours[at..at + (room - to)].to_vec();
            b[to..room].copy_from_slice(&copy);
            format!("{at}..{end} copied to {to}")
        }
        4 => {
            let copy = ours[at..at + (room - to)].to_vec();
            b[at..at + copy.len()].fill(0);
            b[to..room].copy_from_slice(&copy);
            format!("{at}..{end} moved to {to}")
        }
        5 => {
            let (one, two) = (ours[at..at + (room - to)].to_vec(), ours[to..room].to_vec());
            b[at..at + two.len()].copy_from_slice(&two);
            b[to..room].copy_from_slice(&one);
            format!("{at}..{end} and {to}..{room} swapped")
        }
        6 => {
            let copy = ours[at..end].to_vec();
            b.splice(to..to, copy);
            format!("{at}..{end} inserted at {to}")
        }
        7 => {
            for byte in &mut b[at..end] {
                *byte = random.below(256) as u8;
            }
            format!("{at}..{end} noise")
        }
        8 => {
            b.truncate(at);
            format!("cut at {at}")
        }
        _ => {
            let end = end.min(theirs.len());
            if at < end {
                b[at..end].copy_from_slice(&theirs[at..end]);
            }
            format!("{at}..{end} from another directory")
        }
    }
}
