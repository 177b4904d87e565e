//! The library's session against a daemon that cuts, refuses and stays silent.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use lotlog::client::{Client, ClientError};
use lotlog::session::{Session, SessionError, SessionOptions};
use serde_json::{Value, json};

use crate::fake::{Fake, Fate};

const BATCHES: u64 = 12;

fn options(timeout_millis: u64) -> SessionOptions {
    SessionOptions {
        timeout: Duration::from_millis(timeout_millis),
        max_unsettled_batches: 5,
        ..SessionOptions::default()
    }
}

fn request(batch: u64) -> String {
    format!(r#"{{"context":{{"lot_id":"A"}},"items":[{{"n":{batch}}}]}}"#)
}

/// Sends all batches; which of them were stored, as the session says.
fn send_all(session: &mut Session) -> Result<Vec<(u64, bool)>, SessionError> {
    let mut settled = Vec::new();
    for batch in 0..BATCHES {
        while session.is_full() {
            settled.extend(session.next_settled()?.map(|one| (one.batch, one.result.is_ok())));
        }
        assert_eq!(session.submit(&request(batch))?, batch);
    }
    while let Some(one) = session.next_settled()? {
        settled.push((one.batch, one.result.is_ok()));
    }
    Ok(settled)
}

fn numbers(fake: &Fake) -> Vec<u64> {
    fake.items().iter().map(|item| item["n"].as_u64().unwrap()).collect()
}

#[test]
fn a_connection_cut_at_any_reply_loses_and_doubles_nothing() {
    for kind in [Fate::CutBefore, Fate::CutAfter, Fate::CutInReply] {
        for cut_at in 0..BATCHES as usize + 1 {
            for every in [1000, 3] {
                let dir = tempfile::tempdir().unwrap();
                let fake = Fake::start(dir.path(), move |n, _| {
                    let cut = n >= cut_at && (n - cut_at).is_multiple_of(every);
                    if cut { kind } else { Fate::Serve }
                });
                let mut session = Session::open(fake.path(), "s", options(20_000)).unwrap();
                let settled = send_all(&mut session).unwrap();
                assert_eq!(settled, (0..BATCHES).map(|n| (n, true)).collect::<Vec<_>>());
                assert_eq!(numbers(&fake), (0..BATCHES).collect::<Vec<_>>(), "{kind:?} at {cut_at}");
                let seqs: Vec<u64> = fake.stored().iter().map(|(at, _)| at.as_ref().unwrap().1).collect();
                assert_eq!(seqs, (1..=BATCHES).collect::<Vec<_>>());
            }
        }
    }
}

#[test]
fn after_a_refusal_the_later_batches_get_the_free_numbers_whatever_is_cut() {
    let refused = |n: &Value| n == 0 || n == 4 || n == 5 || n == 11;
    for cut_at in 0..24 {
        let dir = tempfile::tempdir().unwrap();
        let fake = Fake::start(dir.path(), move |n, request| match &request["items"][0]["n"] {
            number if refused(number) && n == cut_at => Fate::CutBefore,
            number if refused(number) => Fate::Refuse("lot_sealed"),
            _ if n == cut_at => Fate::CutAfter,
            _ => Fate::Serve,
        });
        let mut session = Session::open(fake.path(), "s", options(20_000)).unwrap();
        let settled = send_all(&mut session).unwrap();
        let stored: Vec<u64> = settled.iter().filter(|(_, stored)| *stored).map(|(n, _)| *n).collect();
        assert_eq!(numbers(&fake), stored, "cut at {cut_at}");
        let order: Vec<u64> = settled.iter().map(|(n, _)| *n).collect();
        assert_eq!(order, (0..BATCHES).collect::<Vec<_>>());
        let seqs: Vec<u64> = fake.stored().iter().map(|(at, _)| at.as_ref().unwrap().1).collect();
        assert_eq!(seqs, (1..=stored.len() as u64).collect::<Vec<_>>());
        assert_eq!(stored, [1, 2, 3, 6, 7, 8, 9, 10]);
    }
}

#[test]
fn what_replaces_a_refused_batch_stands_in_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let fake = Fake::start(dir.path(), |_, request| {
        if request["items"][0]["n"] == 2 { Fate::Refuse("too_large") } else { Fate::Serve }
    });
    let mut session = Session::open(fake.path(), "s", options(20_000)).unwrap();
    for batch in 0..5 {
        session.submit(&request(batch)).unwrap();
    }
    while let Some(settled) = session.next_settled().unwrap() {
        if settled.result.is_err() {
            assert_eq!(session.replace_refused(&[request(20), request(21)]).unwrap(), 5);
        }
    }
    assert_eq!(numbers(&fake), [0, 1, 20, 21, 3, 4]);
}

