//! A daemon under attack, and a well-behaved producer beside it: what the attack does to the producer's
//! latency, to the daemon's memory and descriptors, and, by the judge, to what the producer stored.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::cage::Cage;
use crate::common::judge::{After, Answer, Entry, Verdict, judge, judge_the_judge};
use crate::common::producer::{lot_files, number, record, request};
use crate::common::{Connection, DEADLINE, Daemon, Place, Received};

/// The others' 99th percentile may be twice what it was; below this nobody can tell it from a busy machine.
const NOISE: Duration = Duration::from_millis(20);
/// A request passes from thread to thread so many times at least: each may wait as long as any thread of this
/// machine does, which the attackers themselves make busy.
const HOPS: u32 = 6;
/// Each measurement is the median over so many slices.
const SLICES: u32 = 5;
const SLICE: Duration = Duration::from_millis(160);
/// A comparison that fails is made again; the median counts.
const TRIES: usize = 3;

/// Full sizes: the issue's own numbers instead of those that a run of all tests has time for.
pub fn full() -> bool {
    number("LOTLOG_FULL", 0) == 1
}

/// `small`, or `large` with `LOTLOG_FULL=1`.
pub fn size(small: usize, large: usize) -> usize {
    if full() { large } else { small }
}

/// One attack at a time, or they would measure each other.
pub fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    raise_open_files();
    alone
}

/// This process holds thousands of sockets; gives how many.
pub fn raise_open_files() -> usize {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    let limit = if setrlimit(Resource::RLIMIT_NOFILE, hard, hard).is_ok() { hard } else { soft };
    usize::try_from(limit).unwrap()
}

type Waits = Arc<Mutex<Vec<Range<Instant>>>>;

/// The well-behaved one: a small batch, its reply, the next one.
struct Other {
    stop: Arc<AtomicBool>,
    waits: Waits,
    /// How late a thread wakes that does nothing but sleep.
    sleeps: Waits,
    thread: std::thread::JoinHandle<Vec<Entry>>,
}

impl Other {
    fn start(socket: PathBuf) -> Other {
        let stop = Arc::new(AtomicBool::new(false));
        let waits = Waits::default();
        let sleeps = Waits::default();
        let (stopped, noted) = (stop.clone(), sleeps.clone());
        std::thread::spawn(move || {
            while !stopped.load(Ordering::SeqCst) {
                let until = Instant::now() + Duration::from_millis(1);
                std::thread::sleep(until - Instant::now());
                noted.lock().unwrap().push(until..Instant::now());
            }
        });
        let (stopped, noted) = (stop.clone(), waits.clone());
        let thread = std::thread::spawn(move || {
            let mut connection = Connection::try_open(&socket).expect("a connection before the attack");
            let mut entries: Vec<Entry> = Vec::new();
            while !stopped.load(Ordering::SeqCst) {
                let batch = entries.len() as u64;
                let synced = batch % 3 != 2;
                let mut entry = Entry {
                    lot: format!("good-{}", batch % 3),
                    session: "good".to_owned(),
                    batch,
                    seq: batch + 1,
                    items: 1 + (batch % 4) as usize,
                    pad: (batch % 7) as usize * 20,
                    answer: Answer::Unknown,
                };
                let begun = Instant::now();
                connection.send_line(request(&entry, synced));
                entry.answer = match connection.receive() {
                    Received::Line(line) => {
                        let reply: serde_json::Value = serde_json::from_slice(&line).unwrap();
                        assert!(reply["ok"] == true && reply["seq"] == entry.seq, "{reply}");
                        if synced { Answer::Synced } else { Answer::Written }
                    }
                    _ => Answer::Stuck,
                };
                noted.lock().unwrap().push(begun..Instant::now());
                let stuck = entry.answer == Answer::Stuck;
                entries.push(entry);
                if stuck {
                    break;
                }
                std::thread::sleep(Duration::from_micros(500));
            }
            entries
        });
        Other { stop, waits, sleeps, thread }
    }

