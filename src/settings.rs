//! The table of settings: each has one row, and from it come its flag, its environment variable, its key in
//! the file, its line in `--print-config`, its help and its place in the manual. The defaults are those of
//! [`Config::default`]. Knows nothing of where a value came from; that is `config`.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Arg, ArgAction, Command};

use crate::batch::Durability;
use crate::config::{Config, Level, LogFormat, MAX_ITEMS_LIMIT, MetricsAt};
use crate::units::{format_bytes, format_duration};
pub use crate::values::Raw;
use crate::values::{
    count_of, group_id, id_of, ids_of, mode_of, quote, size_of, text_of, time_of, user_id, within, word_of,
};

/// One setting.
#[derive(Debug)]
pub struct Setting {
    /// Its key in the file; the flag has dashes for the underscores.
    pub key: &'static str,
    /// Its kind, its range and its place in [`Config`].
    pub kind: Kind,
    /// What it is, for a person; the unit is told by the kind.
    pub help: &'static str,
}

type At<T> = fn(&mut Config) -> &mut T;

/// What a setting may be, and where it lives.
#[derive(Debug)]
#[allow(missing_docs)] // the names say it; ranges are inclusive
pub enum Kind {
    Size { at: At<usize>, min: u64, max: u64 },
    LongSize { at: At<u64>, min: u64, max: u64 },
    Count { at: At<usize>, min: u64, max: u64 },
    Time { at: At<Duration>, min: Duration, max: Duration },
    Path { at: At<PathBuf>, default: &'static str },
    Mode { at: At<u32> },
    Durability { at: At<Durability> },
    LogFormat { at: At<LogFormat> },
    Level { at: At<Level> },
    Users { at: At<Vec<u32>> },
    Groups { at: At<Vec<u32>> },
    Metrics { at: At<Option<MetricsAt>> },
    User { at: At<Option<u32>> },
    Group { at: At<Option<u32>> },
}

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const PIB: u64 = 1 << 50;
const CENTURY: Duration = Duration::from_secs(100 * 365 * 24 * 3600);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const MILLISECOND: Duration = Duration::from_millis(1);

const fn size(at: At<usize>, min: u64, max: u64) -> Kind {
    Kind::Size { at, min, max }
}

const fn count(at: At<usize>, min: u64, max: u64) -> Kind {
    Kind::Count { at, min, max }
}

const fn time(at: At<Duration>, min: Duration, max: Duration) -> Kind {
    Kind::Time { at, min, max }
}

/// Every setting, in the order of the help.
#[rustfmt::skip]
pub const SETTINGS: &[Setting] = &[
    Setting {
        key: "data_dir",
        kind: Kind::Path { at: |c| &mut c.data_dir, default: "$STATE_DIRECTORY, else $XDG_STATE_HOME/lotlog, else ~/.local/state/lotlog" },
        help: "Directory of the lot files and the journal; made if it is missing",
    },
    Setting {
        key: "socket",
        kind: Kind::Path { at: |c| &mut c.socket, default: "the socket inherited from systemd, else $RUNTIME_DIRECTORY/lotlog.sock, else $XDG_RUNTIME_DIR/lotlog.sock, else as root /run/lotlog/lotlog.sock, else lotlog-UID/lotlog.sock in the temp directory" },
        help: "Unix socket to listen on, also instead of an inherited one; LOTLOG_SOCKET names it for daemon and clients alike",
    },
    Setting { key: "socket_mode", kind: Kind::Mode { at: |c| &mut c.socket_mode }, help: "Mode of the socket file: who may connect at all" },
    Setting { key: "socket_owner", kind: Kind::User { at: |c| &mut c.socket_owner }, help: "User, by name or number, that owns the socket file; only root can give it to another than its own" },
    Setting { key: "socket_group", kind: Kind::Group { at: |c| &mut c.socket_group }, help: "Group, by name or number, of the socket file: one that the daemon is a member of, unless it is root" },
    Setting { key: "durability", kind: Kind::Durability { at: |c| &mut c.durability }, help: "What an acknowledgement promises unless the request says: `synced` survives power loss, `written` any death of the daemon" },
    Setting { key: "allow_users", kind: Kind::Users { at: |c| &mut c.allow_users }, help: "Users, by name or number, that may connect; with both lists empty all whom the socket's mode lets in" },
    Setting { key: "allow_groups", kind: Kind::Groups { at: |c| &mut c.allow_groups }, help: "Groups, by name or number, whose members may connect" },
    Setting { key: "metrics", kind: Kind::Metrics { at: |c| &mut c.metrics }, help: "Where to serve Prometheus metrics (/metrics, /healthz) over HTTP, to anyone who can connect: 127.0.0.1:9464, or the path of a Unix socket; without it there is no network code at work" },
    Setting { key: "log_format", kind: Kind::LogFormat { at: |c| &mut c.log_format }, help: "Form of the daemon's own log on stderr; `auto` is text, without timestamps on a terminal and under journald" },
    Setting { key: "log_level", kind: Kind::Level { at: |c| &mut c.log_level }, help: "Least serious events of the daemon's own log; each -v shows more, each -q fewer; reread on SIGHUP" },
    Setting { key: "max_line_bytes", kind: size(|c| &mut c.limits.max_line_bytes, KIB, 256 * MIB), help: "Longest request line, without its newline; beyond it `too_large`, and the connection is closed" },
    Setting { key: "max_items", kind: count(|c| &mut c.limits.max_items, 1, MAX_ITEMS_LIMIT), help: "Most items in a batch; beyond it `too_large`" },
    Setting { key: "max_context_bytes", kind: size(|c| &mut c.limits.max_context_bytes, KIB, 64 * MIB), help: "Longest context as it is written to a record; beyond it `too_large`" },
    Setting { key: "max_batch_bytes", kind: size(|c| &mut c.limits.max_batch_bytes, 4 * KIB, 16 * GIB), help: "Largest batch as records, its context copied into each; beyond it `too_large`" },
    Setting { key: "max_nesting", kind: count(|c| &mut c.limits.max_nesting, 4, 120), help: "Deepest JSON nesting, the request object being level 1; beyond it `invalid_json`" },
    Setting { key: "max_requests_in_flight", kind: count(|c| &mut c.limits.max_requests_in_flight, 1, 65_536), help: "Requests in flight on one connection; beyond it the daemon stops reading it for the time being" },
    Setting { key: "max_bytes_in_flight", kind: size(|c| &mut c.limits.max_bytes_in_flight, 64 * KIB, 64 * GIB), help: "Bytes in flight over all connections; beyond it the daemon stops reading for the time being" },
    Setting { key: "max_connections", kind: count(|c| &mut c.limits.max_connections, 1, 1_000_000), help: "Connections; a further one is answered `busy` and closed" },
    Setting { key: "max_connections_per_user", kind: count(|c| &mut c.limits.max_connections_per_user, 1, 1_000_000), help: "Connections of one user; a further one is answered `busy` and closed" },
    Setting { key: "max_bytes_in_flight_per_user", kind: size(|c| &mut c.limits.max_bytes_in_flight_per_user, 16 * KIB, 64 * GIB), help: "Bytes in flight of one user while another one sends batches too, and 10 s more; beyond it the daemon stops reading that user's connections for the time being" },
    Setting { key: "line_timeout_seconds", kind: time(|c| &mut c.limits.line_timeout, Duration::from_millis(10), HOUR), help: "A started line must get 16 KiB in this time; else `timeout`, and the connection is closed" },
    Setting { key: "reply_timeout_seconds", kind: time(|c| &mut c.limits.reply_timeout, Duration::from_millis(10), HOUR), help: "Replies must be read with some progress in this time; else the connection is closed" },
    Setting { key: "drain_timeout_seconds", kind: time(|c| &mut c.drain_timeout, Duration::ZERO, HOUR), help: "How long open requests may take to finish after SIGTERM or SIGINT; beyond it exit 75" },
    Setting { key: "sync_interval_seconds", kind: time(|c| &mut c.vault.sync_interval, MILLISECOND, MINUTE), help: "A `written` batch is synced and in its lot file at the latest after this time" },
    Setting { key: "checkpoint_interval_seconds", kind: time(|c| &mut c.vault.checkpoint_interval, Duration::from_millis(10), HOUR), help: "Time between checkpoints while there is something to do" },
    Setting { key: "segment_bytes", kind: Kind::LongSize { at: |c| &mut c.vault.segment_bytes, min: 256 * KIB, max: GIB }, help: "Size of one journal segment; several are on disk at any time" },
    Setting { key: "max_open_lots", kind: count(|c| &mut c.vault.max_open_lots, 2, 1_000_000), help: "Lot files held open at once; lowered to what the limit of open files leaves" },
    Setting { key: "session_memory_bytes", kind: size(|c| &mut c.vault.session_memory_bytes, 64 * KIB, 64 * GIB), help: "Memory for the table of sessions; when it is full a new session is answered `busy`" },
    Setting { key: "rotate_bytes", kind: Kind::LongSize { at: |c| &mut c.vault.rotate_bytes, min: 0, max: PIB }, help: "A lot file that has grown to this size is moved to archive/; 0 for never" },
    Setting { key: "rotate_age_seconds", kind: time(|c| &mut c.vault.rotate_age, Duration::ZERO, CENTURY), help: "A lot file whose first record is older than this is moved to archive/; looked at at the start, as often, and every 10 minutes at least; 0 for never" },
    Setting { key: "archive_compress", kind: count(|c| &mut c.vault.archive_compress, 0, 19), help: "Archived files are compressed in the background with this level of zstd; 0 for not at all" },
    Setting { key: "retain_age_seconds", kind: time(|c| &mut c.vault.retain_age, Duration::ZERO, CENTURY), help: "Archived files that were last written so long ago are removed, with their records, those of sealed lots apart; 0 for never" },
    Setting { key: "retain_bytes", kind: Kind::LongSize { at: |c| &mut c.vault.retain_bytes, min: 0, max: PIB }, help: "While archived files take more than this the oldest are removed, with their records, those of sealed lots apart; 0 for never" },
];

/// The setting of this key.
pub fn find(key: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|s| s.key == key)
}

