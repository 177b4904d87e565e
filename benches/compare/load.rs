//! The load of one cell, and its requests as text, made before any clock starts. What the items look like is the
//! workload's business; who is measured is not known here.

#[path = "../../src/bin/lotlog/workload.rs"]
#[allow(dead_code, unused_imports)] // with its tests, which run where it belongs
mod workload;

use std::io::IoSlice;
use std::sync::Arc;
use std::time::Duration;

/// Different batches of each producer, at most, sent in turn; with so many items at most in all.
const MAX_BATCHES: usize = 64;
const MAX_ITEMS: usize = 3200;
const ENDING: &str = "]}\n";

/// How much is sent, by how many, at once.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct Load {
    pub producers: usize,
    /// In a batch.
    pub items: usize,
    pub lots: usize,
    /// Batches sent and not yet acknowledged, per producer.
    pub outstanding: usize,
    pub item_bytes: usize,
    pub seconds: f64,
}

/// The load that is meant where nothing else is said.
impl Load {
    pub fn usual(producers: usize, seconds: f64) -> Load {
        Load { producers, items: 50, lots: 64, outstanding: 1, item_bytes: workload::ITEM_BYTES, seconds }
    }

    pub fn time(&self) -> Duration {
        Duration::from_secs_f64(self.seconds)
    }
}

/// The parts of all requests of one producer.
pub struct Requests {
    session: String,
    producer: usize,
    producers: usize,
    /// By lot, shared by all producers.
    openings: Arc<Vec<String>>,
    items: Vec<String>,
}

impl Requests {
    /// Those of each producer.
    pub fn of_all(load: &Load, ack: &str) -> Vec<Requests> {
        let openings: Arc<Vec<String>> =
            Arc::new((0..load.lots).map(|lot| workload::opening(lot, ack)).collect());
        let batches = (MAX_ITEMS / load.items).clamp(1, MAX_BATCHES);
        (0..load.producers)
            .map(|producer| Requests {
                session: uuid::Uuid::new_v4().to_string(),
                producer,
                producers: load.producers,
                openings: Arc::clone(&openings),
                items: (0..batches)
                    .map(|batch| workload::items(producer, batch, load.items, load.item_bytes))
                    .collect(),
            })
            .collect()
    }

    /// The number of the lot of request `seq`. All producers together go round all lots: so does each by itself.
    fn lot_number(&self, seq: u64) -> usize {
        (seq as usize + self.producer * self.openings.len() / self.producers) % self.openings.len()
    }

    /// The beginning of request `seq`, which differs from request to request.
    pub fn head(&self, seq: u64) -> String {
        format!(r#"{{"session":"{}","seq":{seq},"#, self.session)
    }

    /// Request `seq` behind its head.
    pub fn rest(&self, seq: u64) -> [IoSlice<'_>; 3] {
        let items = &self.items[seq as usize % self.items.len()];
        let opening = &self.openings[self.lot_number(seq)];
        [opening.as_str(), items.as_str(), ENDING].map(|part| IoSlice::new(part.as_bytes()))
    }

    /// Request `seq` as one line, without its newline.
    pub fn line(&self, seq: u64) -> Vec<u8> {
        let mut line = self.head(seq).into_bytes();
        for part in self.rest(seq) {
            line.extend_from_slice(&part);
        }
        line.truncate(line.len() - 1);
        line
    }
}

/// The contexts of all lots, and batches of items, for producers that make their records themselves.
pub fn as_json(load: &Load) -> serde_json::Result<Vec<u8>> {
    let alone = Load { producers: 1, ..*load };
    let mut contexts = Vec::new();
    let mut batches = Vec::new();
    for requests in Requests::of_all(&alone, "written") {
        for seq in 0..load.lots.max(requests.items.len()) as u64 {
            let mut request: serde_json::Value = serde_json::from_slice(&requests.line(seq))?;
            if contexts.len() < load.lots {
                contexts.push(request["context"].take());
            }
            if batches.len() < requests.items.len() {
                batches.push(request["items"].take());
            }
        }
    }
    serde_json::to_vec(&serde_json::json!({"contexts": contexts, "batches": batches}))
}
