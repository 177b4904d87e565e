//! One life of a guest: boots on the disk, lets it work, cuts the power at a drawn moment. And series of lives
//! on one disk, each followed by looks at what may have survived.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use super::cache::{Cache, Survive};
use super::common::judge::{After, Answer, Lots, Verdict, judge, judge_the_judge, vanished};
use super::common::producer::{Random, record};
use super::guest::Orders;
use super::ledger::{Book, entry, line};
use super::look::{Reaped, foreign, is_clean, look, run, tied};
use super::nbd::{self, End, Fuse, Silent};

/// What the rig works with; from the command line.
pub struct Rig {
    pub fs: String,
    pub work: PathBuf,
    pub kernel: PathBuf,
    pub initrd: PathBuf,
    pub accel: String,
    /// A control: loss is what it must show.
    pub control: bool,
    /// Where the image and the ledger of a violation are kept.
    pub keep: PathBuf,
    pub images: u64,
    pub grace: Duration,
}

/// When the fuse is lit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Phase {
    Mount,
    Recovery,
    Serving,
    Stopping,
}

/// One life, as drawn.
struct Plan {
    phase: Phase,
    requests: u64,
    /// From serving on, at the latest.
    most: Duration,
    flush_time: Duration,
    /// So long the disk is silent before the rest of the machine goes too.
    silence: Duration,
    conf: String,
}

/// What was done and found.
#[derive(Default)]
pub struct Figures {
    pub cuts: usize,
    pub boots: usize,
    pub cuts_in: BTreeMap<Phase, usize>,
    pub at_write: usize,
    pub at_flush: usize,
    pub by_clock: usize,
    pub images: usize,
    pub flushes: u64,
    pub writes: u64,
    pub unflushed: u64,
    pub synced: usize,
    pub written: usize,
    pub unknown: usize,
    pub judged: usize,
    pub lost_written: usize,
    pub oldest_lost: Duration,
    pub kills: usize,
    pub deaf: usize,
    pub looks_with_loss: usize,
    pub violations: usize,
    pub file_system: usize,
}

impl std::fmt::Display for Figures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let phase = |phase| self.cuts_in.get(&phase).copied().unwrap_or(0);
        write!(
            f,
            "{} cuts ({} in the mount, {} in recovery, {} under load, {} in a stop; {} at a write, {} at a flush, {} by the clock), \
             {} boots, {} kills, {} deaf, {} writes, {} flushes, {} writes unflushed at a cut; \
             acknowledged {} synced and {} written, {} unknown; {} images, {} batches judged; \
             {} losses of a written suffix, the oldest {} ms; {} looks with loss, {} file systems damaged, {} violations",
            self.cuts,
            phase(Phase::Mount),
            phase(Phase::Recovery),
            phase(Phase::Serving),
            phase(Phase::Stopping),
            self.at_write,
            self.at_flush,
            self.by_clock,
            self.boots,
            self.kills,
            self.deaf,
            self.writes,
            self.flushes,
            self.unflushed,
            self.synced,
            self.written,
            self.unknown,
            self.images,
            self.judged,
            self.lost_written,
            self.oldest_lost.as_millis(),
            self.looks_with_loss,
            self.file_system,
            self.violations
        )
    }
}

enum Event {
    /// From a port, with the guest's time in milliseconds where the line has it.
    Line(usize, String, Option<u64>),
    Disk(std::io::Result<(End, Silent)>),
}

const PORTS: usize = 5;
const SESSIONS: [usize; 3] = [3, 2, 1];

/// One disk and all that is known of it.
struct Disk {
    image: PathBuf,
    bytes: u64,
    piece: u64,
    lots: u64,
    sessions: Vec<Vec<String>>,
    /// When, by the guest's clock in milliseconds, the last word on a batch was said.
    book: Book<Option<u64>>,
    /// When the last line of this life was written.
    last_millis: u64,
    /// What the reader in the guest saw last of each lot: bytes and their checksum.
    seen: BTreeMap<String, (usize, u32)>,
    /// What the last look found.
    before: Lots,
}