/// Of a mistyped name no more than this part may be wrong, or it was no slip.
const SLIP_PART: usize = 3;

/// The known name most like `name`, if one is like it: by spelling, or because it begins or ends so.
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let folded = name.to_ascii_lowercase().replace('-', "_");
    let likeness = |key: &str| strsim::damerau_levenshtein(&folded, &key.to_ascii_lowercase());
    let affix = |key: &str| {
        let key = key.to_ascii_lowercase();
        folded.len() > SLIP_PART && (key.starts_with(&folded) || key.ends_with(&folded))
    };
    let near = known.into_iter().min_by_key(|key| (!affix(key), likeness(key)))?;
    (affix(near) || likeness(near) <= folded.len() / SLIP_PART).then_some(near)
}

impl Setting {
    /// The flag, without its leading dashes.
    pub fn flag(&self) -> String {
        self.key.replace('_', "-")
    }

    /// The environment variable.
    pub fn variable(&self) -> String {
        format!("LOTLOGD_{}", self.key.to_ascii_uppercase())
    }

    /// Puts `raw` into its place.
    ///
    /// # Errors
    /// What is wrong with it, for the end of a message.
    pub fn apply(&self, config: &mut Config, raw: &Raw) -> Result<(), String> {
        match &self.kind {
            Kind::Size { at, min, max } => {
                let bytes = within(size_of(raw)?, *min, *max, format_bytes)?;
                *at(config) =
                    usize::try_from(bytes).map_err(|_| "that is more than this machine can address")?;
            }
            Kind::LongSize { at, min, max } => *at(config) = within(size_of(raw)?, *min, *max, format_bytes)?,
            Kind::Count { at, min, max } => {
                let n = within(count_of(raw)?, *min, *max, |n| n.to_string())?;
                *at(config) = usize::try_from(n).map_err(|_| "that is more than this machine can address")?;
            }
            Kind::Time { at, min, max } => *at(config) = within(time_of(raw)?, *min, *max, format_duration)?,
            Kind::Path { at, .. } => match raw {
                Raw::Text(text) if !text.is_empty() && !text.as_encoded_bytes().contains(&0) => {
                    *at(config) = PathBuf::from(text);
                }
                _ => return Err("a path is text, and not empty".into()),
            },
            Kind::Mode { at } => *at(config) = mode_of(raw)?,
            Kind::Durability { at } => *at(config) = word_of(raw)?.parse()?,
            Kind::LogFormat { at } => *at(config) = word_of(raw)?.parse()?,
            Kind::Level { at } => *at(config) = word_of(raw)?.parse()?,
            Kind::Users { at } => *at(config) = ids_of(raw, "user", user_id)?,
            Kind::Groups { at } => *at(config) = ids_of(raw, "group", group_id)?,
            Kind::User { at } => *at(config) = id_of(raw, "user", user_id)?,
            Kind::Group { at } => *at(config) = id_of(raw, "group", group_id)?,
            Kind::Metrics { at } => {
                *at(config) = match text_of(raw)?.ok_or("it must be text, in quotes")? {
                    "" => None,
                    text => Some(text.parse()?),
                }
            }
        }
        Ok(())
    }

