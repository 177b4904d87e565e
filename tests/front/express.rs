//! Replies that are sent by who answers, while their connection sleeps.

use lotlog::batch::{Code, Outcome, Refusal};
use lotlog::queue::Answers;

use crate::rig::{Rig, answer, log, ticket};

#[test]
fn a_reply_is_sent_by_who_answers_while_the_front_has_no_time() {
    let mut rig = Rig::start_on(1, |_| {});
    let mut client = rig.connect();
    client.send(&log(1));
    let batch = rig.take(1).remove(0);
    let held = rig.hold_up();
    answer(batch, 1);
    client.stored(1);
    drop(held);
    client.send(&log(2));
    answer(rig.take(1).remove(0), 2);
    client.stored(2);
}

#[test]
fn it_waits_for_the_replies_before_it_all_the_same() {
    let mut rig = Rig::start_on(1, |_| {});
    let mut client = rig.connect();
    client.send(&format!("{}{}", log(1), log(2)));
    let mut batches = rig.take(2);
    let _held = rig.hold_up();
    answer(batches.remove(1), 2);
    client.silent();
    answer(batches.remove(0), 1);
    client.stored(1);
    client.stored(2);
}

#[test]
fn what_else_a_connection_has_to_do_it_still_does() {
    let mut rig = Rig::start_on(1, |_| {});
    let mut client = rig.connect();
    client.send(&format!("{}{{\"op\":\"status\"}}\n{}", log(1), log(2)));
    let mut batches = rig.take(2);
    let held = rig.hold_up();
    answer(batches.remove(0), 1);
    client.stored(1);
    // A status page is made by its connection.
    client.silent();
    drop(held);
    assert_eq!(client.reply()["connections"], 1);
    Answers::default()
        .give(ticket(batches.remove(0)), Outcome::Refused(Refusal::new(Code::IoError, "the disk is gone")));
    client.refused("io_error");
    // Which ends the connection.
    client.ended();
}
