//! SIGKILL at random, again and again, under pipelining producers and a reader that follows.

use std::time::Duration;

use lotlog::verify::verify;
use rustix::process::Signal;

use crate::common::judge::{After, Verdict, judge_the_judge};
use crate::common::producer::{Ledger, Load, Random, Stop, Watcher, entries, farm, number, record};
use crate::common::{Connection, Daemon, Place, until};
use crate::{BUSY, all_is_well, rotating, seed};

/// One farm: so many rounds of a hundred go to it.
struct Farm {
    name: &'static str,
    flags: Vec<&'static str>,
    producers: u64,
    share_percent: u64,
    /// It serves at most so long.
    longest: Duration,
    load: Load,
}

fn farms() -> Vec<Farm> {
    let load = Load { pause: Duration::from_millis(3), ..Load::default() };
    let short = Duration::from_millis(200);
    // Many of them larger than the largest write, so that a kill tears them.
    let large = Load {
        lots: 2,
        most_items: 30,
        most_pad: 100_000,
        window: 2,
        pause: Duration::from_millis(30),
        ..load.clone()
    };
    vec![
        Farm {
            name: "one lot",
            flags: rotating(),
            producers: 8,
            share_percent: 30,
            longest: short,
            load: Load { lots: 1, synced_percent: 50, ..load.clone() },
        },
        Farm {
            name: "ten lots",
            flags: rotating(),
            producers: 8,
            share_percent: 30,
            longest: short,
            load: Load { lots: 10, most_pad: 2000, ..load.clone() },
        },
        Farm {
            name: "two hundred lots, all written",
            flags: BUSY.to_vec(),
            producers: 4,
            share_percent: 30,
            longest: short,
            load: Load { lots: 200, most_items: 3, synced_percent: 5, window: 32, ..load },
        },
        Farm {
            name: "large batches",
            flags: vec!["--segment-bytes", "1MiB", "--checkpoint-interval-seconds", "300ms"],
            producers: 2,
            share_percent: 10,
            longest: Duration::from_millis(600),
            load: large,
        },
    ]
}

#[test]
fn killed_again_and_again_under_pipelining_producers_nothing_is_lost_or_doubled() {
    let seed = seed();
    let rounds = number("LOTLOG_ROUNDS", 200);
    let threads: Vec<_> = farms()
        .into_iter()
        .enumerate()
        .map(|(n, farm)| {
            let kills = (rounds * farm.share_percent).div_ceil(100);
            std::thread::spawn(move || kill_again_and_again(&farm, seed.wrapping_add(1000 * n as u64), kills))
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
}

fn kill_again_and_again(kind: &Farm, seed: u64, kills: u64) {
    let mut random = Random(seed);
    let place = Place::new();
    let mut daemon = Daemon::start_in(&place, &kind.flags);
    let stop = Stop::default();
    let producers = farm(&place.socket(), "p", kind.producers, seed, &kind.load, &stop);
    let watcher = Watcher::start(place.data());
    for _ in 0..kills {
        // One in four while it recovers.
        if random.chance(25) {
            std::thread::sleep(Duration::from_micros(random.below(40_000)));
        } else {
            until("the daemon serves", || Connection::try_open(&place.socket()));
            std::thread::sleep(Duration::from_micros(random.below(kind.longest.as_micros() as u64)));
        }
        daemon.kill();
        daemon = Daemon::launch(&place, place.command(&kind.flags));
    }
    std::thread::sleep(Duration::from_millis(300));
    stop.finish();
    let ledgers: Vec<Ledger> = producers.into_iter().map(|p| p.join().unwrap()).collect();
    let while_running = verify(&place.data()).unwrap();
    assert!(while_running.is_good() && while_running.daemon_running, "{while_running:?}");
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.wait().code(), Some(0));
    let sent = entries(&ledgers);
    let lots = all_is_well(&place.data(), &sent, &Default::default(), kind.name);
    let gone = watcher.vanished(&place.data());
    assert_eq!(Verdict { vanished: gone, ..Verdict::default() }, Verdict::default(), "{}", kind.name);
    judge_the_judge(&lots, &sent, &record, After::Death);
    let report = verify(&place.data()).unwrap();
    assert!(report.is_good() && report.quarantined == 0, "{report:?}");
    assert_eq!(report.batches, sent.len() as u64);
    let breaks: usize = ledgers.iter().map(|l| l.breaks).sum();
    let duplicates: usize = ledgers.iter().map(|l| l.duplicates).sum();
    println!(
        "{}: {kills} kills, {} batches, {breaks} connections broken with batches in flight, {duplicates} sent again after they were stored",
        kind.name,
        sent.len()
    );
    assert!(sent.len() as u64 > kills, "only {} batches", sent.len());
}
