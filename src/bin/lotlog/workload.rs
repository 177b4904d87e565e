//! The canonical workload of `lotlog bench`: what is sent. Items look like those of a real run, about 425
//! bytes each, and all of it is serialised before the clock starts; only session and seq are put in front.

use std::fmt::Write as _;

/// Bytes of one item as sent, about.
pub const ITEM_BYTES: usize = 425;
/// Different batches that a producer sends in turn, at least; as many as there are lots if that is more.
const MIN_BODIES: usize = 16;

const TITLES: [&str; 6] = [
    "Grün Espresso Machine, 15 bar, refurbished",
    "Cavallo Stand Mixer",
    "Dyne Trail Shoes, size 42",
    "Halcyon Robot Vacuum with dock",
    "Fjord Café Grinder",
    "Ito Tent, 2 person",
];

/// The requests of one producer, each without its beginning (`{"session":...,"seq":...,`).
pub fn bodies(producer: usize, lots: usize, items: usize, ack: &str) -> Vec<String> {
    (0..lots.max(MIN_BODIES)).map(|at| body(producer, (at * 7 + producer) % lots, at, items, ack)).collect()
}

fn body(producer: usize, lot: usize, batch: usize, items: usize, ack: &str) -> String {
    opening(lot, ack) + &self::items(producer, batch, items, ITEM_BYTES) + ENDING
}

/// A request from behind its session and seq up to its items.
pub fn opening(lot: usize, ack: &str) -> String {
    format!(
        r#""ack":"{ack}","context":{{"lot_id":"BENCH_LOT_{lot:04}","roi_target":1.25,"risk_threshold":0.8,"horizon_days":60,"opt_source":"lotlog_bench","opt_params":{{"roi_target":1.25,"risk_threshold":0.8,"sims":2000}}}},"items":["#
    )
}

/// The items of one batch, separated by commas, each of about so many bytes.
pub fn items(producer: usize, batch: usize, items: usize, item_bytes: usize) -> String {
    let items: Vec<String> =
        (0..items).map(|at| item((producer * 1_000_003 + batch * 1009 + at) as u64, item_bytes)).collect();
    items.join(",")
}

/// What follows the items.
pub const ENDING: &str = "]}";

fn item(number: u64, bytes: usize) -> String {
    // A fixed sequence (splitmix64): every run sends the same.
    let mut state = number.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let mut random = |below: u64| {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        (mixed ^ (mixed >> 27)) % below
    };
    let cents = 500 + random(20_000);
    let (asin, upc) = (random(10_000_000_000), random(1_000_000_000_000));
    if bytes < ITEM_BYTES {
        return filled(
            format!(
                r#"{{"sku_local":"SKU-{:05}","est_price_mu":{}.{:02},"sell_p60":0.{:04}"#,
                random(100_000),
                cents / 100,
                cents % 100,
                1 + random(9_998)
            ),
            bytes,
            random,
        );
    }
    let mut text = format!(
        r#"{{"sku_local":"SKU-{:05}","asin":"B0{asin:010}","upc":"{upc:012}","ean":"0{upc:012}","upc_ean_asin":"B0{asin:010}","est_price_mu":{}.{:02},"est_price_sigma":{}.{:02},"est_price_p50":{}.{:02},"#,
        random(100_000),
        cents / 100,
        cents % 100,
        cents / 400,
        random(100),
        cents / 103,
        random(100),
    );
    // Writing to a String cannot fail.
    let _ = write!(
        text,
        r#""sell_p60":0.{:04},"sell_hazard_daily":0.0{:05},"condition_bucket":"used_good","sell_condition_factor":0.85,"sell_seasonality_factor":1.0{:02},"mins_per_unit":12.5,"quantity":{},"title":"{}""#,
        1 + random(9_998),
        1 + random(89_998),
        10 + random(90),
        1 + random(6),
        TITLES[random(TITLES.len() as u64) as usize],
    );
    filled(text, bytes, random)
}

/// Ends an item, with a note that makes it so long.
fn filled(mut text: String, bytes: usize, mut random: impl FnMut(u64) -> u64) -> String {
    const NOTE: &str = ",\"note\":\"";
    let wanted = bytes.saturating_sub(text.len() + NOTE.len() + 2);
    if wanted > 0 {
        text.push_str(NOTE);
        text.extend((0..wanted).map(|_| (b'a' + random(26) as u8) as char));
        text.push('"');
    }
    text.push('}');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_workload_is_json_of_the_stated_size_and_names_all_lots() {
        let bodies = bodies(1, 64, 50, "synced");
        let mut lots = std::collections::HashSet::new();
        for body in &bodies {
            let batch: serde_json::Value = serde_json::from_str(&format!("{{{body}")).expect("JSON");
            let items = batch["items"].as_array().expect("array");
            assert_eq!(items.len(), 50);
            lots.insert(batch["context"]["lot_id"].to_string());
            for item in items {
                let size = item.to_string().len();
                assert!(size.abs_diff(ITEM_BYTES) < 40, "{size} {item}");
            }
        }
        assert_eq!(lots.len(), 64);
    }

    #[test]
    fn items_can_be_of_any_size() {
        for bytes in [100, 425, 8192] {
            let items: serde_json::Value =
                serde_json::from_str(&format!("[{}]", items(1, 2, 3, bytes))).expect("JSON");
            for item in items.as_array().expect("array") {
                let size = item.to_string().len();
                assert!(size.abs_diff(bytes) < 40, "{size} for {bytes}: {item}");
            }
        }
    }
}
