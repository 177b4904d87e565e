//! Every limit by name with its unit, and how flags, environment and file become one [`Config`].

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::parser::ValueSource;

use crate::batch::Durability;
use crate::places::{self, Environment, SOCKET_VARIABLE};
use crate::queue::GROUP_BYTES;
use crate::settings::{self, Raw, SETTINGS, nearest};
use crate::writer::UNSYNCED_BYTES;

/// What the daemon runs with, after flags, environment, file and defaults were put together.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where lots and journal live.
    pub data_dir: PathBuf,
    /// Where to listen, unless a socket was inherited.
    pub socket: PathBuf,
    /// Mode of the socket file.
    pub socket_mode: u32,
    /// What an acknowledgement promises unless the request says.
    pub durability: Durability,
    /// User ids that may connect; with both lists empty everyone may whom the socket's mode lets in.
    pub allow_users: Vec<u32>,
    /// Group ids whose members may connect.
    pub allow_groups: Vec<u32>,
    /// Form of the own log.
    pub log_format: LogFormat,
    /// Least serious events of the own log.
    pub log_level: Level,
    /// Limits of the wire.
    pub limits: Limits,
    /// The vault's part.
    pub vault: VaultConfig,
    /// How long a drain may take.
    pub drain_timeout: Duration,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            data_dir: PathBuf::new(),
            socket: PathBuf::new(),
            socket_mode: 0o660,
            durability: Durability::Synced,
            allow_users: Vec::new(),
            allow_groups: Vec::new(),
            log_format: LogFormat::Auto,
            log_level: Level::Info,
            limits: Limits::default(),
            vault: VaultConfig::default(),
            drain_timeout: Duration::from_secs(10),
        }
    }
}

/// Form of the own log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum LogFormat {
    Auto,
    Text,
    Json,
}

/// Least serious events of the own log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum Level {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

impl LogFormat {
    /// The word of the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            LogFormat::Auto => "auto",
            LogFormat::Text => "text",
            LogFormat::Json => "json",
        }
    }
}

impl std::str::FromStr for LogFormat {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let all = [LogFormat::Auto, LogFormat::Text, LogFormat::Json];
        all.into_iter().find(|f| f.as_str() == text).ok_or_else(|| "it is auto, text or json".to_owned())
    }
}

impl Level {
    const ALL: [Level; 5] = [Level::Error, Level::Warn, Level::Info, Level::Debug, Level::Trace];

    /// The word of the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Level::Error => "error",
            Level::Warn => "warn",
            Level::Info => "info",
            Level::Debug => "debug",
            Level::Trace => "trace",
        }
    }

    /// So many steps more (or fewer) than this.
    fn moved(self, steps: i16) -> Level {
        let at = (self as i16).saturating_add(steps).clamp(0, Level::ALL.len() as i16 - 1);
        Level::ALL[at as usize]
    }
}

impl std::str::FromStr for Level {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        Level::ALL
            .into_iter()
            .find(|l| l.as_str() == text)
            .ok_or_else(|| "it is error, warn, info, debug or trace".to_owned())
    }
}

/// Most that `max_items` can be set to: a batch's records are counted in 32 bits.
pub const MAX_ITEMS_LIMIT: u64 = 100_000_000;
const _: () = assert!(MAX_ITEMS_LIMIT < u32::MAX as u64);
// A group fits into what may wait for a sync, so that a commit never splits one for its size alone.
const _: () = assert!(GROUP_BYTES as u64 <= UNSYNCED_BYTES);
// A line that is free of the budget is no longer than what a started line must receive in its time.
const _: () = assert!(FREE_LINE_BYTES <= LINE_PROGRESS_BYTES);

/// Limits of the wire, section 1 of the contract.
#[derive(Clone, Debug)]
pub struct Limits {
    /// One request line, without its newline.
    pub max_line_bytes: usize,
    /// Items in a batch.
    pub max_items: usize,
    /// One context as it is written to a record.
    pub max_context_bytes: usize,
    /// One batch as records.
    pub max_batch_bytes: usize,
    /// JSON nesting, the request object being level 1.
    pub max_nesting: usize,
    /// Requests in flight on one connection.
    pub max_requests_in_flight: usize,
    /// Bytes in flight over all connections.
    pub max_bytes_in_flight: usize,
    /// Connections.
    pub max_connections: usize,
    /// A started line must get [`LINE_PROGRESS_BYTES`] in this time.
    pub line_timeout: Duration,
    /// Replies must be read with progress in this time.
    pub reply_timeout: Duration,
}

