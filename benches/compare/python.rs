//! Producers in Python that write their records themselves: processes that run `producer.py`.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use crate::load::{self, Load};
use crate::sample::{Files, Measured, Sample};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/compare/producer.py");

/// How they store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    Append,
    Fdatasync,
    Pandas,
    Sqlite,
}

impl Way {
    fn as_str(self) -> &'static str {
        match self {
            Way::Append => "append",
            Way::Fdatasync => "fdatasync",
            Way::Pandas => "pandas",
            Way::Sqlite => "sqlite",
        }
    }
}

/// What a process says at its end.
#[derive(Deserialize)]
struct Said {
    records: u64,
    cpu_seconds: f64,
    latencies: Vec<f64>,
}

/// Ended when it is dropped.
struct Producer(Child);

impl Drop for Producer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
        crate::cleanup::ended(self.0.id());
    }
}

/// One run.
pub fn run(python: &Path, way: Way, load: &Load, dir: &Path) -> Result<Sample> {
    let lots = dir.join("lots");
    fs::create_dir(&lots)?;
    let data = dir.join("data.json");
    fs::write(&data, load::as_json(load)?)?;
    let mut producers = Vec::new();
    for number in 0..load.producers {
        let child = Command::new(python)
            .arg(SCRIPT)
            .arg(way.as_str())
            .args([&data, &lots])
            .args([load.seconds.to_string(), number.to_string(), load.producers.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {}", python.display()))?;
        crate::cleanup::began(child.id());
        producers.push(Producer(child));
    }
    let mut outputs = Vec::new();
    for producer in &mut producers {
        let mut output = BufReader::new(producer.0.stdout.take().context("no output")?);
        let mut line = String::new();
        output.read_line(&mut line)?;
        ensure!(line == "ready\n", "producer.py {} did not begin: {line}", way.as_str());
        outputs.push(output);
    }
    let started = Instant::now();
    for producer in &mut producers {
        producer.0.stdin.take().context("no input")?.write_all(b"go\n")?;
    }
    let mut said = Vec::new();
    let mut seconds = 0.0;
    for mut output in outputs {
        let mut text = String::new();
        output.read_to_string(&mut text)?;
        seconds = started.elapsed().as_secs_f64();
        said.push(
            serde_json::from_str::<Said>(&text)
                .with_context(|| format!("producer.py {} failed", way.as_str()))?,
        );
    }
    let mut latencies: Vec<Duration> = said
        .iter()
        .flat_map(|said| &said.latencies)
        .map(|&seconds| Duration::from_secs_f64(seconds))
        .collect();
    latencies.sort_unstable();
    let measured = Measured {
        records: said.iter().map(|said| said.records).sum(),
        seconds,
        acked_seconds: seconds,
        daemon_cpu_seconds: None,
        producers_cpu_seconds: said.iter().map(|said| said.cpu_seconds).sum(),
        latencies,
    };
    let files = if way == Way::Sqlite {
        rows(python, &lots)?
    } else {
        let files = Files::count(&lots)?;
        // In a short run they need not come round all lots.
        ensure!(files.files <= load.lots, "{} files", files.files);
        files
    };
    files.hold(measured.records, files.files)?;
    measured.sample(&files)
}

/// What the database holds, as if it were lines.
fn rows(python: &Path, lots: &Path) -> Result<Files> {
    let code = "import sqlite3, sys\n\
                base = sqlite3.connect(sys.argv[1] + '/records.sqlite')\n\
                print(*base.execute('SELECT count(*), sum(length(record) + 1) FROM records').fetchone())";
    let output = Command::new(python).args(["-c", code]).arg(lots).output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut numbers = text.split_whitespace().map(str::parse);
    let (Some(Ok(lines)), Some(Ok(bytes))) = (numbers.next(), numbers.next()) else {
        anyhow::bail!("cannot count the rows: {}", String::from_utf8_lossy(&output.stderr));
    };
    Ok(Files { lines, bytes, files: 1 })
}