impl Rig {
    /// Cuts until there are `cuts`; what was found.
    pub fn cuts(&self, cuts: usize, seed: u64, figures: &mut Figures) -> Result<(), String> {
        let mut random = Random(seed);
        while figures.cuts < cuts && figures.violations == 0 {
            let seed = random.number();
            self.series(seed, cuts, figures).map_err(|e| format!("series {seed}: {e}"))?;
        }
        Ok(())
    }

    /// Some lives of a new disk.
    pub fn series(&self, seed: u64, cuts: usize, figures: &mut Figures) -> Result<(), String> {
        let mut random = Random(seed);
        let mut disk = self.new_disk(seed, &mut random)?;
        let lives = if self.control { 1 } else { 1 + random.below(6) };
        for life in 0..lives {
            if figures.cuts >= cuts || figures.violations > 0 {
                break;
            }
            let plan = self.plan(life, &disk, &mut random);
            let begun = Instant::now();
            let platter =
                File::options().read(true).write(true).open(&disk.image).map_err(|e| e.to_string())?;
            let mut cache = Cache::new(platter);
            let (end, troubles) = self.live(&plan, &mut disk, &mut cache, figures)?;
            figures.cuts += 1;
            *figures.cuts_in.entry(plan.phase).or_default() += 1;
            match end {
                End::Write => figures.at_write += 1,
                End::Flush => figures.at_flush += 1,
                End::Gone => figures.by_clock += 1,
            }
            figures.flushes += cache.flushes;
            figures.writes += cache.writes();
            figures.unflushed += cache.unflushed();
            // Torn in its own journal, which ext4 of Linux 6.1 does not always survive: not the daemon's.
            if troubles.iter().any(|trouble| trouble.contains("file system cannot be mounted")) {
                figures.file_system += 1;
                println!("cut {:4} series {seed:016x} life {life}: the guest cannot mount it", figures.cuts);
                break;
            }
            for trouble in &troubles {
                self.violation(seed, life, &disk, None, trouble, figures);
            }
            self.judge_cut(seed, life, &mut disk, &cache, &mut random, figures)?;
            println!(
                "cut {:4} series {seed:016x} life {life} at {:?} ({:?}), {} of {} writes unflushed, {} flushes, {} batches, {:.1} s",
                figures.cuts,
                plan.phase,
                end,
                cache.unflushed(),
                cache.writes(),
                cache.flushes,
                disk.book.entries.len(),
                begun.elapsed().as_secs_f64()
            );
        }
        figures.synced += disk.book.count(Answer::Synced);
        figures.written += disk.book.count(Answer::Written);
        figures.unknown += disk.book.count(Answer::Unknown);
        Ok(())
    }

    fn new_disk(&self, seed: u64, random: &mut Random) -> Result<Disk, String> {
        let (bytes, make): (u64, &[&str]) = match self.fs.as_str() {
            "ext4" => (256 << 20, &["mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0"]),
            "xfs" => (320 << 20, &["mkfs.xfs", "-q", "-f"]),
            "btrfs" => (256 << 20, &["mkfs.btrfs", "-q", "-f"]),
            other => return Err(format!("no file system {other}")),
        };
        let image = self.work.join("disk");
        let _ = std::fs::remove_file(&image);
        File::create(&image).and_then(|file| file.set_len(bytes)).map_err(|e| e.to_string())?;
        run(Command::new(make[0]).args(&make[1..]).arg(&image))?;
        let name = |p: usize, t: usize| format!("s{:04x}-{p}-{t}", seed & 0xffff);
        let sessions = SESSIONS
            .iter()
            .enumerate()
            .map(|(p, threads)| (0..*threads).map(|t| name(p, t)).collect())
            .collect();
        Ok(Disk {
            image,
            bytes,
            piece: if random.chance(50) { 512 } else { 4096 },
            lots: 1 + random.below(12),
            sessions,
            book: Book::default(),
            last_millis: 0,
            seen: BTreeMap::new(),
            before: Lots::new(),
        })
    }

