//! Connections that break between a request and its reply, and two that share one session: once is once.

use std::net::Shutdown;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::common::judge::{After, Answer, Entry, Verdict, judge, judge_the_judge};
use crate::common::producer::{Random, lot_files, number, record, request};
use crate::common::{Connection, Daemon, Place};
use crate::siege::{alone, size};

fn entry(session: &str, batch: u64) -> Entry {
    Entry {
        lot: format!("lot-{}", batch % 3),
        session: session.to_owned(),
        batch,
        seq: batch + 1,
        items: 1 + (batch % 4) as usize,
        pad: 10,
        answer: Answer::Unknown,
    }
}

fn end(mut daemon: Daemon, entries: &[Entry]) {
    assert_eq!(daemon.terminate(), Some(0));
    let lots = lot_files(&daemon.place.data());
    assert_eq!(judge(&lots, entries, &record, After::Death), Verdict::default());
    judge_the_judge(&lots, entries, &record, After::Death);
}

#[test]
fn whatever_breaks_between_request_and_reply_a_resend_leaves_one_copy() {
    let _alone = alone();
    let seed = number("LOTLOG_SEED", std::process::id().into());
    println!("LOTLOG_SEED={seed}");
    let place = Place::in_memory();
    let daemon = Daemon::start_in(&place, &[]);
    let (batches, broken, duplicates) = (size(300, 5000) as u64, AtomicUsize::new(0), AtomicUsize::new(0));
    let clients: Vec<_> = (0..4u64).map(|n| (format!("b{n}"), Random(seed.wrapping_add(n)))).collect();
    let entries: Vec<Entry> = std::thread::scope(|scope| {
        let (daemon, broken, duplicates) = (&daemon, &broken, &duplicates);
        let threads: Vec<_> = clients
            .into_iter()
            .map(|(session, mut random)| {
                scope.spawn(move || {
                    let mut entries = Vec::new();
                    for batch in 0..batches {
                        let mut entry = entry(&session, batch);
                        let line = request(&entry, batch % 2 == 0) + "\n";
                        for _ in 0..random.below(4) {
                            break_off(daemon.connect(), &line, &mut random);
                            broken.fetch_add(1, Ordering::Relaxed);
                        }
                        let reply = daemon.ask(line.trim_end());
                        assert_eq!(reply["ok"], true, "{reply}");
                        duplicates.fetch_add(usize::from(reply["duplicate"] == true), Ordering::Relaxed);
                        entry.answer = if batch % 2 == 0 { Answer::Synced } else { Answer::Written };
                        entries.push(entry);
                    }
                    entries
                })
            })
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    println!("{} batches, {broken:?} broken connections, {duplicates:?} were there already", entries.len());
    assert!(duplicates.into_inner() > 0, "some of what broke off was carried out");
    end(daemon, &entries);
}

/// Sends, or begins to, and ends the connection in one of many ways.
fn break_off(mut guest: Connection, line: &str, random: &mut Random) {
    match random.below(6) {
        // Gone before the reply.
        0 => guest.send_what_goes(line.as_bytes()),
        // Half a close, then gone.
        1 => {
            guest.send_what_goes(line.as_bytes());
            let _ = guest.stream().shutdown(Shutdown::Write);
        }
        // A reply left unread: the daemon's next call meets a reset.
        2 => {
            guest.send_what_goes(format!("{{}}\n{line}{{}}\n").as_bytes());
            std::thread::yield_now();
        }
        // It will not read.
        3 => {
            let _ = guest.stream().shutdown(Shutdown::Read);
            guest.send_what_goes(line.as_bytes());
        }
        // Only a part, and never its newline.
        4 => guest.send_what_goes(&line.as_bytes()[..random.below(line.len() as u64) as usize]),
        // The same twice in one go.
        _ => guest.send_what_goes(format!("{line}{line}").as_bytes()),
    }
}

#[test]
fn two_connections_that_send_the_same_session_store_each_number_once() {
    let _alone = alone();
    let place = Place::in_memory();
    let daemon = Daemon::start_in(&place, &[]);
    let batches = size(500, 10_000) as u64;
    let duplicates: usize = std::thread::scope(|scope| {
        let racers: Vec<_> = (0..2)
            .map(|_| {
                let mut guest = daemon.connect();
                scope.spawn(move || {
                    let mut duplicates = 0;
                    for batch in 0..batches {
                        let reply = guest.ask(request(&entry("race", batch), batch % 2 == 0));
                        assert!(reply["ok"] == true && reply["seq"] == batch + 1, "{reply}");
                        duplicates += usize::from(reply["duplicate"] == true);
                    }
                    duplicates
                })
            })
            .collect();
        racers.into_iter().map(|racer| racer.join().unwrap()).sum()
    });
    assert_eq!(duplicates as u64, batches, "of each number one is stored and one a duplicate");
    let entries: Vec<Entry> =
        (0..batches).map(|batch| Entry { answer: Answer::Synced, ..entry("race", batch) }).collect();
    end(daemon, &entries);
}

#[test]
fn two_connections_that_take_turns_in_one_session_are_told_the_truth() {
    let _alone = alone();
    let place = Place::in_memory();
    let daemon = Daemon::start_in(&place, &[]);
    let batches = size(300, 5000) as u64;
    std::thread::scope(|scope| {
        for half in 0..2 {
            let mut guest = daemon.connect();
            scope.spawn(move || {
                for batch in (half..batches).step_by(2) {
                    let line = request(&entry("turns", batch), true);
                    loop {
                        let reply = guest.ask(&line);
                        if reply["ok"] == true {
                            assert_ne!(reply["duplicate"], true, "{reply}");
                            break;
                        }
                        // The other one's number has not come yet.
                        assert_eq!(reply["error"]["code"], "out_of_sequence", "{reply}");
                        assert_eq!(reply["error"]["expected"], batch, "{reply}");
                    }
                }
            });
        }
    });
    // Other content under a number that is taken is a conflict, whoever comes with it.
    let last = entry("turns", batches - 1);
    let other = request(&Entry { pad: 11, ..last.clone() }, true);
    assert_eq!(daemon.ask(other)["error"]["code"], "conflict");
    assert_eq!(daemon.ask(request(&last, true))["duplicate"], true);
    let entries: Vec<Entry> =
        (0..batches).map(|batch| Entry { answer: Answer::Synced, ..entry("turns", batch) }).collect();
    end(daemon, &entries);
}
