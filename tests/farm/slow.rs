//! Back-pressure: a vault that does not move holds up producers, never memory.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use lotlog::batch::{Durability, Outcome};
use lotlog::config::Config;
use lotlog::metrics::Metrics;
use lotlog::queue::{Next, Submission, queue};
use lotlog::server::{Front, bind, serve};
use tokio_util::sync::CancellationToken;

#[test]
fn a_disk_that_stands_still_holds_up_producers_and_not_memory() {
    const PRODUCERS: usize = 20;
    const LINES: usize = 200;
    const LIMIT_BYTES: usize = 4 << 20;
    let home = tempfile::tempdir().unwrap();
    let socket = home.path().join("s");
    let mut config = Config::default();
    config.limits.max_bytes_in_flight = LIMIT_BYTES;
    config.limits.max_line_bytes = 1 << 20;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let (sender, receiver) = queue();
    let front = Front::new(&config, Arc::new(Metrics::default()));
    let drain = CancellationToken::new();
    let _guard = runtime.enter();
    let (listener, _file) = bind(&socket, 0o600).unwrap();
    let server = runtime.spawn(serve(listener, front.clone(), sender, drain.clone()));

    let written = Arc::new(AtomicU64::new(0));
    let line = format!("{{\"items\":[{{\"pad\":\"{}\"}}]}}\n", "x".repeat(20_000));
    let producers: Vec<_> = (0..PRODUCERS)
        .map(|_| {
            let (socket, written, line) = (socket.clone(), written.clone(), line.clone());
            std::thread::spawn(move || {
                let stream = UnixStream::connect(socket).unwrap();
                stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
                let mut replies = BufReader::new(stream.try_clone().unwrap()).lines();
                let mut sending = stream;
                let sender = std::thread::spawn(move || {
                    for _ in 0..LINES {
                        sending.write_all(line.as_bytes()).unwrap();
                        written.fetch_add(line.len() as u64, Ordering::SeqCst);
                    }
                });
                for _ in 0..LINES {
                    assert!(replies.next().unwrap().unwrap().contains("\"ok\":true"));
                }
                sender.join().unwrap();
            })
        })
        .collect();

    // Nobody takes anything out of the queue: what the daemon has taken in stops growing.
    let deadline = Instant::now() + Duration::from_secs(20);
    let mut before = (u64::MAX, Instant::now());
    while before.1.elapsed() < Duration::from_millis(700) {
        let now = written.load(Ordering::SeqCst);
        if now != before.0 {
            before = (now, Instant::now());
        }
        assert!(Instant::now() < deadline, "producers are not held up");
        assert!(
            front.budget.used_bytes() <= LIMIT_BYTES + config.limits.max_line_bytes,
            "{}",
            front.budget.used_bytes()
        );
        std::thread::sleep(Duration::from_millis(5));
    }
    let in_sockets = PRODUCERS as u64 * (512 << 10);
    assert!(before.0 < LIMIT_BYTES as u64 + in_sockets, "{} bytes were taken in", before.0);
    assert!(before.0 < (PRODUCERS * LINES * 20_000) as u64 / 2, "the test sends enough to be held up");

    // The disk moves again: every producer gets every reply.
    let vault = std::thread::spawn(move || {
        let mut lsn = 0;
        while let Next::Group(group) = receiver.next_group(None) {
            for submission in group {
                if let Submission::Batch(_, ticket) = submission {
                    lsn += 1;
                    ticket.answer(Outcome::Stored { lsn, durability: Durability::Synced });
                }
            }
        }
        lsn
    });
    for producer in producers {
        producer.join().unwrap();
    }
    drain.cancel();
    runtime.block_on(async { tokio::time::timeout(Duration::from_secs(10), server).await.unwrap().unwrap() });
    assert_eq!(vault.join().unwrap(), (PRODUCERS * LINES) as u64);
    assert_eq!(front.budget.used_bytes(), 0, "everything is given back");
}