#[test]
fn refusals_that_pass_are_waited_for_in_order() {
    for code in ["no_space", "lot_unavailable", "shutting_down"] {
        let dir = tempfile::tempdir().unwrap();
        let fake = Fake::start(dir.path(), move |n, _| match n {
            2 | 8 | 9 => Fate::Refuse(code),
            12 => Fate::RefuseAndClose("io_error"),
            _ => Fate::Serve,
        });
        let mut session = Session::open(fake.path(), "s", options(20_000)).unwrap();
        send_all(&mut session).unwrap();
        assert_eq!(numbers(&fake), (0..BATCHES).collect::<Vec<_>>(), "{code}");
    }
}

#[test]
fn a_session_gives_up_in_time_and_says_why() {
    let give_up = |fate: Fate| {
        let dir = tempfile::tempdir().unwrap();
        let fake = Fake::start(dir.path(), move |_, _| fate);
        let mut session = Session::open(fake.path(), "s", options(300)).unwrap();
        let started = Instant::now();
        let error = send_all(&mut session).unwrap_err();
        assert!(started.elapsed() < Duration::from_secs(3), "{error}");
        assert!(matches!(session.submit(&request(0)), Err(SessionError::Unusable(_))));
        error
    };
    assert!(matches!(give_up(Fate::Silence), SessionError::NoReply { .. }));
    assert!(matches!(give_up(Fate::CutBefore), SessionError::Unreachable { .. }));
    assert!(matches!(give_up(Fate::RefuseAndClose("forbidden")), SessionError::Refused(_)));
    match give_up(Fate::Refuse("no_space")) {
        SessionError::StillRefused { last, .. } => assert_eq!(last.code, "no_space"),
        other => panic!("{other}"),
    }
}

#[test]
fn a_name_that_somebody_else_uses_is_found_out() {
    for first in [request(0), request(1)] {
        let dir = tempfile::tempdir().unwrap();
        let fake = Fake::start(dir.path(), |_, _| Fate::Serve);
        let mut other = Session::open(fake.path(), "s", options(20_000)).unwrap();
        other.submit(&first).unwrap();
        other.next_settled().unwrap();
        let mut session = Session::open(fake.path(), "s", options(20_000)).unwrap();
        session.submit(&request(1)).unwrap();
        assert!(matches!(session.next_settled(), Err(SessionError::Foreign { seq: 1, .. })));
        assert_eq!(fake.stored().len(), 1);
    }
}

#[test]
fn a_resumed_session_stores_only_what_is_new() {
    let dir = tempfile::tempdir().unwrap();
    let full = Arc::new(AtomicBool::new(true));
    let rule = Arc::clone(&full);
    let fake = Fake::start(dir.path(), move |_, request| match request["items"][0]["n"].as_u64() {
        Some(3) => Fate::Refuse("lot_sealed"),
        Some(7) if rule.load(Ordering::SeqCst) => Fate::Refuse("no_space"),
        _ => Fate::Serve,
    });
    let mut first = Session::open(fake.path(), "s", options(200)).unwrap();
    assert!(matches!(send_all(&mut first), Err(SessionError::StillRefused { .. })));
    full.store(false, Ordering::SeqCst);
    let again = SessionOptions { resume: true, ..options(20_000) };
    send_all(&mut Session::open(fake.path(), "s", again).unwrap()).unwrap();
    assert_eq!(numbers(&fake), [0, 1, 2, 4, 5, 6, 7, 8, 9, 10, 11]);
}

#[test]
fn an_empty_batch_uses_no_number() {
    let dir = tempfile::tempdir().unwrap();
    let fake = Fake::start(dir.path(), |_, _| Fate::Serve);
    let mut session = Session::open(fake.path(), "s", options(20_000)).unwrap();
    for text in [r#"{"items":[]}"#, &request(1), r#"{"items":[]}"#, &request(2)] {
        session.submit(text).unwrap();
    }
    while let Some(settled) = session.next_settled().unwrap() {
        assert!(settled.result.is_ok());
    }
    assert_eq!(numbers(&fake), [1, 2]);
}

