//! Times and sizes as people write and read them.

use std::time::Duration;

/// The longest time any option takes.
const MAX_WAIT: Duration = Duration::from_secs(366 * 24 * 3600);

/// A time as the daemon's settings take it: `500ms`, `30s`, `5m`, `1h`, or a bare number of seconds.
pub fn duration(text: &str) -> Result<Duration, String> {
    let time = lotlog::units::parse_duration(text)?;
    // Deadlines are sums of an instant and a time; nobody waits longer than this.
    if time > MAX_WAIT { Err("longer than a year".to_owned()) } else { Ok(time) }
}

/// Bytes in the largest unit that keeps the number above 1.
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    let mut value = count as f64;
    let mut unit = "B";
    for next in UNITS {
        if value < 1024.0 {
            break;
        }
        value /= 1024.0;
        unit = next;
    }
    if unit == "B" { format!("{count} B") } else { format!("{value:.1} {unit}") }
}

/// Seconds as a short latency: µs, ms or s.
pub fn latency(seconds: f64) -> String {
    match seconds {
        s if s < 0.001 => format!("{:.0} µs", s * 1e6),
        s if s < 1.0 => format!("{:.2} ms", s * 1e3),
        s => format!("{s:.2} s"),
    }
}

/// A count with `,` between groups of three digits.
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_take_units_and_fractions() {
        for (text, millis) in
            [("30", 30_000), ("500ms", 500), ("1.5s", 1_500), ("2m", 120_000), ("1h", 3_600_000)]
        {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for bad in ["", "s", "-1s", "400d", "1e9h", "1.2.3", "99999999999h"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn numbers_are_shown_for_people() {
        assert_eq!((count(0), count(999), count(1_234_567)), ("0".into(), "999".into(), "1,234,567".into()));
        assert_eq!(
            (bytes(10), bytes(1536), bytes(5 << 30)),
            ("10 B".into(), "1.5 KiB".into(), "5.0 GiB".into())
        );
    }
}
