//! One user beside another: each has its places and its part of the bytes in flight, and a flood of one leaves the
//! other's latency alone. Needs root, to be somebody else.

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustix::thread::set_thread_res_uid;

use crate::common::{Connection, Daemon, Place, until};
use crate::siege::{Siege, alone, full};

/// User nobody: who it is does not matter.
const OTHER: u32 = 65_534;
/// Connections of a flood.
const FLOOD: usize = 16;

/// A connection of another user: the kernel takes the word of the thread that connects.
fn connect_as(user: u32, socket: &Path) -> Option<Connection> {
    let uid = rustix::process::Uid::from_raw(user);
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            set_thread_res_uid(uid, uid, uid).ok()?;
            Connection::try_open(socket)
        });
        thread.join().unwrap()
    })
}

/// A place that other users can reach; `None`, with a word, where nobody else can be played.
fn place_for_others() -> Option<Arc<Place>> {
    if !rustix::process::getuid().is_root() {
        println!("SKIPPED: quotas of another user need root");
        return None;
    }
    let place = Place::in_memory();
    std::fs::set_permissions(place.path(), PermissionsExt::from_mode(0o755)).unwrap();
    Some(place)
}

#[test]
fn each_user_has_its_places_and_none_takes_another_ones() {
    let _alone = alone();
    let Some(place) = place_for_others() else { return };
    let flags = ["--max-connections-per-user", "3", "--socket-mode", "0666"];
    let daemon = Daemon::start_in(&place, &flags);
    let socket = place.socket();
    let status = r#"{"op":"status"}"#;
    let mut guests: Vec<Connection> = (0..3).map(|_| connect_as(OTHER, &socket).unwrap()).collect();
    guests.iter_mut().for_each(|guest| assert_eq!(guest.ask(status)["ok"], true));
    let mut fourth = connect_as(OTHER, &socket).unwrap();
    let error = fourth.reply()["error"].clone();
    assert_eq!(error["code"], "busy", "{error}");
    let message = error["message"].as_str().unwrap();
    assert!(message.contains("user 65534") && message.contains("max_connections_per_user"), "{message}");
    fourth.expect_end();
    // Another user is not touched, and a place that is given back can be taken.
    assert_eq!(daemon.ask(status)["connections"], 4);
    guests.pop();
    until("a place is free again", || {
        let mut guest = connect_as(OTHER, &socket)?;
        guest.send_what_goes(format!("{status}\n").as_bytes());
        (guest.reply()["ok"] == true).then_some(())
    });
}

#[test]
fn a_user_who_shares_the_daemon_has_no_more_than_its_quota_in_flight_and_all_of_it_is_stored() {
    let _alone = alone();
    let Some(place) = place_for_others() else { return };
    let quota = 64 << 10;
    let flags = ["--max-bytes-in-flight-per-user", "64KiB", "--socket-mode", "0666"];
    let daemon = Daemon::start_in(&place, &flags);
    let socket = place.socket();
    let mut mine = daemon.connect();
    let one = r#"{"context":{"lot_id":"mine"},"items":[{"a":1}]}"#;
    assert_eq!(mine.ask(one)["ok"], true);
    let line = format!(
        "{{\"ack\":\"written\",\"context\":{{\"lot_id\":\"theirs\"}},\"items\":[{{\"pad\":\"{}\"}}]}}\n",
        "x".repeat(2000)
    );
    let (each, mut most) = (200, 0);
    std::thread::scope(|scope| {
        let floods: Vec<_> = (0..FLOOD)
            .map(|_| {
                let (line, socket) = (&line, &socket);
                scope.spawn(move || {
                    let mut guest = connect_as(OTHER, socket).unwrap();
                    guest.send(line.repeat(each));
                    (0..each).for_each(|_| assert_eq!(guest.reply()["ok"], true));
                })
            })
            .collect();
        while floods.iter().any(|flood| !flood.is_finished()) {
            assert_eq!(mine.ask(one)["ok"], true);
            let status = daemon.ask(r#"{"op":"status"}"#);
            most = most.max(status["queue_bytes"].as_u64().unwrap());
        }
    });
    // The quota, a line that the user's pass finished, what is read at the moment, and a small batch of the other.
    assert!(most < quota + FLOOD as u64 * (4 << 10) + (64 << 10), "{most} bytes in flight");
    assert!(most > quota / 4, "only {most} bytes in flight: there was no flood");
    daemon.ask(r#"{"op":"sync"}"#);
    let theirs = std::fs::read_to_string(place.data().join("lots/theirs.jsonl")).unwrap();
    assert_eq!(theirs.lines().count(), FLOOD * each);
}

#[test]
fn a_flood_of_one_user_leaves_the_latency_of_another_alone() {
    let Some(place) = place_for_others() else { return };
    let siege = Siege::begin_uncaged(&place, "a flood of another user", &["--socket-mode", "0666"]);
    let item = r#"{"sku_local":"SKU000001","est_price_mu":45.01,"sell_p60":0.7534,"quantity":1}"#;
    let line = format!("{{\"context\":{{\"lot_id\":\"flood\"}},\"items\":[{}]}}\n", vec![item; 50].join(","));
    let lines = line.repeat(64);
    let flood = |field: &crate::siege::Field<'_>| {
        let guests: Vec<Connection> = (0..FLOOD).map(|_| connect_as(OTHER, field.socket).unwrap()).collect();
        let at: Vec<AtomicUsize> = (0..FLOOD).map(|_| AtomicUsize::new(0)).collect();
        field.repeat(FLOOD, |n| {
            // Writes as much as goes, whole lines in the end, and reads replies only to throw them away.
            let mut stream = guests[n].stream();
            let _ = stream.set_write_timeout(Some(Duration::from_millis(50)));
            let _ = stream.set_read_timeout(Some(Duration::from_millis(1)));
            let begun = Instant::now();
            while begun.elapsed() < Duration::from_millis(50)
                && let Ok(written) = stream.write(&lines.as_bytes()[at[n].load(Ordering::Relaxed)..])
            {
                let next = (at[n].load(Ordering::Relaxed) + written) % lines.len();
                at[n].store(next, Ordering::Relaxed);
            }
            let mut replies = [0; 64 << 10];
            while stream.read(&mut replies).is_ok_and(|read| read == replies.len()) {}
        });
    };
    siege.compare(flood);
    siege.end(if full() { 512 } else { 256 });
}
