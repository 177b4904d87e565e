//! Every row of the table of limits, with small numbers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use lotlog::config::LINE_PROGRESS_BYTES;
use lotlog::queue::QUEUE_SUBMISSIONS;

use crate::rig::{A_WHILE, PATIENCE, Rig, answer, await_that, log, log_of};

const STATUS: &str = "{\"op\":\"status\"}\n";

#[test]
fn a_line_at_the_limit_is_taken_and_one_byte_more_ends_the_connection() {
    let mut rig = Rig::start(|config| config.limits.max_line_bytes = 10_000);
    let _vault = rig.answer_all();
    let mut client = rig.connect();
    client.send(&log_of(1, 10_001));
    client.stored(1);
    client.send(&log_of(2, 10_001).replace('\n', "\r\n"));
    client.stored(2);
    client.send(&log_of(3, 10_002));
    let reply = client.refused("too_large");
    assert!(reply["error"]["message"].as_str().unwrap().contains("10000"), "{reply}");
    client.ended();
}

#[test]
fn a_line_too_long_is_refused_behind_earlier_replies_and_before_its_end() {
    let mut rig = Rig::start(|config| config.limits.max_line_bytes = 10_000);
    let mut client = rig.connect();
    client.send(&log(1));
    client.send(&"x".repeat(10_001));
    let submission = rig.take(1).remove(0);
    client.silent();
    answer(submission, 1);
    client.stored(1);
    client.refused("too_large");
    client.ended();
}

#[test]
fn a_peer_still_writing_its_long_line_gets_to_read_why_it_was_refused() {
    let rig = Rig::start(|config| config.limits.max_line_bytes = 10_000);
    let mut client = rig.connect();
    // Far more than a socket holds: without reading on the daemon would break the pipe.
    client.try_send(&"x".repeat(8 << 20)).unwrap();
    client.refused("too_large");
    client.ended();
    drop(client);
    rig.await_connections(0);
}

#[test]
fn a_connection_is_not_read_beyond_its_requests_in_flight() {
    let mut rig = Rig::start(|config| config.limits.max_requests_in_flight = 4);
    let mut client = rig.connect();
    client.send(&(1..=10).map(log).collect::<String>());
    let mut submissions = rig.take(4);
    assert!(rig.gets_no_more());
    // An answer out of turn makes no room, its reply is not sent.
    answer(submissions.remove(1), 2);
    assert!(rig.gets_no_more());
    answer(submissions.remove(0), 1);
    let more = rig.take(2);
    assert!(rig.gets_no_more());
    for submission in submissions.into_iter().chain(more) {
        answer(submission, 3);
    }
    let _vault = rig.answer_all();
    for seq in 1..=10 {
        client.stored(seq);
    }
}

#[test]
fn requests_that_need_no_vault_count_as_in_flight_too() {
    let rig = Rig::start(|config| config.limits.max_requests_in_flight = 3);
    let mut client = rig.connect();
    // Nobody reads the replies: the daemon must stop reading, so that this cannot be written to its end.
    client.stream.set_write_timeout(Some(A_WHILE)).unwrap();
    let bytes = 64 << 20;
    assert!(client.try_send(&"x\n".repeat(bytes / 2)).is_err());
}

#[test]
fn bytes_in_flight_hold_producers_back_and_drop_nothing() {
    let budget = 256 << 10;
    let mut rig = Rig::start(|config| config.limits.max_bytes_in_flight = budget);
    let producers: Vec<_> = (0..8)
        .map(|_| {
            let mut client = rig.connect();
            std::thread::spawn(move || {
                let mut writer = client.stream.try_clone().unwrap();
                let lines = std::thread::spawn(move || {
                    use std::io::Write;
                    for seq in 1..=100 {
                        writer.write_all(log_of(seq, 20_000).as_bytes()).unwrap();
                    }
                });
                for seq in 1..=100 {
                    client.stored(seq);
                }
                lines.join().unwrap();
            })
        })
        .collect();
    let front = rig.front.clone();
    await_that("the budget is nearly full", || front.budget.used_bytes() > budget / 2);
    std::thread::sleep(A_WHILE);
    let used = rig.front.budget.used_bytes();
    assert!(used < 2 * budget, "{used} of {budget} in flight");
    let mut other = rig.connect();
    other.send(STATUS);
    assert!(other.reply()["queue_bytes"].as_u64().unwrap() > 0);
    let vault = rig.answer_all();
    for producer in producers {
        producer.join().unwrap();
    }
    drop(other);
    rig.await_connections(0);
    assert_eq!(rig.front.budget.used_bytes(), 0);
    rig.drain.cancel();
    assert_eq!(vault.join().unwrap(), 800);
}

