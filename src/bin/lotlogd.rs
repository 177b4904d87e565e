//! The daemon: the order of its life. Configuration, own log, lock and recovery, writer, socket, READY, serve,
//! drain, exit code.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use lotlog::config::Config;
use lotlog::load::{self, Loaded, Task};
use lotlog::metrics::Metrics;
use lotlog::order::Order;
use lotlog::ownlog::{self, OwnLog};
use lotlog::places::{self, Environment};
use lotlog::queue::{Submission, Ticket, WeakSender};
use lotlog::server::{self, Front, SocketFile};
use lotlog::shutdown::{self, Shutdown};
use lotlog::vault::{Vault, VaultError};
use lotlog::writer;
use lotlog::{check, door, scrape, settings, systemd};
use tokio::net::UnixListener;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

/// Descriptors kept for the journal, the directories and whatever the libraries open: at most half of them all.
const OTHER_FILES: u64 = 64;
/// Those who are told no have one descriptor of so many.
const LINGERING_PART: u64 = 16;
/// Descriptors for two lots that are held open: beside these, evicted files wait for their sync, a quarter as many as
/// may be open, and as many are in the hands of a checkpoint under way.
const FILES_OF_TWO_LOTS: u64 = 3;
/// Held open however low the limit is.
const LEAST_LOTS: usize = 4;
/// Fewer open lots than this are worth a warning.
const FEW_LOTS: usize = 1024;
/// After a fail-stop the last replies have this long to go out.
const LAST_REPLIES: Duration = Duration::from_secs(1);
/// Worker threads of the front: with one alone, on two processors, a flood of others' lines is waited for twice as long.
const WORKERS: std::ops::RangeInclusive<usize> = 2..=4;
/// Threads beside them, for long lines and the user database: with hundreds the writer would get no processor.
const BLOCKING_THREADS: usize = 8;
/// The vault's and the signals', at most.
const OTHER_THREADS: usize = 6;

fn main() -> ExitCode {
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o027));
    let env = Environment::of_process();
    let loaded = match load::load(std::env::args_os(), &env) {
        Ok(loaded) => loaded,
        Err(error) if error.exit_code == 0 => {
            out(&error.message);
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            complain(&error.message);
            return ExitCode::from(error.exit_code);
        }
    };
    let code = match loaded.task {
        Task::Print => print(&loaded.config),
        Task::Check => check(&loaded),
        Task::Run => run(loaded, &env),
    };
    ExitCode::from(code)
}

/// To stdout; a reader that has had enough (`| head`) is no error.
fn out(text: &str) {
    let _ = writeln!(std::io::stdout(), "{}", text.trim_end());
}

