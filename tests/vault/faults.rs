//! The n-th storage call fails, for every n of a workload with new lots, evictions, a checkpoint, a segment
//! turn and a reopening, and of a recovery; with every error that Linux has for such calls, once and for a
//! while. [`allowed`] is the table of what may come of it.

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use lotlog::batch::{Code, Durability, LotId, Outcome};
use lotlog::order::Order;
use lotlog::queue::{Mailbox, Submission};

use crate::sequences::Rig;
use crate::sim::*;

const EPERM: i32 = 1;
const EINTR: i32 = 4;
const EIO: i32 = 5;
const EACCES: i32 = 13;
const ENFILE: i32 = 23;
const EMFILE: i32 = 24;
const EFBIG: i32 = 27;
const ENOSPC: i32 = 28;
const EROFS: i32 = 30;
const EDQUOT: i32 = 122;
const ERRORS: [i32; 10] = [EIO, ENOSPC, EDQUOT, EROFS, EINTR, EMFILE, ENFILE, EFBIG, EPERM, EACCES];
/// A fault that lasts ends after so many calls: nothing may hang on it for good.
const LASTING_CALLS: usize = 8;

/// What a failed call may come to.
#[derive(Clone, Copy, Debug, PartialEq)]
enum May {
    /// Nobody notices: tried again, or done later in the background.
    PassUnseen,
    /// Batches are refused with one of these codes, or wait; none is lost, the daemon goes on.
    Refuse(&'static [Code]),
    /// The daemon must end: nobody knows what the disk has.
    Stop,
}

const NO_SPACE: May = May::Refuse(&[Code::NoSpace]);
const UNAVAILABLE: May = May::Refuse(&[Code::LotUnavailable]);

/// The table: kind of call, kind of error, what may come of it.
fn allowed(call: &str, errno: i32) -> May {
    let (verb, path) = call.split_once(' ').unwrap();
    let disk = matches!(errno, EIO | EROFS);
    let space = matches!(errno, ENOSPC | EDQUOT);
    match (verb, path) {
        // A sync is never tried again, not even after a signal.
        ("sync", _) => May::Stop,
        _ if errno == EINTR => May::PassUnseen,
        // When a file began: nobody relies on it.
        ("note" | "ask", _) => May::PassUnseen,
        // The sync that follows tells.
        ("begin", _) => May::PassUnseen,
        // One that finds no space has changed nothing.
        ("rename", "journal/rotating") if space => May::PassUnseen,
        ("rename", _) if space => NO_SPACE,
        // Whether the names or the lengths are the old ones or the new ones, nobody knows.
        ("rename" | "truncate", _) => May::Stop,
        // Frames that were handed to the kernel, perhaps in part.
        ("write", path) if path.ends_with(".wal") => May::Stop,
        // Questions: where one fails, the writes will tell.
        ("free", _) => May::PassUnseen,
        // Whether the marker has its length: asked again.
        ("fstat", "journal/syncing") => May::PassUnseen,
        // Whether the journal still has its name: without an answer nobody knows.
        ("fstat", path) if path.starts_with("journal/") => May::Stop,
        ("fstat" | "stat" | "list" | "read", _) => May::Refuse(&[Code::LotUnavailable, Code::NoSpace]),
        _ if disk => May::Stop,
        // The file stays where it is.
        ("mkdir" | "move", _) | (_, "journal/rotating" | "journal/rotating.new") => May::PassUnseen,
        ("write" | "create" | "allocate", path) if path.ends_with(".new") && path.starts_with("journal/") => {
            NO_SPACE
        }
        ("open", path) if path.ends_with(".new") && path.starts_with("journal/") => NO_SPACE,
        (_, "journal/syncing") => May::PassUnseen,
        ("unlink", path) if path.starts_with("journal/") => {
            if space || path.ends_with(".new") {
                May::PassUnseen
            } else {
                May::Stop
            }
        }
        ("open" | "create" | "write" | "unlink", path) if path.starts_with("lots/") => {
            if space {
                NO_SPACE
            } else {
                UNAVAILABLE
            }
        }
        _ => panic!("no row in the table for `{call}`"),
    }
}

/// Where and how a call fails; afterwards, which call it was.
#[derive(Clone)]
struct Fault {
    n: usize,
    errno: i32,
    lasting: bool,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    calls: usize,
    failures: usize,
    /// The call that failed.
    hit: Option<String>,
}

impl Fault {
    fn new(n: usize, errno: i32, lasting: bool) -> Fault {
        Fault { n, errno, lasting, state: Arc::default() }
    }

    fn call(&self, what: &str) -> io::Result<()> {
        let mut state = self.state.lock().unwrap();
        state.calls += 1;
        let fails = match &state.hit {
            None => state.calls == self.n,
            Some(hit) => self.lasting && hit == what && state.failures < LASTING_CALLS,
        };
        if fails {
            state.failures += 1;
            state.hit.get_or_insert_with(|| what.to_owned());
            return Err(io::Error::from_raw_os_error(self.errno));
        }
        Ok(())
    }

