//! Hands that do not wait: they write into a lot file in the very moments in which the daemon does.

use std::fs;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use crate::common::judge::{After, Verdict, judge, judge_the_judge};
use crate::common::producer::{number, record};
use crate::common::until;
use crate::hand::{FOREIGN, Hand, LOOSE};
use crate::scene::{OTHER, Scene, all, unaffected};

/// Appends again and again while the load goes on; no line of the daemon's may be glued, lost or doubled.
#[track_caller]
fn check(what: &'static [&'static str]) {
    let rounds = number("LOTLOG_ROUNDS", 400) as usize;
    let mut scene = Scene::begin();
    let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let (stopped, counted, lot) = (stop.clone(), done.clone(), scene.lot());
    let hand = std::thread::spawn(move || {
        let mut file = fs::File::options().append(true).open(lot).unwrap();
        while !stopped.load(Ordering::SeqCst) {
            let at = counted.fetch_add(1, Ordering::SeqCst);
            file.write_all(what[at % what.len()].as_bytes()).unwrap();
            std::thread::sleep(Duration::from_micros(200));
        }
    });
    let mut seen = 0;
    until("the hand has done much, and the other lot goes on", || {
        seen = scene.place.lot(OTHER).len().max(seen);
        (done.load(Ordering::SeqCst) > rounds && seen > 150).then_some(())
    });
    stop.store(true, Ordering::SeqCst);
    hand.join().unwrap();
    let before = scene.lines(Hand::AppendLines);
    until("the lot goes on", || (scene.lines(Hand::AppendLines) > before).then_some(()));
    let ledgers = scene.finish();
    assert_eq!(scene.daemon().ask(r#"{"op":"sync"}"#)["ok"], true);
    unaffected(&ledgers[1]);
    let ledger = all(&ledgers);
    for round in 0..2 {
        let read = scene.read(Hand::AppendLines);
        let verdict = judge(&read, &ledger, &record, After::Death);
        assert_eq!(verdict, Verdict::default(), "round {round}: {}", scene.log());
        if round == 0 {
            judge_the_judge(&read, &ledger, &record, After::Death);
        }
        scene.recover_twice();
    }
    scene.log_says(&["somebody else has changed a lot file"]);
    println!("{} appends of others, {} batches", done.load(Ordering::SeqCst), ledger.len());
}

#[test]
fn whole_lines_of_others_under_load_glue_lose_and_double_nothing() {
    check(&[FOREIGN]);
}

#[test]
fn loose_ends_of_others_under_load_glue_lose_and_double_nothing() {
    check(&[LOOSE]);
}

#[test]
fn loose_ends_and_whole_lines_of_others_under_load_glue_lose_and_double_nothing() {
    check(&[LOOSE, "\n", FOREIGN]);
}

#[test]
fn a_loose_end_written_between_the_look_and_the_append_is_glued_to_no_record() {
    let mut scene = Scene::begin();
    let (lot, calls, pid) = (scene.lot(), scene.place.path().join("calls"), scene.daemon().pid().to_string());
    let mut tracer = std::process::Command::new("strace");
    tracer.arg("-f").arg("-q").arg("-o").arg(&calls).arg("-P").arg(&lot).args(["-p", &pid]);
    // Each append waits before it reaches the kernel: the hand comes in between.
    tracer.args(["-e", "trace=pwrite64", "-e", "inject=pwrite64:delay_enter=8000"]);
    let Ok(mut tracer) =
        tracer.stdin(std::process::Stdio::null()).stderr(std::process::Stdio::null()).spawn()
    else {
        println!("SKIPPED: a hand between two calls needs strace");
        scene.stop.quit();
        return;
    };
    let delayed = || fs::read_to_string(&calls).unwrap_or_default().matches("DELAYED").count();
    while delayed() < 3 && tracer.try_wait().unwrap().is_none() {
        std::thread::sleep(Duration::from_millis(5));
    }
    if tracer.try_wait().unwrap().is_some() {
        println!("SKIPPED: a hand between two calls needs the right to trace");
        scene.stop.quit();
        return;
    }
    let mut file = fs::File::options().append(true).open(&lot).unwrap();
    for _ in 0..40 {
        file.write_all(LOOSE.as_bytes()).unwrap();
        std::thread::sleep(Duration::from_millis(30));
    }
    let pid = rustix::process::Pid::from_child(&tracer);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    tracer.wait().unwrap();
    let ledgers = scene.finish();
    assert_eq!(scene.daemon().ask(r#"{"op":"sync"}"#)["ok"], true);
    let ledger = all(&ledgers);
    let verdict = judge(&scene.read(Hand::AppendLines), &ledger, &record, After::Death);
    assert_eq!(verdict, Verdict::default(), "{}", scene.log());
    scene.log_says(&["wrote into it at the same moment"]);
}