/// To stderr, before the own log is there; one that is closed is nothing to die of.
fn complain(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

fn print(config: &Config) -> u8 {
    match settings::print(config) {
        Ok(text) => {
            out(&text);
            0
        }
        Err(why) => {
            complain(&format!("lotlogd: {why}"));
            78
        }
    }
}

fn check(loaded: &Loaded) -> u8 {
    for warning in &loaded.warnings {
        out(&format!("warning: {warning}"));
    }
    let findings = check::check(&loaded.config);
    for finding in findings.iter().filter(|finding| !(loaded.is_quiet && finding.is_good())) {
        out(&finding.to_string());
    }
    if findings.iter().all(check::Finding::is_good) { 0 } else { 78 }
}

fn run(loaded: Loaded, env: &Environment) -> u8 {
    // A reload or a stop may be asked for before anybody can carry it out.
    let signals = shutdown::catch();
    // Before there are threads.
    let inherited = systemd::inherited_socket();
    let log = match ownlog::start(loaded.config.log_format, loaded.config.log_level) {
        Ok(log) => log,
        Err(error) => {
            complain(&format!("lotlogd cannot start: {error}"));
            return 74;
        }
    };
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    let mut config = loaded.config.clone();
    raise_open_files(&mut config);
    let workers =
        std::thread::available_parallelism().map_or(2, usize::from).clamp(*WORKERS.start(), *WORKERS.end());
    let runtime = room_for_threads(workers + BLOCKING_THREADS + OTHER_THREADS).and_then(|()| {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(workers)
            .max_blocking_threads(BLOCKING_THREADS)
            .enable_all()
            .build()
    });
    let code = match (runtime, signals.and_then(shutdown::listen)) {
        (Ok(runtime), Ok(shutdown)) => {
            let code = runtime.block_on(live(config, &loaded, inherited, env, &log, shutdown));
            // Whatever still runs (a disk that does not answer) must not keep the process.
            runtime.shutdown_background();
            code
        }
        (Err(error), _) | (_, Err(error)) => {
            tracing::error!(%error, "lotlogd cannot start");
            74
        }
    };
    log.finish();
    // Threads of the vault may hang in the kernel; nothing they do is promised to anybody any more.
    std::process::exit(i32::from(code));
}

/// Whether so many threads can be had: the runtime would panic where it cannot have one more, now or in a busy hour.
fn room_for_threads(count: usize) -> std::io::Result<()> {
    let held = Arc::new(Mutex::new(()));
    let hold = held.lock();
    let start = |_| {
        let held = held.clone();
        std::thread::Builder::new().spawn(move || drop(held.lock()))
    };
    let started: Vec<_> = (0..count).map(start).collect();
    drop(hold);
    let mut room = Ok(());
    for thread in started {
        match thread {
            Ok(thread) => drop(thread.join()),
            Err(error) => room = Err(error),
        }
    }
    room.map_err(|error| {
        let why = format!(
            "{count} threads cannot be had ({error}): raise the limits of memory and of processes (ulimit -v, ulimit -u; under \
             systemd LimitAS=, MemoryMax=, TasksMax=)"
        );
        std::io::Error::new(error.kind(), why)
    })
}

/// Raises the soft limit of open files to the hard one, and lets lots have what connections leave.
fn raise_open_files(config: &mut Config) {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return };
    let limit = if setrlimit(Resource::RLIMIT_NOFILE, hard, hard).is_ok() { hard } else { soft };
    // Connections must not take the descriptors that the vault needs.
    let lingering = (config.limits.max_lingering as u64).min(limit / LINGERING_PART);
    config.limits.max_lingering = usize::try_from(lingering).unwrap_or(usize::MAX);
    let others = OTHER_FILES.min(limit / 2) + lingering;
    let most = usize::try_from(limit.saturating_sub(others) / 3).unwrap_or(usize::MAX).max(1);
    if config.limits.max_connections > most {
        config.limits.max_connections = most;
        // Of fewer places, too, one user cannot have all.
        let each = &mut config.limits.max_connections_per_user;
        *each = (*each).min((most - most / 4).max(1));
        tracing::warn!(
            limit,
            max_connections = most,
            "the limit of open files is low: fewer connections are taken"
        );
    }
    let left = limit.saturating_sub(config.limits.max_connections as u64 + others);
    let lots = usize::try_from(left * 2 / FILES_OF_TWO_LOTS).unwrap_or(usize::MAX).max(LEAST_LOTS);
    if lots < config.vault.max_open_lots {
        config.vault.max_open_lots = lots;
        if config.vault.max_open_lots < FEW_LOTS {
            tracing::warn!(
                limit,
                max_open_lots = config.vault.max_open_lots,
                "the limit of open files is low: fewer lot files are held open"
            );
        }
    }
}

