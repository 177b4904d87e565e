//! The command-line companion: which commands there are, what they share, and how each ends. One file per
//! command; what a command does is there. To add one: a file, a variant of [`Command`], a line in `run`.

mod bench;
mod cat;
mod failure;
mod hooks;
mod input;
mod items;
mod json;
mod lots;
mod own_daemon;
mod pages;
mod reload;
mod requests;
mod rotate;
mod seal;
mod send;
mod spool;
mod status;
mod summary;
mod sync;
mod table;
mod tail;
mod terminal;
mod top;
mod units;
mod usage;
mod verify;
mod view;
mod workload;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{CommandFactory, Parser, Subcommand};

use failure::Failure;

/// Sends batches to lotlogd, and reads what it stored.
#[derive(Debug, Parser)]
#[command(name = "lotlog", version, after_help = EXIT_CODES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXIT_CODES: &str = "\
Exit codes: 0 done; 64 wrong usage; 65 data refused or not found; 69 no daemon; 74 input, output or disk trouble.";

#[derive(Debug, Subcommand)]
enum Command {
    /// Send items (CSV, JSONL) or ready request lines to the daemon.
    Send(send::Args),
    /// Show how the daemon is doing.
    Status(status::Args),
    /// Show how the daemon is doing, live.
    Top(top::Args),
    /// Wait until everything the daemon accepted is on disk and in the lot files.
    Sync(sync::Args),
    /// List the lots: records, bytes, time of the last record.
    Lots(lots::Args),
    /// Print a lot's records.
    Cat(cat::Args),
    /// Print a lot's last records, and follow it.
    Tail(tail::Args),
    /// Have the daemon reopen the lot files, and wait for it.
    Reload(reload::Args),
    /// Have the daemon move lot files into the archive, and wait for it.
    Rotate(rotate::Args),
    /// Have the daemon close a lot for good.
    Seal(seal::Args),
    /// Say what is wrong with a data directory, if anything is.
    Verify(verify::Args),
    /// Measure a daemon with the canonical workload.
    Bench(bench::Args),
    /// Print a completion script for a shell.
    Completions(pages::CompletionsArgs),
    /// Print a man page (roff).
    Man(pages::ManArgs),
}

/// How to reach the daemon: the same for every command.
#[derive(Clone, Debug, clap::Args)]
struct Daemon {
    /// The daemon's socket [default: $XDG_RUNTIME_DIR/lotlog.sock, else for root /run/lotlog/lotlog.sock, else
    /// lotlog-UID/lotlog.sock in the system's temporary directory]
    #[arg(long, env = "LOTLOG_SOCKET", value_name = "PATH")]
    socket: Option<PathBuf>,
    /// Longest wait for the daemon: for an answer, and for it to come back (units ms, s, m, h; a bare number is seconds)
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = units::duration)]
    timeout: Duration,
}

impl Daemon {
    fn socket(&self) -> Result<PathBuf, Failure> {
        match &self.socket {
            Some(path) if !path.as_os_str().is_empty() => Ok(path.clone()),
            _ => hooks::default_socket(),
        }
    }

    fn connect(&self) -> Result<lotlog::client::Client, Failure> {
        lotlog::client::Client::connect(&self.socket()?, self.timeout).map_err(Failure::from)
    }
}

fn command() -> clap::Command {
    Cli::command()
}

fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Send(args) => send::run(args),
        Command::Status(args) => status::run(&args),
        Command::Top(args) => top::run(&args),
        Command::Sync(args) => sync::run(&args),
        Command::Lots(args) => lots::run(&args),
        Command::Cat(args) => cat::run(&args),
        Command::Tail(args) => tail::run(&args),
        Command::Reload(args) => reload::run(&args),
        Command::Rotate(args) => rotate::run(&args),
        Command::Seal(args) => seal::run(&args),
        Command::Verify(args) => verify::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Completions(args) => pages::completions(&args),
        Command::Man(args) => pages::man(&args),
    }
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version come this way too; a reader that has gone is no error.
            let _ = error.print();
            return if error.use_stderr() { failure::USAGE.into() } else { ExitCode::SUCCESS };
        }
    };
    match run(cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}
