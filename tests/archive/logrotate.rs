//! The recipe for those who keep logrotate, as it stands in `docs/`, run beside producers.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::common::judge::{After, Lots, Verdict, judge};
use crate::common::producer::{Load, Stop, entries, farm, lot_files, number, record};
use crate::common::{Daemon, Place, until};

/// Rotations.
const ROUNDS: usize = 4;

#[test]
fn the_recipe_for_logrotate_loses_nothing_and_doubles_nothing_beside_producers() {
    let logrotate =
        ["/usr/sbin/logrotate", "/usr/bin/logrotate"].into_iter().find(|path| Path::new(path).exists());
    let (Some(logrotate), true) = (logrotate, Path::new("/usr/bin/zstd").exists()) else {
        println!("SKIPPED: the recipe for logrotate needs logrotate and zstd");
        return;
    };
    let seed = number("LOTLOG_SEED", u64::from(std::process::id()));
    println!("LOTLOG_SEED={seed}");
    let place = Place::new();
    let mut daemon = Daemon::start_in(&place, &[]);
    let recipe =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/logrotate.conf")).unwrap();
    let mine = recipe
        .replace("/var/lib/lotlog", place.data().to_str().unwrap())
        .replace("/usr/bin/lotlog", env!("CARGO_BIN_EXE_lotlog"))
        .replace("/run/lotlog/lotlog.sock", place.socket().to_str().unwrap());
    // Here they are this user's.
    let mine: Vec<&str> = mine.lines().filter(|line| !line.contains("su lotlog")).collect();
    let mine = mine.join("\n").replace("createolddir 0750 lotlog lotlog", "createolddir 0750") + "\n";
    assert!(mine.contains("reload --socket") && mine.contains("createolddir 0750\n"), "{mine}");
    let config = place.path().join("logrotate.conf");
    fs::write(&config, mine).unwrap();
    fs::set_permissions(&config, PermissionsExt::from_mode(0o644)).unwrap();
    let stop = Stop::default();
    let load = Load { lots: 3, pause: Duration::from_millis(2), synced_percent: 30, ..Load::default() };
    let producers = farm(&place.socket(), "p", 3, seed, &load, &stop);
    let olddir = place.data().join("logrotate");
    for round in 1..=ROUNDS {
        until("there are lots", || (lot_files(&place.data()).len() == 3).then_some(()));
        let output = Command::new(logrotate)
            .args(["--force", "--state"])
            .args([place.path().join("state"), config.clone()])
            .output()
            .unwrap();
        assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
        // Its names count seconds.
        std::thread::sleep(Duration::from_millis(1100));
        assert_eq!(fs::read_dir(&olddir).unwrap().count(), 3 * round);
    }
    stop.finish();
    let ledgers: Vec<_> = producers.into_iter().map(|p| p.join().unwrap()).collect();
    assert_eq!(daemon.terminate(), Some(0));
    let mut names: Vec<String> =
        fs::read_dir(&olddir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    let (mut all, mut compressed) = (Lots::new(), 0);
    for name in names {
        let path = olddir.join(&name);
        let bytes = if name.ends_with(".jsonl.zst") {
            compressed += 1;
            Command::new("zstd").arg("-qdc").arg(&path).output().unwrap().stdout
        } else {
            assert!(name.ends_with(".jsonl"), "{name}");
            fs::read(&path).unwrap()
        };
        all.entry(name[.."lot-0".len()].to_owned()).or_default().extend(bytes);
    }
    assert_eq!(compressed, 3 * (ROUNDS - 1), "all but the last of each lot are compressed");
    for (stem, bytes) in lot_files(&place.data()) {
        all.entry(stem).or_default().extend(bytes);
    }
    assert_eq!(judge(&all, &entries(&ledgers), &record, After::Death), Verdict::default());
    let report = lotlog::verify::verify(&place.data()).unwrap();
    assert!(report.is_good() && report.notes.iter().all(|note| note.kind == "gap"), "{report:#?}");
}