    fn plan(&self, life: u64, disk: &Disk, random: &mut Random) -> Plan {
        let pick = |random: &mut Random, of: &[&str]| of[random.below(of.len() as u64) as usize].to_owned();
        let phase = match random.below(20) {
            _ if self.control => Phase::Serving,
            0 => Phase::Mount,
            1..=6 if life > 0 => Phase::Recovery,
            7..=8 => Phase::Stopping,
            _ => Phase::Serving,
        };
        let power = |random: &mut Random, least: u64, steps: u64| {
            let bits = least + random.below(steps);
            random.below(1 << bits)
        };
        let requests = 1 + match phase {
            Phase::Mount => random.below(12),
            Phase::Recovery => power(random, 2, 5),
            Phase::Serving => power(random, 3, 8),
            Phase::Stopping => power(random, 1, 5),
        };
        let most = if random.chance(25) {
            Duration::from_millis(100 + random.below(2500))
        } else {
            Duration::from_secs(6)
        };
        let options = match self.fs.as_str() {
            "ext4" => pick(random, &["noatime", "noatime,commit=1", "noatime,nodelalloc"]),
            _ => "noatime".to_owned(),
        };
        let modules = match self.fs.as_str() {
            "xfs" => " libcrc32c xfs",
            "btrfs" => " libcrc32c zstd_compress xor raid6_pq btrfs",
            _ => "",
        };
        let flags = format!(
            "--segment-bytes {} --checkpoint-interval-seconds {}",
            pick(random, &["256KiB", "256KiB", "1MiB"]),
            pick(random, &["10ms", "50ms", "200ms", "1s", "30s"]),
        );
        let mut conf = format!(
            "FS={}\nMODULES='virtio_ring virtio virtio_pci_legacy_dev virtio_pci_modern_dev virtio_pci virtio_blk virtio_console{modules}'\nOPTIONS={options}\nFLAGS='{flags}'\n",
            self.fs
        );
        let writeback = pick(random, &["5", "20", "500"]);
        conf += &format!("WRITEBACK={writeback}\nEXPIRE={writeback}\nPRODUCERS={}\n", SESSIONS.len());
        // Small requests are many requests: a cut then falls between the pages of one sync.
        conf += &format!("REQUEST_KIB={}\n", pick(random, &["4", "16", "512"]));
        let nobody_syncs = random.chance(25) && !self.control;
        for (n, sessions) in disk.sessions.iter().enumerate() {
            let mut orders = Orders::any(sessions.clone(), disk.lots, random);
            if nobody_syncs {
                orders.synced_percent = 0;
            }
            conf += &format!("WORDS_{}='{}'\n", n + 1, orders.words());
        }
        let kill = random.chance(15).then(|| 100_000 + random.below(800_000));
        let stop = (phase == Phase::Stopping).then(|| 200_000 + random.below(1_500_000));
        let micros = |n: Option<u64>| n.map_or(String::new(), |n| n.to_string());
        conf += &format!("KILL_AFTER={}\nSTOP_AFTER={}\n", micros(kill), micros(stop));
        let flush_time = Duration::from_millis([0, 0, 2, 10][random.below(4) as usize]);
        let silence = Duration::from_millis(20 + random.below(500));
        Plan { phase, requests, most, flush_time, silence, conf }
    }

