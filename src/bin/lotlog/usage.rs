//! What the kernel says a process has used: processor time and memory, from /proc.

use std::io;

/// What `utime` and `stime` count per second: USER_HZ, 100 on every architecture of today.
const TICKS_PER_SECOND: f64 = 100.0;

/// Processor time of all threads of a process so far, user and system.
pub fn cpu_seconds(pid: u32) -> io::Result<f64> {
    let path = format!("/proc/{pid}/stat");
    let stat = std::fs::read_to_string(&path)?;
    // The name in parentheses may hold anything: the fields are counted from behind it.
    let fields: Vec<&str> = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().collect();
    let field = |at: usize| fields.get(at).and_then(|word| word.parse::<f64>().ok());
    let (user, system) = field(11).zip(field(12)).ok_or_else(|| strange(&path, "utime and stime"))?;
    Ok((user + system) / TICKS_PER_SECOND)
}

/// The most it has had resident so far, in bytes; the page cache is not its own.
pub fn most_resident_bytes(pid: u32) -> io::Result<u64> {
    Ok(number(&format!("/proc/{pid}/status"), "VmHWM")? << 10)
}

/// A number in a file of /proc, behind its name and a colon.
pub fn number(path: &str, key: &str) -> io::Result<u64> {
    let text = std::fs::read_to_string(path)?;
    let rest = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
    let word = rest.and_then(|rest| rest.split_whitespace().next()).and_then(|word| word.parse().ok());
    word.ok_or_else(|| strange(path, key))
}

fn strange(path: &str, key: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{path} has no {key}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_this_process_used_is_read_and_grows() {
        let pid = std::process::id();
        let before = (cpu_seconds(pid).expect("time"), most_resident_bytes(pid).expect("memory"));
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
        while cpu_seconds(pid).expect("time") < before.0 + 0.05 {
            assert!(std::time::Instant::now() < deadline, "this loop uses no processor time");
        }
        let much = std::hint::black_box(vec![1u8; 64 << 20]);
        let after = most_resident_bytes(pid).expect("memory");
        assert!(after >= before.1 && after >= much.len() as u64, "{before:?} {after}");
        assert!(number("/proc/self/status", "NoSuchKey").is_err());
    }
}
