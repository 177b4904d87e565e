//! A disk in memory that knows what Linux really does: unsynced writes may vanish, in part or wholly, page by
//! page and in any order; a length may be there before the bytes (they read as NUL); a name made, renamed or
//! removed without a directory sync may be as before; after a failed sync the page is clean and the data gone.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::{Arc, Mutex};

use lotlog::storage::{Dir, Disk, DiskFile, How, Stat};

const PAGE: usize = 4096;

/// A small generator of its own: the seed is printed and is all that a schedule depends on.
#[derive(Clone, Debug)]
pub struct Random(pub u64);

impl Random {
    pub fn number(&mut self) -> u64 {
        // splitmix64, Steele et al. 2014
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, n: usize) -> usize {
        (self.number() % n.max(1) as u64) as usize
    }

    pub fn chance(&mut self, percent: u64) -> bool {
        self.number() % 100 < percent
    }
}

#[derive(Clone, Debug, Default)]
struct Inode {
    /// What a reader sees.
    cached: Vec<u8>,
    /// What the disk has for certain.
    durable: Vec<u8>,
    /// Ranges written since the last sync.
    dirty: Vec<(usize, usize)>,
}

type Names = BTreeMap<String, u64>;

#[derive(Clone, Debug, PartialEq)]
enum NameOp {
    Link(String, u64),
    Rename(String, String),
    Unlink(String),
}

fn apply(names: &mut Names, op: &NameOp) {
    match op {
        NameOp::Link(name, inode) => drop(names.insert(name.clone(), *inode)),
        NameOp::Rename(from, to) => {
            if let Some(inode) = names.remove(from) {
                names.insert(to.clone(), inode);
            }
        }
        NameOp::Unlink(name) => drop(names.remove(name)),
    }
}

#[derive(Clone, Debug, Default)]
struct Directory {
    cached: Names,
    durable: Names,
    ops: Vec<NameOp>,
}

/// Everything on the disk, and in the cache above it.
#[derive(Clone, Debug, Default)]
pub struct World {
    inodes: HashMap<u64, Inode>,
    dirs: HashMap<Dir, Directory>,
    next_inode: u64,
    pub free_bytes: u64,
    pub boot: u64,
}

/// Called after a sync, to change the world as somebody else would.
pub type After = Box<dyn FnMut(&mut World, &str) + Send>;
pub type Hook = Box<dyn FnMut(&World, &str) -> io::Result<()> + Send>;

/// The disk. Clones share it.
#[derive(Clone)]
pub struct SimDisk {
    pub world: Arc<Mutex<World>>,
    /// Called before every call that changes something, with its name.
    pub hook: Arc<Mutex<Option<Hook>>>,
    /// Called after every sync of a file.
    pub after: Arc<Mutex<Option<After>>>,
}

impl World {
    pub fn new() -> World {
        World { free_bytes: 1 << 40, next_inode: 1, ..World::default() }
    }

    /// What a reader sees of a file.
    pub fn read(&self, dir: Dir, name: &str) -> Option<Vec<u8>> {
        let inode = self.dirs.get(&dir)?.cached.get(name)?;
        Some(self.inodes[inode].cached.clone())
    }

    pub fn names(&self, dir: Dir) -> Vec<String> {
        self.dirs.get(&dir).map(|d| d.cached.keys().cloned().collect()).unwrap_or_default()
    }

    /// Somebody else's hand: changes a file in place.
    pub fn edit(&mut self, dir: Dir, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let id = self.dirs[&dir].cached[name];
        let inode = self.inodes.get_mut(&id).unwrap();
        change(&mut inode.cached);
        inode.durable = inode.cached.clone();
        inode.dirty.clear();
    }

    /// Somebody else's hand: removes a name.
    pub fn remove(&mut self, dir: Dir, name: &str) {
        let d = self.dirs.get_mut(&dir).unwrap();
        d.cached.remove(name);
        d.durable.remove(name);
    }

    /// Somebody else's hand: renames.
    pub fn rename(&mut self, dir: Dir, from: &str, to: &str) {
        let d = self.dirs.get_mut(&dir).unwrap();
        for names in [&mut d.cached, &mut d.durable] {
            if let Some(id) = names.remove(from) {
                names.insert(to.to_owned(), id);
            }
        }
    }

