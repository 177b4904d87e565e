//! Where the kernel, or the sandbox around the daemon, does not know `openat2`.

use std::os::unix::fs::symlink;

use crate::common::{Daemon, Place};
use crate::{BUSY, strace};

#[test]
fn without_openat2_it_stores_all_the_same_and_follows_no_link() {
    if strace::is_missing() {
        return;
    }
    for error in ["ENOSYS", "EPERM"] {
        let place = Place::new();
        let _sweep = strace::Sweep::of(&place);
        let injection = format!("openat2:error={error}");
        let mut daemon = Daemon::spawn(&place, strace::traced(&place, BUSY, &[injection], &[]));
        let batch =
            |lot: &str| format!(r#"{{"context":{{"lot_id":"{lot}"}},"items":[{{"sku_local":"1"}}]}}"#);
        assert_eq!(daemon.ask(batch("A"))["ok"], true);
        let outside = place.path().join("outside");
        std::fs::write(&outside, "keep").unwrap();
        symlink(&outside, place.lot_path("L.jsonl")).unwrap();
        assert_eq!(daemon.ask(batch("L"))["error"]["code"], "lot_unavailable");
        assert_eq!(std::fs::read_to_string(&outside).unwrap(), "keep");
        assert_eq!(daemon.terminate(), Some(0));
        let trace = std::fs::read_to_string(place.path().join("trace")).unwrap();
        assert!(trace.contains(&format!("{error} ")) && trace.contains("(INJECTED)"), "{trace}");
        assert_eq!(place.lot("A").len(), 1);
    }
}