#[test]
fn unfinished_lines_block_neither_each_other_nor_small_ones() {
    // Together far beyond the budget, each alone beyond it.
    let mut rig = Rig::start(|config| config.limits.max_bytes_in_flight = 64 << 10);
    let _vault = rig.answer_all();
    let line = log_of(1, 100_000);
    let finished = Arc::new(AtomicBool::new(false));
    let starters: Vec<_> = (0..20)
        .map(|_| {
            let (mut client, line, finished) = (rig.connect(), line.clone(), finished.clone());
            std::thread::spawn(move || {
                client.send(&line[..90_000]);
                await_that("the small ones are through", || finished.load(Ordering::Relaxed));
                client.send(&line[90_000..]);
                client.stored(1);
            })
        })
        .collect();
    let front = rig.front.clone();
    await_that("unfinished lines fill what they may", || front.budget.used_bytes() >= 40_000);
    let mut small = rig.connect();
    for seq in 1..=20 {
        small.send(&log_of(seq, 2000));
        small.stored(seq);
    }
    finished.store(true, Ordering::Relaxed);
    for starter in starters {
        starter.join().unwrap();
    }
    rig.await_connections(1);
    assert_eq!(rig.front.budget.used_bytes(), 0);
}

#[test]
fn a_line_that_stalls_ends_in_timeout() {
    let rig = Rig::start(|config| config.limits.line_timeout = Duration::from_millis(200));
    let mut client = rig.connect();
    let start = Instant::now();
    client.send("{\"items\":");
    client.refused("timeout");
    assert!(start.elapsed() >= Duration::from_millis(200));
    client.ended();
}

#[test]
fn a_line_that_trickles_ends_in_timeout_though_bytes_keep_coming() {
    let rig = Rig::start(|config| config.limits.line_timeout = Duration::from_millis(300));
    let mut client = rig.connect();
    let mut writer = client.stream.try_clone().unwrap();
    let trickle = std::thread::spawn(move || {
        use std::io::Write;
        let start = Instant::now();
        while writer.write_all(b"x").is_ok() && start.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(10));
        }
        start.elapsed()
    });
    client.refused("timeout");
    drop(client);
    assert!(trickle.join().unwrap() < PATIENCE / 2);
}

#[test]
fn a_line_that_makes_progress_may_take_longer_than_the_timeout() {
    let mut rig = Rig::start(|config| config.limits.line_timeout = Duration::from_millis(600));
    let _vault = rig.answer_all();
    let mut client = rig.connect();
    let line = log_of(1, 8 * LINE_PROGRESS_BYTES);
    for piece in line.as_bytes().chunks(LINE_PROGRESS_BYTES) {
        client.send(std::str::from_utf8(piece).unwrap());
        std::thread::sleep(Duration::from_millis(100));
    }
    client.stored(1);
}

#[test]
fn an_idle_connection_never_times_out() {
    let mut rig = Rig::start(|config| config.limits.line_timeout = Duration::from_millis(50));
    let _vault = rig.answer_all();
    let mut client = rig.connect();
    client.silent();
    client.send(&log(1));
    client.stored(1);
    client.silent();
    client.send(&log(2));
    client.stored(2);
}

#[test]
fn a_line_does_not_age_while_the_daemon_does_not_read_it() {
    let mut rig = Rig::start(|config| {
        config.limits.line_timeout = Duration::from_millis(100);
        config.limits.max_requests_in_flight = 1;
    });
    let mut client = rig.connect();
    let second = log(2);
    client.send(&(log(1) + &second[..10]));
    let submission = rig.take(1).remove(0);
    client.silent();
    client.silent();
    answer(submission, 1);
    client.stored(1);
    client.send(&second[10..]);
    answer(rig.take(1).remove(0), 2);
    client.stored(2);
}

#[test]
fn a_peer_that_does_not_read_its_replies_is_closed() {
    let rig = Rig::start(|config| config.limits.reply_timeout = Duration::from_millis(200));
    let mut client = rig.connect();
    client.stream.set_write_timeout(Some(A_WHILE)).unwrap();
    let _ = client.try_send(&STATUS.repeat(100_000));
    rig.await_connections(0);
}

#[test]
fn a_peer_that_reads_slowly_gets_every_reply() {
    let rig = Rig::start(|config| config.limits.reply_timeout = Duration::from_millis(1000));
    let mut client = rig.connect();
    let mut writer = client.stream.try_clone().unwrap();
    let requests = std::thread::spawn(move || {
        use std::io::Write;
        writer.write_all(STATUS.repeat(3000).as_bytes()).unwrap();
    });
    for at in 0..3000 {
        if at % 150 == 0 {
            std::thread::sleep(Duration::from_millis(100));
        }
        assert_eq!(client.reply()["ok"], true);
    }
    requests.join().unwrap();
}

