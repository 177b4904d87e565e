//! A memory cgroup around the daemon, where root can make one: the kernel's own count, and its limit.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// The daemon is killed beyond this. What it needs at most by its configuration is less; page cache, which the
/// kernel takes back, may fill the rest.
const LIMIT_BYTES: u64 = 1 << 30;

/// Version 2 where it has the memory controller, else version 1.
struct Names {
    limit: &'static str,
    peak: &'static str,
    kills: &'static str,
    anonymous: &'static str,
}

const V2: Names =
    Names { limit: "memory.max", peak: "memory.peak", kills: "memory.events", anonymous: "anon " };
const V1: Names = Names {
    limit: "memory.limit_in_bytes",
    peak: "memory.max_usage_in_bytes",
    kills: "memory.oom_control",
    anonymous: "rss ",
};

/// Removed when dropped; the daemon has ended by then, or goes to the parent.
pub struct Cage {
    path: PathBuf,
    names: &'static Names,
}

impl Cage {
    /// `None`, said in a line, where none can be made.
    pub fn make() -> Option<Cage> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("lotlog-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::SeqCst));
        let unified = Path::new("/sys/fs/cgroup");
        let controllers = std::fs::read_to_string(unified.join("cgroup.controllers")).unwrap_or_default();
        let (parent, names) = if controllers.split_whitespace().any(|word| word == "memory") {
            let _ = std::fs::write(unified.join("cgroup.subtree_control"), "+memory");
            (unified.to_owned(), &V2)
        } else {
            (unified.join("memory"), &V1)
        };
        let cage = Cage { path: parent.join(name), names };
        let made = std::fs::create_dir(&cage.path)
            .and_then(|()| std::fs::write(cage.path.join(names.limit), LIMIT_BYTES.to_string()));
        if let Err(error) = made {
            println!("SKIPPED: a memory cgroup needs root and the memory controller: {error}");
            let _ = std::fs::remove_dir(&cage.path);
            return None;
        }
        Some(cage)
    }

    /// What the daemon's command begins with, to run inside.
    pub fn wrapper(&self) -> Vec<String> {
        let script = r#"echo $$ > "$0/cgroup.procs" && exec "$@""#;
        ["sh", "-c", script].into_iter().map(str::to_owned).chain([self.path.display().to_string()]).collect()
    }

    fn read(&self, file: &str) -> String {
        std::fs::read_to_string(self.path.join(file)).unwrap_or_default()
    }

    /// How many processes in it were killed for want of memory.
    pub fn kills(&self) -> u64 {
        let text = self.read(self.names.kills);
        let count = text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok());
        count.unwrap_or(0)
    }

    pub fn report(&self) -> String {
        let mib = |text: &str| text.trim().parse::<u64>().map_or("?".to_owned(), |b| (b >> 20).to_string());
        let stat = self.read("memory.stat");
        let anonymous = stat.lines().find_map(|line| line.strip_prefix(self.names.anonymous)).unwrap_or("?");
        format!(
            "cgroup: at most {} MiB with page cache and sockets, {} MiB anonymous now",
            mib(&self.read(self.names.peak)),
            mib(anonymous)
        )
    }
}

impl Drop for Cage {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir(&self.path);
    }
}
