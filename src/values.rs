//! The values of settings as text, numbers and lists: how each kind is read, and what is wrong with it. Knows no
//! setting.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::time::Duration;

use crate::units::{parse_bytes, parse_duration, parse_mode};

/// A value as it came from a flag, the environment or the file.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum Raw {
    Text(OsString),
    Integer(i64),
    Float(f64),
    List(Vec<Raw>),
    /// Something no setting takes, by its name.
    Other(&'static str),
}

/// A TOML basic string.
pub(crate) fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            c if c.is_control() => {
                let _ = write!(out, "\\u{:04X}", c as u32);
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

pub(crate) fn within<T: PartialOrd + Copy>(
    value: T,
    min: T,
    max: T,
    show: impl Fn(T) -> String,
) -> Result<T, String> {
    if value < min || value > max {
        return Err(format!("it must be from {} to {}", show(min), show(max)));
    }
    Ok(value)
}

pub(crate) fn text_of(raw: &Raw) -> Result<Option<&str>, String> {
    match raw {
        Raw::Text(text) => text.to_str().map(Some).ok_or_else(|| "it is not UTF-8".into()),
        _ => Ok(None),
    }
}

pub(crate) fn word_of(raw: &Raw) -> Result<&str, String> {
    text_of(raw)?.ok_or_else(|| "it must be text, in quotes".into())
}

pub(crate) fn size_of(raw: &Raw) -> Result<u64, String> {
    match raw {
        Raw::Integer(n) => u64::try_from(*n).map_err(|_| "a size is not negative".into()),
        raw => parse_bytes(
            text_of(raw)?.ok_or("a size is a number of bytes, or text with a unit, e.g. \"64MiB\"")?,
        ),
    }
}

pub(crate) fn count_of(raw: &Raw) -> Result<u64, String> {
    match raw {
        Raw::Integer(n) => u64::try_from(*n).map_err(|_| "a number of things is not negative".into()),
        raw => {
            let text = text_of(raw)?.unwrap_or_default().trim();
            let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
            text.parse()
                .ok()
                .filter(|_| digits)
                .ok_or_else(|| "it must be a whole number without a unit".into())
        }
    }
}

pub(crate) fn time_of(raw: &Raw) -> Result<Duration, String> {
    match raw {
        Raw::Integer(n) => {
            u64::try_from(*n).map(Duration::from_secs).map_err(|_| "a time is not negative".into())
        }
        Raw::Float(n) => {
            Duration::try_from_secs_f64(*n).map_err(|_| "a time is a number of seconds, not negative".into())
        }
        raw => parse_duration(
            text_of(raw)?.ok_or("a time is a number of seconds, or text with a unit, e.g. \"30s\"")?,
        ),
    }
}

pub(crate) fn mode_of(raw: &Raw) -> Result<u32, String> {
    match raw {
        // Octal numbers of the file arrive as text; 440, meant as octal, would be 0o670.
        Raw::Integer(_) => Err("a mode is octal: write 0o660 or \"0660\"".into()),
        raw => parse_mode(text_of(raw)?.ok_or("a mode is octal: write 0o660 or \"0660\"")?),
    }
}

pub(crate) fn ids_of(raw: &Raw, what: &str, look_up: fn(&str) -> Option<u32>) -> Result<Vec<u32>, String> {
    let mut ids = Vec::new();
    let mut one = |name: &str| -> Result<(), String> {
        let number = name.bytes().all(|b| b.is_ascii_digit()).then(|| name.parse().ok()).flatten();
        let id = number.or_else(|| look_up(name));
        ids.push(id.ok_or_else(|| {
            format!("this machine knows no {what} `{name}`: use a name that `getent` finds, or a number")
        })?);
        Ok(())
    };
    match raw {
        Raw::Integer(n) => one(&n.to_string())?,
        Raw::List(list) => {
            for raw in list {
                match raw {
                    Raw::Integer(n) => one(&n.to_string())?,
                    raw => one(word_of(raw)?.trim())?,
                }
            }
        }
        raw => {
            for name in word_of(raw)?.split(',').map(str::trim).filter(|name| !name.is_empty()) {
                one(name)?;
            }
        }
    }
    Ok(ids)
}

/// One of them, or none.
pub(crate) fn id_of(raw: &Raw, what: &str, look_up: fn(&str) -> Option<u32>) -> Result<Option<u32>, String> {
    match &ids_of(raw, what, look_up)?[..] {
        [] => Ok(None),
        [id] => Ok(Some(*id)),
        _ => Err(format!("it takes one {what}")),
    }
}

pub(crate) fn user_id(name: &str) -> Option<u32> {
    nix::unistd::User::from_name(name).ok().flatten().map(|user| user.uid.as_raw())
}

pub(crate) fn group_id(name: &str) -> Option<u32> {
    nix::unistd::Group::from_name(name).ok().flatten().map(|group| group.gid.as_raw())
}