#[test]
fn a_daemon_that_forgot_the_session_is_reported_and_served() {
    let dir = tempfile::tempdir().unwrap();
    let fake = Fake::start(dir.path(), |_, _| Fate::Serve);
    let mut session = Session::open(fake.path(), "s", options(20_000)).unwrap();
    for batch in 0..4 {
        session.submit(&request(batch)).unwrap();
        session.next_settled().unwrap();
        if batch == 2 {
            fake.forget_sessions();
        }
    }
    assert_eq!((session.forgotten(), numbers(&fake)), (3, vec![0, 1, 2, 3]));
}

#[test]
fn a_refused_connection_is_tried_again() {
    let dir = tempfile::tempdir().unwrap();
    let fake = Fake::start(dir.path(), |n, _| if n < 3 { Fate::RefuseAndClose("busy") } else { Fate::Serve });
    let mut session = Session::open(fake.path(), "s", options(20_000)).unwrap();
    send_all(&mut session).unwrap();
    assert_eq!(numbers(&fake), (0..BATCHES).collect::<Vec<_>>());
    assert_eq!(fake.connections(), 4);
}

#[test]
fn what_is_no_single_object_is_not_submitted() {
    let dir = tempfile::tempdir().unwrap();
    let fake = Fake::start(dir.path(), |_, _| Fate::Serve);
    let mut session = Session::open(fake.path(), "s", options(20_000)).unwrap();
    for bad in ["", "[]", "{\"items\":[]\n}"] {
        assert!(session.submit(bad).is_err(), "{bad}");
    }
    assert!(matches!(Session::open(fake.path(), "a b", options(100)), Err(SessionError::Unusable(_))));
    let mut client = Client::connect(fake.path(), Duration::from_secs(5)).unwrap();
    assert!(matches!(client.send_line(b"{}\n{}"), Err(ClientError::NotOneLine)));
    assert_eq!(fake.stored().len(), 0);
}

/// Requests and replies larger than both socket buffers together: a client that only writes would wait for
/// a daemon that only writes.
#[test]
fn long_requests_and_long_replies_do_not_block_each_other() {
    use std::io::{BufRead, BufReader, Write};
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let daemon = std::thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        let field = "x".repeat(400_000);
        let reply = json!({"ok": true, "records": 1, "dropped": {field: 1}});
        for line in BufReader::new(&stream).lines().take(8) {
            assert!(line.unwrap().len() > 400_000);
            (&stream).write_all(format!("{reply}\n").as_bytes()).unwrap();
        }
    });
    let mut client = Client::connect(&path, Duration::from_secs(20)).unwrap();
    let line = format!(r#"{{"items":[{{"x":"{}"}}]}}"#, "y".repeat(500_000));
    let mut replies = 0;
    for sent in 0..8 {
        client.send_line(line.as_bytes()).unwrap();
        // Never more than four ahead: the client keeps what arrives, but not without end.
        if sent >= 4 {
            assert!(client.recv_reply().unwrap().ok);
            replies += 1;
        }
    }
    while replies < 8 {
        assert!(client.recv_reply().unwrap().ok);
        replies += 1;
    }
    daemon.join().unwrap();
    assert!(matches!(client.recv_reply(), Err(ClientError::Closed { .. })));
}

#[test]
fn a_reply_without_end_is_refused_and_a_full_backlog_has_a_deadline() {
    use std::io::Write;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let flood = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        while stream.write_all(&[b'x'; 65536]).is_ok() {}
        listener
    });
    let mut client = Client::connect(&path, Duration::from_secs(20)).unwrap();
    assert!(matches!(client.recv_reply(), Err(ClientError::BadReply { .. })));
    drop(client);
    let listener = flood.join().unwrap();
    rustix::net::listen(&listener, 1).unwrap();
    // Nobody accepts: the backlog fills, then connecting must end by its deadline.
    let mut held = Vec::new();
    let error = (0..10).find_map(|_| {
        Client::connect(&path, Duration::from_millis(100)).map(|client| held.push(client)).err()
    });
    assert!(matches!(error, Some(ClientError::TimedOut { .. })), "{error:?} after {}", held.len());
    drop(listener);
}
