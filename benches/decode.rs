//! The way of a batch on one core, step by step: how fast a request line becomes a normalised batch, and that
//! the lines of its lot. `cargo bench --bench decode [ROUNDS]`; under `valgrind --tool=callgrind` with few rounds
//! it gives instructions per record, which do not depend on what else the machine does.

#![allow(clippy::unwrap_used)] // a measurement that cannot go on ends

#[path = "../src/bin/lotlog/workload.rs"]
#[allow(dead_code, unused_imports)] // with its tests, which run where it belongs
mod workload;

use std::hint::black_box;
use std::time::Duration;

use lotlog::batch::Durability;
use lotlog::config::Config;
use lotlog::protocol::{self, Request};
use lotlog::record;

const ITEMS: usize = 50;

fn main() {
    let rounds = std::env::args().skip(1).find_map(|word| word.parse::<usize>().ok()).unwrap_or(2000);
    let limits = Config::default().limits;
    let lines: Vec<String> = workload::bodies(1, 64, ITEMS, "written")
        .iter()
        .map(|body| format!(r#"{{"session":"0b8bd3b5-7c5b-4ea5-a4f5-16d06bc4b6ae","seq":1,{body}"#))
        .collect();
    let bytes: usize = (0..rounds).map(|n| lines[n % lines.len()].len()).sum();
    let records = (rounds * ITEMS) as f64;
    let report = |what: &str, seconds: f64| {
        println!(
            "{what:10} {:8.3} us/record  {:7.0} MB/s of requests  {:9.0} records/s",
            seconds * 1e6 / records,
            bytes as f64 / seconds / 1e6,
            records / seconds
        );
    };
    let begun = cpu_time();
    for n in 0..rounds {
        black_box(decode(&lines[n % lines.len()], &limits));
    }
    report("decode", (cpu_time() - begun).as_secs_f64());
    let Request::Log(log) = decode(&lines[0], &limits) else { panic!("a log request") };
    let batch = log.batch.unwrap();
    let mut out = Vec::new();
    let begun = cpu_time();
    for _ in 0..rounds {
        out.clear();
        record::compose(&batch.body.items, &batch.body.suffix, &mut out);
        black_box(&out);
    }
    report("compose", (cpu_time() - begun).as_secs_f64());
}

fn decode(line: &str, limits: &lotlog::config::Limits) -> Request {
    protocol::decode(line.as_bytes(), limits, Durability::Synced).unwrap()
}

/// The processor time of this thread: what else the machine does hardly counts.
fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
