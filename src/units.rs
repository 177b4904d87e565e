//! Sizes, times and modes as an operator writes them, both ways. Pure text: knows no setting and no limit.

use std::time::Duration;

/// Units of sizes, largest first; the binary ones come first because values are written with them.
const SIZE_UNITS: [(&str, u64); 7] = [
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("B", 1),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("KB", 1_000),
];

/// Units of times in nanoseconds, largest first.
const TIME_UNITS: [(&str, u64); 5] = [
    ("d", 86_400 * NANOS_PER_SECOND),
    ("h", 3_600 * NANOS_PER_SECOND),
    ("m", 60 * NANOS_PER_SECOND),
    ("s", NANOS_PER_SECOND),
    ("ms", 1_000_000),
];

const NANOS_PER_SECOND: u64 = 1_000_000_000;
/// Most digits before or after the point of a number: its parts then fit 128 bits with room for a unit.
const MAX_DIGITS: usize = 18;

/// Reads a size: a number and one of B, KB, MB, GB, KiB, MiB, GiB (bytes without one).
///
/// # Errors
/// What is wrong and what is understood, for the end of a message.
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    let (number, unit) = split(text);
    let factor = match unit {
        "" => 1,
        unit => find(&SIZE_UNITS, unit)
            .ok_or("a size is a number and B, KB, MB, GB, KiB, MiB or GiB, e.g. `64MiB`")?,
    };
    scale(number, factor)
        .map_err(|e| format!("{e}: a size is a whole number of bytes, e.g. `64MiB` or `1.5GiB`"))
}

/// Reads a time: a number and one of ms, s, m, h, d (seconds without one).
///
/// # Errors
/// What is wrong and what is understood, for the end of a message.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = split(text);
    let factor = match unit {
        "" => NANOS_PER_SECOND,
        unit => find(&TIME_UNITS, unit).ok_or("a time is a number and ms, s, m, h or d, e.g. `30s`")?,
    };
    let nanos = scale(number, factor)
        .map_err(|e| format!("{e}: a time is a number and ms, s, m, h or d, e.g. `30s` or `500ms`"))?;
    Ok(Duration::from_nanos(nanos))
}

/// Reads a file mode: octal digits, with or without `0o`.
///
/// # Errors
/// What is wrong and what is understood, for the end of a message.
pub fn parse_mode(text: &str) -> Result<u32, String> {
    let digits = text.strip_prefix("0o").unwrap_or(text);
    let valid = !digits.is_empty() && digits.len() <= 5 && digits.bytes().all(|b| matches!(b, b'0'..=b'7'));
    match u32::from_str_radix(digits, 8) {
        Ok(mode) if valid && mode <= 0o777 => Ok(mode),
        _ => Err("a mode is octal, from 0000 to 0777, e.g. `0660`".into()),
    }
}

/// A size with the largest unit that divides it; [`parse_bytes`] reads it back unchanged.
pub fn format_bytes(bytes: u64) -> String {
    let binary = &SIZE_UNITS[..4];
    // B divides everything, and 0 is written with it.
    let unit = binary.iter().find(|(_, factor)| bytes != 0 && bytes.is_multiple_of(*factor));
    let (name, factor) = unit.unwrap_or(&("B", 1));
    format!("{}{name}", bytes / factor)
}

/// A time with the largest unit that divides it, up to minutes; [`parse_duration`] reads it back unchanged.
pub fn format_duration(time: Duration) -> String {
    let nanos = time.as_nanos();
    let unit =
        TIME_UNITS[2..].iter().find(|(_, factor)| nanos != 0 && nanos.is_multiple_of(u128::from(*factor)));
    match unit {
        // Below two minutes seconds read better: 90s, 60s.
        Some(("m", _)) if time.as_secs() < 120 => format!("{}s", time.as_secs()),
        Some((name, factor)) => format!("{}{name}", nanos / u128::from(*factor)),
        None if nanos == 0 => "0s".into(),
        None => format!("{}.{:09}s", time.as_secs(), time.subsec_nanos()),
    }
}

/// Splits off the unit, and white space between it and the number.
fn split(text: &str) -> (&str, &str) {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    (&text[..end], text[end..].trim_start())
}

fn find(units: &[(&str, u64)], name: &str) -> Option<u64> {
    units.iter().find(|(unit, _)| unit.eq_ignore_ascii_case(name)).map(|(_, factor)| *factor)
}

/// `number` times `factor`, exactly.
fn scale(number: &str, factor: u64) -> Result<u64, &'static str> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = |part: &str| part.len() <= MAX_DIGITS && part.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty() || !digits(whole) || !digits(fraction) {
        return Err("that is not a number");
    }
    let parse = |part: &str| part.parse::<u128>().unwrap_or(0);
    // MAX_DIGITS keeps both products far below 2^128.
    let small = parse(fraction) * u128::from(factor);
    let one = 10u128.pow(fraction.len() as u32);
    if !small.is_multiple_of(one) {
        return Err("that is finer than the smallest unit");
    }
    let sum = parse(whole) * u128::from(factor) + small / one;
    u64::try_from(sum).map_err(|_| "that is too large")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_take_units_and_come_back_unchanged() {
        for (text, bytes) in [
            ("0", 0),
            ("17", 17),
            ("17B", 17),
            ("64MiB", 64 << 20),
            ("64 mib", 64 << 20),
            ("1.5GiB", 3 << 29),
            ("2KB", 2000),
            ("2MB", 2_000_000),
            ("2GB", 2_000_000_000),
            ("1KiB", 1024),
        ] {
            assert_eq!(parse_bytes(text), Ok(bytes), "{text}");
            assert_eq!(parse_bytes(&format_bytes(bytes)), Ok(bytes), "{text}");
        }
        assert_eq!(format_bytes(64 << 20), "64MiB");
        for bad in
            ["", "MiB", "-1", "1.5", "1.3KiB", "1,5MiB", "12XB", "1e3", ".5MiB", "99999999999999999GiB"]
        {
            assert!(parse_bytes(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn times_take_units_and_come_back_unchanged() {
        for (text, millis) in [
            ("30", 30_000),
            ("30s", 30_000),
            ("0.5", 500),
            ("500ms", 500),
            ("2m", 120_000),
            ("90s", 90_000),
            ("1h", 3_600_000),
            ("1d", 86_400_000),
            ("0", 0),
        ] {
            let time = Duration::from_millis(millis);
            assert_eq!(parse_duration(text), Ok(time), "{text}");
            assert_eq!(parse_duration(&format_duration(time)), Ok(time), "{text}");
        }
        let fine = Duration::from_nanos(1_234_567_891);
        assert_eq!(parse_duration(&format_duration(fine)), Ok(fine));
        for bad in ["", "s", "30sec", "1 m 5 s", "-1s", "0.0000000001s"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn modes_are_octal() {
        assert_eq!(parse_mode("0660"), Ok(0o660));
        assert_eq!(parse_mode("0o600"), Ok(0o600));
        assert_eq!(parse_mode("777"), Ok(0o777));
        for bad in ["", "0o", "888", "1000", "-1", "+660", "rw", "0o0o1"] {
            assert!(parse_mode(bad).is_err(), "{bad}");
        }
    }
}
