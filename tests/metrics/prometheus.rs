//! A real Prometheus scrapes a real daemon, and its answers to the dashboard's questions and the rules are looked
//! at. Skipped, with a word, where Prometheus is not installed.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::common::Daemon;
use crate::rules::{alerts_path, dashboard, expressions, tool};
use crate::scraper::{At, tcp_of};

/// A machine that is busy takes its time to start it.
const PATIENCE: Duration = Duration::from_secs(60);

/// Alerts about the machine, which a test cannot promise to be well.
const OF_THE_DISK: [&str; 4] = ["LotlogdDiskLow", "LotlogdInodesLow", "LotlogdSyncSlow", "LotlogdAckSlow"];

struct Prometheus {
    child: Child,
    at: At,
    _home: tempfile::TempDir,
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Prometheus {
    fn start(target: &str) -> Prometheus {
        let home = tempfile::tempdir().unwrap();
        let config = format!(
            "global: {{scrape_interval: 500ms, evaluation_interval: 500ms}}\nrule_files: [{}]\n\
             scrape_configs:\n  - job_name: lotlogd\n    static_configs: [{{targets: [\"{target}\"]}}]\n",
            alerts_path().display()
        );
        std::fs::write(home.path().join("prometheus.yml"), config).unwrap();
        // It takes no port 0 that it would tell; one that was free a moment ago is free still.
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let child = Command::new("prometheus")
            .arg("--config.file=prometheus.yml")
            .arg("--storage.tsdb.path=data")
            .arg(format!("--web.listen-address={address}"))
            .current_dir(home.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Prometheus { child, at: At::Tcp(address), _home: home }
    }

    /// Its answer, if it gives one.
    fn get(&self, path: &str) -> Option<Value> {
        let At::Tcp(address) = &self.at else { return None };
        std::net::TcpStream::connect(address).ok()?;
        let request = format!("GET {path} HTTP/1.0\r\n\r\n");
        let reply = self.at.exchange(request.as_bytes())?;
        serde_json::from_str(&reply.body).ok()
    }

    /// The result of a query; `None` as long as there is none.
    fn query(&self, expression: &str) -> Option<Vec<Value>> {
        let encoded: String = expression.bytes().map(|b| format!("%{b:02X}")).collect();
        let answer = self.get(&format!("/api/v1/query?query={encoded}"))?;
        assert_eq!(answer["status"], "success", "{expression}: {answer}");
        answer["data"]["result"].as_array().filter(|result| !result.is_empty()).cloned()
    }

    #[track_caller]
    fn until<T>(&self, what: &str, answer: impl Fn() -> Option<T>) -> T {
        let begun = Instant::now();
        loop {
            if let Some(answer) = answer() {
                return answer;
            }
            assert!(begun.elapsed() < PATIENCE, "this did not come true in {PATIENCE:?}: {what}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

#[test]
fn a_real_prometheus_scrapes_answers_the_dashboard_and_sees_the_daemon_go() {
    if !tool("prometheus") {
        return;
    }
    let daemon = Daemon::start(&["--metrics", "127.0.0.1:0"]);
    let At::Tcp(target) = tcp_of(&daemon) else { panic!("an address") };
    for _ in 0..7 {
        daemon.ask(r#"{"items":[{"a":1},{"a":"x","sell_p60":"soon"}]}"#);
    }
    let prometheus = Prometheus::start(&target);
    prometheus.until("the records are there", || {
        let result = prometheus.query("lotlogd_records_total")?;
        (result[0]["value"][1] == "14").then_some(())
    });
    let value = |expression: &str| {
        let result = prometheus.query(expression).unwrap_or_else(|| panic!("{expression} has no result"));
        result[0]["value"][1].as_str().unwrap().parse::<f64>().unwrap()
    };
    assert_eq!(value("up{job=\"lotlogd\"}"), 1.0);
    assert_eq!(value("lotlogd_batches_total{result=\"stored\"}"), 7.0);
    assert_eq!(value("lotlogd_dropped_values_total{field=\"sell_p60\",reason=\"not_number\"}"), 7.0);
    assert_eq!(value("lotlogd_ack_seconds_count"), 7.0);
    assert!((0.0..60.0).contains(&value("histogram_quantile(0.99, lotlogd_sync_seconds_bucket)")));
    // Two scrapes, and every question of the dashboard has an answer, if need be an empty one.
    prometheus.until("rates are there", || prometheus.query("rate(lotlogd_records_total[1m])"));
    let mut answered = 0;
    let all = expressions(&dashboard());
    for expression in &all {
        let expression = expression.replace("$instance", ".*").replace("$__rate_interval", "1m");
        answered += usize::from(prometheus.query(&expression).is_some());
    }
    // Only refusals and dropped values may have nothing to show.
    assert!(answered + 2 >= all.len(), "{answered} of {} have an answer", all.len());
    let rules = prometheus.until("the rules were evaluated", || {
        let answer = prometheus.get("/api/v1/rules")?;
        let rules = answer["data"]["groups"][0]["rules"].as_array()?.clone();
        rules.iter().all(|rule| rule["health"] != "unknown").then_some(rules)
    });
    assert!(rules.len() > 10);
    for rule in rules {
        assert_eq!(rule["health"], "ok", "{rule}");
        // What these say depends on the disk of who runs this: it may be nearly full, or slow just now.
        if !OF_THE_DISK.contains(&rule["name"].as_str().unwrap()) {
            assert_eq!(rule["state"], "inactive", "{rule}");
        }
    }
    drop(daemon);
    prometheus.until("the alert is pending", || {
        let answer = prometheus.get("/api/v1/alerts")?;
        let alerts = answer["data"]["alerts"].as_array()?;
        alerts.iter().any(|alert| alert["labels"]["alertname"] == "LotlogdDown").then_some(())
    });
}
