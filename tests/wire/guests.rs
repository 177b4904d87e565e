//! Sections 1 and 6: who may connect, how many, how slowly; and section 5: hostile things in `lots/`.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::common::{Connection, Daemon, until};
use crate::shape::{batch, good, refused};

#[test]
fn one_connection_too_many_is_told_that_the_daemon_is_busy() {
    let daemon = Daemon::start(&["--max-connections", "3"]);
    // The connection that found the daemon serving may not have been missed yet.
    let mut guests: Vec<Connection> = (0..3)
        .map(|_| {
            until("a connection is taken", || {
                let mut guest = daemon.connect();
                guest.send_what_goes(b"{\"op\":\"sync\"}\n");
                (guest.reply()["ok"] == true).then_some(guest)
            })
        })
        .collect();
    let mut fourth = daemon.connect();
    fourth.send_what_goes(batch("L", "s", 1).as_bytes());
    refused(&fourth.reply(), "busy");
    fourth.expect_end();
    drop(guests.pop());
    until("there is room again", || {
        let mut guest = daemon.connect();
        guest.send_what_goes(b"{\"op\":\"sync\"}\n");
        (guest.reply()["ok"] == true).then_some(())
    });
}

#[test]
fn a_user_who_is_not_allowed_is_told_so_and_nothing_of_his_is_stored() {
    let daemon = Daemon::start(&["--allow-users", "4294967"]);
    let mut guest = daemon.connect();
    guest.send_what_goes((batch("L", "s", 1) + "\n").as_bytes());
    refused(&guest.reply(), "forbidden");
    guest.expect_end();
    assert!(daemon.place.lots().is_empty());
    let me = rustix::process::getuid().as_raw().to_string();
    let daemon = daemon.restart(&["--allow-users", &format!("4294967,{me}")]);
    good(daemon.ask(batch("L", "s", 1)));
    let group = rustix::process::getgid().as_raw().to_string();
    let daemon = daemon.restart(&["--allow-groups", &group]);
    good(daemon.ask(batch("L", "s", 2)));
}

