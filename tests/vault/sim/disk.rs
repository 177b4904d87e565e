//! A disk in memory that knows what Linux really does, and is nowhere kinder: unsynced writes may vanish, be cut
//! anywhere or read as NUL, pages and files reach the disk in any order ([`super::inode`]); a name made, renamed
//! or removed without a directory sync may be as before, in the order of the file system's own journal or each
//! name for itself; a failed write-back is told once to who syncs the file, or to nobody.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use lotlog::storage::{Dir, Disk, DiskFile, How, Stat};

use super::inode::Inode;

/// A small generator of its own: the seed is printed and is all that a schedule depends on.
#[derive(Clone, Debug, Default)]
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

type Names = BTreeMap<String, u64>;

#[derive(Clone, Debug, PartialEq)]
enum NameOp {
    Link(String, u64),
    Rename(String, String),
    Unlink(String),
    /// The two halves of a move between directories: the name there, the file, and which directory the other is in.
    MoveIn(String, u64, Half),
    MoveOut(String, u64),
}

/// Where a file was moved from: the directory and its name there.
type Half = (String, String);

fn apply(names: &mut Names, op: &NameOp) {
    match op {
        NameOp::Link(name, inode) => drop(names.insert(name.clone(), *inode)),
        NameOp::Rename(from, to) => {
            if let Some(inode) = names.remove(from) {
                names.insert(to.clone(), inode);
            }
        }
        NameOp::Unlink(name) | NameOp::MoveOut(name, _) => drop(names.remove(name)),
        NameOp::MoveIn(name, inode, _) => drop(names.insert(name.clone(), *inode)),
    }
}

#[derive(Clone, Debug, Default)]
struct Directory {
    cached: Names,
    durable: Names,
    ops: Vec<NameOp>,
}

/// Those that are always there.
const DIRS: [Dir; 4] = [Dir::Data, Dir::Lots, Dir::Journal, Dir::Quarantine];
/// What stands for a directory among names.
const A_DIRECTORY: u64 = 0;

/// Everything on the disk, and in the cache above it. Clones share what neither has changed.
#[derive(Clone, Debug, Default)]
pub struct World {
    inodes: BTreeMap<u64, Arc<Inode>>,
    /// By path, each with a slash at its end.
    dirs: BTreeMap<String, Directory>,
    next_inode: u64,
    pub free_bytes: u64,
    pub boot: u64,
    /// By its clock files are dated, in seconds since 1970.
    pub seconds: i64,
    dice: Random,
}

/// Called after a sync, to change the world as somebody else would.
pub type After = Box<dyn FnMut(&mut World, &str) + Send>;
pub type Hook = Box<dyn FnMut(&World, &str) -> io::Result<()> + Send>;
pub type Look = Box<dyn FnMut(&str) -> io::Result<()> + Send>;
pub type Shorten = Box<dyn FnMut(&str, usize) -> usize + Send>;

/// The disk. Clones share it.
#[derive(Clone)]
pub struct SimDisk {
    pub world: Arc<Mutex<World>>,
    /// Called before every call that changes something, with its name.
    pub hook: Arc<Mutex<Option<Hook>>>,
    /// Called after every sync of a file.
    pub after: Arc<Mutex<Option<After>>>,
    /// Called before every call that changes nothing, with its name.
    pub look: Arc<Mutex<Option<Look>>>,
    /// Says how many bytes of a write are taken.
    pub shorten: Arc<Mutex<Option<Shorten>>>,
}

impl World {
    pub fn new() -> World {
        let dirs = DIRS.map(|dir| (dir.prefix().to_owned(), Directory::default())).into();
        World { free_bytes: 1 << 40, next_inode: 1, dirs, ..World::default() }
    }

    fn dir_mut(&mut self, path: &str) -> &mut Directory {
        self.dirs.get_mut(path).unwrap()
    }

    /// What has a name, if anything has.
    fn find(&self, dir: Dir, name: &str) -> Option<u64> {
        let (path, name) = place(dir, name);
        self.dirs.get(&path)?.cached.get(name).copied()
    }

