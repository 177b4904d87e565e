//! Cases in which the daemon does not keep to the contract yet. Each says what it does instead; once it is mended,
//! its case moves to the module where it belongs.

use crate::common::Daemon;
use crate::shape::{batch, good};

// DEVIATION. Section 1: "one connection may always finish its line, so that unfinished lines cannot block each
// other". The line that goes beyond the budget is charged to it, and so everybody else's whole small lines wait for
// this unfinished one, `status` too: a peer that stops in the middle of its line stops the daemon until the line's
// deadline, and then the next one may do so.
#[test]
fn an_unfinished_line_beyond_the_budget_holds_up_nobody_elses_small_requests() {
    let daemon = Daemon::start(&["--max-bytes-in-flight", "1MiB", "--max-line-bytes", "1MiB"]);
    let (mut first, mut second) = (daemon.connect(), daemon.connect());
    let half = |kib: usize| format!(r#"{{"items":[{{"pad":"{}"#, "x".repeat(kib << 10));
    // The socket's buffers hold a part of either; what the daemon has read of both is more than 1 MiB.
    first.send(half(700));
    second.send(half(1000));
    good(daemon.ask(r#"{"op":"status"}"#));
    good(daemon.ask(batch("L", "s", 1)));
}
