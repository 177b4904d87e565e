//! Connections that are slow, silent, deaf, or far too many.

use std::time::{Duration, Instant};

use crate::common::{Connection, Received, until};
use crate::siege::{Siege, full, raise_open_files, size};

/// A batch of some client, without its newline.
pub fn batch(session: &str, seq: u64) -> String {
    format!(
        r#"{{"session":"{session}","seq":{seq},"ack":"written","context":{{"lot_id":"bad"}},"items":[{{"sku_local":"{session}/{seq}/0"}}]}}"#
    )
}

/// Connects, waiting for the backlog.
fn many(socket: &std::path::Path, count: usize) -> Vec<Connection> {
    (0..count).map(|_| Connection::try_open(socket).expect("the backlog moves")).collect()
}

fn expect_timeout(mut connection: Connection) {
    let reply = connection.reply();
    assert_eq!(reply["error"]["code"], "timeout", "{reply}");
    connection.expect_end();
}

#[test]
fn half_lines_and_then_silence_are_timed_out_and_hold_up_nobody() {
    let siege = Siege::begin("half lines", &["--line-timeout-seconds", "1500ms"]);
    siege.compare(|field| {
        let mut halves = many(field.socket, 1000);
        for (n, half) in halves.iter_mut().enumerate() {
            let line = batch(&format!("half-{n}"), 1);
            half.send(&line[..1 + n % (line.len() - 1)]);
        }
        field.hold();
        halves.into_iter().for_each(expect_timeout);
    });
    assert!(!siege.daemon.place.lots().contains(&"bad.jsonl".to_owned()), "no half line is carried out");
    siege.end(128);
}

#[test]
fn one_byte_at_a_time_on_a_thousand_connections_is_timed_out_and_holds_up_nobody() {
    let pace = Duration::from_millis(if full() { 1000 } else { 100 });
    let timeout = if full() { "5s" } else { "1500ms" };
    let siege = Siege::begin("byte by byte", &["--line-timeout-seconds", timeout]);
    siege.compare(|field| {
        let mut slow = many(field.socket, 1000);
        let line = batch("slow", 1);
        let mut begun = None;
        // More bytes than the timeout leaves time for.
        for byte in line.as_bytes().iter().take(if full() { 8 } else { 30 }) {
            let round = Instant::now();
            slow.iter_mut().for_each(|slow| slow.send_what_goes(&[*byte]));
            if begun.is_none() {
                begun = Some(Instant::now());
                field.stands();
            }
            std::thread::sleep(pace.saturating_sub(round.elapsed()));
        }
        slow.into_iter().for_each(expect_timeout);
    });
    siege.end(128);
}