    fn inode(&mut self, id: u64) -> &mut Inode {
        Arc::make_mut(self.inodes.get_mut(&id).unwrap())
    }

    fn named(&mut self, dir: Dir, name: &str) -> &mut Inode {
        let id = self.find(dir, name).unwrap();
        self.inode(id)
    }

    fn op(&mut self, path: &str, op: NameOp) {
        let d = self.dir_mut(path);
        apply(&mut d.cached, &op);
        d.ops.push(op);
    }

    /// What a reader sees of a file.
    pub fn read(&self, dir: Dir, name: &str) -> Option<Vec<u8>> {
        Some(self.inodes[&self.find(dir, name)?].content())
    }

    pub fn names(&self, dir: Dir) -> Vec<String> {
        self.names_below(dir, None).unwrap_or_default()
    }

    pub fn names_below(&self, dir: Dir, sub: Option<&str>) -> Option<Vec<String>> {
        Some(self.dirs.get(&path_of(dir, sub))?.cached.keys().cloned().collect())
    }

    /// Somebody else's hand: changes a file in place, and syncs it.
    pub fn edit(&mut self, dir: Dir, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = self.read(dir, name).unwrap();
        change(&mut bytes);
        self.named(dir, name).replace(&bytes);
    }

    /// Somebody else's hand: makes a file, and syncs it.
    pub fn put(&mut self, dir: Dir, name: &str, bytes: &[u8]) {
        self.next_inode += 1;
        let id = self.next_inode;
        let mut inode = Inode::default();
        inode.modified = self.seconds;
        inode.replace(bytes);
        self.inodes.insert(id, Arc::new(inode));
        let (path, name) = place(dir, name);
        let d = self.dir_mut(&path);
        d.cached.insert(name.to_owned(), id);
        d.durable.insert(name.to_owned(), id);
    }

    /// Somebody else's hand: makes a directory.
    pub fn make_dir(&mut self, dir: Dir, name: &str) {
        let (path, own) = place(dir, name);
        let d = self.dir_mut(&path);
        d.cached.insert(own.to_owned(), A_DIRECTORY);
        d.durable.insert(own.to_owned(), A_DIRECTORY);
        self.dirs.insert(format!("{}{name}/", dir.prefix()), Directory::default());
    }

    /// Somebody else's hand: truncates, and syncs nothing.
    pub fn truncate_loosely(&mut self, dir: Dir, name: &str, length: usize) {
        self.named(dir, name).truncate(length);
    }

    /// Somebody else's hand: removes a name.
    pub fn remove(&mut self, dir: Dir, name: &str) {
        let d = self.dir_mut(dir.prefix());
        d.cached.remove(name);
        d.durable.remove(name);
    }

    /// Somebody else's hand: renames.
    pub fn rename(&mut self, dir: Dir, from: &str, to: &str) {
        let d = self.dir_mut(dir.prefix());
        for names in [&mut d.cached, &mut d.durable] {
            if let Some(id) = names.remove(from) {
                names.insert(to.to_owned(), id);
            }
        }
    }

    /// The kernel writes some dirty pages back by itself, or fails to.
    pub fn write_back(&mut self, random: &mut Random, fails: bool) {
        for inode in self.inodes.values_mut().filter(|inode| inode.is_dirty()) {
            if random.chance(if fails { 30 } else { 60 }) {
                Arc::make_mut(inode).write_back(random, fails);
            }
        }
    }

    /// What the next start finds in the same boot: all that a reader sees. Some of what is clean may have been
    /// pushed out of memory meanwhile, and with a file that nobody had open the word of its error.
    pub fn kill(&self, random: &mut Random) -> World {
        let mut after = self.clone();
        after.collect();
        let pressure = random.chance(30);
        for inode in after.inodes.values_mut().filter(|_| pressure) {
            if random.chance(50) {
                let inode = Arc::make_mut(inode);
                inode.drop_pages();
                if !inode.is_dirty() {
                    inode.told = inode.errors;
                }
            }
        }
        after
    }

