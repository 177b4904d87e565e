//! The drain: nothing new is taken, what is submitted is answered, what is not is refused by name.

use lotlog::queue::Next;

use crate::rig::{PATIENCE, Rig, answer, log};

#[test]
fn a_drain_ends_idle_connections_at_once_and_lets_no_one_in() {
    let mut rig = Rig::start(|_| {});
    let (mut idle, mut unfinished) = (rig.connect(), rig.connect());
    unfinished.send("{\"items\":");
    rig.await_connections(2);
    rig.drain.cancel();
    idle.ended();
    unfinished.ended();
    rig.await_end();
    assert!(!rig.can_connect());
    let next = rig.vault.as_ref().unwrap().next_group(Some(std::time::Instant::now() + PATIENCE));
    assert!(matches!(next, Next::Closed), "a sender survived: {next:?}");
}

#[test]
fn a_drain_answers_what_was_submitted_and_refuses_the_rest_by_name() {
    let mut rig = Rig::start(|config| config.limits.max_requests_in_flight = 3);
    let mut client = rig.connect();
    let unfinished = "{\"items\":[";
    client.send(&((1..=7).map(log).collect::<String>() + "{\"op\":\"sync\"}\n" + unfinished));
    let submissions = rig.take(3);
    rig.drain.cancel();
    client.silent();
    for (submission, lsn) in submissions.into_iter().zip(1..) {
        answer(submission, lsn);
    }
    for seq in 1..=3 {
        client.stored(seq);
    }
    for seq in 4..=7 {
        assert_eq!(client.refused("shutting_down")["seq"], seq);
    }
    client.refused("shutting_down");
    client.ended();
    rig.await_end();
    assert!(matches!(rig.vault.as_ref().unwrap().next_group(None), Next::Closed));
}

#[test]
fn a_drain_waits_for_a_late_answer_and_ends_without_the_peer_reading_it() {
    let mut rig = Rig::start(|_| {});
    let (mut stays, leaves) = (rig.connect(), rig.connect());
    let mut leaves = leaves;
    stays.send(&log(1));
    leaves.send(&log(1));
    let submissions = rig.take(2);
    rig.drain.cancel();
    drop(leaves);
    for submission in submissions {
        answer(submission, 1);
    }
    stays.stored(1);
    stays.ended();
    rig.await_end();
}

#[test]
fn a_drain_under_load_answers_every_line_once_and_in_order() {
    let mut rig = Rig::start(|_| {});
    let vault = rig.answer_all();
    let farm: Vec<_> = (0..8)
        .map(|_| {
            let mut client = rig.connect();
            let mut writer = client.stream.try_clone().unwrap();
            let sending = std::thread::spawn(move || {
                use std::io::Write;
                (1..).take_while(|seq| writer.write_all(log(*seq).as_bytes()).is_ok()).count()
            });
            std::thread::spawn(move || {
                client.stored(1);
                let (mut stored, mut refused) = (1, 0);
                while let Some(reply) = client.reply_or_end() {
                    assert_eq!(reply["seq"], stored + refused + 1, "{reply}");
                    if reply["ok"] == true {
                        assert_eq!(refused, 0, "stored behind a refusal");
                        stored += 1;
                    } else {
                        assert_eq!(reply["error"]["code"], "shutting_down", "{reply}");
                        refused += 1;
                    }
                }
                drop(client);
                sending.join().unwrap();
                stored
            })
        })
        .collect();
    std::thread::sleep(crate::rig::A_WHILE);
    rig.drain.cancel();
    let stored: u64 = farm.into_iter().map(|producer| producer.join().unwrap()).sum();
    rig.await_end();
    // Not one more and not one less than was acknowledged.
    assert_eq!(vault.join().unwrap(), stored);
}
