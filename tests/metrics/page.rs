//! What stands on the page, and that each figure counts what its name says.

use std::time::{Duration, SystemTime};

use serde_json::json;

use crate::common::{Daemon, Place, until};
use crate::scraper::{At, Samples, tcp_of};

/// Every family that operators are promised; histograms by their stem.
const FAMILIES: &[&str] = &[
    "lotlogd_build_info",
    "lotlogd_batches_total",
    "lotlogd_records_total",
    "lotlogd_written_bytes_total",
    "lotlogd_refused_total",
    "lotlogd_dropped_values_total",
    "lotlogd_ack_seconds",
    "lotlogd_sync_seconds",
    "lotlogd_group_batches",
    "lotlogd_queue_bytes",
    "lotlogd_queue_capacity_bytes",
    "lotlogd_connections",
    "lotlogd_connections_limit",
    "lotlogd_users",
    "lotlogd_quota_waits_total",
    "lotlogd_open_lots",
    "lotlogd_lot_evictions_total",
    "lotlogd_rotated_files_total",
    "lotlogd_rotated_bytes_total",
    "lotlogd_rotation_failures_total",
    "lotlogd_sealed_lots_total",
    "lotlogd_compressed_files_total",
    "lotlogd_compression_read_bytes_total",
    "lotlogd_compression_written_bytes_total",
    "lotlogd_archive_removed_files_total",
    "lotlogd_archive_removed_bytes_total",
    "lotlogd_archive_failures_total",
    "lotlogd_lsn",
    "lotlogd_synced_lsn",
    "lotlogd_journal_bytes",
    "lotlogd_checkpoints_total",
    "lotlogd_checkpoint_age_seconds",
    "lotlogd_uncheckpointed_batches",
    "lotlogd_recovery_seconds",
    "lotlogd_last_write_timestamp_seconds",
    "lotlogd_clock_skew_seconds",
    "lotlogd_no_space",
    "lotlogd_failed",
    "lotlogd_writer_stalled_seconds",
    "lotlogd_disk_free_bytes",
    "lotlogd_disk_size_bytes",
    "lotlogd_disk_free_files",
    "lotlogd_quarantined_files",
    "process_cpu_seconds_total",
    "process_resident_memory_bytes",
    "process_virtual_memory_bytes",
    "process_threads",
    "process_open_fds",
    "process_max_fds",
    "process_start_time_seconds",
];

fn seconds_now() -> f64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs_f64()
}

fn with_metrics(flags: &[&str]) -> (Daemon, At) {
    let daemon = Daemon::start(&[flags, &["--metrics", "127.0.0.1:0"]].concat());
    let at = tcp_of(&daemon);
    (daemon, at)
}

#[test]
fn every_family_is_there_from_the_start_with_its_type_and_help() {
    let (daemon, at) = with_metrics(&[]);
    let page = at.scrape();
    let types: Vec<&str> = page.types.keys().map(String::as_str).collect();
    let mut promised = FAMILIES.to_vec();
    if rustix::fs::statvfs(daemon.place.path()).unwrap().f_files == 0 {
        promised.retain(|name| *name != "lotlogd_disk_free_files");
    }
    promised.sort_unstable();
    assert_eq!(types, promised);
    for (name, kind) in &page.types {
        assert!(page.helps[name].len() > 5, "{name} says nothing of itself");
        assert_eq!(name.ends_with("_total"), kind == "counter", "{name} is a {kind}");
    }
    for name in page.values.keys() {
        let family = name.split('{').next().unwrap();
        let stem = ["_bucket", "_sum", "_count"].iter().find_map(|end| family.strip_suffix(end));
        let known = FAMILIES.contains(&family) || stem.is_some_and(|stem| page.types[stem] == "histogram");
        assert!(known, "{name} belongs to no family");
    }
    let reply = at.get("/metrics");
    assert!(reply.head.contains("content-type: text/plain; version=0.0.4"), "{}", reply.head);
    drop(daemon);
}