    /// Forgets files that have no name any more, nor could get one back.
    fn collect(&mut self) {
        let mut used: Vec<u64> = Vec::new();
        for d in self.dirs.values() {
            used.extend(d.cached.values().chain(d.durable.values()));
            used.extend(d.ops.iter().filter_map(|op| match op {
                NameOp::Link(_, id) | NameOp::MoveIn(_, id, _) => Some(id),
                _ => None,
            }));
        }
        self.inodes.retain(|id, _| used.contains(id));
    }

    /// What the machine finds after a power cut now.
    pub fn power_cut(&self, random: &mut Random) -> World {
        let mut after = World {
            free_bytes: self.free_bytes,
            next_inode: self.next_inode,
            boot: self.boot + 1,
            seconds: self.seconds,
            dice: Random(random.number()),
            ..World::default()
        };
        for (id, inode) in &self.inodes {
            after.inodes.insert(*id, Arc::new(inode.after_cut(random)));
        }
        let in_order = random.chance(60);
        let mut left: BTreeMap<&String, Names> = BTreeMap::new();
        for (path, d) in &self.dirs {
            let names = if in_order { ordered(d, random) } else { each_name_for_itself(d, random) };
            // One whose own name did not reach the disk is gone with all that is in it.
            let (parent, own) =
                path.trim_end_matches('/').rsplit_once('/').map_or(("", &**path), |(p, own)| (p, own));
            let parent = if parent.is_empty() { String::new() } else { format!("{parent}/") };
            let base = DIRS.iter().any(|dir| dir.prefix() == path);
            if base || left.get(&parent).is_some_and(|names| names.contains_key(own.trim_end_matches('/'))) {
                left.insert(path, names);
            }
        }
        self.hold_moves_together(&mut left, in_order, random);
        for (path, names) in left {
            after
                .dirs
                .insert(path.clone(), Directory { cached: names.clone(), durable: names, ops: Vec::new() });
        }
        after.collect();
        after
    }

    /// A rename between directories is one step: a file is here or there. Here *and* there is possible where the file
    /// system makes two steps of it.
    fn hold_moves_together(&self, left: &mut BTreeMap<&String, Names>, in_order: bool, random: &mut Random) {
        for (path, d) in &self.dirs {
            for op in &d.ops {
                let NameOp::MoveIn(to, id, (from_path, from)) = op else { continue };
                let there = left.get(path).is_some_and(|names| names.get(to) == Some(id));
                let Some(names) = left.get_mut(from_path) else { continue };
                let here = names.get(from) == Some(id);
                if !here && !there {
                    match names.get(from) {
                        None => drop(names.insert(from.clone(), *id)),
                        Some(_) => drop(left.get_mut(path).and_then(|names| names.insert(to.clone(), *id))),
                    }
                } else if here && there && (in_order || random.chance(50)) {
                    names.remove(from);
                }
            }
        }
        for (path, d) in &self.dirs {
            for op in &d.ops {
                // The other half is durable already.
                let NameOp::MoveOut(from, id) = op else { continue };
                let there =
                    self.dirs.iter().any(|(at, d)| at != path && d.durable.values().any(|other| other == id));
                let names = left.get_mut(path);
                if let Some(names) = names.filter(|names| there && in_order && names.get(from) == Some(id)) {
                    names.remove(from);
                }
            }
        }
    }
}

/// The path of a directory, or of one below it.
fn path_of(dir: Dir, sub: Option<&str>) -> String {
    dir.prefix().to_owned() + &sub.map_or(String::new(), |sub| format!("{sub}/"))
}

/// The path of a file's directory, and its name there.
fn place(dir: Dir, name: &str) -> (String, &str) {
    match name.split_once('/') {
        Some((sub, name)) => (path_of(dir, Some(sub)), name),
        None => (path_of(dir, None), name),
    }
}