async fn live(
    config: Config,
    loaded: &Loaded,
    inherited: Inherited,
    env: &Environment,
    log: &OwnLog,
    shutdown: Shutdown,
) -> u8 {
    let metrics = Arc::new(Metrics::default());
    let begun = std::time::Instant::now();
    let vault = match open_vault(&config, &metrics, &shutdown).await {
        Ok(vault) => vault,
        Err(code) => return code,
    };
    let took = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
    metrics.recovery_micros.store(took, Relaxed);
    let (sender, receiver) = lotlog::queue::queue();
    let mut writer = match writer::spawn(vault, receiver) {
        Ok(writer) => writer,
        Err(error) => {
            tracing::error!(%error, "the writer cannot start");
            return 74;
        }
    };
    let listening = listen(&config, inherited, loaded.socket_is_named, env);
    let scraped = match &config.metrics {
        Some(at) => scrape::bind(at, config.socket_access()).await.map(Some).map_err(|why| (78, why)),
        None => Ok(None),
    };
    let ((listener, socket, socket_file), scraped) = match listening.and_then(|l| Ok((l, scraped?))) {
        Ok(listening) => listening,
        Err((code, why)) => {
            tracing::error!("{why}");
            drop(sender);
            let _ = tokio::time::timeout(config.drain_timeout, &mut writer).await;
            return code;
        }
    };
    say_ready(&socket, &config.data_dir);
    tokio::spawn(tell_if_gone(socket, socket_file.is_some(), shutdown.drain.clone()));
    let front = Front::new(&config, metrics.clone());
    let asked = front.reload.clone();
    let _metrics_file = scraped.map(|(listener, file)| {
        tracing::info!("metrics on {listener}");
        tokio::spawn(scrape::serve(listener, scrape::Source::new(front.clone(), shutdown.drain.clone())));
        file
    });
    let mut server = tokio::spawn(server::serve(listener, front, sender.clone(), shutdown.drain.clone()));
    tokio::spawn(systemd::watchdog(metrics, shutdown.drain.clone()));
    let weak = sender.downgrade();
    drop(sender);

    // A reload may hold a sender, waiting for room in the queue; it ends here, or the queue would never close.
    tokio::select! {
        // In this order: a drain may have come to its end, the writer's included, before this task is polled.
        biased;
        () = shutdown.drain.cancelled() => {}
        () = reload_on_request(&shutdown, &asked, weak, log, loaded, env) => {}
        end = &mut writer => return fail_stop(end, &shutdown, server).await,
    }
    tracing::info!(seconds = config.drain_timeout.as_secs_f64(), "draining: finishing what is queued");
    systemd::stopping();
    let drained = async {
        let _ = (&mut server).await;
        (&mut writer).await
    };
    let ended = tokio::select! {
        end = drained => Some(end),
        () = shutdown.now.cancelled() => None,
        () = tokio::time::sleep(config.drain_timeout) => None,
    };
    match ended {
        Some(Ok(Ok(()))) => {
            tracing::info!("stopped: everything taken is synced and in the lot files");
            0
        }
        Some(end) => fail_stop(end, &shutdown, server).await,
        None => {
            tracing::error!(
                "the drain did not end in time: what has no reply is of unknown fate, sending it again is safe"
            );
            75
        }
    }
}

/// Lock and recovery, away from the runtime's threads; a signal ends the waiting, because nothing is served yet.
async fn open_vault(config: &Config, metrics: &Arc<Metrics>, shutdown: &Shutdown) -> Result<Vault, u8> {
    let (data_dir, vault_config, counters) = (config.data_dir.clone(), config.vault.clone(), metrics.clone());
    let mut opening = tokio::task::spawn_blocking(move || Vault::open(&data_dir, &vault_config, counters));
    loop {
        tokio::select! {
            opened = &mut opening => {
                return match opened {
                    Ok(Ok(vault)) => Ok(vault),
                    Ok(Err(error)) => {
                        tracing::error!("{error}");
                        Err(error.exit_code())
                    }
                    Err(error) => {
                        tracing::error!(%error, "recovery failed");
                        Err(74)
                    }
                };
            }
            () = shutdown.drain.cancelled() => {
                tracing::info!("stopped before recovery had ended: the next start begins it again");
                return Err(0);
            }
            () = tokio::time::sleep(systemd::EXTENSION_INTERVAL) => systemd::extend_start("recovering"),
        }
    }
}

type Listening = (UnixListener, PathBuf, Option<SocketFile>);

type Inherited = std::io::Result<Option<std::os::unix::net::UnixListener>>;

/// The socket that somebody named, else the inherited one, else that of the default place.
fn listen(
    config: &Config,
    inherited: Inherited,
    is_named: bool,
    env: &Environment,
) -> Result<Listening, (u8, String)> {
    let unusable = |error: std::io::Error| (78, format!("the inherited socket cannot be used: {error}"));
    if let Some(inherited) = inherited.map_err(unusable)? {
        let address = inherited.local_addr().ok();
        let path = address.and_then(|a| a.as_pathname().map(Path::to_owned)).unwrap_or_default();
        if !is_named || path == config.socket {
            return Ok((UnixListener::from_std(inherited).map_err(unusable)?, path, None));
        }
        tracing::warn!(
            "the inherited socket {} is not served, because {} was named",
            path.display(),
            config.socket.display()
        );
    }
    places::make_socket_dir(&config.socket, env).map_err(|error| (78, error.to_string()))?;
    let (listener, file) =
        server::bind(&config.socket, config.socket_access()).map_err(|e| (e.exit_code(), e.to_string()))?;
    Ok((listener, config.socket.clone(), Some(file)))
}

