//! `lotlog bench`: the canonical workload against a daemon, so that two machines, disks or versions can be
//! compared. Latency is from the first byte of a request to its acknowledgement, as a producer sees it.

use std::collections::VecDeque;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use lotlog::batch::Durability;
use lotlog::client::Client;

use crate::failure::Failure;
use crate::own_daemon::OwnDaemon;
use crate::summary::eprintln_quietly;
use crate::{Daemon, units, usage, workload};

/// Measure a daemon with the canonical workload: 4 producers, each with one batch of 50 items outstanding,
/// over 64 lots, 5 s for each durability.
///
/// Starts a daemon of its own (the lotlogd beside this program) in a temporary directory and removes both,
/// unless --socket or --running names a running one: then the bench lots stay there.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Measure the daemon that runs at the usual socket; its lots BENCH_LOT_0000... are written
    #[arg(long)]
    running: bool,
    /// Where the temporary directory is made [default: the system's temporary directory]
    #[arg(long, value_name = "DIR", conflicts_with = "running")]
    dir: Option<PathBuf>,
    /// Producers, each with a connection and a session of its own
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..=1024))]
    producers: u64,
    /// Items in a batch, of about 425 bytes each
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    items: u64,
    /// Lots
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    lots: u64,
    /// How long each durability is measured (units ms, s, m, h; a bare number is seconds)
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = units::duration)]
    seconds: Duration,
    /// Send so many batches per producer, however long it takes, instead of --seconds
    #[arg(long, value_name = "N", conflicts_with = "seconds", value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    batches: Option<u64>,
    /// Batches that a producer has sent and not yet acknowledged, at most
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=256))]
    outstanding: u64,
    /// Measure only this durability: synced or written [default: both]
    #[arg(long)]
    ack: Option<Durability>,
    /// One JSON object on standard output
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    daemon: Daemon,
}

/// The serialised requests of all producers, at most.
const MAX_WORKLOAD_BYTES: u64 = 1 << 30;
/// Latencies kept per producer, at most; later ones are not recorded.
const MAX_LATENCIES: usize = 10_000_000;

#[derive(serde::Serialize)]
struct Measured {
    durability: &'static str,
    seconds: f64,
    batches: u64,
    records: u64,
    records_per_second: f64,
    acks_per_second: f64,
    request_bytes_per_second: f64,
    ack_p50_seconds: f64,
    ack_p99_seconds: f64,
    ack_max_seconds: f64,
    /// Of a daemon of its own; `null` for one that runs.
    daemon_cpu_seconds_per_million_records: Option<f64>,
    /// The most so far, over all durabilities.
    daemon_resident_bytes: Option<u64>,
}

pub fn run(args: &Args) -> Result<(), Failure> {
    let bodies = args.lots.max(16);
    if args.producers * bodies * args.items * workload::ITEM_BYTES as u64 > MAX_WORKLOAD_BYTES {
        let message = "so many producers, lots and items take more than 1 GiB of requests: lower one of them";
        return Err(Failure::usage(message));
    }
    if cfg!(debug_assertions) {
        eprintln_quietly(
            "lotlog: warning: this is a debug build, several times slower: use `cargo run --release`",
        );
    }
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&stop))
            .map_err(|error| Failure::io(format!("cannot wait for signals: {error}")))?;
    }
    let own = if args.running || args.daemon.socket.is_some() {
        None
    } else {
        Some(OwnDaemon::start(&args.dir.clone().unwrap_or_else(std::env::temp_dir))?)
    };
    let socket = match &own {
        Some(own) => own.socket(),
        None => args.daemon.socket()?,
    };
    let mut results = Vec::new();
    for durability in [Durability::Written, Durability::Synced] {
        if args.ack.is_none_or(|only| only == durability) && !stop.load(Ordering::Relaxed) {
            let pid = own.as_ref().and_then(OwnDaemon::pid);
            results.push(measure(args, &socket, durability, pid, &stop)?);
        }
    }
    drop(own);
    if stop.load(Ordering::Relaxed) {
        return Err(Failure::io("interrupted: no figures"));
    }
    print(args, &results).map_err(|error| Failure::output(&error))
}