/// The file system's journal keeps the order of operations on names: some prefix of them holds.
fn ordered(d: &Directory, random: &mut Random) -> Names {
    let mut names = d.durable.clone();
    for op in &d.ops[..random.below(d.ops.len() + 1)] {
        apply(&mut names, op);
    }
    names
}

/// Each name is what it was at any moment since the directory was synced.
fn each_name_for_itself(d: &Directory, random: &mut Random) -> Names {
    let mut names = d.durable.clone();
    let mut was: BTreeMap<String, Vec<Option<u64>>> = BTreeMap::new();
    for op in &d.ops {
        let touched: &[&String] = match op {
            NameOp::Link(name, _)
            | NameOp::Unlink(name)
            | NameOp::MoveIn(name, ..)
            | NameOp::MoveOut(name, _) => &[name],
            NameOp::Rename(from, to) => &[from, to],
        };
        let before = names.clone();
        apply(&mut names, op);
        for name in touched {
            let states = was.entry((*name).clone()).or_insert_with(|| vec![before.get(*name).copied()]);
            states.push(names.get(*name).copied());
        }
    }
    let mut names = d.durable.clone();
    for (name, states) in was {
        match states[random.below(states.len())] {
            Some(id) => drop(names.insert(name, id)),
            None => drop(names.remove(&name)),
        }
    }
    names
}

impl SimDisk {
    pub fn new(world: World) -> SimDisk {
        let world = Arc::new(Mutex::new(world));
        let (hook, after, look, shorten) = Default::default();
        SimDisk { world, hook, after, look, shorten }
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
    /// The name it was opened by.
    name: String,
    /// The errors of its write-backs that this descriptor knows of.
    told: AtomicU64,
}

impl SimDisk {
    pub fn set_look(&self, look: Look) {
        *self.look.lock().unwrap() = Some(look);
    }

    pub fn set_shorten(&self, shorten: Shorten) {
        *self.shorten.lock().unwrap() = Some(shorten);
    }

    fn looks(&self, what: impl FnOnce() -> String) -> io::Result<()> {
        self.look.lock().unwrap().as_mut().map_or(Ok(()), |look| look(&what()))
    }
}

impl Disk for SimDisk {
    fn open(&self, dir: Dir, name: &str, how: How) -> io::Result<Box<dyn DiskFile>> {
        let path = format!("{}{name}", dir.prefix());
        self.looks(|| format!("open {path}"))?;
        let existing = self.world.lock().unwrap().find(dir, name);
        if existing == Some(A_DIRECTORY) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let inode = match (how, existing) {
            (How::Read | How::Append, None) => return Err(io::ErrorKind::NotFound.into()),
            (How::CreateAppend, Some(_)) => return Err(io::ErrorKind::AlreadyExists.into()),
            (How::CreateAppend | How::Write | How::Replace, None) => {
                let (parent, own) = place(dir, name);
                if !self.world.lock().unwrap().dirs.contains_key(&parent) {
                    return Err(io::ErrorKind::NotFound.into());
                }
                self.call(&format!("create {path}"))?;
                let mut world = self.world.lock().unwrap();
                world.next_inode += 1;
                let id = world.next_inode;
                world.inodes.insert(id, Arc::default());
                world.op(&parent, NameOp::Link(own.to_owned(), id));
                id
            }
            (How::Replace, Some(id)) => {
                self.call(&format!("truncate {path}"))?;
                self.world.lock().unwrap().inode(id).truncate(0);
                id
            }
            (_, Some(id)) => id,
        };
        let append = matches!(how, How::Append | How::CreateAppend);
        // An error that nobody was told of is told to who opens the file next.
        let told = AtomicU64::new(self.world.lock().unwrap().inodes[&inode].told);
        Ok(Box::new(SimFile { disk: self.clone(), inode, append, name: path, told }))
    }

    fn stat(&self, dir: Dir, name: &str) -> io::Result<Option<Stat>> {
        self.looks(|| format!("stat {}{name}", dir.prefix()))?;
        let world = self.world.lock().unwrap();
        let id = world.find(dir, name);
        let inode = |id| world.inodes.get(&id);
        Ok(id.map(|id| Stat {
            bytes: inode(id).map_or(0, |inode| inode.length as u64),
            id: (1, id),
            links: 1,
            regular: id != A_DIRECTORY,
            modified_seconds: inode(id).map_or(0, |inode| inode.modified),
        }))
    }

