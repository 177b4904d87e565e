//! What is in flight is bounded however its connections behave: those that die, and those that do not read.

use std::time::{Duration, Instant};

use lotlog::queue::{Next, Submission};

use crate::rig::{A_WHILE, PATIENCE, Rig, await_that, log_of};

/// Everything that comes to the vault until it is quiet for a while.
fn all(rig: &Rig) -> Vec<Submission> {
    let mut all = Vec::new();
    while let Next::Group(group) = rig.vault.as_ref().unwrap().next_group(Some(Instant::now() + A_WHILE)) {
        all.extend(group);
    }
    all
}

fn text_bytes(submissions: &[Submission]) -> usize {
    let bytes = |submission: &Submission| match submission {
        Submission::Batch(batch, _) => batch.body.items.len() + batch.body.suffix.len(),
        Submission::Sync(_) | Submission::Order(..) | Submission::Nudge => 0,
    };
    submissions.iter().map(bytes).sum()
}

#[test]
fn a_batch_keeps_its_bytes_in_flight_when_its_connection_dies() {
    const LIMIT: usize = 8 << 20;
    const LINE: usize = 2 << 20;
    let mut rig = Rig::start(|config| {
        config.limits.max_bytes_in_flight = LIMIT;
        config.limits.max_line_bytes = LINE;
    });
    let mut answered = rig.connect();
    answered.send(&log_of(1, 1 << 20));
    let first = rig.take(1);
    // The vault stands still from here on, holding what it took.
    for n in 0..30 {
        let mut client = rig.connect();
        // Closed with this reply unread, the connection ends with an error, whatever is still on its way.
        client.send("{}\n");
        client.stream.set_write_timeout(Some(Duration::from_millis(if n < 4 { 1000 } else { 30 }))).unwrap();
        let _ = client.try_send(&log_of(1, LINE));
    }
    let most = LIMIT + LINE;
    await_that("the dead connections end", || rig.connections() < 30);
    assert!(rig.front.budget.used_bytes() <= most, "{}", rig.front.budget.used_bytes());
    let waiting = all(&rig);
    let held = text_bytes(&waiting) + text_bytes(&first);
    assert!(held > LIMIT / 2, "only {held} bytes: the test must fill what there is");
    assert!(held <= most, "{held} bytes wait for the vault, {LIMIT} may be in flight");
    assert!(rig.front.budget.used_bytes() >= held - LINE, "what waits is accounted for");
    // Gone with their answers; what comes to the vault afterwards is what had no room before.
    drop((waiting, first));
    drop(answered);
    let deadline = Instant::now() + PATIENCE;
    while rig.front.budget.used_bytes() > 0 || rig.connections() > 0 {
        assert!(text_bytes(&all(&rig)) <= most);
        assert!(Instant::now() < deadline, "{} bytes are never given back", rig.front.budget.used_bytes());
    }
}

#[test]
fn a_peer_that_reads_no_replies_cannot_pile_up_long_ones() {
    let mut rig = Rig::start(|_| {});
    let vault = rig.answer_all();
    let names: Vec<String> = (0..250).map(|n| format!("\"{n:0>100}\":Infinity")).collect();
    let line = format!("{{\"items\":[{{{}}}]}}\n", names.join(","));
    let mut deaf = rig.connect();
    deaf.stream.set_write_timeout(Some(A_WHILE)).unwrap();
    let _ = deaf.try_send(&line.repeat(200));
    let taken = rig.front.metrics.ack_seconds.read(Instant::now());
    assert!(taken.max > 0.0, "some are answered");
    // It reads at last, and gets all.
    deaf.stream.set_write_timeout(Some(PATIENCE)).unwrap();
    deaf.no_more();
    let mut replies = 0;
    while let Some(reply) = deaf.reply_or_end() {
        replies += usize::from(reply["ok"] == true);
    }
    rig.drain.cancel();
    rig.await_end();
    let stored = vault.join().unwrap();
    assert_eq!(replies as u64, stored, "each has its reply");
    assert!((1..=40).contains(&stored), "{stored} batches with replies of 30 KiB were in flight");
}
