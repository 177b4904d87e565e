//! Real file systems for the daemon to live on: tmpfs, a loop device on a file, a loop device on a disk that
//! `nbdkit` serves and that can be told to fail or to stand still. Every mount, device and process goes with
//! its value, also when a test fails.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::common::{DEADLINE, Place, until};

fn has(program: &str) -> bool {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&paths)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .any(|dir| dir.join(program).is_file())
}

/// Whether `what` can be tried here; says so where it cannot. Names that begin with a slash are files, names
/// that end with a colon are file systems of the kernel, others are programs.
pub fn able(what: &str, needs: &[&str]) -> bool {
    let known = std::fs::read_to_string("/proc/filesystems").unwrap_or_default();
    let missing = needs.iter().find(|need| match need.strip_suffix(':') {
        Some(name) => !known.split_whitespace().any(|word| word == name),
        None if need.starts_with('/') => !Path::new(need).exists(),
        None => !has(need),
    });
    let why = if !rustix::process::geteuid().is_root() {
        "root".to_owned()
    } else if let Some(missing) = missing {
        (*missing).to_owned()
    } else if !may_mount() {
        "the right to mount".to_owned()
    } else {
        return true;
    };
    println!("SKIPPED: {what} needs {why}");
    eprintln!("SKIPPED: {what} needs {why}");
    false
}

fn may_mount() -> bool {
    let home = tempfile::tempdir().unwrap();
    let done = Command::new("mount").args(["-t", "tmpfs", "none"]).arg(home.path()).output();
    let mounted = done.is_ok_and(|output| output.status.success());
    if mounted {
        run(Command::new("umount").arg(home.path()));
    }
    mounted
}

/// What [`able`] wants for a file system on a loop device.
pub fn loop_needs(kind: &'static str) -> [&'static str; 4] {
    let (make, known) = match kind {
        "ext4" => ("mkfs.ext4", "ext4:"),
        "xfs" => ("mkfs.xfs", "xfs:"),
        "btrfs" => ("mkfs.btrfs", "btrfs:"),
        _ => panic!("{kind} is not known here"),
    };
    ["losetup", "/dev/loop-control", make, known]
}

/// Runs a program to its good end and gives what it said.
#[track_caller]
pub fn run(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{command:?}: {said}{}", String::from_utf8_lossy(&output.stderr));
    said
}

/// How a disk that is served behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Served {
    /// It fails on demand.
    Failing,
    /// It takes so long for each write.
    Slow(&'static str),
    /// It stands still on demand.
    Pausing,
}

/// A mounted file system.
pub struct Disk {
    target: PathBuf,
    /// Image, sockets, trigger.
    home: TempDir,
    device: Option<String>,
    kind: String,
    served: Vec<Child>,
}

impl Disk {
    #[track_caller]
    fn on(target: &Path, kind: &str) -> Disk {
        std::fs::create_dir_all(target).unwrap();
        let home = tempfile::tempdir().unwrap();
        Disk { target: target.to_owned(), home, device: None, kind: kind.to_owned(), served: Vec::new() }
    }

    /// A tmpfs with these options, as `size=64m`.
    #[track_caller]
    pub fn tmpfs(target: &Path, options: &str) -> Disk {
        let disk = Disk::on(target, "tmpfs");
        run(Command::new("mount").args(["-t", "tmpfs", "-o", options, "none"]).arg(target));
        disk
    }

    /// What is at `source` already, here as well.
    #[track_caller]
    pub fn bind(source: &Path, target: &Path) -> Disk {
        let disk = Disk::on(target, "none");
        run(Command::new("mount").arg("--bind").arg(source).arg(target));
        disk
    }

    /// A file system of this kind in a file of so many MiB.
    #[track_caller]
    pub fn image(target: &Path, kind: &str, mib: u64, make: &[&str], options: &str) -> Disk {
        let mut disk = Disk::on(target, kind);
        let image = disk.home.path().join("image");
        File::create(&image).unwrap().set_len(mib << 20).unwrap();
        disk.make(&image, make);
        disk.attach(&image, options);
        disk
    }