#[test]
fn a_thousand_connections_log_at_once() {
    let daemon = Daemon::start(&[]);
    let mut guests: Vec<Connection> = (0..1000).map(|_| daemon.connect()).collect();
    for (n, guest) in guests.iter_mut().enumerate() {
        guest.send_line(batch(&format!("L{}", n % 10), &format!("s{n}"), 1));
    }
    for guest in &mut guests {
        good(guest.reply());
    }
    assert_eq!(daemon.ask(r#"{"op":"status"}"#)["connections"], 1001);
    let lines: usize = (0..10).map(|n| daemon.lot(&format!("L{n}")).len()).sum();
    assert_eq!(lines, 1000);
}

#[test]
fn a_line_that_comes_byte_by_byte_times_out_and_an_idle_connection_never_does() {
    let daemon = Daemon::start(&["--line-timeout-seconds", "300ms"]);
    let mut idle = daemon.connect();
    let mut slow = daemon.connect();
    let begun = Instant::now();
    slow.send(b"{");
    while begun.elapsed() < Duration::from_millis(250) {
        slow.send_what_goes(b" ");
        std::thread::sleep(Duration::from_millis(10));
    }
    refused(&slow.reply(), "timeout");
    assert!(begun.elapsed() >= Duration::from_millis(295), "{:?}", begun.elapsed());
    slow.expect_end();
    good(idle.ask(batch("L", "s", 1)));
}

#[test]
fn a_peer_that_does_not_read_its_replies_is_closed_and_others_go_on() {
    let daemon = Daemon::start(&["--reply-timeout-seconds", "300ms"]);
    let mut deaf = daemon.connect();
    let stream = deaf.stream().try_clone().unwrap();
    stream.set_write_timeout(Some(Duration::from_millis(100))).unwrap();
    for _ in 0..2000 {
        deaf.send_what_goes(b"{\"op\":\"status\"}\n{\"op\":\"status\"}\n{\"op\":\"status\"}\n");
        if daemon.ask(r#"{"op":"status"}"#)["connections"] == 1 {
            break;
        }
    }
    until("the deaf one is closed", || (daemon.ask(r#"{"op":"status"}"#)["connections"] == 1).then_some(()));
    good(daemon.ask(batch("L", "s", 1)));
}

#[test]
fn unfinished_lines_of_many_block_neither_each_other_nor_small_ones() {
    let daemon = Daemon::start(&["--max-bytes-in-flight", "1MiB", "--max-line-bytes", "1MiB"]);
    let half = format!(r#"{{"context":{{"lot_id":"big"}},"items":[{{"pad":"{}"#, "x".repeat(600 << 10));
    let mut halves: Vec<Connection> = (0..6).map(|_| daemon.connect()).collect();
    let senders: Vec<_> = halves
        .iter()
        .map(|guest| {
            let (mut stream, half) = (guest.stream().try_clone().unwrap(), half.clone());
            std::thread::spawn(move || std::io::Write::write_all(&mut stream, half.as_bytes()))
        })
        .collect();
    std::thread::sleep(Duration::from_millis(200));
    for seq in 1..=20 {
        good(daemon.ask(batch("L", "s", seq)));
    }
    // They finish, one at a time, whatever the budget.
    let finishers: Vec<_> = halves
        .iter()
        .zip(senders)
        .map(|(guest, sender)| {
            let mut rest = guest.stream().try_clone().unwrap();
            std::thread::spawn(move || {
                sender.join().unwrap().unwrap();
                std::io::Write::write_all(&mut rest, b"\"}]}\n").unwrap();
            })
        })
        .collect();
    for guest in &mut halves {
        good(guest.reply());
    }
    for finisher in finishers {
        finisher.join().unwrap();
    }
    assert_eq!(daemon.lot("big").len(), 6);
    assert_eq!(daemon.ask(r#"{"op":"status"}"#)["queue_bytes"], 0);
}

#[test]
fn hostile_things_in_place_of_a_lot_file_refuse_that_lot_alone_and_are_not_touched() {
    let daemon = Daemon::start(&[]);
    good(daemon.ask(batch("good", "s", 1)));
    let outside = daemon.place.path().join("outside");
    std::fs::write(&outside, "precious").unwrap();
    symlink(&outside, daemon.place.lot_path("link.jsonl")).unwrap();
    symlink(daemon.place.path().join("nowhere"), daemon.place.lot_path("dangling.jsonl")).unwrap();
    std::fs::create_dir(daemon.place.lot_path("folder.jsonl")).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        daemon.place.lot_path("fifo.jsonl"),
        rustix::fs::FileType::Fifo,
        0o640.into(),
        0,
    )
    .unwrap();
    for lot in ["link", "dangling", "folder", "fifo"] {
        let reply = daemon.ask(batch(lot, lot, 1));
        let message = refused(&reply, "lot_unavailable");
        assert!(message.contains(lot), "{message}");
        good(daemon.ask(batch("good", &format!("after-{lot}"), 1)));
    }
    assert_eq!(std::fs::read_to_string(&outside).unwrap(), "precious");
    assert!(!daemon.place.path().join("nowhere").exists());
    std::fs::remove_dir(daemon.place.lot_path("folder.jsonl")).unwrap();
    good(daemon.ask(batch("folder", "folder", 1)));
}

#[test]
fn names_modes_and_directories_are_as_the_contract_says() {
    let daemon = Daemon::start(&[]);
    for (id, file) in [
        (r#""a/b""#, "a%2Fb.jsonl"),
        (r#""..""#, "%2E..jsonl"),
        (r#"".hidden""#, "%2Ehidden.jsonl"),
        (r#""Ø %""#, "%C3%98%20%25.jsonl"),
        ("90317", "90317.jsonl"),
        (r#""A.b_c-9""#, "A.b_c-9.jsonl"),
        ("null", "unassigned.jsonl"),
    ] {
        good(daemon.ask(format!(r#"{{"context":{{"lot_id":{id}}},"items":[{{}}]}}"#)));
        let mode = std::fs::metadata(daemon.place.lot_path(file))
            .unwrap_or_else(|e| panic!("{file}: {e}"))
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o640, "{file}");
    }
    assert_eq!(good(daemon.ask(r#"{"context":{"lot_id":90317},"items":[{}]}"#))["lot"], 90317);
    assert_eq!(daemon.place.lots().len(), 7);
    for name in ["lots", "journal", "quarantine"] {
        let mode = std::fs::metadata(daemon.place.data().join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o750, "{name}");
    }
    let mode = std::fs::metadata(daemon.place.socket()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o660);
    refused(&daemon.ask(r#"{"context":{"lot_id":""},"items":[{}]}"#), "invalid_lot_id");
    refused(
        &daemon.ask(format!(r#"{{"context":{{"lot_id":"{}"}},"items":[{{}}]}}"#, "x".repeat(201))),
        "invalid_lot_id",
    );
}

#[test]
fn the_lines_of_a_batch_stand_together_however_many_log_at_once() {
    let daemon = Daemon::start(&[]);
    let writers: Vec<_> = (0..8)
        .map(|n| {
            let mut guest = daemon.connect();
            std::thread::spawn(move || {
                for seq in 1..=40 {
                    let items: Vec<String> =
                        (0..20).map(|i| format!(r#"{{"sku_local":"{n}/{seq}/{i}"}}"#)).collect();
                    good(guest.ask(format!(
                        r#"{{"session":"s{n}","seq":{seq},"context":{{"lot_id":"L"}},"items":[{}]}}"#,
                        items.join(",")
                    )));
                }
            })
        })
        .collect();
    for writer in writers {
        writer.join().unwrap();
    }
    let records = daemon.records("L");
    assert_eq!(records.len(), 8 * 40 * 20);
    for lines in records.chunks(20) {
        for (i, record) in lines.iter().enumerate() {
            assert_eq!(record["timestamp"], lines[0]["timestamp"]);
            assert!(record["sku_local"].as_str().unwrap().ends_with(&format!("/{i}")));
        }
    }
}

#[test]
fn a_peer_that_goes_before_its_reply_harms_nobody() {
    let daemon = Daemon::start(&[]);
    for n in 0..50 {
        let mut guest = daemon.connect();
        guest.send(batch("L", &format!("s{n}"), 1) + "\n");
    }
    until("all are stored", || (daemon.lot("L").len() == 50).then_some(()));
    daemon.signal(Signal::HUP);
    good(daemon.ask(batch("L", "after", 1)));
}
