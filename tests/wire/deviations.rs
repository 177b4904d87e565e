//! Cases in which the daemon does not keep to the contract yet. Each says what it does instead; once it is mended,
//! its case moves to the module where it belongs.

use crate::common::Daemon;

// DEVIATION. A clean end after SIGTERM is exit code 0. Under load about one daemon in 200 ends with 74 and logs "the
// writer ended before its time": when the drain begins, the server and then the writer may end before the main task
// is polled again, and its `select!` (bin/lotlogd.rs, `live`) then takes the branch of the writer, at random, though
// the drain is asked for. (This case passes more often than not; it wants load.)
#[test]
fn many_daemons_that_are_ended_at_once_all_end_with_0() {
    let mut daemons: Vec<Daemon> = (0..40).map(|_| Daemon::start(&[])).collect();
    daemons.iter().for_each(|daemon| daemon.signal(rustix::process::Signal::TERM));
    let codes: Vec<_> = daemons.iter_mut().map(|daemon| daemon.wait().code()).collect();
    assert!(codes.iter().all(|code| *code == Some(0)), "{codes:?}");
}