/// What a started line must receive in every `line_timeout`, in bytes.
pub const LINE_PROGRESS_BYTES: usize = 16 << 10;
/// An unfinished line up to this many bytes is outside the budget of bytes in flight.
pub const FREE_LINE_BYTES: usize = 4 << 10;

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            max_line_bytes: 16 << 20,
            max_items: 100_000,
            max_context_bytes: 64 << 10,
            max_batch_bytes: 256 << 20,
            max_nesting: 64,
            max_requests_in_flight: 256,
            max_bytes_in_flight: 64 << 20,
            max_connections: 4096,
            line_timeout: Duration::from_secs(30),
            reply_timeout: Duration::from_secs(30),
        }
    }
}

/// What the vault runs with.
#[derive(Clone, Debug)]
pub struct VaultConfig {
    /// A `written` batch is synced and visible at the latest after this time.
    pub sync_interval: Duration,
    /// A checkpoint is made at least this often while there is something to do.
    pub checkpoint_interval: Duration,
    /// Size of one journal segment.
    pub segment_bytes: u64,
    /// Lot files held open at once.
    pub max_open_lots: usize,
    /// Memory for the session table; a full table refuses new sessions.
    pub session_memory_bytes: usize,
}

impl Default for VaultConfig {
    fn default() -> VaultConfig {
        VaultConfig {
            sync_interval: Duration::from_secs(1),
            checkpoint_interval: Duration::from_secs(30),
            segment_bytes: 32 << 20,
            max_open_lots: 16_384,
            session_memory_bytes: 256 << 20,
        }
    }
}

/// What the command line asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    /// Run the daemon.
    Run,
    /// Check configuration and places.
    Check,
    /// Print the settings in force.
    Print,
}

/// The outcome of loading.
#[derive(Debug)]
pub struct Loaded {
    /// The settings in force.
    pub config: Config,
    /// What to do.
    pub task: Task,
    /// What the operator should hear, though it is no error.
    pub warnings: Vec<String>,
}

/// Why there is no configuration.
#[derive(Debug)]
pub struct LoadError {
    /// The process's exit code: 0 (help, version), 64 or 78.
    pub exit_code: u8,
    /// What to print: on stdout with exit code 0, else on stderr.
    pub message: String,
}

impl LoadError {
    fn usage(message: String) -> LoadError {
        LoadError { exit_code: 64, message: format!("lotlogd: {message}\nTry `lotlogd --help`.") }
    }

    fn configuration(message: String) -> LoadError {
        LoadError { exit_code: 78, message: format!("lotlogd: {message}") }
    }
}

