//! Slow, greedy and nonsensical readers of the page: they get little, and producers feel nothing of them.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use crate::common::{Daemon, until};
use crate::scraper::{At, Stream, resident_kib, tcp_of};

const BATCH: &str = r#"{"items":[{"a":1}]}"#;

#[test]
fn what_is_no_good_request_is_refused_by_its_status() {
    let daemon = Daemon::start(&["--metrics", "127.0.0.1:0"]);
    let at = tcp_of(&daemon);
    let status = |request: &[u8]| at.exchange(request).map(|reply| reply.status);
    assert_eq!(status(b"GET /metrics HTTP/1.0\r\n\r\n"), Some(200));
    assert_eq!(status(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"), Some(404));
    assert_eq!(status(b"GET /metrics/../metrics HTTP/1.1\r\nHost: x\r\n\r\n"), Some(404));
    assert_eq!(status(b"POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}"), Some(405));
    assert_eq!(status(b"\x16\x03\x01\x02\x00\x01\x00"), Some(400));
    let head = at.exchange(b"HEAD /metrics HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    assert_eq!((head.status, head.body.as_str()), (200, ""));
    let long = format!("GET /metrics HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(64 << 10));
    assert!(matches!(status(long.as_bytes()), None | Some(400 | 431)), "{:?}", status(long.as_bytes()));
    let many = format!("GET /metrics HTTP/1.1\r\n{}\r\n", "X: y\r\n".repeat(500));
    assert!(matches!(status(many.as_bytes()), None | Some(400 | 431)));
    assert_eq!(at.get("/metrics").status, 200);
    assert_eq!(daemon.ask(BATCH)["ok"], true);
}

#[test]
fn who_has_asked_may_shut_down_its_writing_half() {
    let daemon = Daemon::start(&["--metrics", "127.0.0.1:0"]);
    let At::Tcp(address) = tcp_of(&daemon) else { panic!("an address") };
    for request in ["GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n", "GET /met"] {
        let mut stream = TcpStream::connect(&address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut page = String::new();
        let _ = stream.read_to_string(&mut page);
        // A whole page for a whole request, and the end for one that will never be whole.
        assert_eq!(
            page.ends_with('\n') && page.contains("process_start_time_seconds"),
            request.len() > 10,
            "{page}"
        );
    }
}

#[test]
fn readers_that_hang_hold_up_nobody_but_readers_and_those_not_for_long() {
    let daemon = Daemon::start(&["--metrics", "127.0.0.1:0"]);
    let at = tcp_of(&daemon);
    at.scrape();
    let before = resident_kib(daemon.pid());
    let mut hanging: Vec<Box<dyn Stream>> = (0..100).map(|_| at.connect()).collect();
    for (number, stream) in hanging.iter_mut().enumerate() {
        // Some say nothing, some begin a head, some never read the page.
        let words: &[u8] = [&b""[..], b"GET /metr", b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"][number % 3];
        let _ = stream.write_all(words);
    }
    let mut producer = daemon.connect();
    let begun = Instant::now();
    let mut batches = 0;
    while begun.elapsed() < Duration::from_secs(1) {
        assert_eq!(producer.ask(BATCH)["ok"], true);
        batches += 1;
    }
    assert!(batches > 20, "only {batches} batches in a second");
    let grown = resident_kib(daemon.pid()).saturating_sub(before);
    assert!(grown < 8 << 10, "{grown} KiB more");
    drop(hanging);
    // Who asked in vain is answered once the others are gone.
    assert_eq!(at.get("/healthz").status, 200);
}

#[test]
fn those_who_hold_all_places_give_way_to_who_asks() {
    let daemon = Daemon::start(&["--metrics", "127.0.0.1:0"]);
    let at = tcp_of(&daemon);
    // Each might stay for five seconds, eight at a time: more than half a minute in all.
    let _hanging: Vec<Box<dyn Stream>> = (0..60).map(|_| at.connect()).collect();
    let begun = Instant::now();
    assert_eq!(at.get("/healthz").status, 200);
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
    at.scrape();
}

#[test]
fn a_head_that_does_not_come_ends_its_connection() {
    let daemon = Daemon::start(&["--metrics", "127.0.0.1:0"]);
    let at = tcp_of(&daemon);
    let mut slow = at.connect();
    slow.write_all(b"GET /metrics HTTP/1.1\r\n").unwrap();
    let begun = Instant::now();
    let mut bytes = Vec::new();
    let _ = slow.read_to_end(&mut bytes);
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    assert!(!String::from_utf8_lossy(&bytes).contains("200 OK"));
}

#[test]
fn a_storm_of_requests_is_served_at_a_pace() {
    let daemon = Daemon::start(&["--metrics", "127.0.0.1:0"]);
    let at = tcp_of(&daemon);
    let begun = Instant::now();
    for _ in 0..28 {
        assert_eq!(at.get("/healthz").status, 200);
    }
    // A burst at once, then 20 in a second.
    assert!(begun.elapsed() > Duration::from_millis(500), "{:?}", begun.elapsed());
    assert_eq!(daemon.ask(BATCH)["ok"], true);
    until("the page counts it", || (at.scrape().value("lotlogd_records_total") == 1.0).then_some(()));
}