    /// The median over slices of the 99th percentile of all waits that touch a slice, and the longest of all.
    fn look(waits: &Waits, time: Range<Instant>) -> (Duration, Duration) {
        let waits = waits.lock().unwrap();
        let slice = (time.end - time.start) / SLICES;
        let within = |from: Instant, to: Instant| {
            let touching = waits.iter().filter(|wait| wait.start < to && wait.end > from);
            let mut lengths: Vec<Duration> = touching.map(|wait| wait.end - wait.start).collect();
            lengths.sort();
            lengths
        };
        let mut slices: Vec<Duration> = (0..SLICES)
            .map(|n| {
                let lengths = within(time.start + n * slice, time.start + (n + 1) * slice);
                // Nothing ended and nothing began: it waits still.
                lengths.get(lengths.len().saturating_sub(1) * 99 / 100).copied().unwrap_or(DEADLINE)
            })
            .collect();
        slices.sort();
        let longest = within(time.start, time.end).pop().unwrap_or(DEADLINE);
        (slices[slices.len() / 2], longest)
    }
}

/// What an attack has in its hands.
pub struct Field<'a> {
    pub socket: &'a Path,
    over: &'a AtomicBool,
    stands: Sender<()>,
}

impl Field<'_> {
    pub fn connect(&self) -> Connection {
        Connection::try_open(self.socket).expect("the daemon takes a connection")
    }

    /// From here on the other's latency is measured.
    pub fn stands(&self) {
        let _ = self.stands.send(());
    }

    pub fn is_over(&self) -> bool {
        self.over.load(Ordering::SeqCst)
    }

    /// Stands until it is over.
    pub fn hold(&self) {
        self.stands();
        while !self.is_over() {
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Does this again and again until it is over, in so many threads.
    pub fn repeat(&self, threads: usize, act: impl Fn(usize) + Sync) {
        self.stands();
        std::thread::scope(|scope| {
            for n in 0..threads {
                let act = &act;
                scope.spawn(move || {
                    while !self.is_over() {
                        act(n);
                    }
                });
            }
        });
    }
}

/// 99th percentiles of the other, without an attack and under it, its longest wait, and that of a thread that only
/// sleeps.
pub struct Figures {
    pub calm: Duration,
    pub under: Duration,
    pub longest: Duration,
    pub noise: Duration,
}

pub struct Siege {
    pub daemon: Daemon,
    name: &'static str,
    cage: Option<Cage>,
    other: Other,
    begun: Instant,
    _alone: MutexGuard<'static, ()>,
}

impl Siege {
    pub fn begin(name: &'static str, flags: &[&str]) -> Siege {
        // Files of full sizes would count as the daemon's own memory there.
        let place = if full() { Place::new() } else { Place::in_memory() };
        Siege::begin_with(Cage::make(), &place, name, flags)
    }

    /// Of a daemon whose memory is not caged: what it writes to a place in memory would count, and a fast one writes much.
    pub fn begin_uncaged(place: &Arc<Place>, name: &'static str, flags: &[&str]) -> Siege {
        Siege::begin_with(None, place, name, flags)
    }

    fn begin_with(cage: Option<Cage>, place: &Arc<Place>, name: &'static str, flags: &[&str]) -> Siege {
        let alone = alone();
        let wrapper = cage.as_ref().map(Cage::wrapper).unwrap_or_default();
        let daemon = Daemon::spawn(place, place.command_through(&wrapper, flags));
        let other = Other::start(daemon.place.socket());
        Siege { daemon, name, cage, other, begun: Instant::now(), _alone: alone }
    }

    /// Measures the other without the attack, then under it. Its 99th percentile must stay within twice.
    pub fn compare(&self, attack: impl Fn(&Field<'_>) + Sync) {
        self.compare_within(2.0, attack);
    }

    /// The same with another factor, where more than one is honest.
    pub fn compare_within(&self, factor: f64, attack: impl Fn(&Field<'_>) + Sync) {
        let mut tries = Vec::new();
        for _ in 0..TRIES {
            let Figures { calm, under, longest, noise } = self.measure(&attack);
            let allowed = NOISE.max(calm.mul_f64(factor)).max(noise * HOPS);
            println!(
                "{}: p99 {calm:.1?} without, {under:.1?} under it, longest {longest:.1?}; a sleeping thread {noise:.1?}",
                self.name
            );
            tries.push(under.as_secs_f64() / allowed.as_secs_f64());
            if under <= allowed {
                break;
            }
        }
        if tries.len() == TRIES {
            tries.sort_by(f64::total_cmp);
            assert!(tries[TRIES / 2] <= 1.0, "the other waits too long: {tries:.1?} of what is allowed");
        }
    }

    /// Runs the attack while the other goes on; what the other had without it, under it, and at most.
    pub fn measure(&self, attack: impl Fn(&Field<'_>) + Sync) -> Figures {
        let calm = Instant::now();
        std::thread::sleep(SLICE * SLICES);
        let calm = Other::look(&self.other.waits, calm..Instant::now()).0;
        let over = AtomicBool::new(false);
        let (stands, standing) = channel();
        let socket = self.daemon.place.socket();
        std::thread::scope(|scope| {
            let attacker = scope.spawn(|| attack(&Field { socket: &socket, over: &over, stands }));
            // An attacker that panicked stands no more.
            let _ = standing.recv();
            let begun = Instant::now();
            let least = SLICE * SLICES;
            std::thread::sleep(least);
            let end = Instant::now();
            over.store(true, Ordering::SeqCst);
            attacker.join().expect("the attack comes to its end");
            let (under, longest) = Other::look(&self.other.waits, begun..end);
            let noise = Other::look(&self.other.sleeps, begun..end).0;
            Figures { calm, under, longest, noise }
        })
    }

    /// The longest wait of the other since this moment.
    pub fn longest_since(&self, begun: Instant) -> Duration {
        Other::look(&self.other.waits, begun..Instant::now()).1
    }

    /// Memory of the daemon's process, in MiB: now and at most.
    pub fn memory_mib(&self) -> (u64, u64) {
        memory_mib(self.daemon.pid())
    }

    /// Ends: the daemon drains, the judge reads, and memory never went beyond `most_mib`.
    pub fn end(self, most_mib: u64) {
        let (now, most) = self.memory_mib();
        let caged = self.cage.as_ref().map_or("no cage".to_owned(), Cage::report);
        println!("{}: memory {now} MiB, at most {most} MiB ({most_mib} allowed); {caged}", self.name);
        let place = self.end_without_bound();
        assert!(most <= most_mib, "{most} MiB");
        drop(place);
    }

    pub fn end_without_bound(mut self) -> Arc<Place> {
        self.other.stop.store(true, Ordering::SeqCst);
        let entries = self.other.thread.join().expect("the other comes to its end");
        assert!(self.cage.as_ref().is_none_or(|cage| cage.kills() == 0), "killed for its memory");
        assert_eq!(self.daemon.terminate(), Some(0), "a clean end");
        let place = self.daemon.place.clone();
        let mut lots = lot_files(&place.data());
        lots.retain(|stem, _| stem.starts_with("good-"));
        let verdict = judge(&lots, &entries, &record, After::Death);
        assert_eq!(verdict, Verdict::default());
        assert!(entries.len() > 50, "only {} batches of the other", entries.len());
        judge_the_judge(&lots, &entries, &record, After::Death);
        println!(
            "{}: {} batches of the other judged, {:.1?}",
            self.name,
            entries.len(),
            self.begun.elapsed()
        );
        place
    }
}

/// `VmRSS` and `VmHWM`.
pub fn memory_mib(pid: u32) -> (u64, u64) {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let field = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() >> 10
    };
    (field("VmRSS:"), field("VmHWM:"))
}

/// Open descriptors.
pub fn descriptors(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

/// Time on a processor.
pub fn processor_time(pid: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat[stat.rfind(')').unwrap() + 2..].split(' ').collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    // USER_HZ is 100 on every Linux that there is.
    Duration::from_millis(ticks * 10)
}