/// Puts flags, environment, file and defaults together. `arguments` begin with the program's name.
///
/// # Errors
/// [`LoadError`], with an exit code.
pub fn load(arguments: impl IntoIterator<Item = OsString>, env: &Environment) -> Result<Loaded, LoadError> {
    let flags = settings::command().try_get_matches_from(arguments).map_err(|e| LoadError {
        exit_code: if e.use_stderr() { 64 } else { 0 },
        message: e.render().to_string().trim_end().to_owned(),
    })?;
    let mut config = Config::default();
    let mut warnings = Vec::new();
    let file = flags
        .get_one::<OsString>("config")
        .cloned()
        .or_else(|| env.get("LOTLOGD_CONFIG").map(OsString::from));
    if let Some(file) = &file {
        load_file(Path::new(file), &mut config)?;
    }
    for setting in SETTINGS {
        let variable = setting.variable();
        let of_both = if setting.key == "socket" { env.get(SOCKET_VARIABLE) } else { None };
        let (variable, value) = match of_both {
            Some(value) => (SOCKET_VARIABLE.to_owned(), Some(value)),
            None => (variable.clone(), env.get(&variable)),
        };
        if let Some(value) = value {
            setting.apply(&mut config, &Raw::Text(value.to_owned())).map_err(|why| {
                LoadError::configuration(format!("{variable}={}: {why}", value.to_string_lossy()))
            })?;
        }
        if flags.value_source(setting.key) == Some(ValueSource::CommandLine)
            && let Some(value) = flags.get_one::<OsString>(setting.key)
        {
            setting.apply(&mut config, &Raw::Text(value.clone())).map_err(|why| {
                LoadError::usage(format!("--{} {}: {why}", setting.flag(), value.to_string_lossy()))
            })?;
        }
    }
    warnings.extend(unknown_variables(env));
    let steps = i16::from(flags.get_count("verbose")) - i16::from(flags.get_count("quiet"));
    config.log_level = config.log_level.moved(steps);
    if config.data_dir.as_os_str().is_empty() {
        config.data_dir = places::data_dir(env).ok_or_else(|| {
            LoadError::configuration(
                "no place for the data is known (HOME is not set): name one with --data-dir".to_owned(),
            )
        })?;
    }
    if config.socket.as_os_str().is_empty() {
        config.socket = places::daemon_socket(env);
    }
    let task = match (flags.get_flag("check"), flags.get_flag("print-config")) {
        (true, true) => {
            return Err(LoadError::usage("--check and --print-config exclude each other".to_owned()));
        }
        (true, false) => Task::Check,
        (false, true) => Task::Print,
        (false, false) => Task::Run,
    };
    Ok(Loaded { config, task, warnings })
}

fn load_file(path: &Path, config: &mut Config) -> Result<(), LoadError> {
    let shown = path.display();
    let text = std::fs::read_to_string(path).map_err(|e| {
        LoadError::configuration(format!("the configuration file {shown} cannot be read: {e}"))
    })?;
    let table: toml::Table = text.parse().map_err(|e: toml::de::Error| {
        LoadError::configuration(format!("{shown} is not TOML: {}", e.to_string().trim_end()))
    })?;
    for (key, value) in &table {
        let line = line_of(&text, key);
        let Some(setting) = settings::find(key) else {
            let near = nearest(key, SETTINGS.iter().map(|s| s.key));
            return Err(LoadError::configuration(format!(
                "{shown}:{line}: `{key}` is not a setting: did you mean `{near}`?"
            )));
        };
        setting
            .apply(config, &raw(value))
            .map_err(|why| LoadError::configuration(format!("{shown}:{line}: {key}: {why}")))?;
    }
    Ok(())
}

/// The line on which a top-level key is set.
fn line_of(text: &str, key: &str) -> usize {
    let sets = |line: &str| {
        let line = line.trim_start().trim_start_matches(['"', '\'', '[']);
        line.strip_prefix(key).is_some_and(|rest| {
            rest.trim_start_matches(['"', '\'']).trim_start().starts_with(['=', '.', ']'])
        })
    };
    text.lines().position(sets).map_or(1, |at| at + 1)
}

fn raw(value: &toml::Value) -> Raw {
    match value {
        toml::Value::String(text) => Raw::Text(text.into()),
        toml::Value::Integer(n) => Raw::Integer(*n),
        toml::Value::Float(n) => Raw::Float(*n),
        toml::Value::Array(list) => Raw::List(list.iter().map(raw).collect()),
        toml::Value::Boolean(_) => Raw::Other("a boolean"),
        toml::Value::Datetime(_) => Raw::Other("a date"),
        toml::Value::Table(_) => Raw::Other("a table"),
    }
}

/// Variables that look like settings and are none: probably a slip, but no reason not to start.
fn unknown_variables(env: &Environment) -> Vec<String> {
    let known: Vec<String> =
        SETTINGS.iter().map(settings::Setting::variable).chain(["LOTLOGD_CONFIG".to_owned()]).collect();
    let ours =
        env.variables.keys().filter_map(|name| name.to_str()).filter(|name| name.starts_with("LOTLOGD_"));
    ours.filter(|name| !known.iter().any(|k| k == name))
        .map(|name| {
            format!(
                "the environment variable {name} is no setting: did you mean {}?",
                nearest(name, known.iter().map(String::as_str))
            )
        })
        .collect()
}