    /// From here on calls are counted, and the n-th fails.
    fn arm(&self, disk: &SimDisk, questions: bool) {
        let fault = self.clone();
        disk.set_hook(Box::new(move |_, what| fault.call(what)));
        if questions {
            let fault = self.clone();
            disk.set_look(Box::new(move |what| fault.call(what)));
        }
    }

    fn hit(&self) -> Option<String> {
        self.state.lock().unwrap().hit.clone()
    }

    fn note(&self) -> String {
        let errno = io::Error::from_raw_os_error(self.errno);
        let lasting = if self.lasting { " for a while" } else { "" };
        format!("call {} (`{}`) fails{lasting} with {errno}", self.n, self.hit().unwrap_or_default())
    }
}

fn disarm(disk: &SimDisk) {
    disk.clear_hook();
    disk.set_look(Box::new(|_| Ok(())));
}

/// New lots, evictions, a checkpoint, a segment turn, a rotation, a reopening, a `sync`. Says whether the vault stopped.
fn workload(rig: &mut Rig) -> bool {
    for step in 1..=16u64 {
        let ack = if step.is_multiple_of(3) { Durability::Written } else { Durability::Synced };
        let lot = format!("L{}", step % 10);
        let mut group = vec![
            rig.farm.send(&lot, &format!("a{step}"), 1, ack, 3, 2000),
            rig.farm.send("M", &format!("b{step}"), 1, ack, 2, 9000),
            rig.farm.send(&lot, &format!("a{step}"), 1, Durability::Synced, 3, 2000),
        ];
        match step {
            9 => group.push(Submission::Sync(unread())),
            11 => group.push(Submission::Order(Order::Rotate(LotId::new("M", "\"M\"").ok()), unread())),
            13 => group.push(Submission::Order(Order::Reload, unread())),
            _ => {}
        }
        rig.around.pass(Duration::from_secs(7));
        let ticked = rig.vault.tick(rig.around.now());
        if ticked.and_then(|()| commit(&mut rig.vault, group, &rig.around)).is_err() {
            return true;
        }
    }
    false
}

/// Runs the workload with a fault and holds what came of it to the table. `false`: the fault was not reached.
fn check(fault: &Fault, questions: bool) -> bool {
    let mut rig = Rig::new();
    fault.arm(&rig.disk, questions);
    let stopped = workload(&mut rig);
    disarm(&rig.disk);
    let Some(hit) = fault.hit() else { return false };
    let note = fault.note();
    let may = allowed(&hit, fault.errno);
    assert_eq!(stopped, may == May::Stop, "{note}: stopped or not, against {may:?}");
    if stopped {
        let late = rig.farm.send("N", "late", 1, Durability::Synced, 1, 10);
        assert!(commit(&mut rig.vault, vec![late], &rig.around).is_err(), "{note}: it goes on");
        let acknowledged = matches!(
            rig.farm.hear().sent.last().unwrap().answer,
            Some(Outcome::Stored { .. } | Outcome::Duplicate { .. } | Outcome::Synced { .. })
        );
        assert!(!acknowledged, "{note}: something was acknowledged afterwards");
    } else {
        for _ in 0..30 {
            rig.around.pass(Duration::from_millis(300));
            rig.vault.tick(rig.around.now()).unwrap();
        }
        let mailbox = Mailbox::new();
        rig.commit(vec![Submission::Sync(mailbox.ticket(0))]);
        let mut answers = Vec::new();
        mailbox.collect(&mut answers);
        assert!(matches!(answers[..], [(0, Outcome::Synced { .. })]), "{note}: {answers:?}");
        let more = rig.send("L1", "more", 1, Durability::Synced);
        assert!(matches!(more, Some(Outcome::Stored { .. })), "{note}: {more:?}");
        rig.check(false);
    }
    let (world, farm) = (rig.world(), rig.farm.clone());
    drop(rig);
    let ledger = farm.hear();
    for sent in &ledger.sent {
        match (&sent.answer, may) {
            (None, _) => panic!("{note}: no answer to {sent:?}"),
            (Some(Outcome::Refused(r)), May::Refuse(codes)) => {
                assert!(codes.contains(&r.code) || r.code == Code::OutOfSequence, "{note}: {sent:?}");
            }
            (Some(Outcome::Refused(r)), May::Stop) => assert_eq!(r.code, Code::IoError, "{note}: {sent:?}"),
            (Some(Outcome::Refused(_) | Outcome::Unknown), May::PassUnseen) => panic!("{note}: {sent:?}"),
            _ => {}
        }
    }
    // What a failed sync took was `written` at most.
    let lost = hit.starts_with("sync");
    for (cut, may_be_lost) in [(false, lost), (true, true)] {
        let mut random = Random(fault.n as u64);
        let after = if cut { world.power_cut(&mut random) } else { world.kill(&mut random) };
        let after = Rig::on(after, Around::new(), Farm::default());
        let found = lots(&after.world());
        let mut verdict = judge(&found, &ledger, may_be_lost);
        verdict.vanished = vanished(&lots(&world), &found);
        assert_eq!(verdict, Verdict::default(), "{note}, cut: {cut}");
    }
    true
}

/// Every n with every error; gives how many runs there were.
fn every(questions: bool, lasting: bool, step: usize) -> usize {
    let mut runs = 0;
    for errno in ERRORS {
        for n in (1..).step_by(step) {
            if !check(&Fault::new(n, errno, lasting), questions) {
                break;
            }
            runs += 1;
        }
    }
    runs
}

/// Every n in nightly runs; here every one of the changing calls once, of the rest a part.
fn stride(default: usize) -> usize {
    std::env::var("LOTLOG_STRIDE").ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[test]
fn every_call_that_changes_the_disk_may_fail_once_and_every_answer_is_true() {
    let runs = every(false, false, stride(1));
    println!("{runs} runs");
    assert!(runs > 50, "{runs}");
}

#[test]
fn every_call_that_changes_the_disk_may_fail_for_a_while_and_every_answer_is_true() {
    println!("{} runs", every(false, true, stride(3)));
}

#[test]
fn every_question_to_the_disk_may_fail_and_every_answer_is_true() {
    println!("{} runs", every(true, false, stride(7)));
}

#[test]
fn a_short_write_anywhere_is_completed() {
    for short in [|_| 1, |most: usize| most.div_ceil(2), |most: usize| (most - 1).max(1)] {
        for n in (1..).step_by(stride(2)) {
            let mut rig = Rig::new();
            let writes = Arc::new(Mutex::new(0));
            let count = writes.clone();
            rig.disk.set_shorten(Box::new(move |_, most| {
                *count.lock().unwrap() += 1;
                if *count.lock().unwrap() == n { short(most) } else { most }
            }));
            assert!(!workload(&mut rig), "write {n}");
            rig.pass(Duration::from_secs(1));
            let ledger = rig.farm.hear();
            let stored =
                |a: &Option<Outcome>| matches!(a, Some(Outcome::Stored { .. } | Outcome::Duplicate { .. }));
            assert!(ledger.sent.iter().all(|sent| stored(&sent.answer)), "write {n}");
            rig.check(false);
            if *writes.lock().unwrap() < n {
                break;
            }
        }
    }
}

/// A recovery with a fault, and the next start without: the lots as if nothing had failed.
fn check_recovery(world: &World, clean: &Lots, fault: &Fault, questions: bool) -> bool {
    let disk = SimDisk::new(world.clone());
    let around = Around::new();
    around.pass(Duration::from_secs(1000));
    fault.arm(&disk, questions);
    let opened = open(&disk, &around, &config());
    disarm(&disk);
    if fault.hit().is_none() {
        return false;
    }
    let note = fault.note();
    match opened {
        Ok(mut vault) => {
            for _ in 0..3 {
                around.pass(Duration::from_millis(300));
                vault.tick(around.now()).unwrap();
            }
            assert_eq!(&lots(&disk.world.lock().unwrap()), clean, "{note}");
        }
        Err(error) => {
            assert_eq!(error.exit_code(), 74, "{note}: {error}");
            let interrupted = fault.errno == EINTR && !fault.hit().unwrap().starts_with("sync");
            assert!(!interrupted, "{note}: {error}");
        }
    }
    let left = disk.world.lock().unwrap().clone();
    let mut random = Random(fault.n as u64);
    for world in [left.kill(&mut random), left.power_cut(&mut random)] {
        let after = Rig::on(world, around.clone(), Farm::default());
        assert_eq!(&lots(&after.world()), clean, "{note}: the next start");
    }
    true
}

#[test]
fn a_recovery_that_fails_at_any_call_ends_at_the_next_start_as_if_it_had_not() {
    let mut rig = Rig::new();
    assert!(!workload(&mut rig));
    rig.commit(vec![Submission::Sync(unread())]);
    // After a power cut there is much to redo, and files and names to make.
    let world = rig.world().power_cut(&mut Random(7));
    let clean = lots(&Rig::on(world.clone(), rig.around.clone(), Farm::default()).world());
    assert_eq!(judge(&clean, &rig.farm.hear(), true), Verdict::default());
    let mut runs = 0;
    for (questions, lasting, step) in [(false, false, 1), (false, true, 3), (true, false, 5)] {
        for errno in ERRORS {
            for n in (1..).step_by(stride(step)) {
                if !check_recovery(&world, &clean, &Fault::new(n, errno, lasting), questions) {
                    break;
                }
                runs += 1;
            }
        }
    }
    println!("{runs} runs");
    assert!(runs > 50, "{runs}");
}