    /// The initial file system with what this life needs to know.
    fn initrd(&self, plan: &Plan, disk: &Disk) -> Result<PathBuf, String> {
        let life = self.work.join("life");
        let _ = std::fs::remove_dir_all(&life);
        std::fs::create_dir_all(life.join("life")).map_err(|e| e.to_string())?;
        let write = |name: &str, text: &str| {
            std::fs::write(life.join("life").join(name), text).map_err(|e| e.to_string())
        };
        write("conf", &plan.conf)?;
        for (n, sessions) in disk.sessions.iter().enumerate() {
            let past = disk.book.entries.iter().filter(|e| sessions.contains(&e.session));
            let past: String = past.map(|e| line(e) + "\n").collect();
            write(&format!("ledger.{}", n + 1), &past)?;
        }
        let path = self.work.join("initrd");
        let script = "find life | cpio -o -H newc --quiet | cat \"$0\" - > \"$1\"";
        run(Command::new("sh").args(["-ec", script]).arg(&self.initrd).arg(&path).current_dir(&life))?;
        Ok(path)
    }

    /// Boots, lets live, cuts. How it ended, and what was wrong before it ended.
    fn live(
        &self,
        plan: &Plan,
        disk: &mut Disk,
        cache: &mut Cache,
        figures: &mut Figures,
    ) -> Result<(End, Vec<String>), String> {
        disk.last_millis = 0;
        let initrd = self.initrd(plan, disk)?;
        let (events, incoming) = channel();
        let fuse = Arc::new(Fuse::default());
        let nbd = self.listen("nbd")?;
        let mut command = tied("qemu-system-x86_64");
        command.args(["-accel", &self.accel, "-m", "256", "-nodefaults", "-display", "none", "-no-reboot"]);
        command.args(["-cpu", "max"]);
        command.arg("-kernel").arg(&self.kernel).arg("-initrd").arg(initrd);
        command.args(["-append", "console=ttyS0 quiet loglevel=4 panic=-1 tsc=unstable clocksource=hpet nolapic_timer no_timer_check"]);
        command.arg("-serial").arg(format!("file:{}", self.work.join("console").display()));
        let socket = |name: &str| self.work.join(name).display().to_string();
        command.arg("-blockdev").arg(format!(
            "driver=nbd,node-name=disk,server.type=unix,server.path={},cache.direct=on,cache.no-flush=off",
            socket("nbd")
        ));
        command.args([
            "-device",
            "virtio-blk-pci,drive=disk,write-cache=on,werror=stop,rerror=stop,discard=off,write-zeroes=off",
        ]);
        command.args(["-device", "virtio-serial-pci"]);
        let mut ports = Vec::new();
        for n in 1..=PORTS {
            let name = format!("port{n}");
            ports.push(self.listen(&name)?);
            command.arg("-chardev").arg(format!("socket,id=p{n},path={}", socket(&name)));
            command.arg("-device").arg(format!("virtserialport,chardev=p{n},nr={n},name=lotlog.{n}"));
        }
        command.stdin(Stdio::null());
        let mut qemu = Reaped(command.spawn().map_err(|e| format!("qemu: {e}"))?);
        figures.boots += 1;
        let readers: Vec<_> = ports
            .into_iter()
            .enumerate()
            .map(|(n, port)| {
                let events = events.clone();
                std::thread::spawn(move || read_port(&port, n + 1, &events))
            })
            .collect();
        let bytes = disk.bytes;
        let outcome = std::thread::scope(|scope| {
            let lit = fuse.clone();
            let server = scope.spawn(move || {
                let end = nbd::serve(&nbd, cache, bytes, plan.flush_time, &lit);
                let _ = events.send(Event::Disk(end));
            });
            let outcome = self.wait_for_the_cut(plan, disk, &incoming, &fuse, figures);
            if matches!(outcome, Ok((End::Write | End::Flush, _, _))) {
                std::thread::sleep(plan.silence);
            }
            let _ = qemu.0.kill();
            let _ = qemu.0.wait();
            // Where qemu never came to connect.
            let _ = std::os::unix::net::UnixStream::connect(self.work.join("nbd"));
            for n in 1..=PORTS {
                let _ = std::os::unix::net::UnixStream::connect(self.work.join(format!("port{n}")));
            }
            let _ = server.join();
            outcome
        });
        for reader in readers {
            let _ = reader.join();
        }
        let (end, _, mut troubles) = outcome?;
        while let Ok(event) = incoming.try_recv() {
            if let Event::Line(port, line, millis) = event {
                take_in(port, &line, millis, disk, &mut troubles);
            }
        }
        Ok((end, troubles))
    }

