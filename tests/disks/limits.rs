//! `prlimit --fsize`: files must not grow beyond a length. A lot at its limit is unavailable, others go on;
//! a limit below a journal segment is named at the start. The signal that comes with it kills nobody.

use crate::common::{Daemon, Place, refuses_to_start};
use crate::full::code;
use crate::mount::{able, wrapped};

/// The command, with this limit in bytes.
fn limited(place: &Place, bytes: u64, flags: &[&str]) -> std::process::Command {
    wrapped(place, &["prlimit", &format!("--fsize={bytes}")], &place.command(flags))
}

fn batch(lot: &str, pad: usize, ack: &str) -> String {
    let pad = "x".repeat(pad);
    format!(r#"{{"ack":"{ack}","context":{{"lot_id":"{lot}"}},"items":[{{"sku_local":"1","pad":"{pad}"}}]}}"#)
}

#[test]
fn a_lot_at_the_limit_of_file_sizes_is_unavailable_while_others_go_on() {
    if !able("a limit of file sizes", &["prlimit"]) {
        return;
    }
    let place = Place::new();
    let mut daemon = Daemon::spawn(&place, limited(&place, 2 << 20, &["--segment-bytes", "1MiB"]));
    let mut connection = daemon.connect();
    let mut taken = 0;
    // `written`: the one that does not fit is answered before its lot is written.
    let refused = loop {
        let reply = connection.ask(batch("BIG", 300_000, "written"));
        if reply["ok"] != true {
            break reply;
        }
        taken += 1;
        assert!(taken < 100, "no limit was met");
        assert_eq!(daemon.ask(batch("SMALL", 10, "synced"))["ok"], true, "others go on");
    };
    assert_eq!(code(&refused), "lot_unavailable");
    assert!(refused.to_string().contains("File too large"), "{refused}");
    for _ in 0..5 {
        assert_eq!(daemon.ask(batch("SMALL", 10, "synced"))["ok"], true, "others go on");
        assert_eq!(code(&daemon.ask(batch("BIG", 10, "synced"))), "lot_unavailable");
    }
    assert_eq!(daemon.terminate(), Some(0), "{}", place.own_log());
    // Without the limit what was committed reaches its lot.
    let mut daemon = Daemon::start_in(&place, &["--segment-bytes", "1MiB"]);
    assert_eq!(daemon.ask(batch("BIG", 10, "synced"))["ok"], true);
    assert_eq!(daemon.terminate(), Some(0));
    assert_eq!((place.lot("BIG").len(), place.lot("SMALL").len()), (taken + 1, taken + 5));
}

#[test]
fn a_limit_below_a_journal_segment_is_named_at_the_start() {
    if !able("a limit of file sizes", &["prlimit"]) {
        return;
    }
    let place = Place::new();
    assert_eq!(refuses_to_start(limited(&place, 1 << 20, &["--segment-bytes", "2MiB"])), Some(74));
    let said = place.own_log();
    assert!(
        said.contains("allocation of 2097152 bytes for journal/") && said.contains("too large"),
        "{said}"
    );
}
