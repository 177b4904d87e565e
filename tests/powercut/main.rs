//! Power cuts: a real kernel and a real file system in a QEMU guest, on a disk whose write cache is lost at a
//! drawn moment. `tests/powercut/run` does it; this is its tool, on the host and in the guest. Under `cargo
//! test` it only tries its own parts: the model of the disk, the ledgers, the judge.

#![allow(clippy::unwrap_used)] // a proof that cannot go on fails

#[path = "../common/mod.rs"]
mod common;

mod cache;
mod cut;
mod guest;
mod ledger;
mod look;
mod nbd;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use common::judge::{After, Answer, Entry, Lots, judge_the_judge, vanished};
use common::producer::record;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.first().map(String::as_str) {
        Some("produce") => guest::produce(&words[1..]),
        Some("watch") => guest::watch(&words[1..]),
        Some("cuts") => return cuts(&words[1..]),
        // Test runners ask.
        Some("--list") => println!("the_rigs_own_parts_hold: test"),
        _ => {
            println!(
                "SKIPPED: power cuts are tried by tests/powercut/run, which needs root and some minutes"
            );
            check();
            println!("the rig's own parts were tried");
        }
    }
    ExitCode::SUCCESS
}

/// `cuts N FS SEED SERIES CONTROL IMAGES GRACE_MS ACCEL KERNEL INITRD WORK KEEP`
fn cuts(words: &[String]) -> ExitCode {
    check();
    let number = |at: usize| words[at].parse::<u64>().expect("a number");
    let rig = cut::Rig {
        fs: words[1].clone(),
        control: !words[4].is_empty(),
        images: number(5),
        grace: Duration::from_millis(number(6)),
        accel: words[7].clone(),
        kernel: PathBuf::from(&words[8]),
        initrd: PathBuf::from(&words[9]),
        work: PathBuf::from(&words[10]),
        keep: PathBuf::from(&words[11]),
    };
    let mut figures = cut::Figures::default();
    let begun = Instant::now();
    let ran = match words[3].parse() {
        Ok(series) => rig.series(series, number(0) as usize, &mut figures),
        Err(_) => rig.cuts(number(0) as usize, number(2), &mut figures),
    };
    println!("{figures}, {:.0} s", begun.elapsed().as_secs_f64());
    if let Err(error) = &ran {
        println!("BROKEN RIG: {error}");
        return ExitCode::from(3);
    }
    if figures.synced > 0 && figures.flushes == 0 {
        println!("BROKEN RIG: batches were acknowledged as synced, but no flush reached the disk");
        return ExitCode::from(3);
    }
    if figures.file_system * 10 > figures.cuts.max(20) {
        println!("BROKEN RIG: no file system is that fragile");
        return ExitCode::from(3);
    }
    if rig.control {
        let shown = figures.looks_with_loss > 0;
        println!(
            "{}",
            if shown {
                "the control shows loss, as it must"
            } else {
                "BROKEN RIG: the control shows no loss"
            }
        );
        return if shown { ExitCode::SUCCESS } else { ExitCode::from(3) };
    }
    println!("{}", if figures.violations == 0 { "no violation" } else { "VIOLATED" });
    ExitCode::from(u8::from(figures.violations > 0))
}

/// The rig's own parts on trial.
fn check() {
    cache::check();
    let mut book = ledger::Book::default();
    let mut lots = Lots::new();
    for batch in 0..40 {
        let answer = if batch % 3 == 0 { Answer::Written } else { Answer::Synced };
        let entry = Entry {
            lot: format!("lot-{}", batch % 2),
            session: "s".to_owned(),
            batch,
            seq: batch + 1,
            items: 1 + batch as usize % 3,
            pad: 10,
            answer,
        };
        for item in 0..entry.items {
            let line = record(&entry, item, &format!("2026-01-01T00:00:{batch:02}.000000+00:00")) + "\n";
            lots.entry(entry.lot.clone()).or_default().extend(line.bytes());
        }
        let announced = Entry { answer: Answer::Unknown, ..entry.clone() };
        for told in [announced, entry] {
            assert_eq!(ledger::entry(&ledger::line(&told)).as_ref(), Some(&told), "an entry as a line");
            book.note(told, ());
        }
    }
    assert_eq!((book.entries.len(), book.count(Answer::Unknown)), (40, 0), "the last word counts");
    judge_the_judge(&lots, &book.entries, &record, After::PowerCut);

    let mut raw = lots.clone();
    let bytes = raw.get_mut("lot-0").expect("a lot");
    bytes[100..200].fill(0);
    bytes.truncate(700);
    assert_eq!((look::foreign(&raw, &lots), look::foreign(&Lots::new(), &lots)), (0, 0), "not yet written");
    assert_eq!(vanished(&lots, &raw), 1);
    raw.get_mut("lot-0").expect("a lot")[300] ^= 1;
    assert_eq!(look::foreign(&raw, &lots), 1, "other bytes");
    raw.get_mut("lot-1").expect("a lot").push(b'x');
    assert_eq!(look::foreign(&raw, &lots), 2, "bytes beyond the end");
}
