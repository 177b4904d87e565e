//! One file of the disk in memory: pages in the cache above pages on the disk, and what a power cut, a failed
//! write-back or a lack of memory leaves of them. Nothing here is kinder than Linux.

use std::sync::Arc;

use super::disk::Random;

pub const PAGE: usize = 4096;

/// A page's bytes; `None` is a page of zeros.
type Bytes = Option<Arc<[u8; PAGE]>>;

/// Of the states a dirty page went through so many are remembered: any of them may have reached the disk.
const BETWEEN: usize = 3;

#[derive(Clone, Debug, Default)]
struct Page {
    /// What a reader sees.
    cached: Bytes,
    /// What the disk has.
    disk: Bytes,
    /// What it was since it was last clean.
    between: Vec<Bytes>,
    dirty: bool,
    /// A write-back of it failed. It counts as clean, and what is written over it in place never reaches the
    /// disk (measured on ext4), until the page is read anew.
    lost: bool,
}

impl Page {
    fn touch(&mut self) {
        if self.dirty {
            if self.between.len() == BETWEEN {
                self.between.remove(0);
            }
            self.between.push(self.cached.clone());
        }
        self.dirty = !self.lost;
    }

    fn clean(&mut self) {
        if std::mem::take(&mut self.dirty) {
            self.disk = self.cached.clone();
            self.between.clear();
        }
    }

    fn lose(&mut self) {
        if std::mem::take(&mut self.dirty) {
            self.lost = true;
            self.between.clear();
        }
    }

    fn forget(&mut self) {
        if !self.dirty {
            self.cached = self.disk.clone();
            self.lost = false;
        }
    }
}

/// A file.
#[derive(Clone, Debug, Default)]
pub struct Inode {
    pages: Vec<Page>,
    /// Its length as a reader sees it, as the disk has it, and what it was since the last sync.
    pub length: usize,
    disk_length: usize,
    lengths: Vec<usize>,
    /// Failed write-backs so far, and how many of them somebody was told of.
    pub errors: u64,
    pub told: u64,
    /// Its extended attribute, as a reader sees it and as the disk has it.
    pub note: Option<String>,
    /// When it was last written, in seconds since 1970.
    pub modified: i64,
    disk_note: Option<String>,
}

fn pages_of(length: usize) -> usize {
    length.div_ceil(PAGE)
}

impl Inode {
    fn resize(&mut self, length: usize) {
        self.lengths.push(self.length);
        self.length = length;
        if self.pages.len() < pages_of(length) {
            self.pages.resize_with(pages_of(length), Page::default);
        }
    }

    pub fn write(&mut self, at: usize, bytes: &[u8]) {
        let end = at + bytes.len();
        if end > self.length {
            self.resize(end);
        }
        let mut at = at;
        let mut bytes = bytes;
        while !bytes.is_empty() {
            let (number, from) = (at / PAGE, at % PAGE);
            let (some, rest) = bytes.split_at(bytes.len().min(PAGE - from));
            let page = &mut self.pages[number];
            page.touch();
            if page.cached.is_some() || some.iter().any(|b| *b != 0) {
                let cached = page.cached.get_or_insert_with(|| Arc::new([0; PAGE]));
                Arc::make_mut(cached)[from..from + some.len()].copy_from_slice(some);
            }
            at += some.len();
            bytes = rest;
        }
    }

    pub fn read(&self, at: usize, into: &mut [u8]) -> usize {
        let count = into.len().min(self.length.saturating_sub(at));
        let mut done = 0;
        while done < count {
            let (number, from) = ((at + done) / PAGE, (at + done) % PAGE);
            let some = (PAGE - from).min(count - done);
            let target = &mut into[done..done + some];
            match self.pages.get(number).and_then(|page| page.cached.as_ref()) {
                Some(bytes) => target.copy_from_slice(&bytes[from..from + some]),
                None => target.fill(0),
            }
            done += some;
        }
        count
    }

