//! Descriptors that run out, and descriptors that nobody asked for.

use std::io::IoSlice;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

use crate::common::judge::{After, Verdict, judge};
use crate::common::producer::{Load, Stop, entries, farm, lot_files, record};
use crate::common::{Connection, Daemon, Place, until};
use crate::siege::{alone, descriptors, processor_time};
use crate::sockets::batch;

fn has(program: &str) -> bool {
    let found = ["/usr/bin", "/bin", "/usr/sbin"].iter().any(|dir| Path::new(dir).join(program).exists());
    if !found {
        println!("SKIPPED: this needs {program}");
    }
    found
}

/// What the daemon takes of a processor in two seconds.
fn busy_in_two_seconds(pid: u32) -> Duration {
    let before = processor_time(pid);
    std::thread::sleep(Duration::from_secs(2));
    processor_time(pid) - before
}

#[test]
fn with_64_descriptors_lots_are_still_opened_and_written_while_connections_take_all_they_can() {
    let _alone = alone();
    if !has("prlimit") {
        return;
    }
    let place = Place::new();
    let wrapper = ["prlimit", "--nofile=64:64"].map(str::to_owned);
    let mut daemon =
        Daemon::spawn(&place, place.command_through(&wrapper, &["--sync-interval-seconds", "50ms"]));
    // In before the crowd comes.
    let stop = Stop::default();
    let load = Load { lots: 60, window: 4, ..Load::default() };
    let producers = farm(&place.socket(), "p", 2, 1, &load, &stop);
    until("they log", || (place.lots().len() > 1).then_some(()));
    let most = until("the limit is told", || {
        let status = daemon.ask(r#"{"op":"status"}"#);
        status["connections"].as_u64()
    });
    let mut wide = daemon.connect();
    assert_eq!(wide.ask(r#"{"op":"status"}"#)["ok"], true);
    let mut crowd: Vec<Connection> = (0..300).filter_map(|_| Connection::try_open(&place.socket())).collect();
    println!(
        "64 descriptors: {most} connections before, {} descriptors with a crowd of {}",
        descriptors(daemon.pid()),
        crowd.len()
    );
    // Further lots are opened while every place is taken.
    let lots = place.lots().len();
    until("all lots are opened", || (place.lots().len() == 60).then_some(()));
    println!("64 descriptors: {lots} lots before the crowd, 60 under it");
    // One group of hundreds of lots, of which only four are held open.
    let lines: String = (0..400)
        .map(|n| {
            format!("{{\"ack\":\"written\",\"context\":{{\"lot_id\":\"wide-{n}\"}},\"items\":[{{}}]}}\n")
        })
        .collect();
    wide.send(lines);
    for n in 0..400 {
        let reply = wide.reply();
        assert!(reply["ok"] == true, "lot {n}: {reply}");
    }
    let full = descriptors(daemon.pid());
    stop.finish();
    let ledgers: Vec<_> = producers.into_iter().map(|p| p.join().unwrap()).collect();
    assert!(ledgers.iter().all(|ledger| ledger.refusals.is_empty()), "{:?}", ledgers[0].refusals);
    assert!(full < 64, "the vault keeps its reserve");
    let busy = busy_in_two_seconds(daemon.pid());
    println!("64 descriptors: {busy:?} of two seconds on a processor with the crowd before the door");
    assert!(busy < Duration::from_millis(200), "{busy:?}");
    for guest in &mut crowd {
        guest.send_what_goes(b"{\"op\":\"status\"}\n");
    }
    let served: usize = crowd.iter_mut().map(|guest| usize::from(guest_is_served(guest))).sum();
    println!("64 descriptors: {served} of the crowd are served");
    assert!((4..64).contains(&served), "{served}");
    drop(crowd);
    until("there is room again", || {
        let mut guest = Connection::try_open(&place.socket())?;
        guest.send_what_goes(b"{\"op\":\"status\"}\n");
        guest_is_served(&mut guest).then_some(())
    });
    assert_eq!(daemon.terminate(), Some(0));
    let mut lots = lot_files(&place.data());
    assert_eq!(lots.keys().filter(|stem| stem.starts_with("wide-")).count(), 400);
    lots.retain(|stem, _| stem.starts_with("lot-"));
    let verdict = judge(&lots, &entries(&ledgers), &record, After::Death);
    assert_eq!(verdict, Verdict::default());
}

fn guest_is_served(guest: &mut Connection) -> bool {
    let reply = guest.reply();
    assert!(reply["ok"] == true || reply["error"]["code"] == "busy", "{reply}");
    reply["ok"] == true
}

#[test]
fn where_accept_finds_no_descriptor_it_rests_and_goes_on_when_there_is_one() {
    let _alone = alone();
    if !has("prlimit") {
        return;
    }
    let daemon = Daemon::start(&[]);
    let mut good = daemon.connect();
    assert_eq!(good.ask(batch("s", 1))["ok"], true);
    let limit = |soft: usize| {
        let status = Command::new("prlimit")
            .args(["--pid", &daemon.pid().to_string(), &format!("--nofile={soft}:")])
            .status()
            .unwrap();
        assert!(status.success());
    };
    limit(descriptors(daemon.pid()) + 2);
    let mut crowd: Vec<Connection> = (0..50).map(|_| daemon.connect()).collect();
    let busy = busy_in_two_seconds(daemon.pid());
    println!("EMFILE: {busy:?} of two seconds on a processor");
    assert!(busy < Duration::from_millis(200), "{busy:?}");
    assert_eq!(good.ask(batch("s", 2))["ok"], true, "the others go on");
    limit(1000);
    let begun = Instant::now();
    for guest in &mut crowd {
        assert_eq!(guest.ask(r#"{"op":"status"}"#)["ok"], true);
    }
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    let log = std::fs::read_to_string(daemon.place.path().join("log")).unwrap();
    let lines = log.lines().filter(|line| line.contains("could not be accepted")).count();
    assert!((1..=15).contains(&lines), "{lines} lines: said, and not again and again\n{log}");
}

#[test]
fn descriptors_sent_along_with_a_request_are_not_kept() {
    let _alone = alone();
    let daemon = Daemon::start(&[]);
    let mut guest = daemon.connect();
    assert_eq!(guest.ask(batch("s", 1))["ok"], true);
    let file = std::fs::File::open("/dev/null").unwrap();
    let files = vec![file.as_fd(); 100];
    let before = descriptors(daemon.pid());
    for seq in 2..102 {
        let line = batch("s", seq) + "\n";
        let mut space = vec![std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(100))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        assert!(ancillary.push(SendAncillaryMessage::ScmRights(&files)));
        let sent =
            sendmsg(guest.stream(), &[IoSlice::new(line.as_bytes())], &mut ancillary, SendFlags::empty());
        assert_eq!(sent.unwrap(), line.len());
        assert_eq!(guest.reply()["seq"], seq);
    }
    assert!(descriptors(daemon.pid()) <= before + 2, "{before}, then {}", descriptors(daemon.pid()));
    // Left unread in the socket of a connection that ends, they go with it.
    for _ in 0..50 {
        let late = daemon.connect();
        let mut space = vec![std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(100))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        assert!(ancillary.push(SendAncillaryMessage::ScmRights(&files)));
        sendmsg(late.stream(), &[IoSlice::new(b"{")], &mut ancillary, SendFlags::empty()).unwrap();
    }
    until("all are closed", || (descriptors(daemon.pid()) <= before + 2).then_some(()));
}
