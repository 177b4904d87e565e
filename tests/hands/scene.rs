//! The scene of each row: a daemon, a producer for the lot that the hand touches and one for another lot, and
//! the judge over what a reader of all places sees.

use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::process::Signal;

use crate::common::judge::{After, Entry, Lots, Verdict, judge, whole_lines};
use crate::common::producer::{Ledger, Load, Stop, entries, farm, lot_files, number, record};
use crate::common::{Daemon, Place, until};
use crate::hand::Hand;

/// The stem of the lot that is touched, and of the other.
pub const TOUCHED: &str = "lot-0";
pub const OTHER: &str = "lot-1";

pub struct Scene {
    pub place: Arc<Place>,
    pub daemon: Option<Daemon>,
    pub stop: Stop,
    producers: Vec<JoinHandle<Ledger>>,
    as_nobody: bool,
}

const NOBODY: u32 = 65534;

/// The daemon's command, as another user than root if asked.
fn command(place: &Place, as_nobody: bool) -> Command {
    let mut command = place.command(&["--segment-bytes", "2MiB"]);
    if as_nobody {
        command.uid(NOBODY).gid(NOBODY);
    }
    command
}

impl Scene {
    /// Under load, as this user.
    pub fn begin() -> Scene {
        Scene::begin_as(false)
    }

    /// Why the daemon cannot run as nobody here.
    pub fn lacks_nobody() -> Option<&'static str> {
        let place = Place::new();
        let mut command = command(&place, true);
        command.arg("--version").stderr(Stdio::null());
        (!command.status().is_ok_and(|status| status.success()))
            .then_some("root, and a path that nobody may read")
    }

    pub fn begin_as(as_nobody: bool) -> Scene {
        let place = Place::new();
        if as_nobody {
            std::os::unix::fs::chown(place.path(), Some(NOBODY), Some(NOBODY)).unwrap();
        }
        let daemon = Daemon::spawn(&place, command(&place, as_nobody));
        let seed = number("LOTLOG_SEED", u64::from(std::process::id()));
        println!("LOTLOG_SEED={seed}");
        let stop = Stop::default();
        let mut producers = Vec::new();
        for first_lot in [0, 1] {
            let load =
                Load { lots: 1, first_lot, window: 4, pause: Duration::from_millis(2), ..Load::default() };
            let name = format!("p{first_lot}-");
            producers.extend(farm(&place.socket(), &name, 1, seed, &load, &stop));
        }
        let scene = Scene { place, daemon: Some(daemon), stop, producers, as_nobody };
        for lot in [TOUCHED, OTHER] {
            until("both lots have some lines", || (scene.place.lot(lot).len() > 30).then_some(()));
        }
        scene
    }

    pub fn lot(&self) -> PathBuf {
        self.place.lot_path(&format!("{TOUCHED}.jsonl"))
    }

    pub fn daemon(&mut self) -> &mut Daemon {
        self.daemon.as_mut().expect("a daemon runs")
    }

    /// Does something while the daemon stands still, so that it has happened at one moment.
    pub fn at_one_moment(&mut self, what: impl FnOnce()) {
        self.daemon().signal(Signal::STOP);
        let stat = format!("/proc/{}/stat", self.daemon().pid());
        until("the daemon stands still", || {
            let text = std::fs::read_to_string(&stat).ok()?;
            text.rsplit(") ").next()?.starts_with('T').then_some(())
        });
        what();
        self.daemon().signal(Signal::CONT);
    }

    /// Waits for `more` lines of the lot that nobody touches.
    #[track_caller]
    pub fn other_lot_goes_on(&self, more: usize) {
        let before = self.place.lot(OTHER).len();
        until("the other lot goes on", || (self.place.lot(OTHER).len() >= before + more).then_some(()));
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.place.path().join("log")).unwrap_or_default()
    }

    #[track_caller]
    pub fn log_says(&self, words: &[&str]) {
        for word in words {
            until(&format!("the own log says `{word}`"), || self.log().contains(word).then_some(()));
        }
    }

    pub fn start(&mut self) {
        self.daemon = Some(Daemon::spawn(&self.place, command(&self.place, self.as_nobody)));
    }

    pub fn kill(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            daemon.kill();
        }
    }

    /// Killed and started again, twice: the second recovery must leave what the first has left.
    #[track_caller]
    pub fn recover_twice(&mut self) {
        let mut found = Vec::new();
        for _ in 0..2 {
            self.kill();
            self.start();
            // Nobody sends: the producers have ended or wait for this.
            found.push(lot_files(&self.place.data()));
        }
        assert!(found[0] == found[1], "a second recovery gives something else");
    }

    /// The producers finish what they have in hand.
    pub fn finish(&mut self) -> Vec<Ledger> {
        self.stop.finish();
        self.producers.drain(..).map(|producer| producer.join().expect("a producer ends")).collect()
    }

    /// Lines of ours of the touched lot, over all places.
    pub fn lines(&self, hand: Hand) -> usize {
        self.read(hand)[TOUCHED].iter().filter(|b| **b == b'\n').count()
    }

    /// What a reader of all places sees: whole lines, those of others left out, and a line that stands in
    /// the older place too taken once.
    pub fn read(&self, hand: Hand) -> Lots {
        let mut lots = lot_files(&self.place.data());
        let mut seen = std::collections::HashSet::new();
        let mut all = Vec::new();
        for bytes in hand.places(&self.lot()) {
            let bytes = whole_lines(bytes);
            let before = seen.clone();
            for line in bytes.split_inclusive(|b| *b == b'\n') {
                let foreign =
                    line.starts_with(b"{\"note\"") && memchr::memmem::find(line, b"sku_local").is_none();
                // NUL bytes are somebody else's too; what stands behind them on the line is not.
                let line: Vec<u8> = line.iter().copied().filter(|b| *b != 0).collect();
                if !foreign && !before.contains(&line) && line != b"\n" {
                    all.extend_from_slice(&line);
                }
                seen.insert(line);
            }
        }
        lots.insert(TOUCHED.to_owned(), all);
        lots
    }

    #[track_caller]
    pub fn judge(&self, hand: Hand, ledger: &[Entry]) {
        let verdict = judge(&self.read(hand), ledger, &record, After::Death);
        let good = Verdict { altered: verdict.altered, ..Verdict::default() };
        assert_eq!(verdict, good, "{hand:?}\n{}", self.log());
        assert!(verdict.altered <= hand.alters(), "{hand:?}: {verdict:?}");
    }
}

/// The other producer was never refused, never cut off, and never waited long.
#[track_caller]
pub fn unaffected(ledger: &Ledger) {
    assert!(ledger.refusals.is_empty(), "{:?}", ledger.refusals);
    assert_eq!(ledger.breaks, 0);
    let longest = ledger.waits.iter().max().copied().unwrap_or_default();
    assert!(longest < Duration::from_secs(3), "one acknowledgement took {longest:?}");
}

/// All of both ledgers.
pub fn all(ledgers: &[Ledger]) -> Vec<Entry> {
    entries(ledgers)
}
