//! The n-th storage call fails, in the real process: refused, waited for or fail-stop, each time as the kind of call
//! and of error demands; then a successor, and everything sent again is there once.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::calls::{AWAITED, KEEPING, Story, THREADS, live};
use crate::common::judge::{After, judge_the_judge};
use crate::common::producer::{Random, number, record};
use crate::common::{Connection, Daemon, Received, until};
use crate::strace::{self, CALLS, Tracer};
use crate::{BUSY, rotating, seed};

const ERRORS: &[&str] = &["EIO", "ENOSPC", "EDQUOT", "EROFS", "EINTR"];
/// Errors of one file alone, tried where a lot file is opened or written.
const OF_ONE_LOT: &[&str] = &["EACCES", "EFBIG"];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Due {
    /// Nobody notices.
    Nothing,
    /// Refused with this code, stored when it is sent again, and the daemon lives.
    Refused(&'static str),
    /// It waits, and may refuse others with this code meanwhile; the daemon lives.
    Waits(&'static str),
    /// No acknowledgement more, exit 74.
    FailStop,
    /// The one or the other: the trace does not tell.
    NothingOrStop,
}

/// What must follow from this line of a trace, which was forged.
fn due(thread: &str, line: &str, error: &str) -> Due {
    let call = line.split('(').next().unwrap();
    let journal = line.contains(".wal>");
    match (call, error) {
        // Nothing depends on a copy before it is good, but its name must be durable before the plain file goes.
        ("fsync", _) if thread == KEEPING => Due::FailStop,
        // To be synced, or to open something in it.
        ("openat2", _) if thread == KEEPING && line.contains("O_DIRECTORY") && error != "EINTR" => {
            Due::NothingOrStop
        }
        _ if thread == KEEPING => Due::Nothing,
        // An interrupted sync may hide a failed write; every other interrupted call is made again.
        ("fdatasync" | "fsync", _) => Due::FailStop,
        (_, "EINTR") => Due::Nothing,
        (_, "EIO" | "EROFS") => Due::FailStop,
        // Nobody knows what a failed write left in the journal.
        ("pwrite64", _) if thread == "writer" && journal => Due::FailStop,
        ("pwrite64", "EFBIG") => Due::Waits("lot_unavailable"),
        ("openat2", "EACCES") => Due::Refused("lot_unavailable"),
        // The journal has the batch: it will be stored.
        ("pwrite64", _) if thread == "writer" => Due::Waits("no_space"),
        ("openat2" | "unlinkat" | "fallocate", _) if thread == "writer" => Due::Refused("no_space"),
        _ => Due::Waits("no_space"),
    }
}

/// Only where there is something to keep.
fn flags(thread: &str) -> Vec<&'static str> {
    if thread == KEEPING { rotating() } else { BUSY.to_vec() }
}

#[derive(Clone, Debug)]
struct Point {
    thread: &'static str,
    call: &'static str,
    n: usize,
    error: &'static str,
}

/// What came of it; `None` where the call was not made this time.
fn fail_at(point: &Point, seed: u64) -> Option<Due> {
    let Point { thread, call, n, error } = point;
    let story = live(thread, &flags(thread), &[format!("{call}:error={error}:when={n}")], false, seed);
    let Some(line) = story.trace.lines().find(|line| line.contains("(INJECTED)")) else {
        assert_eq!(story.status.code(), Some(0), "{point:?}");
        return None;
    };
    // What a helper met after the drain was over takes nothing with it: all was done before.
    let last =
        story.trace.lines().skip_while(|l| !l.contains("(INJECTED)")).skip(1).all(|l| l.contains("exited"));
    if !AWAITED.contains(thread) && last && story.status.code() == Some(0) {
        assert!(story.log.contains("stopped: everything taken is synced"), "{point:?}: {}", story.log);
        return None;
    }
    let due = due(thread, line, error);
    check(&story, due, &format!("{point:?}, LOTLOG_SEED={seed}: {line}"));
    Some(due)
}

#[track_caller]
fn check(story: &Story, due: Due, what: &str) {
    let refusals: Vec<&str> = story.refusals.keys().map(String::as_str).collect();
    let wanted: &[i32] = match due {
        Due::FailStop => &[74],
        Due::NothingOrStop => &[0, 74],
        Due::Nothing | Due::Refused(_) | Due::Waits(_) => &[0],
    };
    assert!(story.status.code().is_some_and(|code| wanted.contains(&code)), "{:?}: {what}", story.status);
    let may_refuse = |codes: &[&str]| refusals.iter().all(|code| codes.contains(code));
    match due {
        Due::Nothing => assert!(refusals.is_empty(), "{refusals:?}: {what}"),
        Due::Refused(code) => assert_eq!(refusals, [code], "{what}"),
        Due::Waits(code) => assert!(may_refuse(&[code]), "{refusals:?}: {what}"),
        // What was on its way to a daemon that ends may find its door closing.
        Due::FailStop | Due::NothingOrStop => {
            assert!(may_refuse(&["io_error", "shutting_down"]), "{refusals:?}: {what}")
        }
    }
}

#[test]
fn whichever_storage_call_fails_the_right_thing_follows_and_nothing_is_lost_or_doubled() {
    if strace::is_missing() {
        return;
    }
    let seed = seed();
    let begun = Instant::now();
    let every = number("LOTLOG_EVERY", 0) == 1;
    let budget = Duration::from_secs(number("LOTLOG_SECONDS", 30));
    let mut random = Random(seed);
    // By thread, call and error; the calls that a walk in CI makes are one of each, then more as time allows.
    let mut kinds: BTreeMap<String, Vec<Point>> = BTreeMap::new();
    for thread in THREADS.iter().chain([&KEEPING]) {
        let story = live(thread, &flags(thread), &[], false, seed);
        assert_eq!(story.status.code(), Some(0));
        for call in CALLS {
            let lines = story.trace.lines().filter(|line| line.starts_with(&format!("{call}(")));
            for (at, line) in lines.enumerate() {
                let to_journal = line.contains("/journal");
                let of_lot: &[&str] = match (*thread, *call, to_journal) {
                    ("writer", "openat2", _) => &OF_ONE_LOT[..1],
                    ("writer", "pwrite64", false) => &OF_ONE_LOT[1..],
                    _ => &[],
                };
                for error in ERRORS.iter().chain(of_lot) {
                    let point = Point { thread, call, n: at + 1, error };
                    kinds.entry(format!("{thread} {call} {to_journal} {error}")).or_default().push(point);
                }
            }
        }
        judge_the_judge(&story.lots, &story.sent, &record, After::Death);
    }
    let all: usize = kinds.values().map(Vec::len).sum();
    let of_each = kinds.len();
    let (mut tried, mut seen) = (0, BTreeMap::<String, usize>::new());
    while !kinds.is_empty() && (every || begun.elapsed() < budget) {
        // One of each kind in a turn, in another order each time.
        let mut turn: Vec<String> = kinds.keys().cloned().collect();
        while !turn.is_empty() && (every || begun.elapsed() < budget) {
            let kind = turn.swap_remove(random.below(turn.len() as u64) as usize);
            let points = kinds.get_mut(&kind).unwrap();
            let point = points.swap_remove(random.below(points.len() as u64) as usize);
            if points.is_empty() {
                kinds.remove(&kind);
            }
            tried += 1;
            let came = fail_at(&point, seed).map_or("not reached".to_owned(), |due| format!("{due:?}"));
            *seen.entry(came).or_default() += 1;
        }
    }
    println!(
        "{tried} of {all} failures ({of_each} kinds of thread, call, place and error) in {:?}: {seen:?}",
        begun.elapsed()
    );
    assert!(tried > 10);
}

const STEADY: &[&str] = &["--checkpoint-interval-seconds", "1h", "--sync-interval-seconds", "60s"];

fn log(session: &str, ack: &str, lot: &str) -> String {
    format!(
        r#"{{"session":"{session}","seq":1,"ack":"{ack}","context":{{"lot_id":"{lot}"}},"items":[{{"sku_local":"{session}"}}]}}"#
    )
}

#[test]
fn each_waiter_of_a_failed_sync_gets_its_own_true_answer_or_none() {
    if strace::is_missing() {
        return;
    }
    let daemon = Daemon::start(STEADY);
    let place = daemon.place.clone();
    assert_eq!(daemon.ask(log("first", "synced", "A"))["ok"], true);
    // The next batch opens a new lot, slowly: meanwhile others gather to a group, whose sync is slow and fails.
    // That batch's own sync is small, and nobody there asks for less: the writer makes it itself.
    let tracer = Tracer::attach(&daemon, "writer", &["openat2:delay_enter=700ms:when=2".to_owned()]);
    let fails = "fdatasync:error=EIO:delay_enter=700ms:when=1".to_owned();
    let of_syncs = Tracer::attach(&daemon, "journal sync", &[fails]);
    let send = |line: String| {
        let mut connection = daemon.connect();
        connection.send_line(line);
        connection
    };
    let mut slow = send(log("slow", "synced", "B"));
    until("the writer opens the new lot", || tracer.trace().contains("B.jsonl").then_some(()));
    let mut members: Vec<Connection> =
        (0..5).map(|n| send(log(&format!("member{n}"), "synced", "A"))).collect();
    let mut written = send(log("written", "written", "A"));
    // On one connection: on another it might come in before the batches.
    written.send_line(r#"{"op":"sync"}"#);
    assert_eq!(slow.reply()["ok"], true, "its sync was another");
    let reply = written.reply();
    assert_eq!((&reply["ok"], &reply["durability"]), (&true.into(), &"written".into()), "{reply}");
    // The group is in the journal, and its sync under way: these come too late for it. The journal has them too.
    let mut late: Vec<Connection> = (0..3).map(|n| send(log(&format!("late{n}"), "synced", "A"))).collect();
    let reply = send(log("latewritten", "written", "A")).reply();
    assert_eq!(reply["ok"], true, "it waits for no sync: {reply}");
    for member in members.iter_mut().chain(&mut late) {
        assert_eq!(member.receive(), Received::End(Vec::new()), "nobody can know what became of it");
    }
    let reply = written.reply();
    assert_eq!((&reply["ok"], &reply["error"]["code"]), (&false.into(), &"io_error".into()), "{reply}");
    assert_eq!(reply["error"]["retryable"], true);
    let mut daemon = daemon;
    assert_eq!(daemon.wait().code(), Some(74));
    drop(tracer);
    assert!(of_syncs.end().contains("(INJECTED)"));
    assert!(place.own_log().contains("sync of journal/"), "it says why");
    let daemon = Daemon::start_in(&place, STEADY);
    let names = (0..5).map(|n| format!("member{n}")).chain((0..3).map(|n| format!("late{n}")));
    for name in names.chain(["written".to_owned(), "latewritten".to_owned(), "first".to_owned()]) {
        let reply = daemon.ask(log(&name, "synced", "A"));
        assert_eq!(reply["ok"], true, "{name}: {reply}");
        let there = daemon.lot("A").iter().filter(|line| line.contains(&format!("\"{name}\""))).count();
        assert_eq!(there, 1, "{name}");
    }
}
