//! What a reader finds under DATA.

use std::path::PathBuf;

use serde_json::Value;

use super::Daemon;
use super::daemon::Place;

impl Place {
    /// The file of this name in `lots/`.
    pub fn lot_path(&self, file: &str) -> PathBuf {
        self.data().join("lots").join(file)
    }

    /// Its lines up to the last newline; none where there is no file.
    #[track_caller]
    pub fn lot(&self, lot: &str) -> Vec<String> {
        match std::fs::read_to_string(self.lot_path(&format!("{lot}.jsonl"))) {
            Ok(text) => {
                let whole = text.rfind('\n').map_or("", |end| &text[..end + 1]);
                whole.lines().map(str::to_owned).collect()
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(error) => panic!("lot {lot}: {error}"),
        }
    }

    /// The names in `lots/`, sorted.
    pub fn lots(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.data().join("lots")).into_iter().flatten();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }
}

impl Daemon {
    #[track_caller]
    pub fn lot(&self, lot: &str) -> Vec<String> {
        self.place.lot(lot)
    }

    /// The lot's records, parsed.
    #[track_caller]
    pub fn records(&self, lot: &str) -> Vec<Value> {
        self.lot(lot).iter().map(|line| serde_json::from_str(line).expect("a record is JSON")).collect()
    }
}

/// The record without its `"timestamp":"..."`, each taken out with one comma beside it.
#[track_caller]
pub fn without_timestamps(record: &str) -> String {
    const KEY: &str = r#""timestamp":""#;
    let mut rest = record.to_owned();
    for level in 0..2 {
        let begin = rest.find(KEY).unwrap_or_else(|| panic!("no timestamp at level {level}: {record}"));
        let end = begin + KEY.len() + rest[begin + KEY.len()..].find('"').expect("a closing quote") + 1;
        let (before, after) = (&rest[..begin], &rest[end..]);
        rest = match before.strip_suffix(',') {
            Some(before) => format!("{before}{after}"),
            None => format!("{before}{}", after.strip_prefix(',').unwrap_or(after)),
        };
    }
    assert!(!rest.contains(KEY), "a third timestamp: {record}");
    rest
}