    /// The value in `config` as the file writes it, quotes and all.
    ///
    /// # Errors
    /// A path that is not UTF-8 cannot be written.
    pub fn toml(&self, config: &Config) -> Result<String, String> {
        // `at` lends for writing; a copy keeps the caller's untouched.
        let mut config = config.clone();
        Ok(match &self.kind {
            Kind::Count { at, .. } => at(&mut config).to_string(),
            Kind::Path { at, .. } => {
                let path = at(&mut config);
                let text = path
                    .to_str()
                    .ok_or_else(|| format!("{path:?} is not UTF-8 and cannot be written as TOML"))?;
                quote(text)
            }
            Kind::Users { at } | Kind::Groups { at } => format!("{:?}", at(&mut config)),
            Kind::User { at } | Kind::Group { at } => {
                at(&mut config).map_or_else(|| quote(""), |id| id.to_string())
            }
            Kind::Metrics { at } => {
                quote(&at(&mut config).as_ref().map(MetricsAt::to_string).unwrap_or_default())
            }
            _ => quote(&self.text(&mut config)),
        })
    }

    fn text(&self, config: &mut Config) -> String {
        match &self.kind {
            Kind::Size { at, .. } => format_bytes(*at(config) as u64),
            Kind::LongSize { at, .. } => format_bytes(*at(config)),
            Kind::Count { at, .. } => at(config).to_string(),
            Kind::Time { at, .. } => format_duration(*at(config)),
            Kind::Path { default, .. } => (*default).to_owned(),
            Kind::Mode { at } => format!("{:04o}", at(config)),
            Kind::Durability { at } => at(config).to_string(),
            Kind::LogFormat { at } => at(config).as_str().to_owned(),
            Kind::Level { at } => at(config).as_str().to_owned(),
            Kind::Users { .. } | Kind::Groups { .. } | Kind::Metrics { .. } => "none".to_owned(),
            Kind::User { .. } | Kind::Group { .. } => "the daemon's".to_owned(),
        }
    }

