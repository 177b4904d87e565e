//! Frames that are sound in themselves, at another place of their segment: as a disk that misdirects a write
//! leaves them.

use lotlog::batch::Durability::Synced;
use lotlog::chain;
use lotlog::config::VaultConfig;
use lotlog::frame::{Content, Position, segment_name};
use lotlog::storage::Dir;

use crate::sim::*;

/// Places and lengths of the frames of a segment, and which of them ends it.
fn frames(number: u64, bytes: &[u8]) -> (Vec<(usize, usize)>, Option<usize>) {
    let (mut places, mut end) = (Vec::new(), None);
    let seen = chain::scan(number, bytes, bytes.len() as u64, |at: Position, frame| {
        if matches!(frame.content, Content::EndOfSegment) {
            end = Some(places.len());
        }
        places.push(at.offset as usize);
    });
    let ends = places.iter().copied().skip(1).chain(seen.runs.last().map(|run| run.end as usize));
    (places.iter().copied().zip(ends).map(|(at, end)| (at, end - at)).collect(), end)
}

/// A journal of two segments in use, each batch in a lot of its own.
fn two_segments() -> (World, Ledger) {
    let (disk, around, farm) = (SimDisk::new(World::new()), Around::new(), Farm::default());
    // Room for all lots: evicted files would want a checkpoint.
    let roomy = VaultConfig { max_open_lots: 64, ..config() };
    let mut vault = open(&disk, &around, &roomy).unwrap();
    for seq in 1..=40 {
        let submission = farm.send(&format!("lot-{seq}"), "s", seq, Synced, 2, 4000);
        commit(&mut vault, vec![submission], &around).unwrap();
    }
    let world = disk.world.lock().unwrap().clone();
    (world, farm.hear())
}

/// Recovers; gives the verdict, or the refusal.
fn recovered(world: World, ledger: &Ledger) -> Result<Verdict, String> {
    let disk = SimDisk::new(world);
    open(&disk, &Around::new(), &config()).map_err(|e| e.to_string())?;
    let found = lots(&disk.world.lock().unwrap());
    Ok(judge(&found, ledger, false))
}

#[test]
fn a_frame_at_another_place_of_its_segment_is_no_frame() {
    let (world, ledger) = two_segments();
    let name = segment_name(1);
    let bytes = world.read(Dir::Journal, &name).unwrap();
    let (frames, end) = frames(1, &bytes);
    assert_eq!(end, Some(frames.len() - 1), "the first segment is closed");
    let mut refused = 0;
    for (from, (at, length)) in frames.iter().enumerate() {
        for (to, (place, room)) in frames.iter().enumerate().skip(2) {
            if from == to || length > room {
                continue;
            }
            let mut world = world.clone();
            // The lot files as a power cut may leave them: the journal has the only copy.
            for lot in world.names(Dir::Lots) {
                world.remove(Dir::Lots, &lot);
            }
            world.edit(Dir::Journal, &name, |b| b.copy_within(*at..at + length, *place));
            match recovered(world, &ledger) {
                Err(why) => {
                    assert!(why.contains(&format!("journal/{name} offset {place}")), "{from} to {to}: {why}");
                    refused += 1;
                }
                Ok(verdict) => panic!("frame {from} in the place of frame {to}: {verdict:?}"),
            }
        }
    }
    assert!(refused > 400, "{refused}");
}
