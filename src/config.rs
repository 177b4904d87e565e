//! Every setting and limit by name, with its unit and its default. Knows nothing of flags and files.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::batch::Durability;
use crate::door::Access;

/// What the daemon runs with, after flags, environment, file and defaults were put together.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where lots and journal live.
    pub data_dir: PathBuf,
    /// Where to listen, unless a socket was inherited.
    pub socket: PathBuf,
    /// Mode of the socket file.
    pub socket_mode: u32,
    /// Who owns it; `None`: the daemon's user.
    pub socket_owner: Option<u32>,
    /// Its group; `None`: the daemon's, or its directory's.
    pub socket_group: Option<u32>,
    /// What an acknowledgement promises unless the request says.
    pub durability: Durability,
    /// User ids that may connect; with both lists empty everyone may whom the socket's mode lets in.
    pub allow_users: Vec<u32>,
    /// Group ids whose members may connect.
    pub allow_groups: Vec<u32>,
    /// Where the metrics page is served; `None`: nowhere.
    pub metrics: Option<MetricsAt>,
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
            socket_owner: None,
            socket_group: None,
            durability: Durability::Synced,
            allow_users: Vec::new(),
            allow_groups: Vec::new(),
            metrics: None,
            log_format: LogFormat::Auto,
            log_level: Level::Info,
            limits: Limits::default(),
            vault: VaultConfig::default(),
            drain_timeout: Duration::from_secs(10),
        }
    }
}

/// So many times a request's bytes are there at most while it is read, decoded and normalised: as it came, in a
/// buffer that doubles, and as its parts and the whole of what is stored.
const COPIES_OF_A_REQUEST: usize = 6;
/// What a connection takes at most, in bytes, beside the budget: its unsent replies, here and in the kernel, its
/// unfinished line and itself.
const CONNECTION_BYTES: usize = 64 << 10;
/// What is there before anybody connects, with the lots that are remembered.
const BASE_BYTES: usize = 32 << 20;

impl Config {
    /// Who may connect, as far as the socket file says.
    pub fn socket_access(&self) -> Access {
        Access { mode: self.socket_mode, owner: self.socket_owner, group: self.socket_group }
    }

    /// What the daemon takes of memory at most, in bytes, whatever its clients do: the page cache apart. One
    /// line more than the budget allows may always be finished.
    pub fn most_memory_bytes(&self) -> usize {
        let requests = self.limits.max_bytes_in_flight.saturating_add(self.limits.max_line_bytes);
        requests
            .saturating_mul(COPIES_OF_A_REQUEST)
            .saturating_add(self.limits.max_connections.saturating_mul(CONNECTION_BYTES))
            .saturating_add(self.vault.session_memory_bytes)
            .saturating_add(BASE_BYTES)
    }
}

/// Where the metrics page is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MetricsAt {
    /// On this address.
    Tcp(SocketAddr),
    /// On a Unix socket.
    Unix(PathBuf),
}

impl fmt::Display for MetricsAt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MetricsAt::Tcp(address) => address.fmt(f),
            MetricsAt::Unix(path) => path.display().fmt(f),
        }
    }
}

impl std::str::FromStr for MetricsAt {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        if text.contains('/') {
            return Ok(MetricsAt::Unix(text.into()));
        }
        text.parse().map(MetricsAt::Tcp).map_err(|_| {
            "it is an IP address with a port, such as 127.0.0.1:9464, or the path of a socket with a slash in it"
                .to_owned()
        })
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
    pub fn moved(self, steps: i16) -> Level {
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
    /// Of one user, while another one sends batches too.
    pub max_bytes_in_flight_per_user: usize,
    /// Connections.
    pub max_connections: usize,
    /// Of one user.
    pub max_connections_per_user: usize,
    /// Connections that are being told no, or why they end, at one time; further ones are just closed. Not a setting.
    pub max_lingering: usize,
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
            max_bytes_in_flight_per_user: 128 << 10,
            max_connections: 4096,
            max_connections_per_user: 4096,
            max_lingering: 64,
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
    /// A lot file of this size goes to the archive; 0 for none.
    pub rotate_bytes: u64,
    /// A lot file that began longer ago than this goes to the archive; 0 for none.
    pub rotate_age: Duration,
    /// Level of compression of archived files; 0 for none.
    pub archive_compress: usize,
    /// Archived files older than this are removed; 0 for none.
    pub retain_age: Duration,
    /// The oldest archived files are removed while all take more than this; 0 for any size.
    pub retain_bytes: u64,
}

impl Default for VaultConfig {
    fn default() -> VaultConfig {
        VaultConfig {
            sync_interval: Duration::from_secs(1),
            checkpoint_interval: Duration::from_secs(30),
            segment_bytes: 32 << 20,
            max_open_lots: 16_384,
            session_memory_bytes: 256 << 20,
            rotate_bytes: 0,
            rotate_age: Duration::ZERO,
            archive_compress: 0,
            retain_age: Duration::ZERO,
            retain_bytes: 0,
        }
    }
}
