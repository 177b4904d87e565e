//! The alert rules and the dashboard: each metric they name is on the page of a real daemon, Prometheus's own tool
//! accepts the rules and finds that they fire when they should, and the README says of each alert what to do.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::common::Daemon;
use crate::scraper::{Samples, tcp_of};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

pub fn alerts_path() -> PathBuf {
    root().join("systemd/lotlogd-alerts.yml")
}

fn alerts() -> String {
    std::fs::read_to_string(alerts_path()).unwrap()
}

pub fn dashboard() -> Value {
    serde_json::from_slice(&std::fs::read(root().join("systemd/lotlogd-dashboard.json")).unwrap()).unwrap()
}

/// Names that look like metrics of ours.
fn metrics_named_in(text: &str) -> BTreeSet<&str> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    words.filter(|word| word.starts_with("lotlogd_") || word.starts_with("process_")).collect()
}

/// A metric that is named but not there; `None` if all are.
fn missing<'a>(text: &'a str, page: &Samples) -> Option<&'a str> {
    let there: BTreeSet<&str> = page.values.keys().map(|name| name.split('{').next().unwrap()).collect();
    metrics_named_in(text).into_iter().find(|name| !there.contains(name))
}

/// The expressions of all panels.
pub fn expressions(dashboard: &Value) -> Vec<String> {
    let panels = dashboard["panels"].as_array().unwrap();
    let targets = panels.iter().flat_map(|panel| panel["targets"].as_array().unwrap());
    targets.map(|target| target["expr"].as_str().unwrap().to_owned()).collect()
}

pub fn tool(name: &str) -> bool {
    let found = Command::new(name).arg("--version").output().is_ok_and(|o| o.status.success());
    if !found {
        println!("SKIPPED: {name} is not installed");
    }
    found
}

#[test]
fn every_metric_that_a_rule_or_a_panel_names_is_on_the_page() {
    let daemon = Daemon::start(&["--metrics", "127.0.0.1:0"]);
    let page = tcp_of(&daemon).scrape();
    let rules = alerts();
    assert_eq!(missing(&rules, &page), None);
    assert!(metrics_named_in(&rules).len() > 15, "the rules are not looked at");
    let panels = dashboard().to_string();
    assert_eq!(missing(&panels, &page), None);
    assert!(metrics_named_in(&panels).len() > 30, "the panels are not looked at");
    assert_eq!(missing("rate(lotlogd_recods_total[5m])", &page), Some("lotlogd_recods_total"));
    // So is every code that the rules leave out.
    let (_, codes) = rules.split_once("code!~\"").unwrap();
    for code in codes.split('"').next().unwrap().split('|') {
        page.value(&format!("lotlogd_refused_total{{code=\"{code}\"}}"));
    }
}

#[test]
fn the_dashboard_has_its_panels_side_by_side_each_with_a_question() {
    let dashboard = dashboard();
    let panels = dashboard["panels"].as_array().unwrap();
    let (mut taken, mut ids) = (BTreeSet::new(), BTreeSet::new());
    for panel in panels {
        let title = panel["title"].as_str().unwrap();
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{title}: its number is another's");
        let place = |key: &str| panel["gridPos"][key].as_u64().unwrap();
        assert!(place("x") + place("w") <= 24, "{title}");
        for x in place("x")..place("x") + place("w") {
            for y in place("y")..place("y") + place("h") {
                assert!(taken.insert((x, y)), "{title} lies over another");
            }
        }
    }
    assert!(panels.len() > 15);
    for expression in expressions(&dashboard) {
        assert!(expression.contains("instance=~\"$instance\""), "{expression}");
    }
}

#[test]
fn the_readme_says_of_each_alert_what_to_do_and_of_no_other() {
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    let rules = alerts();
    let named: BTreeSet<&str> =
        rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    let rows = readme.lines().filter_map(|line| line.strip_prefix("| `Lotlogd"));
    let told: BTreeSet<String> =
        rows.map(|row| format!("Lotlogd{}", row.split('`').next().unwrap())).collect();
    let told: BTreeSet<&str> = told.iter().map(String::as_str).collect();
    assert_eq!(named, told);
}

#[test]
fn promtool_accepts_the_rules_and_they_fire_when_they_should() {
    if !tool("promtool") {
        return;
    }
    let check = Command::new("promtool").args(["check", "rules"]).arg(alerts_path()).output().unwrap();
    assert!(check.status.success(), "{}", String::from_utf8_lossy(&check.stderr));
    let home = tempfile::tempdir().unwrap();
    let tests = home.path().join("alerts.yml");
    let text = std::fs::read_to_string(root().join("tests/metrics/alerts.yml")).unwrap();
    let run = |rules: &Path| {
        std::fs::write(&tests, text.replace("RULES", rules.to_str().unwrap())).unwrap();
        let output = Command::new("promtool").args(["test", "rules"]).arg(&tests).output().unwrap();
        (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let (good, said) = run(&alerts_path());
    assert!(good, "{said}");
    // Rules that sleep are found out.
    let asleep = home.path().join("asleep.yml");
    std::fs::write(&asleep, alerts().replace("lotlogd_no_space == 1", "lotlogd_no_space == 2")).unwrap();
    assert!(!run(&asleep).0);
}

#[test]
fn promtool_finds_nothing_to_say_of_the_page() {
    if !tool("promtool") {
        return;
    }
    let daemon = Daemon::start(&["--metrics", "127.0.0.1:0"]);
    daemon.ask(r#"{"items":[{"a":1}]}"#);
    let page = tcp_of(&daemon).get("/metrics").body;
    let mut child = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), page.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && said.is_empty(), "{said}");
}