    /// What it takes, for a person: unit and range.
    fn takes(&self) -> String {
        match &self.kind {
            Kind::Size { min, max, .. } | Kind::LongSize { min, max, .. } => {
                format!(
                    "bytes, B, KB, MB, GB, KiB, MiB or GiB; {} to {}",
                    format_bytes(*min),
                    format_bytes(*max)
                )
            }
            Kind::Count { min, max, .. } => format!("a number; {min} to {max}"),
            Kind::Time { min, max, .. } => {
                format!("seconds, or ms, s, m, h, d; {} to {}", format_duration(*min), format_duration(*max))
            }
            Kind::Path { .. } => "a path".into(),
            Kind::Mode { .. } => "octal; 0000 to 0777".into(),
            Kind::Durability { .. } => "synced or written".into(),
            Kind::LogFormat { .. } => "auto, text or json".into(),
            Kind::Level { .. } => "error, warn, info, debug or trace".into(),
            Kind::Users { .. } | Kind::Groups { .. } => "names or numbers, separated by commas".into(),
            Kind::User { .. } | Kind::Group { .. } => "a name or number".into(),
            Kind::Metrics { .. } => "an IP address and port, or a path with a slash".into(),
        }
    }

    fn value_name(&self) -> &'static str {
        match &self.kind {
            Kind::Size { .. } | Kind::LongSize { .. } => "SIZE",
            Kind::Count { .. } => "N",
            Kind::Time { .. } => "TIME",
            Kind::Path { .. } => "PATH",
            Kind::Mode { .. } => "MODE",
            Kind::Durability { .. } => "synced|written",
            Kind::LogFormat { .. } => "auto|text|json",
            Kind::Level { .. } => "LEVEL",
            Kind::Users { .. } | Kind::Groups { .. } => "LIST",
            Kind::Metrics { .. } => "ADDR|PATH",
            Kind::User { .. } => "USER",
            Kind::Group { .. } => "GROUP",
        }
    }

    fn arg(&self) -> Arg {
        let default = self.text(&mut Config::default());
        let help = format!("{} [{}] [default: {default}]", self.help, self.takes());
        let long = format!(
            "{}.\n\nTakes {}. Default: {default}. Environment: {}.",
            self.help,
            self.takes(),
            self.variable()
        );
        Arg::new(self.key)
            .long(self.flag())
            .value_name(self.value_name())
            .value_parser(clap::value_parser!(OsString))
            .allow_hyphen_values(false)
            .help(help)
            .long_help(long)
    }
}