    fn list(&self, dir: Dir, sub: Option<&str>) -> io::Result<Vec<String>> {
        self.looks(|| format!("list {}", path_of(dir, sub)))?;
        let names = self.world.lock().unwrap().names_below(dir, sub).ok_or(io::ErrorKind::NotFound)?;
        // A directory's order is nobody's to count on, and its names least of all.
        Ok(names.into_iter().rev().collect())
    }

    fn make_dir(&self, dir: Dir, name: &str) -> io::Result<bool> {
        let path = format!("{}{name}/", dir.prefix());
        if self.world.lock().unwrap().dirs.contains_key(&path) {
            return Ok(false);
        }
        self.call(&format!("mkdir {path}"))?;
        let mut world = self.world.lock().unwrap();
        world.op(dir.prefix(), NameOp::Link(name.to_owned(), A_DIRECTORY));
        world.dirs.insert(path, Directory::default());
        Ok(true)
    }

    fn archive(&self, from: &str, to: &str) -> io::Result<()> {
        self.call(&format!("move archive/{to}"))?;
        let mut world = self.world.lock().unwrap();
        let id = world.find(Dir::Lots, from).ok_or(io::ErrorKind::NotFound)?;
        if world.find(Dir::Archive, to).is_some() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let (path, to) = place(Dir::Archive, to);
        if !world.dirs.contains_key(&path) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let lots = Dir::Lots.prefix();
        world.op(lots, NameOp::MoveOut(from.to_owned(), id));
        world.op(&path, NameOp::MoveIn(to.to_owned(), id, (lots.to_owned(), from.to_owned())));
        Ok(())
    }

    fn rename(&self, dir: Dir, from: &str, to: &str, replace: bool) -> io::Result<()> {
        self.call(&format!("rename {}{to}", dir.prefix()))?;
        let mut world = self.world.lock().unwrap();
        if world.find(dir, from).is_none() {
            return Err(io::ErrorKind::NotFound.into());
        }
        if !replace && world.find(dir, to).is_some() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let ((path, from), (_, to)) = (place(dir, from), place(dir, to));
        world.op(&path, NameOp::Rename(from.to_owned(), to.to_owned()));
        Ok(())
    }

    fn unlink(&self, dir: Dir, name: &str) -> io::Result<()> {
        self.call(&format!("unlink {}{name}", dir.prefix()))?;
        let mut world = self.world.lock().unwrap();
        match world.find(dir, name) {
            None => return Err(io::ErrorKind::NotFound.into()),
            Some(A_DIRECTORY) => return Err(io::ErrorKind::IsADirectory.into()),
            Some(_) => {}
        }
        let (path, name) = place(dir, name);
        world.op(&path, NameOp::Unlink(name.to_owned()));
        Ok(())
    }

    fn sync_dir(&self, dir: Dir, sub: Option<&str>) -> io::Result<()> {
        let path = path_of(dir, sub);
        if !self.world.lock().unwrap().dirs.contains_key(&path) {
            return Err(io::ErrorKind::NotFound.into());
        }
        self.call(&format!("sync {path}"))?;
        let mut world = self.world.lock().unwrap();
        let d = world.dir_mut(&path);
        d.durable = d.cached.clone();
        d.ops.clear();
        Ok(())
    }

    fn free_bytes(&self, dir: Dir) -> io::Result<u64> {
        self.looks(|| format!("free {}", dir.prefix()))?;
        Ok(self.world.lock().unwrap().free_bytes)
    }

