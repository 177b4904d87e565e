//! More sessions, more lots and more bytes than anybody needs.

use std::time::{Duration, Instant};

use crate::common::{Connection, Daemon};
use crate::siege::{Field, Siege, full, memory_mib, size};

/// Sends these lines, a hundred in flight, until there are no more or it is over; gives the codes' counts.
fn pipeline(
    guest: &mut Connection,
    lines: impl Iterator<Item = String>,
) -> std::collections::BTreeMap<String, usize> {
    let mut codes = std::collections::BTreeMap::new();
    let mut in_flight = 0;
    let mut hear = |guest: &mut Connection| {
        let reply = guest.reply();
        let code = reply["error"]["code"].as_str().unwrap_or("ok").to_owned();
        *codes.entry(code).or_insert(0) += 1;
    };
    for line in lines {
        guest.send_line(line);
        in_flight += 1;
        if in_flight == 100 {
            hear(guest);
            in_flight -= 1;
        }
    }
    (0..in_flight).for_each(|_| hear(guest));
    codes
}

#[test]
fn a_flood_of_sessions_fills_its_table_and_no_more_and_a_restart_survives_it() {
    let count = size(20_000, 1_100_000);
    let table = if full() { "256MiB" } else { "4MiB" };
    // The table must be a small part of the journal, or checkpoints of it fill the journal by themselves.
    let segment = if full() { "32MiB" } else { "8MiB" };
    let flags =
        ["--session-memory-bytes", table, "--checkpoint-interval-seconds", "1s", "--segment-bytes", segment];
    let siege = Siege::begin("sessions", &flags);
    let before = siege.memory_mib().0;
    let begun = Instant::now();
    let (mut stored, mut busy, mut sent) = (0, 0, 0);
    let mut guest = siege.daemon.connect();
    while sent < count {
        let part = sent..(sent + 10_000).min(count);
        sent = part.end;
        let lines = part.map(|n| {
            // As long as a name may be.
            format!(r#"{{"session":"{n:0>64}","seq":1,"ack":"written","context":{{"lot_id":"flood"}},"items":[{{}}]}}"#)
        });
        let codes = pipeline(&mut guest, lines);
        stored += codes.get("ok").copied().unwrap_or(0);
        busy += codes.get("busy").copied().unwrap_or(0);
        assert!(codes.keys().all(|code| code == "ok" || code == "busy"), "{codes:?}");
    }
    let most = siege.memory_mib().1 - before;
    println!("sessions: {stored} stored, {busy} busy, {:.1?}; {most} MiB more", begun.elapsed());
    assert!(stored + busy == count && busy > 0, "the table is full at some time");
    let bytes = (most << 20) / stored as u64;
    println!("sessions: {bytes} bytes each");
    // Checkpoints with a full table, again and again: the other does not wait for them.
    siege.compare(|field| {
        field.repeat(1, |_| {
            let mut guest = field.connect();
            pipeline(
                &mut guest,
                (0..1000)
                    .map(|_| r#"{"ack":"written","context":{"lot_id":"flood"},"items":[{}]}"#.to_owned()),
            );
        });
    });
    println!("sessions: longest wait of the other {:.1?}", siege.longest_since(begun));
    let place = siege.end_without_bound();
    let begun = Instant::now();
    let mut daemon = Daemon::start_in(&place, &flags);
    println!("sessions: started again in {:.1?} with {:?} MiB", begun.elapsed(), memory_mib(daemon.pid()));
    assert!(begun.elapsed() < Duration::from_secs(10));
    assert_eq!(
        daemon.ask(format!(
            r#"{{"session":"{:0>64}","seq":1,"context":{{"lot_id":"flood"}},"items":[{{}}]}}"#,
            0
        ))["duplicate"],
        true
    );
    daemon.kill();
    let begun = Instant::now();
    let daemon = Daemon::start_in(&place, &flags);
    println!("sessions: after a kill in {:.1?} with {:?} MiB", begun.elapsed(), memory_mib(daemon.pid()));
    assert_eq!(daemon.lot("flood").iter().filter(|line| line.contains("\"session\"")).count(), stored);
}

#[test]
fn a_flood_of_lots_holds_memory_and_descriptors_within_bounds() {
    let count = size(4000, 100_000);
    let siege = Siege::begin("lots", &["--max-open-lots", "500", "--segment-bytes", "8MiB"]);
    let flooded = std::sync::atomic::AtomicUsize::new(0);
    let lines = |range: std::ops::Range<usize>| {
        range.map(|n| format!(r#"{{"ack":"written","context":{{"lot_id":"flood-{n}"}},"items":[{{}}]}}"#))
    };
    let flood = |field: &Field<'_>| {
        let from = flooded.fetch_add(500, std::sync::atomic::Ordering::Relaxed);
        let codes = pipeline(&mut field.connect(), lines(from..from + 500));
        assert_eq!(codes.get("ok"), Some(&500), "{codes:?}");
    };
    let most_open = std::sync::atomic::AtomicUsize::new(0);
    siege.compare_within(4.0, |field| {
        field.repeat(1, |_| {
            flood(field);
            let open = crate::siege::descriptors(siege.daemon.pid());
            most_open.fetch_max(open, std::sync::atomic::Ordering::Relaxed);
        });
        while flooded.load(std::sync::atomic::Ordering::Relaxed) < count {
            flood(field);
        }
    });
    let open = most_open.into_inner();
    println!("lots: {} lots, at most {open} descriptors with 500 lots held open", flooded.into_inner());
    assert!(open < 5 * 500 + 64, "{open}");
    siege.end(if full() { 256 } else { 96 });
}

#[test]
fn one_that_pipelines_huge_batches_makes_the_other_wait_for_bytes_and_no_longer() {
    let siege = Siege::begin("huge batches", &[]);
    let item = format!("{{\"pad\":\"{}\"}}", "x".repeat(1000));
    let line = format!(
        r#"{{"ack":"written","context":{{"lot_id":"huge"}},"items":[{}]}}"#,
        vec![item.as_str(); 2000].join(",")
    );
    let figures = siege.measure(|field| {
        field.repeat(1, |_| {
            let mut guest = field.connect();
            let codes = pipeline_of(&mut guest, &line, 8);
            assert_eq!(codes, 8);
        });
    });
    // Every batch goes through one writer and one disk, in the order of arrival: this is the price, not a promise.
    println!(
        "huge batches: p99 {:.1?} without, {:.1?} under it, longest {:.1?}; a sleeping thread {:.1?}",
        figures.calm, figures.under, figures.longest, figures.noise
    );
    assert!(figures.longest < Duration::from_secs(3), "{:?}", figures.longest);
    siege.end(400);
}

/// All at once, from a thread of its own; gives how many were stored.
fn pipeline_of(guest: &mut Connection, line: &str, times: usize) -> usize {
    let mut writer = guest.stream().try_clone().unwrap();
    let lines = format!("{line}\n").repeat(times);
    let sending =
        std::thread::spawn(move || std::io::Write::write_all(&mut writer, lines.as_bytes()).unwrap());
    let stored = (0..times).filter(|_| guest.reply()["ok"] == true).count();
    sending.join().unwrap();
    stored
}