/// The command line of `lotlogd`, for parsing, the manual and the completions.
pub fn command() -> Command {
    let switch = |name: &'static str, help: &'static str| {
        Arg::new(name).long(name).action(ArgAction::SetTrue).help(help)
    };
    Command::new("lotlogd")
        .version(env!("CARGO_PKG_VERSION"))
        .about("Durable logging daemon: many producers over a Unix socket, one writer, one JSONL file per lot")
        .max_term_width(110)
        .args(SETTINGS.iter().map(Setting::arg))
        .next_help_heading("Other options")
        .arg(
            Arg::new("config")
                .long("config")
                .value_name("FILE")
                .value_parser(clap::value_parser!(OsString))
                .help("TOML file with any of these settings, underscores for dashes [environment: LOTLOGD_CONFIG]"),
        )
        .arg(switch("check", "Check the configuration and what a start would touch, change nothing; exit 0 or 78; with -q say only what is wrong"))
        .arg(switch("print-config", "Print the settings in force as a TOML file that --config accepts"))
        .arg(Arg::new("verbose").short('v').long("verbose").action(ArgAction::Count).help("Log more; twice: yet more"))
        .arg(Arg::new("quiet").short('q').long("quiet").action(ArgAction::Count).help("Log less; twice: only errors"))
        .after_help(AFTER_HELP)
}

const AFTER_HELP: &str = "\
Precedence: flag, environment (LOTLOGD_ and the key in capitals), file, default.

Signals: SIGTERM and SIGINT drain, a second one ends the waiting; SIGHUP writes a checkpoint, reopens the lot
files (for rotation by renaming) and rereads log_level.

Exit codes: 0 clean; 64 wrong usage; 65 damaged data, nothing was skipped; 73 the data directory or the socket is
held by another daemon; 74 I/O error, what was acknowledged is safe; 75 the drain deadline passed;
78 wrong configuration.";

/// The settings of `config` as a TOML file, each explained.
///
/// # Errors
/// A path that is not UTF-8 cannot be written.
pub fn print(config: &Config) -> Result<String, String> {
    let mut out = format!(
        "# Settings of lotlogd {}. Every key is optional; precedence: flag, environment, file, default.\n",
        env!("CARGO_PKG_VERSION")
    );
    for setting in SETTINGS {
        let default = setting.text(&mut Config::default());
        // Writing to a String cannot fail.
        let _ = write!(
            out,
            "\n# {}.\n# Takes {}. Default: {default}.\n{} = {}\n",
            setting.help,
            setting.takes(),
            setting.key,
            setting.toml(config)?
        );
    }
    Ok(out)
}