    /// What the machine finds after a power cut now.
    pub fn power_cut(&self, random: &mut Random) -> World {
        let mut after = World {
            free_bytes: self.free_bytes,
            next_inode: self.next_inode,
            boot: self.boot + 1,
            ..World::default()
        };
        let mut ids: Vec<&u64> = self.inodes.keys().collect();
        ids.sort();
        for id in ids {
            let inode = &self.inodes[id];
            let mut bytes = inode.durable.clone();
            // Metadata may be ahead of the data, or behind it: the length is the old one, the new one, or one between.
            if inode.cached.len() != bytes.len() {
                let length = match random.below(3) {
                    0 => bytes.len(),
                    1 => inode.cached.len(),
                    _ => {
                        let (a, b) =
                            (bytes.len().min(inode.cached.len()), bytes.len().max(inode.cached.len()));
                        a + random.below(b - a + 1)
                    }
                };
                bytes.resize(length, 0);
            }
            for (start, end) in &inode.dirty {
                let mut at = *start;
                while at < *end {
                    let page_end = (at / PAGE + 1) * PAGE;
                    let stop = page_end.min(*end).min(bytes.len()).min(inode.cached.len());
                    if at < stop && random.chance(50) {
                        bytes[at..stop].copy_from_slice(&inode.cached[at..stop]);
                    }
                    at = page_end;
                }
            }
            after.inodes.insert(*id, Inode { cached: bytes.clone(), durable: bytes, ..Inode::default() });
        }
        for (dir, d) in &self.dirs {
            let mut names = d.durable.clone();
            // The file system's own journal keeps the order of operations on names: some prefix of them holds.
            for op in &d.ops[..random.below(d.ops.len() + 1)] {
                apply(&mut names, op);
            }
            after.dirs.insert(*dir, Directory { cached: names.clone(), durable: names, ops: Vec::new() });
        }
        after
    }
}

impl SimDisk {
    pub fn new(world: World) -> SimDisk {
        SimDisk { world: Arc::new(Mutex::new(world)), hook: Arc::default(), after: Arc::default() }
    }

    pub fn set_hook(&self, hook: Hook) {
        *self.hook.lock().unwrap() = Some(hook);
    }

    pub fn set_after(&self, after: After) {
        *self.after.lock().unwrap() = Some(after);
    }

    pub fn clear_after(&self) {
        *self.after.lock().unwrap() = None;
    }

    pub fn clear_hook(&self) {
        *self.hook.lock().unwrap() = None;
    }

    fn call(&self, what: &str) -> io::Result<()> {
        let mut hook = self.hook.lock().unwrap();
        match hook.as_mut() {
            Some(hook) => {
                let world = self.world.lock().unwrap();
                hook(&world, what)
            }
            None => Ok(()),
        }
    }
}

struct SimFile {
    disk: SimDisk,
    inode: u64,
    append: bool,
    name: String,
}

impl Disk for SimDisk {
    fn open(&self, dir: Dir, name: &str, how: How) -> io::Result<Box<dyn DiskFile>> {
        let existing = self.world.lock().unwrap().dirs.entry(dir).or_default().cached.get(name).copied();
        let fresh = |disk: &SimDisk| -> io::Result<u64> {
            disk.call(&format!("create {}{name}", dir.prefix()))?;
            let mut world = disk.world.lock().unwrap();
            world.next_inode += 1;
            let id = world.next_inode;
            world.inodes.insert(id, Inode::default());
            let d = world.dirs.entry(dir).or_default();
            let op = NameOp::Link(name.to_owned(), id);
            apply(&mut d.cached, &op);
            d.ops.push(op);
            Ok(id)
        };
        let inode = match (how, existing) {
            (How::Read | How::Append, None) => return Err(io::ErrorKind::NotFound.into()),
            (How::CreateAppend, Some(_)) => return Err(io::ErrorKind::AlreadyExists.into()),
            (How::CreateAppend | How::Write | How::Replace, None) => fresh(self)?,
            (How::Replace, Some(id)) => {
                self.call(&format!("truncate {}{name}", dir.prefix()))?;
                self.world.lock().unwrap().inodes.get_mut(&id).unwrap().cached.clear();
                id
            }
            (_, Some(id)) => id,
        };
        let append = matches!(how, How::Append | How::CreateAppend);
        Ok(Box::new(SimFile { disk: self.clone(), inode, append, name: format!("{}{name}", dir.prefix()) }))
    }