#[test]
fn a_connection_too_many_is_told_busy_and_let_in_when_one_has_gone() {
    let rig = Rig::start(|config| config.limits.max_connections = 2);
    let (first, mut second) = (rig.connect(), rig.connect());
    rig.await_connections(2);
    for _ in 0..100 {
        let mut third = rig.connect();
        // It may well be writing already.
        let _ = third.try_send(&log(1));
        third.refused("busy");
        third.ended();
    }
    second.send(STATUS);
    assert_eq!(second.reply()["refused"]["busy"], 100);
    drop(first);
    rig.await_connections(1);
    let mut next = rig.connect();
    next.send(STATUS);
    assert_eq!(next.reply()["ok"], true);
}

#[test]
fn many_refused_at_once_are_all_told_and_closed() {
    // One worker: nothing else asks the kernel about a fresh socket between its accept and its reply.
    let rig = Rig::start_on(1, |config| config.limits.max_connections = 0);
    // More than may linger; those are closed at once, after the reply.
    let clients: Vec<_> = (0..200).map(|_| rig.connect()).collect();
    for mut client in clients {
        client.refused("busy");
        client.ended();
    }
}

#[test]
fn users_and_groups_that_are_not_named_are_forbidden() {
    let (user, group) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
    let check = |users: &[u32], groups: &[u32], welcome: bool| {
        let rig = Rig::start(|config| {
            config.allow_users = users.to_vec();
            config.allow_groups = groups.to_vec();
        });
        let mut client = rig.connect();
        if welcome {
            client.send(STATUS);
            assert_eq!(client.reply()["ok"], true, "{users:?} {groups:?}");
        } else {
            client.refused("forbidden");
            client.ended();
            drop(client);
            rig.await_connections(0);
        }
    };
    check(&[], &[], true);
    check(&[user + 1, user], &[], true);
    check(&[], &[group], true);
    check(&[user + 1], &[group], true);
    check(&[user + 1], &[], false);
    check(&[], &[54_321], false);
    check(&[user + 1], &[54_321], false);
}

#[test]
fn a_full_queue_holds_requests_back_while_replies_go_out() {
    let mut rig = Rig::start(|config| config.limits.max_requests_in_flight = 3 * QUEUE_SUBMISSIONS);
    let mut client = rig.connect();
    client.send(&log(1));
    let first = rig.take(1).remove(0);
    let syncs = QUEUE_SUBMISSIONS + 500;
    client.send(&"{\"op\":\"sync\"}\n".repeat(syncs));
    // One that comes back before the queue has room.
    let mut other = rig.connect();
    other.send(STATUS);
    other.reply();
    answer(first, 1);
    client.stored(1);
    let _vault = rig.answer_all();
    for _ in 0..syncs {
        assert_eq!(client.reply()["ok"], true);
    }
}

#[test]
fn a_thousand_connections_are_served() {
    let mut rig = Rig::start(|_| {});
    let _vault = rig.answer_all();
    let _ = raise_open_files();
    let mut clients: Vec<_> = (0..1000).map(|_| rig.connect()).collect();
    for round in 1..=3 {
        for client in &mut clients {
            client.send(&log(round));
        }
        for client in &mut clients {
            client.stored(round);
        }
    }
    assert_eq!(rig.connections(), 1000);
    drop(clients);
    rig.await_connections(0);
}

fn raise_open_files() -> nix::Result<()> {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)
}

#[test]
fn a_paused_connection_costs_no_processor_time() {
    let mut rig = Rig::start(|config| {
        config.limits.max_requests_in_flight = 2;
        config.limits.max_bytes_in_flight = 16 << 10;
    });
    let mut clients: Vec<_> = (0..20).map(|_| rig.connect()).collect();
    // In flight and more to read; starved with more to read; stuck replies; ended, with answers to come.
    for (at, client) in clients.iter_mut().enumerate() {
        client.stream.set_write_timeout(Some(Duration::from_millis(1))).unwrap();
        let _ = match at % 4 {
            0 => client.try_send(&log(1).repeat(9)),
            1 => client.try_send(&"x".repeat(300_000)),
            2 => client.try_send(&STATUS.repeat(10_000)),
            _ => client.try_send(&log(1)).map(|()| client.no_more()),
        };
    }
    let _held = rig.take(2);
    std::thread::sleep(A_WHILE);
    let before = rig.busy();
    std::thread::sleep(Duration::from_millis(500));
    let busy = rig.busy() - before;
    assert!(busy < Duration::from_millis(50), "{busy:?} of 500 ms on a processor, doing nothing");
}