    pub fn content(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.length];
        self.read(0, &mut bytes);
        bytes
    }

    pub fn truncate(&mut self, length: usize) {
        let old = self.length;
        self.resize(length);
        if length >= old {
            return;
        }
        if !length.is_multiple_of(PAGE) {
            let page = &mut self.pages[length / PAGE];
            page.touch();
            if let Some(cached) = &mut page.cached {
                Arc::make_mut(cached)[length % PAGE..].fill(0);
            }
        }
        for page in &mut self.pages[pages_of(length)..] {
            page.lost = false;
            page.touch();
            page.cached = None;
        }
    }

    pub fn allocate(&mut self, length: usize) {
        if self.length < length {
            self.resize(length);
        }
    }

    /// A sync that succeeds.
    pub fn sync(&mut self) {
        for page in &mut self.pages {
            page.clean();
        }
        let kept = pages_of(self.length).min(self.pages.len());
        self.pages.truncate(kept);
        self.disk_length = self.length;
        self.lengths.clear();
        self.disk_note = self.note.clone();
    }

    /// A sync that fails: some of the dirty pages are lost, the others written.
    pub fn fail_sync(&mut self, random: &mut Random) {
        let dirty: Vec<usize> = (0..self.pages.len()).filter(|at| self.pages[*at].dirty).collect();
        let surely = random.below(dirty.len());
        for (count, at) in dirty.into_iter().enumerate() {
            let page = &mut self.pages[at];
            if count == surely || random.chance(60) { page.lose() } else { page.clean() }
        }
        self.errors += 1;
    }

    /// The kernel writes some dirty pages back by itself; or fails to, and tells nobody yet.
    pub fn write_back(&mut self, random: &mut Random, fails: bool) {
        let mut failed = false;
        for page in self.pages.iter_mut().filter(|page| page.dirty) {
            if random.chance(50) {
                if fails {
                    page.lose()
                } else {
                    page.clean()
                }
                failed |= fails;
            }
        }
        self.errors += u64::from(failed);
    }

    pub fn is_dirty(&self) -> bool {
        !self.lengths.is_empty() || self.pages.iter().any(|page| page.dirty)
    }

    /// The kernel forgets its clean pages: the next read comes from the disk.
    pub fn drop_pages(&mut self) {
        self.pages.iter_mut().for_each(Page::forget);
    }

    /// As if it had always been so: somebody else's change, synced.
    pub fn replace(&mut self, bytes: &[u8]) {
        self.truncate(0);
        self.pages.iter_mut().for_each(|page| page.lost = false);
        self.write(0, bytes);
        self.sync();
    }

    /// What is there after a power cut.
    pub fn after_cut(&self, random: &mut Random) -> Inode {
        let mut lengths = self.lengths.clone();
        lengths.extend([self.length, self.disk_length]);
        let (least, most) = lengths.iter().fold((usize::MAX, 0), |(a, b), l| (a.min(*l), b.max(*l)));
        let length = if random.chance(30) {
            least + random.below(most - least + 1)
        } else {
            lengths[random.below(lengths.len())]
        };
        // Now and then all of it is there, or nothing.
        let all = random.below(8);
        let mut pages = Vec::with_capacity(self.pages.len());
        for page in &self.pages {
            let bytes = match (page.dirty, all) {
                (false, _) | (true, 0) => page.disk.clone(),
                (true, 1) => page.cached.clone(),
                (true, _) => match random.below(10) {
                    0..4 => page.disk.clone(),
                    4..8 => page.cached.clone(),
                    8 => page.between.get(random.below(page.between.len())).unwrap_or(&page.disk).clone(),
                    _ => torn(&page.cached, &page.disk, random.below(PAGE)),
                },
            };
            pages.push(bytes);
        }
        pages.resize(pages_of(length), None);
        if !length.is_multiple_of(PAGE)
            && let Some(Some(last)) = pages.last_mut()
        {
            Arc::make_mut(last)[length % PAGE..].fill(0);
        }
        let page = |bytes: Bytes| Page { cached: bytes.clone(), disk: bytes, ..Page::default() };
        let pages = pages.into_iter().map(page).collect();
        let note = if random.chance(50) { self.note.clone() } else { self.disk_note.clone() };
        let modified = self.modified;
        Inode {
            pages,
            length,
            disk_length: length,
            disk_note: note.clone(),
            note,
            modified,
            ..Inode::default()
        }
    }
}

/// The new bytes up to `at`, the old ones from there on.
fn torn(new: &Bytes, old: &Bytes, at: usize) -> Bytes {
    let zeros = [0; PAGE];
    let mut bytes = **new.as_ref().unwrap_or(&Arc::new(zeros));
    bytes[at..].copy_from_slice(&old.as_ref().map_or(&zeros[..], |old| &old[..])[at..]);
    Some(Arc::new(bytes))
}