    /// A file system of this kind on a disk of so many MiB that another process serves.
    #[track_caller]
    pub fn served(target: &Path, kind: &str, mib: u64, how: Served) -> Disk {
        let mut disk = Disk::on(target, kind);
        let at = |name: &str| disk.home.path().join(name);
        let (socket, front, image) = (at("nbd"), at("front"), at("image"));
        std::fs::create_dir(&front).unwrap();
        File::create(&image).unwrap().set_len(mib << 20).unwrap();
        let make: &[&str] = if kind == "ext4" { &["-m", "0"] } else { &[] };
        disk.make(&image, make);
        let mut server = Command::new("nbdkit");
        server.args(["--exit-with-parent", "-f", "-U"]).arg(&socket);
        let (filter, settings) = match how {
            Served::Failing => (
                "error",
                vec![
                    "error=EIO".into(),
                    "error-rate=100%".into(),
                    format!("error-file={}", at("fail").display()),
                ],
            ),
            Served::Slow(time) => ("delay", vec![format!("delay-write={time}")]),
            Served::Pausing => ("pause", vec![format!("pause-control={}", at("control").display())]),
        };
        server.arg(format!("--filter={filter}")).arg("file").arg(&image).args(settings);
        disk.served.push(server.stdin(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
        until("nbdkit serves", || socket.exists().then_some(()));
        let image = front.join("disk");
        let mut fuse = Command::new("nbdfuse");
        fuse.arg(&image).arg(format!("nbd+unix://?socket={}", socket.display()));
        disk.served.push(fuse.stdin(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
        until("nbdfuse shows the disk", || image.exists().then_some(()));
        disk.attach(&image, "");
        disk
    }

    #[track_caller]
    fn make(&self, image: &Path, options: &[&str]) {
        run(Command::new(format!("mkfs.{}", self.kind)).arg("-q").args(options).arg(image));
    }

    #[track_caller]
    fn attach(&mut self, image: &Path, options: &str) {
        // Straight through, so that errors are those of the disk and come with the call that met them.
        let device = run(Command::new("losetup").args(["-f", "--show", "--direct-io=on"]).arg(image));
        self.device = Some(device.trim().to_owned());
        self.mount(options);
    }

    /// Mounts it; once it is mounted the device goes with the mount.
    #[track_caller]
    pub fn mount(&self, options: &str) {
        let device = self.device.as_ref().unwrap();
        let options = if options.is_empty() { "rw" } else { options };
        run(Command::new("mount").args(["-t", &self.kind, "-o", options, device]).arg(&self.target));
    }

    /// A reader may be in the middle of a file: it is waited for.
    #[track_caller]
    pub fn unmount(&self) {
        until("the file system is unmounted", || {
            let done = Command::new("umount").arg(&self.target).output();
            done.is_ok_and(|done| done.status.success()).then_some(())
        });
    }

    /// From now on the disk answers EIO.
    pub fn fail(&self) {
        File::create(self.home.path().join("fail")).unwrap();
    }

    /// It is well again.
    pub fn heal(&self) {
        let _ = std::fs::remove_file(self.home.path().join("fail"));
    }

    /// The disk does not answer until this is dropped: before the daemon is, which could not end.
    pub fn pause(&self) -> Still<'_> {
        self.control(b"p");
        Still(self)
    }

    fn control(&self, word: &[u8]) {
        let Ok(mut control) = UnixStream::connect(self.home.path().join("control")) else { return };
        let _ = control.set_read_timeout(Some(DEADLINE));
        let _ = control.write_all(word).and_then(|()| control.read_exact(&mut [0]));
    }
}

/// A disk that stands still.
pub struct Still<'a>(&'a Disk);

impl Drop for Still<'_> {
    fn drop(&mut self) {
        self.0.control(b"r");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.heal();
        let give_up = Instant::now() + Duration::from_secs(5);
        loop {
            let done = Command::new("umount").arg(&self.target).output();
            if done.is_ok_and(|d| d.status.success()) || !is_mounted(&self.target) {
                break;
            }
            if Instant::now() > give_up {
                let _ = Command::new("umount").arg("-l").arg(&self.target).output();
                break;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        if let Some(device) = &self.device {
            let _ = Command::new("losetup").args(["-d", device]).output();
        }
        let front = self.home.path().join("front");
        if !self.served.is_empty() {
            let _ = Command::new("umount").arg("-l").arg(&front).output();
        }
        for child in self.served.iter_mut().rev() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Whether something is mounted there.
pub fn is_mounted(target: &Path) -> bool {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    mounts.lines().any(|line| line.split(' ').nth(1) == target.to_str())
}

/// Somebody else who takes all the space that is free.
pub struct Filler {
    file: File,
    path: PathBuf,
    bytes: u64,
}

impl Filler {
    pub fn new(dir: &Path) -> Filler {
        let path = dir.join("filler");
        let file = File::options().write(true).create(true).truncate(true).open(&path).unwrap();
        Filler { file, path, bytes: 0 }
    }

    /// Takes what is free now, to the last block.
    pub fn fill(&mut self) {
        use rustix::fs::FallocateFlags;
        let mut step: u64 = 64 << 20;
        while step >= 4096 {
            match rustix::fs::fallocate(&self.file, FallocateFlags::empty(), self.bytes, step) {
                Ok(()) => self.bytes += step,
                Err(_) => step /= 4,
            }
        }
    }

    /// Keeps all space taken for a while: what the daemon itself gives back too.
    pub fn hold(&mut self, time: Duration) {
        let end = Instant::now() + time;
        while Instant::now() < end {
            self.fill();
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Gives everything back.
    pub fn free(&mut self) {
        self.file.set_len(0).unwrap();
        self.bytes = 0;
    }
}

impl Drop for Filler {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// The daemon's command, started by another program.
pub fn wrapped(place: &Place, wrapper: &[&str], inner: &Command) -> Command {
    let mut command = Command::new(wrapper[0]);
    command.args(&wrapper[1..]).arg(inner.get_program()).args(inner.get_args());
    for (name, value) in inner.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    let log = File::options().create(true).append(true).open(place.path().join("log")).unwrap();
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    command
}
