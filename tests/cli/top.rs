//! `lotlog top` in a real terminal: tmux is the terminal, its screen is what a person sees. Skipped, with a word,
//! where tmux is not installed.

use std::process::Command;

use crate::{Daemon, PATIENCE, lotlog, run, run_on, wait_for};

/// A terminal of its own, on a server of its own, gone when dropped.
struct Tmux {
    socket: std::path::PathBuf,
    _home: tempfile::TempDir,
}

impl Tmux {
    /// Of 100 columns and 30 rows, with a shell in it; `None` where there is no tmux.
    fn open() -> Option<Tmux> {
        if Command::new("tmux").arg("-V").output().is_err() {
            println!("SKIPPED: tmux is not installed");
            return None;
        }
        let home = tempfile::tempdir().unwrap();
        let tmux = Tmux { socket: home.path().join("t"), _home: home };
        tmux.tell(&["-f", "/dev/null", "new-session", "-d", "-x", "100", "-y", "30", "env PS1='ready> ' sh"]);
        tmux.wait_for("ready>");
        Some(tmux)
    }

    fn tell(&self, words: &[&str]) -> String {
        let mut command = Command::new("tmux");
        command.arg("-S").arg(&self.socket).args(words).env_remove("TMUX").env("LC_ALL", "C.UTF-8");
        let output = command.output().unwrap();
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    fn keys(&self, keys: &[&str]) {
        self.tell(&[&["send-keys"], keys].concat());
    }

    /// What is on the screen.
    fn screen(&self) -> String {
        self.tell(&["capture-pane", "-p"])
    }

    #[track_caller]
    fn wait_for(&self, words: &str) -> String {
        let deadline = std::time::Instant::now() + PATIENCE;
        loop {
            let screen = self.screen();
            if screen.contains(words) {
                return screen;
            }
            assert!(std::time::Instant::now() < deadline, "no `{words}` on the screen:\n{screen}");
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }
}

impl Drop for Tmux {
    fn drop(&mut self) {
        let _ = Command::new("tmux").arg("-S").arg(&self.socket).arg("kill-server").output();
    }
}

fn row<'a>(screen: &'a str, label: &str) -> &'a str {
    screen.lines().find(|line| line.starts_with(label)).unwrap_or_else(|| panic!("no {label}:\n{screen}"))
}

#[test]
fn top_shows_a_live_daemon_in_a_terminal_and_gives_the_terminal_back() {
    let Some(tmux) = Tmux::open() else { return };
    let home = tempfile::tempdir().unwrap();
    let mut daemon = Daemon::start(home.path());
    run_on(daemon.lotlog(&["send", "--lot", "BUSY", "-"]), &"{\"a\":1}\n".repeat(50));
    let before = tmux.tell(&["display-message", "-p", "#{alternate_on}"]);
    let socket = home.path().join("s");
    let command =
        format!("{} top --interval 200ms --socket {}", env!("CARGO_BIN_EXE_lotlog"), socket.display());
    tmux.keys(&[&command, "Enter"]);
    let screen = tmux.wait_for("BUSIEST LOTS");
    assert!(row(&screen, "records").ends_with("50"), "{screen}");
    assert!(row(&screen, "state").contains("takes batches"), "{screen}");
    assert!(row(&screen, "disk").contains("% used"), "{screen}");
    assert!(screen.contains("  BUSY") && screen.contains(&format!("pid {}", daemon.child.id())), "{screen}");
    // The prompt is on the other screen, and rates come with the second look.
    assert!(!screen.contains("ready>"), "{screen}");
    tmux.wait_for("0/s");
    // It is live: what is stored meanwhile is shown, the busier lot first.
    let deadline = std::time::Instant::now() + PATIENCE;
    loop {
        run_on(daemon.lotlog(&["send", "--lot", "LATER", "-"]), &"{\"a\":1}\n".repeat(1000));
        let screen = tmux.screen();
        let rates = row(&screen, "records").split_whitespace().nth(1).unwrap().to_owned();
        let first = screen.lines().skip_while(|line| !line.contains("BUSIEST LOTS")).nth(1).unwrap_or("");
        if rates.len() > 3 && first.ends_with("  LATER") && first.contains("/s") {
            break;
        }
        assert!(std::time::Instant::now() < deadline, "{screen}");
    }
    // Another size is taken at once.
    tmux.tell(&["resize-window", "-x", "60", "-y", "8"]);
    wait_for("the screen has its new size", || {
        let screen = tmux.screen();
        (screen.lines().count() <= 8 && screen.lines().next()?.starts_with("lotlog top")).then_some(())
    });
    tmux.tell(&["resize-window", "-x", "100", "-y", "30"]);
    tmux.wait_for("BUSIEST LOTS");
    // A daemon that goes is said to be gone; its successor is found.
    daemon.kill();
    tmux.wait_for("no answer");
    let daemon = Daemon::start(home.path());
    tmux.wait_for(&format!("pid {}", daemon.child.id()));
    tmux.keys(&["q"]);
    tmux.wait_for("ready>");
    assert_eq!(
        tmux.tell(&["display-message", "-p", "#{alternate_on} #{cursor_flag}"]),
        format!("{} 1\n", before.trim())
    );
    // The shell's terminal is as it was: it echoes and edits.
    tmux.keys(&["echo back-$((40 + 2))", "Enter"]);
    tmux.wait_for("back-42");
}

#[test]
fn top_gives_the_terminal_back_on_ctrl_c_and_on_sigterm() {
    let Some(tmux) = Tmux::open() else { return };
    let home = tempfile::tempdir().unwrap();
    let socket = home.path().join("none");
    let command = format!("{} top --socket {}", env!("CARGO_BIN_EXE_lotlog"), socket.display());
    tmux.keys(&[&command, "Enter"]);
    tmux.wait_for("no answer");
    tmux.keys(&["C-c"]);
    tmux.wait_for("ready>");
    tmux.keys(&["clear", "Enter"]);
    tmux.keys(&[&format!("{command}; echo ended-$?"), "Enter"]);
    tmux.wait_for("no answer");
    let tty = tmux.tell(&["display-message", "-p", "#{pane_tty}"]);
    let found = Command::new("ps").args(["-t", tty.trim(), "-o", "pid=,comm="]).output();
    let Ok(found) = found else {
        println!("SKIPPED: ps is not installed");
        return;
    };
    let found = String::from_utf8(found.stdout).unwrap();
    let line = found.lines().find(|line| line.ends_with("lotlog")).unwrap_or_else(|| panic!("{found}"));
    let pid = line.split_whitespace().next().unwrap().parse().unwrap();
    rustix::process::kill_process(
        rustix::process::Pid::from_raw(pid).unwrap(),
        rustix::process::Signal::TERM,
    )
    .unwrap();
    tmux.wait_for("ended-0");
}

#[test]
fn top_without_a_terminal_says_what_to_use_instead() {
    let (code, _, error) = run(lotlog(&["top"]));
    assert_eq!(code, 64);
    assert!(error.contains("lotlog status --json"), "{error}");
    assert_eq!(run(lotlog(&["top", "--interval", "1ms"])).0, 64);
}
