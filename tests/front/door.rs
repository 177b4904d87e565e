//! The socket file: made with its mode, replaced when its daemon is dead, never taken from a living one.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::Path;
use std::time::Instant;

use lotlog::server::{BindError, SocketFile, bind};

use crate::rig::PATIENCE;

fn inside<T>(act: impl FnOnce() -> T) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let _inside = runtime.enter();
    act()
}

fn mode(path: &Path) -> u32 {
    std::fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
}

fn bound(path: &Path) -> (tokio::net::UnixListener, SocketFile) {
    bind(path, 0o660).unwrap()
}

#[test]
fn a_socket_has_its_mode_and_its_parents_theirs() {
    inside(|| {
        let home = tempfile::tempdir().unwrap();
        for (name, wanted) in [("a", 0o600), ("b", 0o660), ("c", 0o666)] {
            let path = home.path().join("new").join(name).join("s");
            let (_listener, _file) = bind(&path, wanted).unwrap();
            assert_eq!(mode(&path), wanted);
            assert_eq!(mode(path.parent().unwrap()), 0o750);
            assert_eq!(mode(&home.path().join("new")), 0o750);
            UnixStream::connect(&path).unwrap();
        }
        let given = home.path().join("given");
        std::fs::create_dir(&given).unwrap();
        std::fs::set_permissions(&given, std::fs::Permissions::from_mode(0o711)).unwrap();
        let _socket = bound(&given.join("s"));
        assert_eq!(mode(&given), 0o711);
    });
}

#[test]
fn a_dead_daemons_socket_is_replaced() {
    inside(|| {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("s");
        drop(UnixListener::bind(&path).unwrap());
        assert!(UnixStream::connect(&path).is_err());
        let _socket = bound(&path);
        UnixStream::connect(&path).unwrap();
    });
}

#[test]
fn a_living_daemons_socket_is_left_alone() {
    inside(|| {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("s");
        let check = |what: &str| {
            let start = Instant::now();
            let error = bind(&path, 0o660).unwrap_err();
            assert!(matches!(error, BindError::InUse(_)), "{what}: {error}");
            assert_eq!(error.exit_code(), 73);
            assert!(start.elapsed() < PATIENCE);
        };
        let first = bound(&path);
        check("ours");
        UnixStream::connect(&path).unwrap();
        drop(first);
        let stranger = UnixListener::bind(&path).unwrap();
        check("somebody else's");
        UnixStream::connect(&path).unwrap();
        drop(stranger);
        std::fs::remove_file(&path).unwrap();
        let _datagram = UnixDatagram::bind(&path).unwrap();
        check("another type");
    });
}

#[test]
fn a_daemon_that_hangs_with_a_full_backlog_is_alive() {
    use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
    inside(|| {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("s");
        let socket = |flags| rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None);
        let address = SocketAddrUnix::new(&path).unwrap();
        let hanging = socket(SocketFlags::CLOEXEC).unwrap();
        rustix::net::bind(&hanging, &address).unwrap();
        rustix::net::listen(&hanging, 0).unwrap();
        let mut waiting = Vec::new();
        loop {
            let client = socket(SocketFlags::NONBLOCK).unwrap();
            let connected = rustix::net::connect(&client, &address);
            waiting.push(client);
            if connected.is_err() {
                break;
            }
        }
        assert!(matches!(bind(&path, 0o660), Err(BindError::InUse(_))));
    });
}

#[test]
fn what_is_not_a_socket_is_never_removed() {
    inside(|| {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("s");
        let check = || {
            let error = bind(&path, 0o660).unwrap_err();
            assert!(matches!(error, BindError::NotASocket(_)), "{error}");
            assert_eq!(error.exit_code(), 78);
            assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
        };
        std::fs::write(&path, "mine").unwrap();
        check();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "mine");
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        check();
        std::fs::remove_dir(&path).unwrap();
        let elsewhere = home.path().join("elsewhere");
        drop(UnixListener::bind(&elsewhere).unwrap());
        std::os::unix::fs::symlink(&elsewhere, &path).unwrap();
        check();
        assert!(elsewhere.exists() && path.is_symlink());
    });
}

#[test]
fn a_path_too_long_is_named_with_the_limit() {
    inside(|| {
        let home = tempfile::tempdir().unwrap();
        let path = |bytes: usize| {
            let given = home.path().as_os_str().len() + 1;
            home.path().join("x".repeat(bytes - given))
        };
        assert!(bind(&path(107), 0o660).is_ok());
        let error = bind(&path(108), 0o660).unwrap_err();
        assert!(matches!(error, BindError::TooLong(_)) && error.to_string().contains("107"), "{error}");
        assert_eq!(error.exit_code(), 78);
    });
}

#[test]
fn of_daemons_that_race_for_a_path_one_wins() {
    for _ in 0..20 {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("s");
        drop(UnixListener::bind(&path).unwrap());
        let start = std::sync::Barrier::new(6);
        let race = || {
            inside(|| {
                start.wait();
                let bound = bind(&path, 0o660);
                start.wait();
                bound.is_ok()
            })
        };
        let winners = std::thread::scope(|scope| {
            let racers: Vec<_> = (0..6).map(|_| scope.spawn(race)).collect();
            racers.into_iter().map(|racer| usize::from(racer.join().unwrap())).sum::<usize>()
        });
        assert_eq!(winners, 1);
    }
}

#[test]
fn a_socket_file_goes_with_its_owner_unless_it_is_somebody_elses_by_now() {
    inside(|| {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("s");
        let (listener, file) = bound(&path);
        drop(listener);
        drop(file);
        assert!(!path.exists());
        let (_listener, file) = bound(&path);
        std::fs::remove_file(&path).unwrap();
        let _successor = UnixListener::bind(&path).unwrap();
        drop(file);
        assert!(path.exists());
        let left: Vec<_> =
            std::fs::read_dir(home.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert!(left.len() <= 2, "left behind: {left:?}");
    });
}
