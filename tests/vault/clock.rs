//! The wall clock jumps, by minutes and by years, forward and back, between batches and over restarts: what the
//! contract says of timestamps, and that nothing else follows the wall clock.

use std::sync::atomic::Ordering;
use std::time::Duration;

use lotlog::batch::{Durability, Outcome};

use crate::crash::schedules;
use crate::sequences::{Rig, records};
use crate::sim::*;

use Durability::{Synced, Written};

const HOUR_MICROS: i64 = 3_600_000_000;
const YEAR_MICROS: i64 = 365 * 24 * HOUR_MICROS;

fn jump(rig: &Rig, micros: i64) {
    rig.around.ahead_micros.fetch_add(micros, Ordering::SeqCst);
}

/// Sequence numbers and timestamps in the order of the file; each batch has one record.
fn file_order(world: &World) -> Vec<(u64, i64)> {
    let all = lots(world);
    let text = String::from_utf8(all["L"].clone()).unwrap();
    text.lines()
        .map(|line| {
            let record: serde_json::Value = serde_json::from_str(line).unwrap();
            let seq = record["sku_local"].as_str().unwrap().split('/').nth(1).unwrap().parse().unwrap();
            let stamp = record["timestamp"].as_str().unwrap();
            (seq, chrono::DateTime::parse_from_rfc3339(stamp).unwrap().timestamp_micros())
        })
        .collect()
}

#[test]
fn timestamps_keep_the_contract_and_lines_their_order_whatever_the_clock_does() {
    for seed in schedules(150) {
        let mut random = Random(seed);
        let mut rig = Rig::new();
        let (mut seq, mut last, mut expected) = (0, 0, Vec::new());
        for _ in 0..25 {
            let step =
                [0, 1, HOUR_MICROS / 60, HOUR_MICROS - 1, HOUR_MICROS, 3 * YEAR_MICROS, 50 * YEAR_MICROS]
                    [random.below(7)];
            jump(&rig, if random.chance(50) { step } else { -step });
            let wall = rig.around.now().wall_micros;
            let mut group = Vec::new();
            for _ in 0..1 + random.below(3) {
                seq += 1;
                group.push(rig.farm.send("L", "s", seq, Synced, 1, 10));
                last = match last - wall {
                    behind if behind < 0 => wall,
                    behind if behind < HOUR_MICROS => last + 1,
                    _ => wall,
                };
                expected.push((seq, last));
            }
            rig.commit(group);
            match random.below(8) {
                0 => rig = rig.restart(),
                1 => rig = rig.power_cut(seed),
                2 => rig.pass(Duration::from_secs(31)),
                _ => rig.pass(Duration::from_millis(10)),
            }
        }
        assert_eq!(file_order(&rig.world()), expected, "LOTLOG_SEED={seed}");
    }
}

#[test]
fn a_written_batch_is_visible_within_its_second_of_running_time_whatever_the_wall_clock_says() {
    for step in [10 * YEAR_MICROS, -10 * YEAR_MICROS] {
        let mut rig = Rig::new();
        rig.send("L", "s", 1, Written);
        jump(&rig, step);
        rig.pass(Duration::from_millis(500));
        assert_eq!(records(&lots(&rig.world()), "L"), 0, "not yet due");
        jump(&rig, -2 * step);
        rig.pass(Duration::from_millis(400));
        assert_eq!(records(&lots(&rig.world()), "L"), 3);
    }
}

#[test]
fn a_checkpoint_and_the_memory_of_sessions_follow_the_running_time() {
    for step in [10 * YEAR_MICROS, -10 * YEAR_MICROS] {
        let mut rig = Rig::new();
        rig.send("L", "s", 1, Synced);
        let syncs = rig.fail_once("sync lots/", || std::io::ErrorKind::Interrupted.into());
        jump(&rig, step);
        rig.settle();
        assert!(!syncs.load(Ordering::SeqCst), "the checkpoint is not due");
        rig.disk.clear_hook();
        rig.pass(Duration::from_secs(31));
        rig.settle();
        // Ten years on the wall, half a minute of running: the session is known.
        let mut rig = rig.restart();
        jump(&rig, step);
        rig.pass(Duration::from_secs(31));
        rig.settle();
        let answer = rig.send("L", "s", 1, Synced);
        assert!(matches!(answer, Some(Outcome::Duplicate { .. })), "{answer:?}");
        // Eight days of running: a checkpoint forgets it.
        rig.around.pass(Duration::from_secs(8 * 24 * 3600));
        rig.send("L", "t", 1, Synced);
        rig.pass(Duration::from_secs(31));
        rig.settle();
        let answer = rig.send("L", "s", 2, Synced);
        assert!(matches!(&answer, Some(Outcome::Refused(r)) if r.expected == Some(1)), "{answer:?}");
    }
}
