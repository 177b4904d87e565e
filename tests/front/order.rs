//! Every line gets one reply, in the order of the requests, whatever the order of the answers.

use lotlog::batch::{Code, Outcome, Refusal};
use lotlog::queue::Submission;

use crate::rig::{Rig, answer, log, log_of, ticket};

#[test]
fn replies_keep_the_order_of_the_requests_though_answers_come_in_another() {
    let mut rig = Rig::start(|_| {});
    let mut client = rig.connect();
    client.send(&format!("{}{}x\n{{\"op\":\"sync\"}}\n{}", log(1), log(2), log(3)));
    let mut submissions = rig.take(4);
    // The first answer holds the others back.
    let first = submissions.remove(0);
    for submission in submissions.into_iter().rev() {
        answer(submission, 9);
    }
    client.silent();
    answer(first, 1);
    client.stored(1);
    client.stored(2);
    client.refused("invalid_json");
    assert_eq!(client.reply()["lsn"], 9);
    client.stored(3);
    client.silent();
}

#[test]
fn a_request_may_come_byte_by_byte() {
    let mut rig = Rig::start(|_| {});
    let _vault = rig.answer_all();
    let mut client = rig.connect();
    for byte in (log(1) + &log(2).replace('\n', "\r\n")).chars() {
        client.send(&byte.to_string());
    }
    client.stored(1);
    client.stored(2);
}

#[test]
fn any_cut_of_pipelined_lines_gives_the_same_replies() {
    let mut rig = Rig::start(|_| {});
    let _vault = rig.answer_all();
    let text = format!("{}\n{}{{}}\n{}", log(1), log(2), log(3));
    for cut in 1..text.len() {
        let mut client = rig.connect();
        client.send(&text[..cut]);
        client.send(&text[cut..]);
        client.stored(1);
        client.refused("invalid_json");
        client.stored(2);
        client.refused("invalid_request");
        client.stored(3);
    }
}

#[test]
fn a_client_that_ended_its_writing_half_still_gets_all_replies() {
    let mut rig = Rig::start(|_| {});
    let mut client = rig.connect();
    client.send(&format!("{}{}{}", log(1), log(2), log(3)));
    client.no_more();
    for (lsn, submission) in rig.take(3).into_iter().enumerate().rev() {
        answer(submission, lsn as u64);
    }
    for seq in 1..=3 {
        client.stored(seq);
    }
    client.ended();
    rig.await_connections(0);
}

#[test]
fn a_last_line_without_newline_is_not_executed() {
    let mut rig = Rig::start(|_| {});
    let mut client = rig.connect();
    client.send(log(1).trim_end());
    client.no_more();
    client.ended();
    assert!(rig.gets_no_more());
}

#[test]
fn an_unknown_outcome_ends_the_connection_behind_the_replies_before_it() {
    let mut rig = Rig::start(|_| {});
    let mut client = rig.connect();
    client.send(&(1..=4).map(log).collect::<String>());
    let mut submissions = rig.take(4);
    answer(submissions.remove(3), 4);
    ticket(submissions.remove(1)).answer(Outcome::Unknown);
    answer(submissions.remove(1), 3);
    client.silent();
    answer(submissions.remove(0), 1);
    client.stored(1);
    client.ended();
}

#[test]
fn a_ticket_that_the_vault_loses_after_it_took_the_batch_is_unknown() {
    let mut rig = Rig::start(|_| {});
    let mut client = rig.connect();
    client.send(&log(1));
    let Submission::Batch(_, mut ticket) = rig.take(1).remove(0) else { panic!("not a batch") };
    ticket.take();
    drop(ticket);
    client.ended();
}

#[test]
fn an_io_error_is_told_and_ends_the_connection() {
    let mut rig = Rig::start(|_| {});
    let mut client = rig.connect();
    client.send(&format!("{}{}{}", log(1), log(2), log(3)));
    let mut submissions = rig.take(3);
    ticket(submissions.remove(1)).answer(Outcome::Refused(Refusal::new(Code::IoError, "no")));
    answer(submissions.remove(0), 1);
    client.stored(1);
    assert_eq!(client.refused("io_error")["seq"], 2);
    // What was submitted is answered, what comes later is not.
    client.send(&log(4));
    answer(submissions.remove(0), 3);
    client.stored(3);
    client.ended();
    assert!(rig.gets_no_more());
}

#[test]
fn a_vault_that_is_gone_is_told_as_io_error() {
    let mut rig = Rig::start(|_| {});
    let (mut early, mut late) = (rig.connect(), rig.connect());
    early.send(&log(1));
    let taken = rig.take(1);
    rig.vault = None;
    late.send(&log(1));
    late.refused("io_error");
    late.ended();
    drop(taken);
    early.refused("io_error");
    early.ended();
}

#[test]
fn what_waits_in_the_queue_of_a_vault_that_goes_is_told_as_io_error() {
    let mut rig = Rig::start(|_| {});
    let mut client = rig.connect();
    client.send(&format!("{}{}{{\"op\":\"status\"}}\n", log(1), log_of(2, 100_000)));
    // Both are in the queue when the budget has taken in the second.
    let front = rig.front.clone();
    crate::rig::await_that("both lines taken in", || front.budget.used_bytes() >= 90_000);
    rig.vault = None;
    client.refused("io_error");
    client.refused("io_error");
}

#[test]
fn status_is_answered_while_the_writer_is_stuck() {
    let rig = Rig::start(|_| {});
    let (mut stuck, mut other) = (rig.connect(), rig.connect());
    stuck.send(&format!("{}{{\"op\":\"status\"}}\n", log(1)));
    other.send("{\"op\":\"status\"}\n");
    let status = other.reply();
    assert_eq!(status["connections"], 2, "{status}");
    assert_eq!(status["durability"], "synced");
    // On the connection that waits it keeps its place.
    stuck.silent();
}

#[test]
fn status_counts_what_was_answered_before_it() {
    let rig = Rig::start(|_| {});
    let mut client = rig.connect();
    client.send("x\n{\"op\":\"status\"}\n");
    client.refused("invalid_json");
    assert_eq!(client.reply()["refused"]["invalid_json"], 1);
}

#[test]
fn an_empty_batch_is_answered_without_the_vault_and_in_its_turn() {
    let mut rig = Rig::start(|_| {});
    let mut client = rig.connect();
    client.send(&format!("{{\"items\":[]}}\n{}{{\"items\":[]}}\n", log(1)));
    let reply = client.reply();
    assert!(reply["ok"] == true && reply["records"] == 0 && reply["lsn"].is_null(), "{reply}");
    client.silent();
    answer(rig.take(1).remove(0), 1);
    client.stored(1);
    assert_eq!(client.reply()["records"], 0);
}

#[test]
fn a_peer_that_is_gone_does_not_disturb_what_it_sent() {
    let mut rig = Rig::start(|_| {});
    let mut client = rig.connect();
    client.send(&format!("{}{}", log(1), log(2)));
    let submissions = rig.take(2);
    drop(client);
    for submission in submissions {
        answer(submission, 1);
    }
    rig.await_connections(0);
    let _vault = rig.answer_all();
    let mut next = rig.connect();
    next.send(&log(1));
    next.stored(1);
}
