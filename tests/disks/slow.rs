//! A slow disk and one that stands still: producers are held up and lose nothing, memory is bounded, `status`
//! answers, and systemd's watchdog is fed exactly while the writer gets somewhere.

use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::common::judge::Answer;
use crate::common::producer::{Load, number};
use crate::common::{Daemon, Place};
use crate::mount::{Disk, Served, able, loop_needs};
use crate::{Farm, all_acknowledged, check};

/// What the daemon may take, its page cache in the cgroup not counted as its own.
const MEMORY_BYTES: u64 = 256 << 20;

fn able_to_serve() -> bool {
    let what = "a slow disk";
    able(what, &loop_needs("ext4")) && able(what, &["nbdkit", "nbdfuse", "/dev/fuse"])
}

/// A memory cgroup with a limit, where this user may make one; version 1 or 2.
struct Cage {
    dir: PathBuf,
    peak: &'static str,
}

impl Cage {
    fn around(pid: u32) -> Option<Cage> {
        let one = ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.max_usage_in_bytes");
        let two = ("/sys/fs/cgroup", "memory.max", "memory.peak");
        let cage = [one, two].into_iter().find_map(|(root, limit, peak)| {
            let dir = PathBuf::from(root).join(format!("lotlog-test-{pid}"));
            std::fs::create_dir(&dir).ok()?;
            let cage = Cage { dir, peak };
            std::fs::write(cage.dir.join(limit), MEMORY_BYTES.to_string()).ok()?;
            std::fs::write(cage.dir.join("cgroup.procs"), pid.to_string()).ok()?;
            Some(cage)
        });
        if cage.is_none() {
            println!("SKIPPED: a memory limit needs a memory cgroup; the peak is still read from /proc");
        }
        cage
    }

    fn peak(&self) -> String {
        std::fs::read_to_string(self.dir.join(self.peak)).unwrap_or_default().trim().to_owned()
    }
}

impl Drop for Cage {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir(&self.dir);
    }
}

/// The most memory that the process ever had, in bytes.
fn peak_bytes(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

/// A receiver of what systemd is told.
struct Notified(UnixDatagram);

impl Notified {
    fn of(place: &Place, command: &mut Command, watchdog: Duration) -> Notified {
        let path = place.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_nonblocking(true).unwrap();
        command.env("NOTIFY_SOCKET", path).env("WATCHDOG_USEC", watchdog.as_micros().to_string());
        Notified(socket)
    }

    /// How often the watchdog was fed since the last look.
    fn fed(&self) -> usize {
        let mut bytes = [0; 4096];
        std::iter::from_fn(|| self.0.recv(&mut bytes).ok().map(|n| bytes[..n].to_vec()))
            .filter(|said| String::from_utf8_lossy(said).contains("WATCHDOG=1"))
            .count()
    }
}

/// Status answers within a second.
#[track_caller]
fn status_answers(daemon: &Daemon) {
    let asked = Instant::now();
    assert_eq!(daemon.ask(r#"{"op":"status"}"#)["ok"], true);
    assert!(asked.elapsed() < Duration::from_secs(1), "status took {:?}", asked.elapsed());
}

fn started(place: &Arc<Place>, watchdog: Duration) -> (Daemon, Notified) {
    let flags =
        ["--segment-bytes", "4MiB", "--checkpoint-interval-seconds", "2s", "--drain-timeout-seconds", "60s"];
    let mut command = place.command(&flags);
    let notified = Notified::of(place, &mut command, watchdog);
    (Daemon::spawn(place, command), notified)
}

#[test]
fn a_disk_that_takes_200_ms_a_write_holds_producers_up_but_neither_memory_nor_the_watchdog() {
    if !able_to_serve() {
        return;
    }
    let place = Place::new();
    let _disk = Disk::served(&place.data(), "ext4", 160, Served::Slow("200ms"));
    let (mut daemon, notified) = started(&place, Duration::from_secs(10));
    let cage = Cage::around(daemon.pid());
    let load = Load { most_items: 40, most_pad: 2000, window: 8, ..Load::default() };
    let farm = Farm::start(&daemon, 8, 1, &load);
    let (begun, mut fed) = (Instant::now(), Instant::now());
    let mut longest = Duration::ZERO;
    while begun.elapsed() < Duration::from_secs(number("LOTLOG_SECONDS", 8)) {
        std::thread::sleep(Duration::from_millis(250));
        status_answers(&daemon);
        if notified.fed() > 0 {
            fed = Instant::now();
        }
        longest = longest.max(fed.elapsed());
    }
    let peak = peak_bytes(daemon.pid());
    let (ledgers, watcher) = farm.finish();
    let in_cage = cage.as_ref().map(Cage::peak);
    assert_eq!(daemon.terminate(), Some(0));
    drop(cage);
    let sent = check(&place.data(), &ledgers, watcher);
    all_acknowledged(&sent);
    let slowest = ledgers.iter().flat_map(|l| &l.waits).max();
    println!(
        "slow disk: {} batches, slowest {slowest:?}, resident at most {peak} bytes, cgroup {in_cage:?}, watchdog fed at least every {longest:?}",
        sent.len()
    );
    assert!(longest < Duration::from_secs(10), "the watchdog would have killed it");
    assert!(peak < MEMORY_BYTES, "{peak} bytes");
    assert!(ledgers.iter().all(|l| l.breaks == 0 && l.refusals.is_empty()), "held up, not dropped");
}

#[test]
fn while_the_disk_stands_still_the_watchdog_is_not_fed_and_status_answers_and_then_all_goes_on() {
    if !able_to_serve() {
        return;
    }
    let place = Place::new();
    let disk = Disk::served(&place.data(), "ext4", 160, Served::Pausing);
    let (mut daemon, notified) = started(&place, Duration::from_secs(1));
    let farm = Farm::start(&daemon, 4, 1, &Load::default());
    crate::common::until("the watchdog is fed", || (notified.fed() > 0).then_some(()));
    let still = disk.pause();
    // One may be on its way.
    std::thread::sleep(Duration::from_millis(1200));
    notified.fed();
    let (begun, seconds) = (Instant::now(), number("LOTLOG_SECONDS", 3));
    while begun.elapsed() < Duration::from_secs(seconds) {
        status_answers(&daemon);
        assert_eq!(notified.fed(), 0, "the writer has work and gets nowhere");
        std::thread::sleep(Duration::from_millis(100));
    }
    drop(still);
    crate::common::until("the watchdog is fed again", || (notified.fed() > 0).then_some(()));
    let (mut ledgers, watcher) = farm.finish();
    assert_eq!(daemon.terminate(), Some(0));
    // Longer than ten seconds the producers themselves do not wait.
    let all = ledgers.iter().all(|l| l.count(Answer::Stuck) == 0);
    assert!(all || seconds > 8, "stuck");
    for entry in ledgers.iter_mut().flat_map(|l| &mut l.entries).filter(|e| e.answer == Answer::Stuck) {
        entry.answer = Answer::Unknown;
    }
    let sent = check(&place.data(), &ledgers, watcher);
    if all {
        all_acknowledged(&sent);
    }
    assert!(ledgers.iter().all(|l| l.breaks == 0 && l.refusals.is_empty()), "held up, not dropped");
}