    fn listen(&self, name: &str) -> Result<UnixListener, String> {
        let path = self.work.join(name);
        let _ = std::fs::remove_file(&path);
        UnixListener::bind(&path).map_err(|e| format!("{}: {e}", path.display()))
    }

    fn wait_for_the_cut(
        &self,
        plan: &Plan,
        disk: &mut Disk,
        incoming: &Receiver<Event>,
        fuse: &Fuse,
        figures: &mut Figures,
    ) -> Result<(End, Option<Silent>, Vec<String>), String> {
        // For each step from one phase to the next, on a machine that may have other things to do.
        const BOOT: Duration = Duration::from_secs(240);
        let mut until = Instant::now() + BOOT;
        let mut serving = false;
        let mut heard = String::new();
        let mut troubles = Vec::new();
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let event = match incoming.recv_timeout(left) {
                Ok(event) => event,
                Err(RecvTimeoutError::Timeout) if serving => {
                    return Ok((End::Gone, None, troubles));
                }
                // A port that says nothing is the rig's trouble; the disk is judged all the same.
                Err(_) if heard.is_empty() => {
                    figures.deaf += 1;
                    return Ok((End::Gone, None, troubles));
                }
                Err(_) => {
                    troubles.push(format!("the guest does not come to serve in {BOOT:?} from {heard} on"));
                    return Ok((End::Gone, None, troubles));
                }
            };
            match event {
                Event::Disk(Ok((End::Gone, _))) => {
                    let console = std::fs::read_to_string(self.work.join("console")).unwrap_or_default();
                    return Err(format!("the guest ended by itself: {console}"));
                }
                Event::Disk(Ok((end, silent))) => return Ok((end, Some(silent), troubles)),
                Event::Disk(Err(error)) => return Err(format!("the disk: {error}")),
                Event::Line(1, line, _) => {
                    heard.clone_from(&line);
                    if !serving {
                        until = Instant::now() + BOOT;
                    }
                    let phase = match line.as_str() {
                        "P mount" => Some(Phase::Mount),
                        "P recovery" => Some(Phase::Recovery),
                        "P serving" => Some(Phase::Serving),
                        "P stopping" => Some(Phase::Stopping),
                        "P killed" => {
                            figures.kills += 1;
                            None
                        }
                        "P stopped" => None,
                        _ => {
                            troubles.push(line);
                            return Ok((End::Gone, None, troubles));
                        }
                    };
                    if phase == Some(plan.phase) {
                        fuse.light(plan.requests);
                    }
                    if phase == Some(Phase::Serving) {
                        serving = true;
                        until = Instant::now() + plan.most;
                    }
                }
                Event::Line(port, line, millis) => {
                    take_in(port, &line, millis, disk, &mut troubles);
                    if !troubles.is_empty() {
                        return Ok((End::Gone, None, troubles));
                    }
                }
            }
        }
    }

    /// Looks at some of what may have survived; the first is what the next life begins with.
    #[allow(clippy::too_many_arguments)]
    fn judge_cut(
        &self,
        seed: u64,
        life: u64,
        disk: &mut Disk,
        cache: &Cache,
        random: &mut Random,
        figures: &mut Figures,
    ) -> Result<(), String> {
        let mut next = None;
        for n in 0..self.images {
            let (how, draw) = (Survive::any(random), random.number());
            let survivors = cache.survivors(how, draw, disk.piece);
            let image = self.work.join("image");
            run(Command::new("cp").arg("--sparse=always").arg(&disk.image).arg(&image))?;
            let file = File::options().write(true).open(&image).map_err(|e| e.to_string())?;
            Cache::lay(&file, &survivors).map_err(|e| e.to_string())?;
            drop(file);
            let kept = self.work.join("kept");
            run(Command::new("cp").arg("--sparse=always").arg(&image).arg(&kept))?;
            let found = match look(&image, &self.fs, &self.work) {
                Ok(found) => found,
                Err(error) => {
                    figures.file_system += 1;
                    println!("the host cannot mount it, {how:?}: {error}");
                    return Ok(());
                }
            };
            figures.images += 1;
            figures.judged += disk.book.entries.len();
            let mut wrong = found.trouble;
            let verdict = judge(&found.lots, &disk.book.entries, &record, After::PowerCut);
            if !is_clean(&verdict) {
                wrong.push(format!("{verdict:?}"));
            }
            let gone = vanished(&disk.before, &found.lots);
            if gone > 0 {
                wrong.push(format!("{gone} lots lost what an earlier look saw"));
            }
            let unseen = |(stem, (bytes, crc)): &(&String, &(usize, u32))| {
                found.lots.get(*stem).and_then(|l| l.get(..*bytes)).map(crc32c::crc32c) != Some(*crc)
            };
            let gone: Vec<_> = disk.seen.iter().filter(unseen).collect();
            if !gone.is_empty() {
                wrong.push(format!("vanished, seen by a reader in the guest: {gone:?}"));
            }
            let foreign = foreign(&found.raw, &found.lots);
            if foreign > 0 {
                wrong.push(format!("{foreign} lots held other bytes before the recovery"));
            }
            let raw = judge(&found.raw, &disk.book.entries, &record, After::PowerCut);
            let raw = Verdict {
                doubled: raw.doubled,
                altered: raw.altered,
                phantom: raw.phantom,
                ..Verdict::default()
            };
            if !is_clean(&raw) {
                wrong.push(format!("before the recovery: {raw:?}"));
            }
            let lost = self.lost_written(disk, &found.lots);
            figures.lost_written += lost.len();
            for at in &lost {
                let Some(heard) = disk.book.heard[*at] else { continue };
                let age = Duration::from_millis(disk.last_millis.saturating_sub(heard));
                figures.oldest_lost = figures.oldest_lost.max(age);
                if age > Duration::from_secs(1) + self.grace {
                    wrong.push(format!("lost {age:?} after its `written`: {:?}", disk.book.entries[*at]));
                }
            }
            if verdict.lost > 0 {
                figures.looks_with_loss += 1;
            }
            for wrong in &wrong {
                self.violation(seed, life, disk, Some(&kept), &format!("{how:?} {draw}: {wrong}"), figures);
            }
            if wrong.is_empty() && n == 0 {
                try_the_judge(&found.lots, disk);
            }
            next.get_or_insert((survivors, found.lots, lost));
        }
        if let Some((survivors, lots, lost)) = next {
            let file = File::options().write(true).open(&disk.image).map_err(|e| e.to_string())?;
            Cache::lay(&file, &survivors).map_err(|e| e.to_string())?;
            disk.before = lots;
            // Until its producer hears of it, it stays lost, and grows no older.
            for at in lost {
                disk.book.heard[at] = None;
            }
        }
        Ok(())
    }

    /// `written` batches that are not there.
    fn lost_written(&self, disk: &Disk, lots: &Lots) -> Vec<usize> {
        let needle =
            |e: &super::common::judge::Entry| format!("\"sku_local\":\"{}/{}/0\"", e.session, e.batch);
        let mut there: HashMap<&str, std::collections::HashSet<&str>> = HashMap::new();
        for (stem, bytes) in lots {
            let text = std::str::from_utf8(bytes).unwrap_or_default();
            let keys = text.lines().filter_map(|line| line.split_once(',').map(|(key, _)| &key[1..]));
            there.insert(stem, keys.collect());
        }
        let entries = disk.book.entries.iter().enumerate();
        entries
            .filter(|(_, e)| e.answer == Answer::Written)
            .filter(|(_, e)| !there.get(e.lot.as_str()).is_some_and(|keys| keys.contains(needle(e).as_str())))
            .map(|(at, _)| at)
            .collect()
    }

    fn violation(
        &self,
        seed: u64,
        life: u64,
        disk: &Disk,
        image: Option<&Path>,
        what: &str,
        figures: &mut Figures,
    ) {
        figures.violations += usize::from(!self.control);
        let what: String = what.chars().take(4000).collect();
        if self.control {
            return println!("  as a control must: {}", what.chars().take(160).collect::<String>());
        }
        println!("VIOLATION in series {seed}, life {life}: {what}");
        let keep = self.keep.join(format!("{}-{seed}-{life}", self.fs));
        let kept = std::fs::create_dir_all(&keep).and_then(|()| {
            let mut ledger = File::create(keep.join("ledger"))?;
            disk.book.entries.iter().try_for_each(|e| writeln!(ledger, "{}", line(e)))?;
            std::fs::OpenOptions::new()
                .create(true)
                .append(true)
                .open(keep.join("what"))?
                .write_all(format!("{what}\n").as_bytes())?;
            let _ = std::fs::copy(self.work.join("console"), keep.join("console"));
            let _ = std::fs::copy(self.work.join("life/life/conf"), keep.join("conf"));
            Ok(())
        });
        let image = run(Command::new("cp")
            .arg("--sparse=always")
            .arg(image.unwrap_or(&disk.image))
            .arg(keep.join("image")));
        println!("  kept in {}: {kept:?} {image:?}", keep.display());
        println!(
            "  the same draws again: tests/powercut/run {} --fs {} --series {seed} --images {}",
            life + 1,
            self.fs,
            self.images
        );
    }
}