#[test]
fn thousands_that_never_read_their_replies_are_closed_and_cost_little() {
    let count = size(500, 4000);
    let siege = Siege::begin("deaf", &["--reply-timeout-seconds", "3s"]);
    let requests = ["{\"op\":\"status\"}\n".repeat(400), "\n".repeat(4000)].concat();
    let before = siege.memory_mib().0;
    siege.compare(|field| {
        let mut deaf = many(field.socket, count);
        for deaf in &mut deaf {
            deaf.stream().set_write_timeout(Some(Duration::from_millis(1))).unwrap();
            deaf.send_what_goes(requests.as_bytes());
        }
        field.hold();
        let most = siege.memory_mib().1.saturating_sub(before);
        println!("deaf: {} KiB for each of {count}", (most << 10) / count as u64);
        until("all of them are closed", || {
            (siege.daemon.ask(r#"{"op":"status"}"#)["connections"] == 2).then_some(())
        });
        // What each was sent before is there to be read, then the end.
        deaf.iter_mut().for_each(|deaf| while let Received::Line(_) = deaf.receive() {});
    });
    siege.end(if full() { 512 } else { 160 });
}

#[test]
fn ten_thousand_connections_are_served_or_told_busy_and_the_others_go_on() {
    let most = 4096;
    let count = if raise_open_files() > 10_500 { 10_000 } else { 5_000 };
    assert!(raise_open_files() > count, "the tests' own limit of open files must be above {count}");
    let siege = Siege::begin("too many", &["--max-connections-per-user", "4096"]);
    siege.compare(|field| {
        let mut crowd = many(field.socket, count);
        field.hold();
        let (mut served, mut refused) = (0, 0);
        for guest in &mut crowd {
            guest.send_what_goes(b"{\"op\":\"status\"}\n");
        }
        for guest in &mut crowd {
            match guest.receive() {
                Received::Line(line) if line.starts_with(b"{\"ok\":true") => served += 1,
                Received::Line(line) => {
                    let text = String::from_utf8(line).unwrap();
                    assert!(text.contains("\"busy\"") && text.contains("\"retryable\":true"), "{text}");
                    refused += 1;
                }
                other => panic!("neither served nor refused: {other:?}"),
            }
        }
        // The good one has a place of its own; one from before may have gone late.
        assert!((most - 2..=most).contains(&served), "{served} were served, {refused} refused");
        assert_eq!(served + refused, count);
    });
    // Nobody who went keeps a place.
    until("there is room again", || {
        let mut guest = siege.daemon.connect();
        guest.send_what_goes(b"{\"op\":\"status\"}\n");
        (guest.reply()["connections"] == 2).then_some(())
    });
    siege.end(256);
}

#[test]
fn connections_that_come_and_go_as_fast_as_they_can_hold_up_nobody() {
    let siege = Siege::begin("storm", &[]);
    let before = crate::siege::descriptors(siege.daemon.pid());
    let storms = std::sync::atomic::AtomicUsize::new(0);
    siege.compare(|field| {
        field.repeat(1, |_| {
            let bytes: [&[u8]; 4] = [b"", b"{", b"{\"op\":\"status\"}\n", b"\x16\x03\x01"];
            for bytes in bytes {
                if let Some(mut guest) = Connection::try_open(field.socket) {
                    guest.send_what_goes(bytes);
                }
                storms.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            }
        });
    });
    let status = siege.daemon.ask(r#"{"op":"status"}"#);
    println!("storm: {} connections, {} told busy", storms.into_inner(), status["refused"]["busy"]);
    until("every descriptor is given back", || {
        // Three lot files and a journal segment may have been opened meanwhile.
        (crate::siege::descriptors(siege.daemon.pid()) <= before + 8).then_some(())
    });
    siege.end(128);
}

#[test]
fn what_is_not_json_is_answered_line_by_line_and_nothing_else_happens() {
    let siege = Siege::begin("garbage", &[]);
    let hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\n\x0a\x0d";
    let http = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}\n";
    let cases: [(&[u8], &[&str]); 9] = [
        (hello, &["invalid_json", "invalid_json"]),
        (http, &["invalid_json", "invalid_json", "invalid_json", "invalid_json", "invalid_request"]),
        (b"\0\0\0\0\n", &["invalid_json"]),
        (b"{\"op\":\"status\0\"}\n", &["invalid_json"]),
        (b"\xff\xfe{\n", &["invalid_json"]),
        (b"\xef\xbb\xbf{\"op\":\"status\"}\n", &["invalid_json"]),
        (b"\r\n\r\r\n \n\t\r\n", &["invalid_json"; 4]),
        (b"{\"items\":[{\"x\":\"\\ud800\"}]}\n", &["invalid_json"]),
        (b"[1]\n\"x\"\n1\nnull\n", &["invalid_request"; 4]),
    ];
    for (bytes, codes) in cases {
        let mut guest = siege.daemon.connect();
        guest.send(bytes);
        for code in codes {
            let reply = guest.reply();
            assert_eq!(reply["error"]["code"], *code, "{:?}: {reply}", String::from_utf8_lossy(bytes));
        }
        // The same connection goes on.
        if bytes.ends_with(b"\n") {
            assert_eq!(guest.ask(r#"{"op":"status"}"#)["ok"], true);
        }
    }
    siege.compare(|field| {
        let noise: Vec<u8> = {
            let mut random = crate::common::producer::Random(7);
            (0..60_000).map(|_| random.number() as u8).collect()
        };
        field.repeat(2, |n| {
            let mut guest = field.connect();
            let mut writer = guest.stream().try_clone().unwrap();
            let bytes = if n == 0 { vec![b'\n'; 20_000] } else { noise.clone() };
            let lines = bytes.iter().filter(|b| **b == b'\n').count();
            let sending = std::thread::spawn(move || {
                let _ = std::io::Write::write_all(&mut writer, &bytes);
                let _ = writer.shutdown(std::net::Shutdown::Write);
            });
            for _ in 0..lines {
                assert_eq!(guest.reply()["ok"], false);
            }
            guest.expect_end();
            sending.join().unwrap();
        });
    });
    siege.end(128);
}

#[test]
fn all_places_taken_by_silent_connections_lock_new_ones_out_and_are_never_closed_for_it() {
    // What is promised: `busy` for those who come, service for those who are there. An idle connection is never
    // closed: a producer may think for hours between two batches.
    let siege = Siege::begin("silent", &["--max-connections", "50", "--line-timeout-seconds", "300ms"]);
    siege.compare(|field| {
        let mut silent = many(field.socket, 60);
        field.hold();
        let mut late = field.connect();
        late.send_what_goes(b"{\"op\":\"status\"}\n");
        assert_eq!(late.reply()["error"]["code"], "busy");
        let mut served = 0;
        for silent in &mut silent {
            silent.send_what_goes(b"{\"op\":\"status\"}\n");
            served += usize::from(silent.reply()["ok"] == true);
        }
        assert!((48..=49).contains(&served), "{served}");
    });
    siege.end(128);
}