    fn stat(&self, dir: Dir, name: &str) -> io::Result<Option<Stat>> {
        let world = self.world.lock().unwrap();
        let id = world.dirs.get(&dir).and_then(|d| d.cached.get(name));
        Ok(id.map(|id| Stat {
            bytes: world.inodes[id].cached.len() as u64,
            id: (1, *id),
            links: 1,
            regular: true,
        }))
    }

    fn list(&self, dir: Dir) -> io::Result<Vec<String>> {
        Ok(self.world.lock().unwrap().names(dir))
    }

    fn rename(&self, dir: Dir, from: &str, to: &str, replace: bool) -> io::Result<()> {
        self.call(&format!("rename {}{to}", dir.prefix()))?;
        let mut world = self.world.lock().unwrap();
        let d = world.dirs.entry(dir).or_default();
        if !d.cached.contains_key(from) {
            return Err(io::ErrorKind::NotFound.into());
        }
        if !replace && d.cached.contains_key(to) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let op = NameOp::Rename(from.to_owned(), to.to_owned());
        apply(&mut d.cached, &op);
        d.ops.push(op);
        Ok(())
    }

    fn unlink(&self, dir: Dir, name: &str) -> io::Result<()> {
        self.call(&format!("unlink {}{name}", dir.prefix()))?;
        let mut world = self.world.lock().unwrap();
        let d = world.dirs.entry(dir).or_default();
        if !d.cached.contains_key(name) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let op = NameOp::Unlink(name.to_owned());
        apply(&mut d.cached, &op);
        d.ops.push(op);
        Ok(())
    }

    fn sync_dir(&self, dir: Dir) -> io::Result<()> {
        self.call(&format!("sync {}", dir.prefix()))?;
        let mut world = self.world.lock().unwrap();
        let d = world.dirs.entry(dir).or_default();
        d.durable = d.cached.clone();
        d.ops.clear();
        Ok(())
    }

    fn free_bytes(&self, _dir: Dir) -> io::Result<u64> {
        Ok(self.world.lock().unwrap().free_bytes)
    }

    fn boot_id(&self) -> String {
        format!("boot-{}", self.world.lock().unwrap().boot)
    }
}

impl DiskFile for SimFile {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<usize> {
        self.disk.call(&format!("write {}", self.name))?;
        let mut world = self.disk.world.lock().unwrap();
        let inode = world.inodes.get_mut(&self.inode).unwrap();
        let at = if self.append { inode.cached.len() } else { offset as usize };
        let end = at + bytes.len();
        if inode.cached.len() < end {
            inode.cached.resize(end, 0);
        }
        inode.cached[at..end].copy_from_slice(bytes);
        inode.dirty.push((at, end));
        Ok(bytes.len())
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        let world = self.disk.world.lock().unwrap();
        let cached = &world.inodes[&self.inode].cached;
        let from = (offset as usize).min(cached.len());
        let count = into.len().min(cached.len() - from);
        into[..count].copy_from_slice(&cached[from..from + count]);
        Ok(count)
    }

    fn sync(&self) -> io::Result<()> {
        let result = self.disk.call(&format!("sync {}", self.name));
        let mut world = self.disk.world.lock().unwrap();
        let inode = world.inodes.get_mut(&self.inode).unwrap();
        inode.dirty.clear();
        if result.is_ok() {
            inode.durable = inode.cached.clone();
        }
        if let Some(after) = self.disk.after.lock().unwrap().as_mut() {
            after(&mut world, &format!("sync {}", self.name));
        }
        result
    }

    fn truncate(&self, bytes: u64) -> io::Result<()> {
        self.disk.call(&format!("truncate {}", self.name))?;
        let mut world = self.disk.world.lock().unwrap();
        world.inodes.get_mut(&self.inode).unwrap().cached.resize(bytes as usize, 0);
        Ok(())
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        self.disk.call(&format!("allocate {}", self.name))?;
        let mut world = self.disk.world.lock().unwrap();
        let inode = world.inodes.get_mut(&self.inode).unwrap();
        if inode.cached.len() < bytes as usize {
            inode.cached.resize(bytes as usize, 0);
        }
        Ok(())
    }

    fn stat(&self) -> io::Result<Stat> {
        let world = self.disk.world.lock().unwrap();
        let links =
            world.dirs.values().flat_map(|d| d.cached.values()).filter(|id| **id == self.inode).count();
        let bytes = world.inodes[&self.inode].cached.len() as u64;
        Ok(Stat { bytes, id: (1, self.inode), links: links as u64, regular: true })
    }

    fn drop_cache(&self) -> io::Result<()> {
        Ok(())
    }
}
