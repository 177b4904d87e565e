//! How flags, environment and file become one [`Config`]: precedence flag, environment, file, default. Knows
//! the table of settings, not what they are for.

use std::ffi::OsString;
use std::path::Path;

use clap::parser::ValueSource;

use crate::config::Config;
use crate::places::{self, Environment, SOCKET_VARIABLE};
use crate::settings::{self, Raw, SETTINGS, nearest};

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