/// The judge on trial on what a cut left, where there is enough of it.
fn try_the_judge(lots: &Lots, disk: &Disk) {
    let fits = |stem: &String| {
        let fit =
            |e: &&super::common::judge::Entry| e.lot == *stem && e.answer == Answer::Synced && e.items > 1;
        disk.book.entries.iter().filter(fit).count() > 8
    };
    if lots.keys().find(|stem| fits(stem)).is_some() {
        judge_the_judge(lots, &disk.book.entries, &record, After::PowerCut);
    }
}

/// A line from a producer (ports from 3 on) or the reader (port 2).
fn take_in(port: usize, line: &str, millis: Option<u64>, disk: &mut Disk, troubles: &mut Vec<String>) {
    disk.last_millis = disk.last_millis.max(millis.unwrap_or(0));
    if port == 2 && line.starts_with("V ") {
        let words: Vec<&str> = line.split(' ').collect();
        if let [_, stem, bytes, crc] = words[..]
            && let (Ok(bytes), Ok(crc)) = (bytes.parse(), crc.parse())
        {
            disk.seen.insert(stem.to_owned(), (bytes, crc));
            return;
        }
    }
    match entry(line) {
        Some(entry) => disk.book.note(entry, millis),
        None if port == 1 && line.starts_with("P ") => {}
        None => troubles.push(format!("port {port}: {line}")),
    }
}

/// Hands on line by line what arrives at a port; a line without an end did not arrive.
fn read_port(listener: &UnixListener, port: usize, events: &Sender<Event>) {
    let Ok((stream, _)) = listener.accept() else { return };
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    while stream.read_line(&mut line).is_ok_and(|n| n > 0) && line.ends_with('\n') {
        let (text, millis) = line.trim_end().rsplit_once(" @").unwrap_or((line.trim_end(), ""));
        let event = Event::Line(port, text.to_owned(), millis.parse().ok());
        let _ = events.send(event);
        line.clear();
    }
}
