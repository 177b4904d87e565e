//! What else lies under DATA, for `lotlog verify`: names that lotlogd does not know, what a start that did not
//! end left behind, copies in quarantine, modes and owners. Changes nothing.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::archive::{ARCHIVE_DIR, LOT_DIR_PREFIX, ROTATING_NAME, number_of};
use crate::background::PREPARING_SUFFIX;
use crate::batch::decode_stem;
use crate::findings::{Finding, Report};
use crate::frame::segment_number;
use crate::lots::{FRESH_SUFFIX, LOT_SUFFIX, SEAL_SUFFIX, SEALING_SUFFIX};
use crate::marker::SYNCING_MARKER;
use crate::rebase::REBASE_NAME;

/// Mode of files and of directories under DATA.
const MODES: [u32; 2] = [0o640, 0o750];
/// Directories below DATA.
const DIRS: &[&str] = &["lots", "journal", "quarantine", ARCHIVE_DIR];
/// Other names in DATA that mean no harm: the operator's, and that of a file system's root.
const OTHERS: &[&str] = &["logrotate", "lost+found"];

/// What a name is.
enum Name {
    Ours,
    /// Ours, if no daemon runs.
    Passing,
    Copy,
    Note,
    Unknown,
}

fn in_lots(name: &str) -> Name {
    if let Some(stem) = name.strip_suffix(LOT_SUFFIX) {
        return if decode_stem(stem).is_some() { Name::Ours } else { Name::Unknown };
    }
    let is_lot = |stem: &str| decode_stem(stem).is_some();
    if name.strip_suffix(SEAL_SUFFIX).is_some_and(is_lot) {
        return Name::Ours;
    }
    let passing = name.ends_with(FRESH_SUFFIX) || name.ends_with(SEALING_SUFFIX);
    if passing { Name::Passing } else { Name::Unknown }
}

fn in_journal(name: &str, path: &Path) -> Name {
    // A segment under preparation stays behind at any end, a clean one too.
    let preparing = |stem: &str| u64::from_str_radix(stem, 16).is_ok();
    if name.strip_suffix(PREPARING_SUFFIX).is_some_and(preparing) {
        return Name::Ours;
    }
    let passing = [REBASE_NAME, ROTATING_NAME].contains(&name.strip_suffix(PREPARING_SUFFIX).unwrap_or(name));
    match segment_number(name) {
        // Blank between two syncs of lot files.
        None if name == SYNCING_MARKER => match fs::read(path) {
            Ok(text) if text.iter().all(|b| [0, b' '].contains(b)) => Name::Ours,
            _ => Name::Passing,
        },
        Some(_) => Name::Ours,
        None if passing => Name::Passing,
        None => Name::Unknown,
    }
}

/// A directory of a lot's files; in it, one of them.
fn in_archive(name: &str, path: &Path) -> Name {
    let is_lot = name.strip_prefix(LOT_DIR_PREFIX).is_some_and(|stem| decode_stem(stem).is_some());
    if is_lot && path.is_dir() { Name::Ours } else { Name::Unknown }
}

fn in_lot_dir(name: &str) -> Name {
    let packing = name.strip_suffix(PREPARING_SUFFIX).is_some_and(|name| number_of(name).is_some());
    if packing {
        Name::Passing
    } else if number_of(name).is_some() {
        Name::Ours
    } else {
        Name::Unknown
    }
}

fn in_quarantine(name: &str) -> Name {
    if name.ends_with(".txt") { Name::Note } else { Name::Copy }
}

/// Looks at everything under DATA but into files.
///
/// # Errors
/// When DATA itself cannot be read.
pub fn look(data_dir: &Path, report: &mut Report) -> io::Result<()> {
    let data = fs::metadata(data_dir)?;
    for name in names(data_dir)? {
        let path = data_dir.join(&name);
        if DIRS.contains(&name.as_str()) {
            dir(&path, &name, data.uid(), report);
        } else if name == "lock" {
            modes(&path, &name, data.uid(), report);
        } else if !OTHERS.contains(&name.as_str()) {
            report.find(Finding::of_file("unknown_file", name, "in DATA"));
        }
    }
    Ok(())
}

fn names(dir: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir)? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort_unstable();
    Ok(names)
}

fn dir(path: &Path, dir: &str, owner: u32, report: &mut Report) {
    let found = match names(path) {
        Ok(found) => found,
        Err(error) => return report.find(Finding::of_file("unreadable", dir, error.to_string())),
    };
    // It may be a link to another file system.
    if let Ok(meta) = fs::metadata(path) {
        mode(&meta, dir, owner, report);
    }
    for name in found {
        if dir == ARCHIVE_DIR && matches!(in_archive(&name, &path.join(&name)), Name::Ours) {
            self::dir(&path.join(&name), &format!("{dir}/{name}"), owner, report);
            continue;
        }
        let (file, path) = (format!("{dir}/{name}"), path.join(&name));
        let what = match dir {
            "lots" => in_lots(&name),
            "journal" => in_journal(&name, &path),
            "quarantine" => in_quarantine(&name),
            ARCHIVE_DIR => Name::Unknown,
            _ => in_lot_dir(&name),
        };
        let bytes = path.symlink_metadata().map_or(0, |meta| meta.len());
        match what {
            Name::Ours | Name::Note => {}
            Name::Passing if report.daemon_running => continue,
            Name::Passing => report.find(Finding::of_file("leftover", &*file, format!("{bytes} bytes"))),
            Name::Unknown => report.find(Finding::of_file("unknown_file", &*file, format!("{bytes} bytes"))),
            Name::Copy => {
                report.quarantined += 1;
                let kind = match fs::symlink_metadata(path.with_file_name(format!("{name}.txt"))) {
                    Ok(_) => "quarantined",
                    Err(_) => "note_missing",
                };
                report.find(Finding::of_file(kind, &*file, format!("{bytes} bytes")));
            }
        }
        if !matches!(what, Name::Unknown) {
            modes(&path, &file, owner, report);
        }
    }
}

/// A file that is gone meanwhile is none of our business.
fn modes(path: &Path, file: &str, owner: u32, report: &mut Report) {
    if let Ok(meta) = path.symlink_metadata() {
        mode(&meta, file, owner, report);
    }
}

fn mode(meta: &Metadata, file: &str, owner: u32, report: &mut Report) {
    let (is, should) = (meta.mode() & 0o7777, MODES[usize::from(meta.is_dir())]);
    if (meta.is_file() || meta.is_dir()) && is != should {
        report.find(Finding::of_file("mode", file, format!("{is:04o}, not {should:04o}")));
    }
    if meta.uid() != owner {
        report.find(Finding::of_file("owner", file, format!("user {}, DATA has {owner}", meta.uid())));
    }
}
