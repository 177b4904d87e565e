//! `lotlog send`: items and requests, what is refused, and what a broken connection leaves.

use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::fake::{Fake, Fate};
use crate::{Daemon, lotlog, run, run_on, wait_for};

fn summary(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn the_sample_items_become_records_with_numbers() {
    let home = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(home.path());
    let options = ["--lot", "TEST_LOT_001", "--context", "roi_target=1.250", "--context", "opt_source=run 7"];
    let more = ["--context", r#"opt_params={"sims":null,"x":1e2}"#, "--batch-size", "37", "--json"];
    let (code, out, error) =
        run(daemon.lotlog(&[&["send", "tests/data/items.csv"], &options[..], &more].concat()));
    assert_eq!((code, error.as_str()), (0, ""));
    let told = summary(&out);
    assert_eq!((&told["records"], &told["batches"], &told["dropped"]), (&300.into(), &9.into(), &json!({})));
    let records = daemon.lot("TEST_LOT_001");
    assert_eq!(records.len(), 300);
    let cells = std::fs::read_to_string("tests/data/items.csv").unwrap();
    for (record, row) in records.iter().zip(cells.lines().skip(1)) {
        assert_eq!(record["sku_local"], row.split(',').next().unwrap());
        for number in ["est_price_mu", "sell_p60", "mins_per_unit", "quantity"] {
            assert!(record.get(number).is_none_or(Value::is_number), "{number} in {record}");
        }
    }
    let (first, second) = (&records[0], &records[1]);
    assert_eq!((&first["quantity"], first.get("ean"), first.get("est_price_mu")), (&3.into(), None, None));
    assert_eq!((&second["ean"], &second["est_price_mu"]), (&"0043749785906".into(), &17.18.into()));
    let text = std::fs::read_to_string(home.path().join("data/lots/TEST_LOT_001.jsonl")).unwrap();
    assert!(text.contains(r#""roi_target":1.250"#), "spelt as it was given");
    assert_eq!(first["context"]["opt_params"], json!({"sims": null, "x": 1e2}));
    assert_eq!(first["context"]["opt_source"], "run 7");
}

#[test]
fn csv_from_a_spreadsheet_is_taken_and_a_bad_row_is_named() {
    let home = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(home.path());
    let csv = "\u{feff}sku_local,upc,quantity,title\r\n\"S,1\",007,3.0,\"27\"\" wide\"\r\nshort,1\r\nS2,,,\"two\r\nlines\"\r\nlong,1,2,3,4\r\nS3,1,x,\r\n";
    let (code, out, error) = run_on(daemon.lotlog(&["send", "--lot", "C", "--json"]), csv);
    assert_eq!(code, 65);
    assert!(
        error.contains("standard input:3: refused") && error.contains("standard input:6: refused"),
        "{error}"
    );
    let told = summary(&out);
    assert_eq!(
        (&told["records"], &told["refused_items"], &told["dropped"]),
        (&3.into(), &2.into(), &json!({"quantity": 1}))
    );
    let records = daemon.lot("C");
    let shown: Vec<_> =
        records.iter().map(|r| (&r["sku_local"], &r["upc"], &r["quantity"], &r["title"])).collect();
    let null = Value::Null;
    assert_eq!(shown[0], (&json!("S,1"), &json!("007"), &json!(3), &json!("27\" wide")));
    assert_eq!(shown[1], (&json!("S2"), &null, &null, &json!("two\r\nlines")));
    assert_eq!(shown[2], (&json!("S3"), &json!("1"), &null, &null));
}

#[test]
fn jsonl_reaches_the_daemon_byte_for_byte_and_only_bad_lines_are_refused() {
    let home = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(home.path());
    let lines = [
        "{\"a\": 1.50, \"b\": \"\\u00e9\", \"n\": NaN}",
        "{\"a\":",
        "",
        "{\"a\":1,\"a\":2}",
        "{}],\"context\":{\"lot_id\":\"X\"},\"items\":[{}",
        "[1]",
        "{\"half\":\"\\ud800\"}",
        "{\"a\":1e400}\r",
    ];
    let (code, out, error) = run_on(daemon.lotlog(&["send", "--lot", "J", "--json"]), &lines.join("\n"));
    assert_eq!(code, 65);
    let told = summary(&out);
    let named: Vec<_> =
        told["refused"].as_array().unwrap().iter().map(|r| r["first_line"].as_u64().unwrap()).collect();
    let mut sorted = named.clone();
    sorted.sort_unstable();
    assert_eq!((sorted, &told["records"]), (vec![2, 4, 5, 6, 7], &2.into()), "{error}");
    let text = std::fs::read_to_string(home.path().join("data/lots/J.jsonl")).unwrap();
    let mut records = text.lines();
    assert!(records.next().unwrap().starts_with(r#"{"a":1.50,"b":"é","n":null,"lot_id":"J","#), "{text}");
    assert!(records.next().unwrap().starts_with(r#"{"a":1e400,"#), "{text}");
    assert_eq!(records.next(), None);
}

#[test]
fn a_bad_context_is_told_before_anything_is_sent() {
    let home = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(home.path());
    let file = home.path().join("context.json");
    std::fs::write(&file, "{\n \"lot_id\": \"from file\",\n \"x\": NaN,\n \"opt_params\": {\"a\":\n 1.0}\n}")
        .unwrap();
    let file = file.to_str().unwrap();
    let (code, _, error) = run_on(daemon.lotlog(&["send", "--context", "lot_id=[1]"]), "{}\n");
    assert!(code == 65 && error.contains("nothing was sent: invalid_request"), "{error}");
    let (code, ..) =
        run_on(daemon.lotlog(&["send", "--context-json", file, "--context", "horizon_days=60"]), "{}\n");
    assert_eq!(code, 0);
    let record = &daemon.lot("from%20file")[0];
    assert_eq!((&record["horizon_days"], &record["context"]["opt_params"]), (&60.into(), &json!({"a": 1.0})));
    std::fs::write(file, "{\"a\":1} x").unwrap();
    let (code, _, error) = run(daemon.lotlog(&["send", "--context-json", file]));
    assert!(code == 65 && error.contains("at byte 8"), "{error}");
}

#[test]
fn one_bad_item_does_not_take_its_batch_with_it_and_the_order_stays() {
    let home = tempfile::tempdir().unwrap();
    let fake = Fake::start(home.path(), |_, _| Fate::Serve);
    let lines: String = (1..=40)
        .map(|n| if n % 9 == 0 { "{\"poison\":1}\n".to_owned() } else { format!("{{\"n\":{n}}}\n") })
        .collect();
    let socket = fake.path().to_str().unwrap();
    let (code, out, _) = run_on(lotlog(&["send", "--socket", socket, "--batch-size", "7", "--json"]), &lines);
    assert_eq!(code, 65);
    let refused = summary(&out)["refused"]
        .as_array()
        .unwrap()
        .iter()
        .map(|r| r["first_line"].as_u64())
        .collect::<Vec<_>>();
    assert_eq!(refused, [Some(9), Some(18), Some(27), Some(36)]);
    let stored: Vec<u64> = fake.items().iter().map(|item| item["n"].as_u64().unwrap()).collect();
    assert_eq!(stored, (1..=40).filter(|n| n % 9 != 0).collect::<Vec<_>>());
}

#[test]
fn a_batch_refused_without_a_culprit_is_halved_until_there_is_one() {
    let home = tempfile::tempdir().unwrap();
    let fake = Fake::start(home.path(), |_, request| {
        let items = request["items"].as_array().unwrap();
        if items.iter().any(|item| item["n"] == 5) { Fate::Refuse("too_large") } else { Fate::Serve }
    });
    let lines: String = (1..=8).map(|n| format!("{{\"n\":{n}}}\n")).collect();
    let (code, _, error) = run_on(lotlog(&["send", "--socket", fake.path().to_str().unwrap()]), &lines);
    assert_eq!(code, 65);
    assert!(error.contains("standard input:5: refused, not stored: too_large"), "{error}");
    let stored: Vec<u64> = fake.items().iter().map(|item| item["n"].as_u64().unwrap()).collect();
    assert_eq!(stored, [1, 2, 3, 4, 6, 7, 8]);
}

#[test]
fn ready_requests_are_sent_as_they_are() {
    let home = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(home.path());
    let (code, out, error) =
        run(daemon.lotlog(&["send", "--requests", "--json", "tests/data/batches.jsonl"]));
    assert_eq!((code, error.as_str()), (0, ""));
    let told = summary(&out);
    assert_eq!((&told["batches"], &told["duplicates"]), (&62.into(), &2.into()));
    let lines = "{\"items\":[{\"a\":1}]}\n\n{\"items\":7}\nnot json\n{\"op\":\"sync\"}\n{\"session\":\"s\",\"seq\":9,\"items\":[{}]}\n";
    let (code, _, error) = run_on(daemon.lotlog(&["send", "--requests", "-"]), lines);
    assert_eq!(code, 65);
    for named in [
        "3: refused, not stored: invalid_request",
        "4: refused, not stored: invalid_json",
        "6: refused, not stored: out_of_sequence",
    ] {
        assert!(error.contains(&format!("standard input:{named}")), "{error}");
    }
}

#[test]
fn an_array_on_standard_input_is_no_table_without_rows() {
    let home = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(home.path());
    let array = "[{\"sku_local\":\"A\"},{\"sku_local\":\"B\"}]";
    let (code, out, error) = run_on(daemon.lotlog(&["send", "--lot", "L", "-"]), array);
    assert_eq!((code, out.as_str()), (65, ""));
    assert!(error.contains("standard input begins as a JSON array") && error.contains("jq -c"), "{error}");
    let (code, _, error) =
        run_on(daemon.lotlog(&["send", "--lot", "L", "--format", "csv", "-"]), "[a],b\n1,2\n");
    assert_eq!(code, 0, "{error}");
    assert_eq!(daemon.lot("L")[0]["[a]"], "1");
}

#[test]
fn what_a_status_counts_was_not_stored_by_who_asked_for_it() {
    let home = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(home.path());
    let lines = "{\"items\":[{},{}]}\n{\"op\":\"sync\"}\n{\"op\":\"status\"}\n";
    let (code, out, _) = run_on(daemon.lotlog(&["send", "--requests", "--json", "-"]), lines);
    assert_eq!(code, 0);
    assert_eq!(summary(&out)["records"], 2, "{out}");
}

#[test]
fn requests_with_session_are_sent_again_and_those_without_are_reported_unknown() {
    for kind in [Fate::CutBefore, Fate::CutAfter, Fate::CutInReply] {
        for cut_at in 0..8 {
            let home = tempfile::tempdir().unwrap();
            let fake = Fake::start(home.path(), move |n, _| if n == cut_at { kind } else { Fate::Serve });
            let with: String = (1..=8)
                .map(|n| format!("{{\"session\":\"s\",\"seq\":{n},\"items\":[{{\"n\":{n}}}]}}\n"))
                .collect();
            let command = || lotlog(&["send", "--requests", "--socket", fake.path().to_str().unwrap()]);
            let (code, _, error) = run_on(command(), &with);
            assert_eq!(code, 0, "{error}");
            let stored: Vec<_> = fake.items().iter().map(|item| item["n"].as_u64().unwrap()).collect();
            assert_eq!(stored, (1..=8).collect::<Vec<_>>(), "{kind:?} at {cut_at}");
        }
    }
    let home = tempfile::tempdir().unwrap();
    let fake = Fake::start(home.path(), |n, _| if n == 3 { Fate::CutAfter } else { Fate::Serve });
    let without: String = (1..=8).map(|n| format!("{{\"items\":[{{\"n\":{n}}}]}}\n")).collect();
    let socket = fake.path().to_str().unwrap();
    let (code, out, error) = run_on(lotlog(&["send", "--requests", "--json", "--socket", socket]), &without);
    assert_eq!(code, 74);
    assert!(error.contains("standard input:4: unknown"), "{error}");
    // Every line is accounted for, and none was stored twice.
    let told = summary(&out);
    let unknown: Vec<_> =
        told["unknown"].as_array().unwrap().iter().map(|l| l["first_line"].as_u64().unwrap()).collect();
    assert_eq!(told["records"].as_u64().unwrap() + unknown.len() as u64, 8);
    let mut stored: Vec<_> = fake.items().iter().map(|item| item["n"].as_u64().unwrap()).collect();
    stored.sort_unstable();
    stored.dedup();
    assert_eq!(stored.len(), fake.items().len());
    assert!((1..=8).all(|n| stored.contains(&n) || unknown.contains(&n)), "{stored:?} {unknown:?}");
}

#[test]
fn requests_put_off_by_the_daemon_keep_their_order() {
    let home = tempfile::tempdir().unwrap();
    let fake = Fake::start(home.path(), |n, _| match n {
        1 | 4 => Fate::Refuse("no_space"),
        12 => Fate::RefuseAndClose("shutting_down"),
        _ => Fate::Serve,
    });
    let lines: String =
        (1..=20).map(|n| format!("{{\"session\":\"s\",\"seq\":{n},\"items\":[{{\"n\":{n}}}]}}\n")).collect();
    let socket = fake.path().to_str().unwrap();
    let (code, _, error) = run_on(lotlog(&["send", "--requests", "--socket", socket]), &lines);
    assert_eq!(code, 0, "{error}");
    let stored: Vec<_> = fake.items().iter().map(|item| item["n"].as_u64().unwrap()).collect();
    assert_eq!(stored, (1..=20).collect::<Vec<_>>());
}

#[test]
fn a_daemon_killed_and_started_again_in_the_middle_doubles_nothing() {
    let home = tempfile::tempdir().unwrap();
    let mut daemon = Daemon::start(home.path());
    let mut child = daemon
        .lotlog(&["send", "--lot", "K", "--batch-size", "7", "--json"])
        .stdin(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let mut write = |from: u64, to: u64| {
        for n in from..to {
            writeln!(stdin, "{{\"sku_local\":\"{n}\",\"pad\":\"{}\"}}", "x".repeat(1000)).unwrap();
        }
        stdin.flush().unwrap();
    };
    write(0, 3000);
    wait_for("the first batches", || (daemon.lot("K").len() > 300).then_some(()));
    daemon.kill();
    let daemon = Daemon::start(home.path());
    write(3000, 6000);
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let told = summary(std::str::from_utf8(&output.stdout).unwrap());
    assert_eq!((&told["records"], &told["reconnects"]), (&6000.into(), &1.into()));
    let stored: Vec<String> =
        daemon.lot("K").iter().map(|r| r["sku_local"].as_str().unwrap().to_owned()).collect();
    assert_eq!(stored, (0..6000).map(|n| n.to_string()).collect::<Vec<_>>());
}

#[test]
fn a_run_that_gave_up_is_resumed_under_its_session() {
    let home = tempfile::tempdir().unwrap();
    let full = Arc::new(AtomicBool::new(true));
    let rule = Arc::clone(&full);
    let fake = Fake::start(home.path(), move |_, request| {
        let stuck = rule.load(Ordering::SeqCst) && request["items"][0]["n"].as_u64() > Some(20);
        if stuck { Fate::Refuse("no_space") } else { Fate::Serve }
    });
    let file = home.path().join("items.jsonl");
    let lines: Vec<String> =
        (1..=40).map(|n| if n == 12 { "{\"poison\":1}".into() } else { format!("{{\"n\":{n}}}") }).collect();
    std::fs::write(&file, lines.join("\n")).unwrap();
    let (socket, file) = (fake.path().to_str().unwrap(), file.to_str().unwrap());
    let args = ["send", "--socket", socket, "--batch-size", "5", "--timeout", "300ms", "--json", file];
    let (code, out, error) = run(lotlog(&args));
    assert_eq!(code, 74, "{error}");
    let session = summary(&out)["session"].as_str().unwrap().to_owned();
    assert!(error.contains(&format!("--session {session}")) && error.contains("no_space"), "{error}");
    // All were refused for now, or not sent: none is of unknown fate.
    let told = summary(&out);
    assert!(!error.contains("unknown") && told["unknown"] == serde_json::json!([]), "{error}");
    let unsent = &told["unsent"][0];
    assert_eq!((&unsent["first_line"], &unsent["last_line"]), (&21.into(), &40.into()), "{out}");
    full.store(false, Ordering::SeqCst);
    let (code, out, error) = run(lotlog(&[&args[..], &["--session", &session]].concat()));
    assert_eq!((code, summary(&out)["records"].as_u64()), (65, Some(39)), "{error}");
    let stored: Vec<u64> = fake.items().iter().map(|item| item["n"].as_u64().unwrap()).collect();
    assert_eq!(stored, (1..=40).filter(|n| *n != 12).collect::<Vec<_>>());
}

#[test]
fn only_what_may_be_stored_is_called_unknown() {
    let home = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(home.path());
    let items = |from: u64| (from..from + 9).map(|n| format!("{{\"n\":{n}}}\n")).collect::<String>();
    let args = ["send", "--session", "s", "--batch-size", "1", "--json"];
    assert_eq!(run_on(daemon.lotlog(&args), &items(0)).0, 0);
    // Other data under the same session: a conflict, at the latest at its last number. Nothing of it is stored.
    let (code, out, error) = run_on(daemon.lotlog(&args), &items(100));
    assert!(code == 65 && error.contains("holds other data"), "{error}");
    assert_eq!(summary(&out)["unknown"], serde_json::json!([]), "{error}");
    assert!(!error.contains("unknown") && error.contains(":9: not stored"), "{error}");
    assert_eq!(daemon.lot("unassigned").len(), 9);
    // Stored, its answer lost, and refused for now ever after: that one may be stored, and is.
    let home = tempfile::tempdir().unwrap();
    let cut = AtomicBool::new(false);
    let fake = Fake::start(home.path(), move |_, request| match request["seq"].as_u64() {
        Some(3..) if cut.load(Ordering::SeqCst) => Fate::Refuse("no_space"),
        Some(3) => {
            cut.store(true, Ordering::SeqCst);
            Fate::CutAfter
        }
        _ => Fate::Serve,
    });
    let socket = fake.path().to_str().unwrap();
    let args = ["send", "--socket", socket, "--batch-size", "1", "--timeout", "300ms", "--json"];
    let (code, out, error) = run_on(lotlog(&args), &items(1));
    assert_eq!(code, 74, "{error}");
    assert_eq!(summary(&out)["unknown"][0]["first_line"], 3, "{out}");
    assert_eq!(fake.items().len(), 3);
}

#[test]
fn a_send_that_is_interrupted_says_how_to_go_on() {
    let home = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(home.path());
    let args = ["send", "--lot", "I", "--batch-size", "2"];
    let mut child = daemon.lotlog(&args).stdin(std::process::Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let items: Vec<String> = (0..10).map(|n| format!("{{\"n\":{n}}}\n")).collect();
    stdin.write_all(items[..5].concat().as_bytes()).unwrap();
    wait_for("what was sent", || (daemon.lot("I").len() == 4).then_some(()));
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.signal(), Some(2), "it ends as a signal ends a process");
    let error = String::from_utf8(output.stderr).unwrap();
    let session = error.split("--session ").nth(1).unwrap_or_else(|| panic!("{error}")).trim();
    let (code, _, error) =
        run_on(daemon.lotlog(&[&args[..], &["--session", session]].concat()), &items.concat());
    assert_eq!(code, 0, "{error}");
    let stored: Vec<u64> = daemon.lot("I").iter().map(|record| record["n"].as_u64().unwrap()).collect();
    assert_eq!(stored, (0..10).collect::<Vec<_>>());
}
