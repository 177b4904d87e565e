//! `lotlog status`: what the daemon says of itself, for people or as it came.

use std::io::Write;
use std::time::{Duration, Instant};

use lotlog::client::{Client, ClientError};
use serde_json::Value;

use crate::failure::Failure;
use crate::{Daemon, units};

const RETRY_PAUSE: Duration = Duration::from_millis(50);

/// Show how the daemon is doing.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The daemon's answer as it came: one JSON object
    #[arg(long)]
    json: bool,
    /// Wait so long for a daemon that is not there yet or still recovering (units ms, s, m, h)
    #[arg(long, value_name = "TIME", value_parser = units::duration)]
    wait: Option<Duration>,
    #[command(flatten)]
    daemon: Daemon,
}

pub fn run(args: &Args) -> Result<(), Failure> {
    let deadline = Instant::now() + args.wait.unwrap_or_default();
    let line = loop {
        match ask(&args.daemon) {
            Ok(line) => break line,
            Err(error) => {
                let left = deadline.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return Err(error);
                }
                std::thread::sleep(RETRY_PAUSE.min(left));
            }
        }
    };
    let text = if args.json { String::from_utf8_lossy(&line).into_owned() + "\n" } else { table(&line) };
    std::io::stdout().write_all(text.as_bytes()).map_err(|error| Failure::output(&error))
}

fn ask(daemon: &Daemon) -> Result<Vec<u8>, Failure> {
    let mut client = daemon.connect()?;
    page(&mut client)
}

/// The status page's text.
pub fn page(client: &mut Client) -> Result<Vec<u8>, Failure> {
    let line = client.request(br#"{"op":"status"}"#)?;
    match serde_json::from_slice::<Value>(&line) {
        Ok(page) if page.get("ok") == Some(&Value::Bool(false)) => {
            let reply = client.parse(&line)?;
            let why = reply.error.map(|error| error.to_string()).unwrap_or_default();
            Err(Failure { code: crate::failure::NO_DAEMON, message: why })
        }
        Ok(Value::Object(_)) => Ok(line),
        _ => Err(ClientError::BadReply {
            path: "the socket".into(),
            text: String::from_utf8_lossy(&line).chars().take(200).collect(),
        }
        .into()),
    }
}

/// One line a key, in the daemon's order, with units for people.
fn table(line: &[u8]) -> String {
    let Ok(Value::Object(page)) = serde_json::from_slice(line) else { return String::new() };
    let shown = page.iter().filter(|(key, _)| *key != "ok");
    let width = shown.clone().map(|(key, _)| key.len()).max().unwrap_or(0);
    let mut text = String::new();
    for (key, value) in shown {
        text += &format!("{key:width$}  {}\n", show(key, value));
    }
    text
}

fn show(key: &str, value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => match (number.as_u64(), number.as_f64()) {
            (Some(bytes), _) if key.ends_with("bytes") || key == "bytes_written" => units::bytes(bytes),
            (_, Some(seconds)) if key == "uptime_seconds" => uptime(seconds),
            (Some(count), _) if key != "pid" => units::count(count),
            _ => number.to_string(),
        },
        Value::Object(parts) if parts.is_empty() => "none".to_owned(),
        Value::Object(parts) => {
            let show = |(name, value): (&String, &Value)| match value.as_f64() {
                Some(seconds) if key.ends_with("_seconds") => format!("{name} {}", units::latency(seconds)),
                _ => format!("{name} {value}"),
            };
            parts.iter().map(show).collect::<Vec<_>>().join("  ")
        }
        Value::Null => "-".to_owned(),
        other => other.to_string(),
    }
}

/// A time that the daemon has been up.
pub fn uptime(seconds: f64) -> String {
    let seconds = seconds as u64;
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match seconds {
        0..60 => format!("{seconds} s"),
        60..86_400 => format!("{hours}:{minutes:02}:{:02} h", seconds % 60),
        _ => format!("{days} d {hours}:{minutes:02} h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_shows_every_key_with_its_unit() {
        let page = br#"{"ok":true,"version":"0.1.0","pid":4242,"uptime_seconds":3725.5,"journal_bytes":33554432,"records":12345,"refused":{"no_space":2},"ack_seconds":{"p50":0.0004,"p99":0.0213,"max":null}}"#;
        let expected = "version         0.1.0\npid             4242\nuptime_seconds  1:02:05 h\njournal_bytes   32.0 MiB\nrecords         12,345\nrefused         no_space 2\nack_seconds     p50 400 µs  p99 21.30 ms  max null\n";
        assert_eq!(table(page), expected);
    }
}