fn measure(
    args: &Args,
    socket: &Path,
    durability: Durability,
    daemon: Option<u32>,
    stop: &Arc<AtomicBool>,
) -> Result<Measured, Failure> {
    let gate = Arc::new(Barrier::new(args.producers as usize + 1));
    let mut producers = Vec::new();
    for number in 0..args.producers {
        let producer = Producer {
            client: Client::connect(socket, args.daemon.timeout)?,
            session: uuid::Uuid::new_v4().to_string(),
            bodies: workload::bodies(
                number as usize,
                args.lots as usize,
                args.items as usize,
                durability.as_str(),
            ),
            seq: 0,
            sent: VecDeque::new(),
            latencies: Vec::new(),
            request_bytes: 0,
        };
        producers.push(producer);
    }
    // The first batch of a session opens lot files and sessions: not what is measured.
    for producer in &mut producers {
        producer.send()?;
        producer.receive()?;
        producer.latencies.clear();
        producer.request_bytes = 0;
    }
    let mut threads = Vec::new();
    for mut producer in producers {
        let (gate, stop) = (Arc::clone(&gate), Arc::clone(stop));
        let (outstanding, batches, seconds) = (args.outstanding as usize, args.batches, args.seconds);
        threads.push(std::thread::spawn(move || {
            gate.wait();
            let deadline = Instant::now() + seconds;
            let mut left = batches;
            while !stop.load(Ordering::Relaxed)
                && left != Some(0)
                && (batches.is_some() || Instant::now() < deadline)
            {
                producer.send()?;
                left = left.map(|left| left - 1);
                if producer.sent.len() >= outstanding {
                    producer.receive()?;
                }
            }
            while !producer.sent.is_empty() {
                producer.receive()?;
            }
            Ok::<Producer, Failure>(producer)
        }));
    }
    let cpu_before = used(daemon, usage::cpu_seconds)?;
    gate.wait();
    let started = Instant::now();
    let mut latencies = Vec::new();
    let mut request_bytes = 0;
    let mut failed = None;
    for thread in threads {
        match thread.join() {
            Ok(Ok(producer)) => {
                request_bytes += producer.request_bytes;
                latencies.extend(producer.latencies);
            }
            Ok(Err(failure)) => {
                // The others would go on for nothing.
                stop.store(true, Ordering::Relaxed);
                failed = failed.or(Some(failure));
            }
            Err(_) => failed = failed.or_else(|| Some(Failure::io("a producer of the measurement panicked"))),
        }
    }
    let seconds = started.elapsed().as_secs_f64();
    if let Some(failure) = failed {
        return Err(failure);
    }
    if daemon.is_some() {
        // What is acknowledged as `written` is still to be put into its files: that work is counted too.
        Client::connect(socket, args.daemon.timeout)?.request(br#"{"op":"sync"}"#)?;
    }
    let cpu = used(daemon, usage::cpu_seconds)?.zip(cpu_before).map(|(after, before)| after - before);
    latencies.sort_unstable();
    let batches = latencies.len() as u64;
    let quantile = |q: f64| {
        let at = ((latencies.len() as f64 * q).ceil() as usize).clamp(1, latencies.len().max(1)) - 1;
        latencies.get(at).map_or(0.0, Duration::as_secs_f64)
    };
    Ok(Measured {
        durability: durability.as_str(),
        seconds,
        batches,
        records: batches * args.items,
        records_per_second: (batches * args.items) as f64 / seconds,
        acks_per_second: batches as f64 / seconds,
        request_bytes_per_second: request_bytes as f64 / seconds,
        ack_p50_seconds: quantile(0.5),
        ack_p99_seconds: quantile(0.99),
        ack_max_seconds: quantile(1.0),
        daemon_cpu_seconds_per_million_records: cpu
            .map(|cpu| cpu * 1e6 / (batches * args.items).max(1) as f64),
        daemon_resident_bytes: used(daemon, usage::most_resident_bytes)?,
    })
}

/// What the daemon of our own has used, if it is ours.
fn used<T>(daemon: Option<u32>, read: fn(u32) -> std::io::Result<T>) -> Result<Option<T>, Failure> {
    let read = daemon.map(read).transpose();
    read.map_err(|error| Failure::io(format!("cannot tell what the daemon has used: {error}")))
}

struct Producer {
    client: Client,
    session: String,
    bodies: Vec<String>,
    seq: u64,
    /// When each batch without an answer was sent.
    sent: VecDeque<Instant>,
    latencies: Vec<Duration>,
    request_bytes: u64,
}

impl Producer {
    fn send(&mut self) -> Result<(), Failure> {
        let body = &self.bodies[(self.seq % self.bodies.len() as u64) as usize];
        self.seq += 1;
        let head = format!(r#"{{"session":"{}","seq":{},"#, self.session, self.seq);
        self.sent.push_back(Instant::now());
        self.request_bytes += (head.len() + body.len() + 1) as u64;
        Ok(self.client.send_parts(&[head.as_bytes(), body.as_bytes()])?)
    }

    fn receive(&mut self) -> Result<(), Failure> {
        let reply = self.client.recv_reply()?;
        if let Some(sent) = self.sent.pop_front()
            && self.latencies.len() < MAX_LATENCIES
        {
            self.latencies.push(sent.elapsed());
        }
        match reply.error {
            None => Ok(()),
            Some(refused) => {
                Err(Failure::io(format!("the daemon refused a batch of the measurement: {refused}")))
            }
        }
    }
}

fn print(args: &Args, results: &[Measured]) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    if args.json {
        let page = serde_json::json!({
            "version": env!("CARGO_PKG_VERSION"), "debug_build": cfg!(debug_assertions),
            "producers": args.producers, "items": args.items, "lots": args.lots, "outstanding": args.outstanding,
            "item_bytes": workload::ITEM_BYTES, "results": results,
        });
        return writeln!(out, "{page}");
    }
    writeln!(
        out,
        "{} producers, {} items of about {} bytes a batch, {} lots, {} outstanding",
        args.producers,
        args.items,
        workload::ITEM_BYTES,
        args.lots,
        args.outstanding
    )?;
    for result in results {
        writeln!(
            out,
            "{:8} {:>10} records/s  {:>7} acks/s  {:>9}/s  ack p50 {}  p99 {}  max {}  ({} batches in {:.1} s)",
            result.durability,
            units::count(result.records_per_second as u64),
            units::count(result.acks_per_second as u64),
            units::bytes(result.request_bytes_per_second as u64),
            units::latency(result.ack_p50_seconds),
            units::latency(result.ack_p99_seconds),
            units::latency(result.ack_max_seconds),
            units::count(result.batches),
            result.seconds
        )?;
        if let Some((cpu, resident)) =
            result.daemon_cpu_seconds_per_million_records.zip(result.daemon_resident_bytes)
        {
            let resident = units::bytes(resident);
            writeln!(
                out,
                "         daemon: {cpu:.2} CPU-seconds per million records, at most {resident} resident"
            )?;
        }
    }
    Ok(())
}