#[test]
fn what_producers_do_is_counted() {
    let (daemon, at) = with_metrics(&[]);
    let mut connection = daemon.connect();
    let log = |seq: u64, sku: &str| {
        json!({"session":"run-secret","seq":seq,"context":{"lot_id":"LOT_SECRET"},"items":[{"sku_local":sku},{}]}).to_string()
    };
    for seq in 1..=5 {
        assert_eq!(connection.ask(log(seq, "A"))["ok"], true);
    }
    assert_eq!(connection.ask(log(5, "A"))["duplicate"], true);
    assert_eq!(connection.ask(log(5, "B"))["error"]["code"], "conflict");
    assert_eq!(connection.ask(log(9, "B"))["error"]["code"], "out_of_sequence");
    assert_eq!(connection.ask("nonsense")["error"]["code"], "invalid_json");
    connection.ask(r#"{"op":"sync"}"#);
    let page = at.scrape();
    for (sample, value) in [
        ("lotlogd_batches_total{result=\"stored\"}", 5.0),
        ("lotlogd_batches_total{result=\"duplicate\"}", 1.0),
        ("lotlogd_batches_total{result=\"refused\"}", 3.0),
        ("lotlogd_batches_total{result=\"unknown\"}", 0.0),
        ("lotlogd_refused_total{code=\"conflict\"}", 1.0),
        ("lotlogd_refused_total{code=\"out_of_sequence\"}", 1.0),
        ("lotlogd_refused_total{code=\"invalid_json\"}", 1.0),
        ("lotlogd_refused_total{code=\"no_space\"}", 0.0),
        ("lotlogd_records_total", 10.0),
        ("lotlogd_lsn", 5.0),
        ("lotlogd_synced_lsn", 5.0),
        ("lotlogd_uncheckpointed_batches", 5.0),
        ("lotlogd_checkpoints_total", 1.0),
        ("lotlogd_connections", 1.0),
        ("lotlogd_connections_limit", 4096.0),
        ("lotlogd_users", 1.0),
        ("lotlogd_quota_waits_total", 0.0),
        ("lotlogd_open_lots", 1.0),
        ("lotlogd_queue_bytes", 0.0),
        ("lotlogd_queue_capacity_bytes", 67_108_864.0),
        ("lotlogd_no_space", 0.0),
        ("lotlogd_failed", 0.0),
        ("lotlogd_writer_stalled_seconds", 0.0),
        ("lotlogd_quarantined_files", 0.0),
        // Eight batches and a sync were answered by the vault.
        ("lotlogd_ack_seconds_count", 9.0),
        ("lotlogd_group_batches_sum", 8.0),
        (concat!("lotlogd_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"}"), 1.0),
    ] {
        assert_eq!(page.value(sample), value, "{sample}");
    }
    let file = std::fs::metadata(daemon.place.data().join("lots/LOT_SECRET.jsonl")).unwrap();
    assert_eq!(page.value("lotlogd_written_bytes_total"), file.len() as f64);
    assert!(page.value("lotlogd_sync_seconds_count") >= 1.0);
    assert!(page.value("lotlogd_recovery_seconds") > 0.0);
    assert!((0.0..30.0).contains(&page.value("lotlogd_checkpoint_age_seconds")));
    assert!((seconds_now() - page.value("lotlogd_last_write_timestamp_seconds")).abs() < 60.0);
    assert!(page.value("lotlogd_journal_bytes") >= f64::from(1 << 20));
    let names: String = page.values.keys().map(String::as_str).collect();
    for word in ["SECRET", "secret", "pid=", "lot="] {
        assert!(!names.contains(word), "{word} is a label");
    }
}

#[test]
fn a_histogram_counts_each_answer_in_one_bucket_and_ends_with_all() {
    let (daemon, at) = with_metrics(&[]);
    let mut connection = daemon.connect();
    for _ in 0..20 {
        connection.ask(r#"{"items":[{"a":1}]}"#);
    }
    let page = at.scrape();
    for stem in ["lotlogd_ack_seconds", "lotlogd_sync_seconds", "lotlogd_group_batches"] {
        let mut buckets: Vec<(f64, f64)> = page
            .values
            .iter()
            .filter_map(|(name, count)| {
                let bound = name.strip_prefix(&format!("{stem}_bucket{{le=\""))?.strip_suffix("\"}")?;
                Some((bound.replace("+Inf", "inf").parse().unwrap(), *count))
            })
            .collect();
        buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
        assert!(buckets.len() > 8 && buckets.is_sorted_by(|a, b| a.1 <= b.1), "{buckets:?}");
        let count = page.value(&format!("{stem}_count"));
        assert_eq!(buckets.last(), Some(&(f64::INFINITY, count)), "{stem}");
        assert!(count > 0.0 && page.value(&format!("{stem}_sum")) > 0.0, "{stem}");
    }
    assert_eq!(page.value("lotlogd_ack_seconds_count"), 20.0);
}

#[test]
fn dropped_values_are_counted_by_field_and_reason_and_unknown_fields_together() {
    let (daemon, at) = with_metrics(&[]);
    let fields = "sku_local asin upc ean upc_ean_asin est_price_mu est_price_sigma est_price_p50 sell_p60 \
                  sell_hazard_daily condition_bucket sell_condition_factor sell_seasonality_factor mins_per_unit quantity";
    for field in fields.split_whitespace() {
        daemon.ask(json!({"items":[{field:[1]}]}).to_string());
    }
    daemon.ask(
        r#"{"items":[{"sell_p60":"soon","est_price_mu":1e999,"quantity":1e30,"mins_per_unit":Infinity}]}"#,
    );
    daemon.ask(
        r#"{"context":{"roi_target":-Infinity},"items":[{"mine":[Infinity,Infinity],"other":Infinity}]}"#,
    );
    let page = at.scrape();
    let dropped = |field: &str, reason: &str| {
        page.value(&format!("lotlogd_dropped_values_total{{field=\"{field}\",reason=\"{reason}\"}}"))
    };
    for field in fields.split_whitespace() {
        assert_eq!(dropped(field, "not_scalar"), 1.0, "{field}");
    }
    assert_eq!(dropped("sell_p60", "not_number"), 1.0);
    assert_eq!(dropped("est_price_mu", "out_of_range"), 1.0);
    assert_eq!(dropped("quantity", "out_of_range"), 1.0);
    assert_eq!(dropped("mins_per_unit", "infinite"), 1.0);
    assert_eq!(dropped("roi_target", "infinite"), 1.0);
    assert_eq!(dropped("other", "infinite"), 3.0);
    let all: f64 =
        page.values.iter().filter(|(name, _)| name.starts_with("lotlogd_dropped")).map(|(_, n)| n).sum();
    assert_eq!(all, 15.0 + 4.0 + 4.0);
}

#[test]
fn figures_of_the_process_and_the_disk_are_those_of_the_system() {
    let begun = seconds_now();
    let (daemon, at) = with_metrics(&[]);
    let page = at.scrape();
    let proc = std::path::Path::new("/proc").join(daemon.pid().to_string());
    let files = std::fs::read_dir(proc.join("fd")).unwrap().count() as f64;
    assert!((page.value("process_open_fds") - files).abs() <= 4.0, "{files}");
    let threads = std::fs::read_dir(proc.join("task")).unwrap().count() as f64;
    assert!((page.value("process_threads") - threads).abs() <= 4.0, "{threads}");
    let resident = crate::scraper::resident_kib(daemon.pid()) as f64 * 1024.0;
    let ratio = page.value("process_resident_memory_bytes") / resident;
    assert!((0.5..2.0).contains(&ratio), "{ratio}");
    assert!(page.value("process_virtual_memory_bytes") > resident);
    assert!((begun - 5.0..seconds_now() + 5.0).contains(&page.value("process_start_time_seconds")));
    let disk = rustix::fs::statvfs(daemon.place.path()).unwrap();
    assert_eq!(page.value("lotlogd_disk_size_bytes"), (disk.f_blocks * disk.f_frsize) as f64);
    assert!(page.value("lotlogd_disk_free_bytes") > 0.0);
    // The start does not move, whatever is asked in between.
    std::thread::sleep(Duration::from_millis(20));
    assert_eq!(at.scrape().value("process_start_time_seconds"), page.value("process_start_time_seconds"));
}

#[test]
fn what_is_set_aside_and_what_is_evicted_is_counted() {
    let (daemon, at) = with_metrics(&["--max-open-lots", "4"]);
    let mut connection = daemon.connect();
    for lot in 0..40 {
        connection.ask(json!({"context":{"lot_id":format!("L{lot}")},"items":[{"a":1}]}).to_string());
    }
    // A loose end in a lot that is closed: the next batch for it sets it aside.
    let path = daemon.place.data().join("lots/L0.jsonl");
    let text = std::fs::read(&path).unwrap();
    std::fs::write(&path, [text, b"loose".to_vec()].concat()).unwrap();
    connection.ask(r#"{"context":{"lot_id":"L0"},"items":[{"a":1}]}"#);
    let page = until("the copy is counted", || {
        let page: Samples = at.scrape();
        (page.value("lotlogd_quarantined_files") == 1.0).then_some(page)
    });
    assert!(page.value("lotlogd_lot_evictions_total") >= 20.0);
}

#[test]
fn what_becomes_of_archived_files_is_counted() {
    let (daemon, at) = with_metrics(&["--archive-compress", "3"]);
    let pad = "x".repeat(5000);
    let log = |lot: &str| json!({"context":{"lot_id":lot},"items":[{"pad":pad}]}).to_string();
    let mut bytes = 0;
    for round in 1..=2 {
        for lot in ["A", "B"] {
            assert_eq!(daemon.ask(log(lot))["ok"], true);
            bytes += std::fs::metadata(daemon.place.lot_path(&format!("{lot}.jsonl"))).unwrap().len();
        }
        assert_eq!(daemon.ask(r#"{"op":"rotate","all":true}"#)["rotated"], 2, "round {round}");
    }
    assert_eq!(daemon.ask(r#"{"op":"rotate","lot_id":"none"}"#)["ok"], false);
    let page = until("all four are compressed", || {
        let page = at.scrape();
        (page.value("lotlogd_compressed_files_total") == 4.0).then_some(page)
    });
    assert_eq!(page.value("lotlogd_rotated_files_total"), 4.0);
    assert_eq!(page.value("lotlogd_rotated_bytes_total"), bytes as f64);
    assert_eq!(page.value("lotlogd_rotation_failures_total"), 1.0);
    assert_eq!(page.value("lotlogd_compression_read_bytes_total"), bytes as f64);
    let archive = |place: &Place, lot: &str| {
        let entries = std::fs::read_dir(place.data().join(format!("archive/lot={lot}"))).unwrap();
        entries.map(|entry| entry.unwrap().metadata().unwrap().len()).sum::<u64>()
    };
    let packed = archive(&daemon.place, "A") + archive(&daemon.place, "B");
    assert_eq!(page.value("lotlogd_compression_written_bytes_total"), packed as f64);
    // What cannot be compressed is counted, and what is removed.
    assert_eq!(daemon.ask(log("A"))["ok"], true);
    let blocked = daemon.place.data().join("archive/lot=A/00000000000000000005.jsonl.zst.new");
    std::fs::create_dir(&blocked).unwrap();
    assert_eq!(daemon.ask(r#"{"op":"rotate","lot_id":"A"}"#)["rotated"], 1);
    until("the failure is counted", || {
        (at.scrape().value("lotlogd_archive_failures_total") == 1.0).then_some(())
    });
    std::fs::remove_dir(&blocked).unwrap();
    // And what is sealed, once.
    assert_eq!(at.scrape().value("lotlogd_sealed_lots_total"), 0.0);
    assert_eq!(daemon.ask(log("C"))["ok"], true);
    for ok in [true, false] {
        assert_eq!(daemon.ask(r#"{"op":"seal","lot_id":"C"}"#)["ok"], ok);
    }
    assert_eq!(at.scrape().value("lotlogd_sealed_lots_total"), 1.0);
    let place = daemon.place.clone();
    let socket = place.path().join("again.sock");
    let flags = ["--metrics", socket.to_str().unwrap(), "--retain-bytes", "1B"];
    let daemon = daemon.restart(&flags);
    // It listens for producers a moment earlier.
    until("the page is served", || socket.exists().then_some(()));
    let page = until("all five are removed", || {
        let page = At::Unix(socket.clone()).scrape();
        (page.value("lotlogd_archive_removed_files_total") == 5.0).then_some(page)
    });
    assert!(page.value("lotlogd_archive_removed_bytes_total") > packed as f64);
    assert_eq!(archive(&place, "A") + archive(&place, "B"), 0);
    drop(daemon);
}

#[test]
fn counts_begin_anew_with_a_start_and_places_do_not() {
    let place = Place::new();
    let socket = place.path().join("m.sock");
    let flags = ["--metrics", socket.to_str().unwrap()];
    let daemon = Daemon::start_in(&place, &flags);
    for _ in 0..3 {
        daemon.ask(r#"{"items":[{"a":1}]}"#);
    }
    let at = At::Unix(socket.clone());
    assert_eq!(at.scrape().value("lotlogd_lsn"), 3.0);
    let daemon = daemon.restart(&flags);
    let page = at.scrape();
    assert_eq!(page.value("lotlogd_records_total"), 0.0);
    assert_eq!(page.value("lotlogd_lsn"), 3.0);
    assert_eq!(page.value("lotlogd_uncheckpointed_batches"), 0.0);
    let mut daemon = daemon;
    assert_eq!(daemon.terminate(), Some(0));
    assert!(!socket.exists(), "the socket file goes with its daemon");
}
