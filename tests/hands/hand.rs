//! The hands: each does one thing to a lot file, and says what a reader has to read afterwards.

use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Lines that somebody else writes.
pub const FOREIGN: &str = "{\"note\":\"not from here\"}\n{\"note\":\"nor this\"}\n";
/// A line without an end that somebody else writes.
pub const LOOSE: &str = "{\"note\":\"cut in the mid";

/// What somebody else does to a lot file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hand {
    Rename,
    RenameAndCreate,
    CopyTruncate,
    Truncate,
    Delete,
    AppendLines,
    AppendLooseEnd,
    AppendNul,
    SedInPlace,
    WriteOverSameSize,
    WriteOverOtherSize,
    Gzip,
    Immutable,
    AppendOnly,
    HardLink,
    HardLinkAndSed,
    SymlinkToRenamed,
    SymlinkDangling,
    SymlinkOutside,
    Directory,
    Fifo,
    Socket,
    Device,
    NoMode,
    RootsOwn,
}

use Hand::*;

/// Runs a program; whether it ended well.
pub fn ran(program: &str, args: &[&str]) -> bool {
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Where the lot's older lines are after it was moved or copied away.
pub fn aside(lot: &Path) -> PathBuf {
    lot.with_extension("jsonl.1")
}

fn gz(lot: &Path) -> PathBuf {
    lot.with_extension("jsonl.gz")
}

/// A file outside DATA.
fn outside(lot: &Path) -> PathBuf {
    lot.ancestors().nth(3).unwrap().join("outside")
}

fn append(lot: &Path, bytes: &[u8]) {
    use std::io::Write;
    fs::File::options().append(true).open(lot).unwrap().write_all(bytes).unwrap();
}

/// The first line that has it, written over in a new or in the same file.
fn edited(lot: &Path, to: &str) -> Vec<u8> {
    let whole = fs::read_to_string(lot).unwrap();
    whole.replacen(r#""opt_source":"farm""#, to, 1).into_bytes()
}

impl Hand {
    /// Why it cannot be tried here.
    pub fn lacks(self, lot: &Path) -> Option<&'static str> {
        match self {
            Gzip if !ran("gzip", &["--version"]) => Some("gzip"),
            SedInPlace | HardLinkAndSed if !ran("sed", &["--version"]) => Some("GNU sed"),
            Fifo if !ran("mkfifo", &["--version"]) => Some("mkfifo"),
            Immutable | AppendOnly => {
                let probe = lot.with_file_name("probe");
                fs::write(&probe, "").unwrap();
                let can = ran("chattr", &["+i", text(&probe)]);
                ran("chattr", &["-i", text(&probe)]);
                fs::remove_file(&probe).unwrap();
                (!can).then_some("root and chattr on this file system")
            }
            Device => {
                let probe = lot.with_file_name("probe");
                let can = ran("mknod", &[text(&probe), "c", "1", "3"]);
                let _ = fs::remove_file(&probe);
                (!can).then_some("root and mknod")
            }
            _ => None,
        }
    }

    /// Does it.
    pub fn apply(self, lot: &Path) {
        let aside = aside(lot);
        match self {
            Rename => fs::rename(lot, aside).unwrap(),
            RenameAndCreate => {
                fs::rename(lot, aside).unwrap();
                fs::write(lot, "").unwrap();
            }
            CopyTruncate => {
                fs::copy(lot, aside).unwrap();
                fs::File::options().write(true).truncate(true).open(lot).unwrap();
            }
            // The copy is the test's own: what was in the file is gone by that hand, not by the daemon's.
            Truncate => {
                fs::copy(lot, aside).unwrap();
                assert!(ran("sh", &["-c", ": > \"$0\"", text(lot)]));
            }
            Delete => {
                fs::copy(lot, aside).unwrap();
                fs::remove_file(lot).unwrap();
            }
            AppendLines => append(lot, FOREIGN.as_bytes()),
            AppendLooseEnd => append(lot, LOOSE.as_bytes()),
            AppendNul => append(lot, &[0; 5000]),
            SedInPlace => assert!(ran("sed", &["-i", "1s/\"farm\"/\"FARM\"/", text(lot)])),
            WriteOverSameSize => {
                let bytes = edited(lot, r#""opt_source":"FARM""#);
                fs::File::options().write(true).open(lot).unwrap().write_all_at(&bytes, 0).unwrap();
            }
            WriteOverOtherSize => fs::write(lot, edited(lot, r#""opt_source":"a farm""#)).unwrap(),
            Gzip => assert!(ran("gzip", &[text(lot)])),
            Immutable => assert!(ran("chattr", &["+i", text(lot)])),
            AppendOnly => assert!(ran("chattr", &["+a", text(lot)])),
            NoMode => fs::set_permissions(lot, fs::Permissions::from_mode(0o000)).unwrap(),
            RootsOwn => std::os::unix::fs::chown(lot, Some(0), Some(0)).unwrap(),
            HardLink => fs::hard_link(lot, aside).unwrap(),
            HardLinkAndSed => {
                fs::hard_link(lot, aside).unwrap();
                assert!(ran("sed", &["-i", "1,$d", text(lot)]));
            }
            SymlinkToRenamed => {
                fs::rename(lot, &aside).unwrap();
                std::os::unix::fs::symlink(aside.file_name().unwrap(), lot).unwrap();
            }
            SymlinkDangling => {
                fs::rename(lot, &aside).unwrap();
                std::os::unix::fs::symlink("nowhere", lot).unwrap();
            }
            SymlinkOutside => {
                fs::rename(lot, &aside).unwrap();
                fs::write(outside(lot), FOREIGN).unwrap();
                std::os::unix::fs::symlink(outside(lot), lot).unwrap();
            }
            Directory => {
                fs::rename(lot, &aside).unwrap();
                fs::create_dir(lot).unwrap();
            }
            Fifo => {
                fs::rename(lot, &aside).unwrap();
                assert!(ran("mkfifo", &[text(lot)]));
            }
            Socket => {
                fs::rename(lot, &aside).unwrap();
                drop(std::os::unix::net::UnixListener::bind(lot).unwrap());
            }
            Device => {
                fs::rename(lot, &aside).unwrap();
                assert!(ran("mknod", &[text(lot), "c", "1", "3"]));
            }
        }
    }

    /// Whether the lot is refused until it is undone.
    pub fn shuts(self) -> bool {
        self.is_in_the_way() || self == Immutable
    }

    /// Something that is no file has the lot's name.
    pub fn is_in_the_way(self) -> bool {
        matches!(
            self,
            SymlinkToRenamed | SymlinkDangling | SymlinkOutside | Directory | Fifo | Socket | Device
        )
    }

    /// Takes it back.
    pub fn undo(self, lot: &Path) {
        match self {
            Immutable => assert!(ran("chattr", &["-i", text(lot)])),
            AppendOnly => assert!(ran("chattr", &["-a", text(lot)])),
            NoMode => fs::set_permissions(lot, fs::Permissions::from_mode(0o640)).unwrap(),
            RootsOwn => {
                let parent = fs::metadata(lot.parent().unwrap()).unwrap();
                std::os::unix::fs::chown(lot, Some(parent.uid()), Some(parent.gid())).unwrap();
            }
            Directory => fs::remove_dir(lot).unwrap(),
            SymlinkOutside => {
                assert_eq!(fs::read_to_string(outside(lot)).unwrap(), FOREIGN, "written through a symlink");
                fs::remove_file(lot).unwrap();
            }
            SymlinkDangling => {
                assert!(!lot.with_file_name("nowhere").exists(), "made through a symlink");
                fs::remove_file(lot).unwrap();
            }
            _ if self.is_in_the_way() => fs::remove_file(lot).unwrap(),
            _ => {}
        }
    }

    /// What a reader reads, in order: what was moved or copied away, then the lot file.
    pub fn places(self, lot: &Path) -> Vec<Vec<u8>> {
        let there = |path: &Path| fs::read(path).unwrap_or_default();
        let older = match self {
            Gzip => {
                let out = Command::new("gzip").arg("-dc").arg(gz(lot)).output().unwrap();
                out.stdout
            }
            // The same file under two names.
            HardLink => Vec::new(),
            _ => there(&aside(lot)),
        };
        vec![older, if lot.is_file() { there(lot) } else { Vec::new() }]
    }

    /// Lines of ours that this hand itself has changed.
    pub fn alters(self) -> usize {
        usize::from(matches!(self, SedInPlace | WriteOverSameSize | WriteOverOtherSize))
    }
}
