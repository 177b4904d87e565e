//! How flags, environment and file become one [`Config`]: precedence flag, environment, file, default. Knows
//! the table of settings, not what they are for.

use std::ffi::OsString;
use std::path::Path;

use clap::parser::ValueSource;
use toml::de::{DeTable, DeValue};

use crate::config::{Config, MetricsAt, VaultConfig};
use crate::places::{self, Environment, SOCKET_VARIABLE};
use crate::settings::{self, Raw, SETTINGS, nearest};
use crate::units::{format_bytes, format_duration};

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
    /// Whether somebody named the socket: then an inherited one gives way.
    pub socket_is_named: bool,
    /// What to do.
    pub task: Task,
    /// Whether `--check` says only what is wrong.
    pub is_quiet: bool,
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
    let socket_is_named = !config.socket.as_os_str().is_empty();
    if !socket_is_named {
        config.socket = places::daemon_socket(env);
    }
    for path in [&mut config.data_dir, &mut config.socket] {
        // What is shown and pasted is then good in any directory; an unknown one leaves the path as it is.
        *path = std::path::absolute(&*path).unwrap_or_else(|_| path.clone());
    }
    if let Some(MetricsAt::Unix(path)) = &mut config.metrics {
        *path = std::path::absolute(&*path).unwrap_or_else(|_| path.clone());
    }
    if let Some(MetricsAt::Unix(path)) = &config.metrics
        && *path == config.socket
    {
        return Err(LoadError::configuration(format!(
            "metrics and socket are both {}: give metrics another path",
            path.display()
        )));
    }
    warnings.extend(oddities(&config));
    let task = match (flags.get_flag("check"), flags.get_flag("print-config")) {
        (true, true) => {
            return Err(LoadError::usage("--check and --print-config exclude each other".to_owned()));
        }
        (true, false) => Task::Check,
        (false, true) => Task::Print,
        (false, false) => Task::Run,
    };
    let is_quiet = flags.get_count("quiet") > 0;
    Ok(Loaded { config, socket_is_named, task, is_quiet, warnings })
}

fn load_file(path: &Path, config: &mut Config) -> Result<(), LoadError> {
    let shown = path.display();
    let text = std::fs::read_to_string(path).map_err(|e| {
        LoadError::configuration(format!("the configuration file {shown} cannot be read: {e}"))
    })?;
    let line_of = |at: usize| 1 + text.bytes().take(at).filter(|b| *b == b'\n').count();
    let table = DeTable::parse(&text).map_err(|e| {
        LoadError::configuration(format!("{shown} is not TOML: {}", e.to_string().trim_end()))
    })?;
    let mut entries: Vec<_> = table.get_ref().iter().collect();
    entries.sort_by_key(|(key, _)| key.span().start);
    for (key, value) in entries {
        let (line, key) = (line_of(key.span().start), key.get_ref());
        let Some(setting) = settings::find(key) else {
            let next = nearest(key, SETTINGS.iter().map(|s| s.key)).map_or_else(
                || "`lotlogd --help` lists them".to_owned(),
                |near| format!("did you mean `{near}`?"),
            );
            return Err(LoadError::configuration(format!(
                "{shown}:{line}: `{key}` is not a setting: {next}"
            )));
        };
        setting
            .apply(config, &raw(value.get_ref()))
            .map_err(|why| LoadError::configuration(format!("{shown}:{line}: {key}: {why}")))?;
    }
    Ok(())
}

fn raw(value: &DeValue<'_>) -> Raw {
    match value {
        DeValue::String(text) => Raw::Text(text.as_ref().into()),
        // A mode: 0o660 is taken for what it looks like, 660 is not.
        DeValue::Integer(n) if n.radix() == 8 => Raw::Text(format!("0o{}", n.as_str()).into()),
        DeValue::Integer(n) => {
            i64::from_str_radix(n.as_str(), n.radix()).map_or(Raw::Other("so large a number"), Raw::Integer)
        }
        DeValue::Float(n) => n.as_str().parse().map_or(Raw::Other("such a number"), Raw::Float),
        DeValue::Array(list) => Raw::List(list.iter().map(|value| raw(value.get_ref())).collect()),
        DeValue::Boolean(_) => Raw::Other("a boolean"),
        DeValue::Datetime(_) => Raw::Other("a date"),
        DeValue::Table(_) => Raw::Other("a table"),
    }
}

/// Settings that are right alone and odd together, or odd beside the contract.
fn oddities(config: &Config) -> Vec<String> {
    let (limits, mut odd) = (&config.limits, Vec::new());
    if limits.max_bytes_in_flight < limits.max_line_bytes {
        odd.push(format!(
            "max_bytes_in_flight ({}) is below max_line_bytes ({}): long lines are read one connection at a time",
            format_bytes(limits.max_bytes_in_flight as u64),
            format_bytes(limits.max_line_bytes as u64)
        ));
    }
    if let Some(MetricsAt::Tcp(address)) = &config.metrics
        && !address.ip().is_loopback()
    {
        odd.push(format!(
            "metrics ({address}) is no loopback address: whoever reaches it reads the metrics, without a password"
        ));
    }
    let promised = VaultConfig::default().sync_interval;
    if config.vault.sync_interval > promised {
        odd.push(format!(
            "sync_interval_seconds is {}: power loss may take that much of `written` batches, where the contract says {}",
            format_duration(config.vault.sync_interval),
            format_duration(promised)
        ));
    }
    odd
}

/// The keys whose values differ, less the one that is reread.
pub fn needs_restart(running: &Config, wanted: &Config) -> Vec<&'static str> {
    let differ = |s: &&settings::Setting| s.key != "log_level" && s.toml(running) != s.toml(wanted);
    SETTINGS.iter().filter(differ).map(|s| s.key).collect()
}

/// Variables that look like settings and are none: probably a slip, but no reason not to start.
fn unknown_variables(env: &Environment) -> Vec<String> {
    let known: Vec<String> =
        SETTINGS.iter().map(settings::Setting::variable).chain(["LOTLOGD_CONFIG".to_owned()]).collect();
    let ours =
        env.variables.keys().filter_map(|name| name.to_str()).filter(|name| name.starts_with("LOTLOGD_"));
    ours.filter(|name| !known.iter().any(|k| k == name))
        .map(|name| {
            let next = nearest(name, known.iter().map(String::as_str)).map_or_else(
                || "`lotlogd --help` lists them".to_owned(),
                |near| format!("did you mean {near}?"),
            );
            format!("the environment variable {name} is no setting: {next}")
        })
        .collect()
}
