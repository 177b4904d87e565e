//! Who may connect, by groups: needs root, to be somebody else.

use std::path::Path;
use std::process::Command;

use crate::common::{Daemon, Place};
use crate::siege::alone;

/// A group that no system has, and its member.
const GROUP: u32 = 54_321;
const NOBODY: u32 = 65_534;

#[test]
fn members_of_a_group_that_is_named_may_connect_and_others_may_not() {
    let _alone = alone();
    let tools = ["/usr/bin/setpriv", "/usr/bin/unshare", "/usr/bin/socat"];
    let missing = tools.into_iter().find(|tool| !Path::new(tool).exists());
    let root = rustix::process::getuid().is_root();
    // The daemon sees a user database in which nobody is a member of the group; the machine's stays as it is.
    let place = Place::new();
    let groups = place.path().join("group");
    let text = std::fs::read_to_string("/etc/group").unwrap() + &format!("lotlog-farm:x:{GROUP}:nobody\n");
    std::fs::write(&groups, text).unwrap();
    let script = r#"mount --bind "$0" /etc/group && exec "$@""#;
    let wrapper: Vec<String> =
        ["unshare", "-m", "sh", "-c", script, groups.to_str().unwrap()].map(str::to_owned).into();
    let can_mount = || {
        Command::new(&wrapper[0]).args(&wrapper[1..]).arg("true").output().is_ok_and(|o| o.status.success())
    };
    let named = std::fs::read_to_string("/etc/passwd").unwrap().contains(&format!("nobody:x:{NOBODY}:"));
    if !root || missing.is_some() || !named || !can_mount() {
        println!(
            "SKIPPED: groups of another user need root, a mount namespace, user nobody, setpriv and socat: {missing:?}"
        );
        return;
    }
    let group = GROUP.to_string();
    let flags = ["--allow-groups", group.as_str(), "--socket-mode", "0666", "--allow-users", "0"];
    let daemon = Daemon::spawn(&place, place.command_through(&wrapper, &flags));
    let others = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(place.path(), others).unwrap();
    let says = |user: u32, gid: u32, groups: &str| {
        let socket = daemon.place.socket();
        let script =
            format!("echo '{{\"op\":\"status\"}}' | socat -t 10 - UNIX-CONNECT:{}", socket.display());
        let mut command = Command::new("setpriv");
        command.args([format!("--reuid={user}"), format!("--regid={gid}")]).arg(groups);
        let output = command.args(["sh", "-c", &script]).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let is_in = |reply: &str| {
        assert!(reply.contains("\"ok\":true") || reply.contains("\"forbidden\""), "{reply:?}");
        reply.contains("\"ok\":true")
    };
    // By the user database, whatever groups the process carries: its user is a member.
    assert!(is_in(&says(NOBODY, NOBODY, "--clear-groups")), "a member by the user database");
    // By the kernel's word for the process's own group.
    assert!(is_in(&says(1, GROUP, "--clear-groups")), "a process of that group");
    // Neither: a process that only carries the group as a further one is of a user who is no member.
    assert!(!is_in(&says(1, 1, &format!("--groups={GROUP}"))), "a carried group alone");
    assert!(!is_in(&says(1, 1, "--clear-groups")), "a stranger");
    assert!(!is_in(&says(12_345, 12_345, "--clear-groups")), "a user whom nobody knows");
    assert!(is_in(&says(0, 0, "--clear-groups")), "a user who is named");
}