    fn boot_id(&self) -> String {
        format!("boot-{}", self.world.lock().unwrap().boot)
    }
}

impl SimFile {
    /// A call by the name that the file has now.
    fn named(&self, verb: &str) -> String {
        let world = self.disk.world.lock().unwrap();
        let named = |(path, d): (&String, &Directory)| {
            let name = d.cached.iter().find(|(_, id)| **id == self.inode);
            name.map(|(name, _)| format!("{verb} {path}{name}"))
        };
        world.dirs.iter().find_map(named).unwrap_or_else(|| format!("{verb} {}", self.name))
    }
}

impl DiskFile for SimFile {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<usize> {
        let what = self.named("write");
        self.disk.call(&what)?;
        let count = match self.disk.shorten.lock().unwrap().as_mut() {
            Some(shorten) => shorten(&what, bytes.len()).min(bytes.len()),
            None => bytes.len(),
        };
        let mut world = self.disk.world.lock().unwrap();
        let seconds = world.seconds;
        let inode = world.inode(self.inode);
        inode.modified = seconds;
        let at = if self.append { inode.length } else { offset as usize };
        inode.write(at, &bytes[..count]);
        Ok(count)
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        self.disk.looks(|| self.named("read"))?;
        Ok(self.disk.world.lock().unwrap().inodes[&self.inode].read(offset as usize, into))
    }

    fn sync(&self) -> io::Result<()> {
        let result = self.disk.call(&self.named("sync"));
        let mut world = self.disk.world.lock().unwrap();
        let mut dice = world.dice.clone();
        let inode = world.inode(self.inode);
        let result = match result {
            Ok(()) => {
                inode.sync();
                let known = self.told.swap(inode.errors, Ordering::SeqCst);
                let fine = known >= inode.errors;
                inode.told = inode.errors;
                if fine { Ok(()) } else { Err(io::Error::from_raw_os_error(5)) }
            }
            Err(error) => {
                inode.fail_sync(&mut dice);
                inode.told = inode.errors;
                self.told.store(inode.errors, Ordering::SeqCst);
                Err(error)
            }
        };
        world.dice = dice;
        if let Some(after) = self.disk.after.lock().unwrap().as_mut() {
            drop(world);
            let what = self.named("sync");
            after(&mut self.disk.world.lock().unwrap(), &what);
        }
        result
    }

    fn truncate(&self, bytes: u64) -> io::Result<()> {
        self.disk.call(&self.named("truncate"))?;
        self.disk.world.lock().unwrap().inode(self.inode).truncate(bytes as usize);
        Ok(())
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        self.disk.call(&self.named("allocate"))?;
        self.disk.world.lock().unwrap().inode(self.inode).allocate(bytes as usize);
        Ok(())
    }

    fn stat(&self) -> io::Result<Stat> {
        self.disk.looks(|| self.named("fstat"))?;
        let world = self.disk.world.lock().unwrap();
        let links =
            world.dirs.values().flat_map(|d| d.cached.values()).filter(|id| **id == self.inode).count();
        let inode = &world.inodes[&self.inode];
        let (bytes, modified_seconds) = (inode.length as u64, inode.modified);
        Ok(Stat { bytes, id: (1, self.inode), links: links as u64, regular: true, modified_seconds })
    }

    fn drop_cache(&self) -> io::Result<()> {
        self.disk.world.lock().unwrap().inode(self.inode).drop_pages();
        Ok(())
    }

    fn begin_write_back(&self, offset: u64, bytes: u64) -> io::Result<()> {
        self.disk.looks(|| format!("{} {offset} {bytes}", self.named("begin")))
    }

    fn set_modified(&self, seconds: i64) -> io::Result<()> {
        self.disk.call(&self.named("date"))?;
        self.disk.world.lock().unwrap().inode(self.inode).modified = seconds;
        Ok(())
    }

    fn set_note(&self, note: &str) -> io::Result<()> {
        self.disk.call(&self.named("note"))?;
        self.disk.world.lock().unwrap().inode(self.inode).note = Some(note.to_owned());
        Ok(())
    }

    fn note(&self) -> io::Result<Option<String>> {
        self.disk.looks(|| self.named("ask"))?;
        Ok(self.disk.world.lock().unwrap().inodes[&self.inode].note.clone())
    }
}
