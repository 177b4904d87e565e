//! Lines made to hurt: without an end, nested, blown up, or slow to read. Each gets its answer, soon.

use std::io::Write as _;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::common::{Connection, Daemon};
use crate::siege::{Siege, alone, size};

/// A line, and the code of its refusal; "ok" where it is stored.
fn evil() -> Vec<(&'static str, String, &'static str)> {
    let items = |item: &str| format!(r#"{{"context":{{"lot_id":"evil"}},"items":[{item}]}}"#);
    let context = |context: &str, items: &str| format!(r#"{{"context":{{{context}}},"items":[{items}]}}"#);
    let digits = "7".repeat(1_000_000);
    let keys: Vec<String> = (0..100_000).map(|n| format!("\"k{n}\":1")).collect();
    let (keys, tiny) = (keys.join(","), vec!["{}"; 100_000].join(","));
    let long = "x".repeat(60_000);
    let infinite: Vec<String> = (0..5000).map(|n| format!("\"{n:0>180}\":Infinity")).collect();
    let escaped = "\\u0041".repeat(1_000_000);
    vec![
        ("a million brackets", "[".repeat(1_000_000), "invalid_json"),
        ("brackets in an item", items(&format!("{{\"a\":{}", "[".repeat(1_000_000))), "invalid_json"),
        ("objects in objects", "{\"a\":".repeat(200_000), "invalid_json"),
        ("a great exponent", items(r#"{"est_price_mu":1e999999999,"quantity":1e-999999999}"#), "ok"),
        ("a million digits", items(&format!("{{\"est_price_mu\":{digits}}}")), "ok"),
        ("a million digits behind the point", items(&format!("{{\"sell_p60\":0.{digits}e-{digits}}}")), "ok"),
        ("a million digits as text", items(&format!("{{\"est_price_mu\":\"0.{digits}\"}}")), "ok"),
        ("a quantity of a million digits", items(&format!("{{\"quantity\":{digits}}}")), "ok"),
        ("a quantity as text", items(&format!("{{\"quantity\":\"{digits}\"}}")), "ok"),
        (
            "a seq of a million digits",
            format!(r#"{{"session":"s","seq":{digits},"items":[{{}}]}}"#),
            "invalid_request",
        ),
        ("a lot of a million digits", context(&format!("\"lot_id\":{digits}"), "{}"), "invalid_lot_id"),
        ("a lot of a million letters", context(&format!("\"lot_id\":\"{escaped}\""), "{}"), "invalid_lot_id"),
        ("a hundred thousand keys", items(&format!("{{{keys}}}")), "ok"),
        ("the last key twice", items(&format!("{{{keys},\"k0\":2}}")), "invalid_request"),
        ("twice, once escaped", items(&format!("{{{keys},\"\\u006b0\":2}}")), "invalid_request"),
        ("a million escapes", items(&format!("{{\"x\":\"{escaped}\"}}")), "ok"),
        ("a million escapes in a key", items(&format!("{{\"{escaped}\":1}}")), "ok"),
        ("thousands of dropped names", items(&format!("{{{}}}", infinite.join(","))), "ok"),
        (
            "a context in a hundred thousand records",
            context(&format!("\"lot_id\":\"evil\",\"x\":\"{long}\""), &tiny),
            "too_large",
        ),
        ("a context of 15 MiB", context(&format!("\"x\":\"{}\"", "x".repeat(15 << 20)), "{}"), "too_large"),
        (
            "a known key of 15 MiB",
            context(&format!("\"roi_target\":\"{}\"", "x".repeat(15 << 20)), &tiny[..2]),
            "too_large",
        ),
        ("fifteen million blanks", format!("{}{}", " ".repeat(15 << 20), items("{}")), "ok"),
        ("a key of 15 MiB at the top", format!("{{\"{}\":1}}", "x".repeat(15 << 20)), "invalid_request"),
    ]
}

fn code(reply: &Value) -> &str {
    reply["error"]["code"].as_str().unwrap_or("ok")
}

#[test]
fn lines_made_to_hurt_are_answered_and_hold_up_nobody() {
    let siege = Siege::begin("evil lines", &["--segment-bytes", "64MiB"]);
    let lines = evil();
    let before = siege.memory_mib().1;
    for (name, line, expected) in &lines {
        let mut guest = siege.daemon.connect();
        let begun = Instant::now();
        let reply = guest.ask(line);
        let most = siege.memory_mib().1;
        println!(
            "{name}: {} KiB, {} in {:.1?}; at most {most} MiB",
            line.len() >> 10,
            code(&reply),
            begun.elapsed()
        );
        assert_eq!(code(&reply), *expected, "{name}: {reply}");
        assert!(reply.to_string().len() < 200_000, "{name}: a reply of {} bytes", reply.to_string().len());
        assert!(begun.elapsed() < Duration::from_secs(5), "{name}: {:?}", begun.elapsed());
    }
    println!("evil lines: {before} MiB before, {} MiB after each once", siege.memory_mib().1);
    // Those that cost the daemon's front, not the disk; the disk is everybody's.
    let costly: Vec<&String> = lines.iter().filter(|line| line.2 != "ok").map(|line| &line.1).collect();
    siege.compare(|field| {
        field.repeat(2, |n| {
            for line in costly.iter().skip(n) {
                if field.is_over() {
                    break;
                }
                assert_eq!(field.connect().ask(line)["ok"], false);
            }
        });
    });
    siege.end(400);
}

#[test]
fn many_long_lines_at_once_take_neither_all_threads_nor_all_memory() {
    let siege = Siege::begin("long lines", &[]);
    let line = |kib: usize| {
        format!("{{\"context\":{{\"roi_target\":\"{}\"}},\"items\":[{{}}]}}", "x".repeat(kib << 10))
    };
    let lines = [line(100), line(300), line(15 << 10), line(100), line(300), line(100)];
    let threads = std::sync::atomic::AtomicUsize::new(0);
    siege.compare(|field| {
        field.repeat(size(12, 48), |n| {
            let mut guest = field.connect();
            for _ in 0..3 {
                assert_eq!(code(&guest.ask(&lines[n % lines.len()])), "too_large");
            }
            let now = std::fs::read_dir(format!("/proc/{}/task", siege.daemon.pid())).unwrap().count();
            threads.fetch_max(now, std::sync::atomic::Ordering::Relaxed);
        });
    });
    let threads = threads.into_inner();
    println!("long lines: at most {threads} threads");
    assert!(threads < 24, "{threads} threads");
    siege.end(crate::most_mib());
}

#[test]
fn the_time_to_read_a_line_grows_with_its_length_and_no_faster() {
    let _alone = alone();
    let daemon = Daemon::start(&[]);
    let mut guest = daemon.connect();
    let wrap = |item: String| format!(r#"{{"items":[{item}],"unknown":1}}"#);
    let keys = |n: usize| (0..n).map(|n| format!("\"k{n}\":1")).collect::<Vec<_>>().join(",");
    let alike = |n: usize| (0..n).map(|n| format!("\"x{n:0>6}y\":1")).collect::<Vec<_>>().join(",");
    type Make<'a> = &'a dyn Fn(usize) -> String;
    let makes: [(&str, Make<'_>); 6] = [
        ("keys", &|n| wrap(format!("{{{}}}", keys(n)))),
        ("keys alike", &|n| wrap(format!("{{{}}}", alike(n)))),
        ("digits", &|n| wrap(format!("{{\"est_price_mu\":\"{}\"}}", "7".repeat(20 * n)))),
        ("fraction", &|n| wrap(format!("{{\"quantity\":0.{}}}", "7".repeat(20 * n)))),
        ("escapes", &|n| wrap(format!("{{\"{}\":1}}", "\\n".repeat(8 * n)))),
        ("dropped", &|n| wrap(format!("{{{}}}", keys(n).replace(":1", ":Infinity")))),
    ];
    for (name, make) in makes {
        let mut quickest = |n: usize| {
            let line = make(n);
            let time = |guest: &mut Connection| {
                let begun = Instant::now();
                assert_eq!(guest.ask(&line)["ok"], false);
                begun.elapsed()
            };
            (0..5).map(|_| time(&mut guest)).min().unwrap()
        };
        let (one, eight) = (quickest(25_000), quickest(200_000));
        println!("{name}: {one:.1?}, of eight times the length {eight:.1?}");
        // Quadratic would be 64 times.
        assert!(eight < one * 24 + Duration::from_millis(50), "{name}: {one:?} and {eight:?}");
    }
}

#[test]
fn a_line_without_an_end_is_cut_off_and_takes_no_memory() {
    let target = size(200 << 20, 4 << 30);
    let siege = Siege::begin("endless", &[]);
    let chunk = vec![b'x'; 1 << 20];
    let sent = std::sync::atomic::AtomicUsize::new(0);
    let endless = |field: &crate::siege::Field<'_>| {
        let mut guest = field.connect();
        let mut this = 0;
        while guest.stream().write_all(&chunk).is_ok() {
            this += chunk.len();
            assert!(this < 200 << 20, "a line is read on and on");
        }
        sent.fetch_add(this, std::sync::atomic::Ordering::Relaxed);
        assert!(this >= 16 << 20, "cut off after {this} bytes");
        assert_eq!(code(&guest.reply()), "too_large");
    };
    siege.compare(|field| {
        field.repeat(2, |_| endless(field));
        while sent.load(std::sync::atomic::Ordering::Relaxed) < target {
            endless(field);
        }
    });
    println!("endless: {} MiB sent", sent.into_inner() >> 20);
    siege.end(160);
}