/// Tells the operator and systemd where things are, and how to log a first batch.
fn say_ready(socket: &Path, data_dir: &Path) {
    tracing::info!("listening on {}, writing to {}", socket.display(), data_dir.join("lots").display());
    tracing::info!("try: {}", first_batch(socket));
    systemd::ready(&format!("listening on {}", socket.display()));
}

/// Who is connected stays so; but nobody finds the daemon any more, and it would not notice.
async fn tell_if_gone(socket: PathBuf, made: bool, drain: CancellationToken) {
    tokio::select! {
        biased;
        () = drain.cancelled() => {}
        () = door::gone(&socket, made) => tracing::warn!(
            "{} was deleted, moved or replaced, so that no new producer gets here: restart lotlogd (under systemd lotlogd.socket too), \
             which makes it anew; those who are connected lose nothing",
            socket.display()
        ),
    }
}

/// A shell line that logs a batch.
fn first_batch(socket: &Path) -> String {
    let beside = std::env::current_exe().ok().map(|exe| exe.with_file_name("lotlog"));
    let lotlog = match beside.filter(|path| path.exists()) {
        Some(path) => quoted(&path),
        // `cargo run` builds the daemon alone.
        None if std::env::var_os("CARGO").is_some() => {
            "cargo run --release --quiet --bin lotlog --".to_owned()
        }
        None => "lotlog".to_owned(),
    };
    let item = r#"{"sku_local":"SKU001","est_price_mu":45.0,"sell_p60":0.75}"#;
    format!("echo '{item}' | {lotlog} send --socket {} --lot DEMO -", quoted(socket))
}

/// A path as a POSIX shell takes it for one word.
fn quoted(path: &Path) -> String {
    let text = path.to_string_lossy();
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"/._-+:@%,=".contains(&b);
    if text.bytes().all(plain) { text.into_owned() } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

/// SIGHUP reopens the lot files, and rereads the one setting that may change while the daemon runs. For a reload
/// that was `asked` for by its socket the files are reopened where it is answered.
async fn reload_on_request(
    shutdown: &Shutdown,
    asked: &tokio::sync::Notify,
    sender: WeakSender,
    log: &OwnLog,
    running: &Loaded,
    env: &Environment,
) {
    loop {
        let reopens = tokio::select! {
            () = shutdown.reload.notified() => true,
            () = asked.notified() => false,
        };
        match load::load(std::env::args_os(), env) {
            Ok(loaded) => {
                log.set_level(loaded.config.log_level);
                let later = load::needs_restart(&running.config, &loaded.config);
                if !later.is_empty() {
                    tracing::warn!("only log_level is reread; a restart is needed for {}", later.join(", "));
                }
            }
            Err(error) => tracing::warn!("the configuration is not reread: {}", error.message),
        }
        if !reopens {
            continue;
        }
        let Some(sender) = sender.upgrade() else { return };
        tracing::info!("reopening the lot files");
        // Given back, the vault is gone: its end is on its way.
        let _ = sender.send(Submission::Order(Order::Reload, Ticket::unread())).await;
    }
}

/// The writer has ended by itself: the disk failed, or it panicked. The last replies go out, then the end.
async fn fail_stop(
    end: Result<Result<(), VaultError>, oneshot::error::RecvError>,
    shutdown: &Shutdown,
    server: tokio::task::JoinHandle<()>,
) -> u8 {
    match end {
        Ok(Ok(())) => tracing::error!("the writer ended before its time"),
        Ok(Err(error)) => tracing::error!("{error}"),
        Err(_) => tracing::error!("the writer panicked: nothing more is acknowledged, and lotlogd exits"),
    }
    shutdown.drain.cancel();
    if !server.is_finished() {
        let _ = tokio::time::timeout(LAST_REPLIES, server).await;
    }
    74
}
