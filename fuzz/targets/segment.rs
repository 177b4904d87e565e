//! Frames and the scan of a segment: any bytes behind a header, and frames whose checksums are made to hold.

#![no_main]

use lotlog::chain::{decide, scan};
use lotlog::frame::{HEADER_BYTES, Header, HeaderCheck, Position, decode, encode};

const UUID: u128 = 0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10;

/// Makes both checksums of the frame at `at` hold, if its length lets them.
fn seal(bytes: &mut [u8], at: usize) {
    let Some(frame) = bytes.get_mut(at..) else { return };
    if frame.len() < 56 {
        return;
    }
    let length = (u32::from_le_bytes([frame[0], frame[1], 0, 0]) as usize).clamp(56, frame.len());
    frame[..4].copy_from_slice(&(length as u32).to_le_bytes());
    frame[16..32].copy_from_slice(&UUID.to_le_bytes());
    let place = crc32c::crc32c(&(at as u64).to_le_bytes());
    let short = crc32c::crc32c_append(place, &frame[..4]);
    let short = crc32c::crc32c_append(crc32c::crc32c_append(short, &frame[8..12]), &frame[16..32]);
    frame[4..8].copy_from_slice(&short.to_le_bytes());
    let whole = crc32c::crc32c_append(crc32c::crc32c_append(place, &frame[..12]), &frame[16..length]);
    frame[12..16].copy_from_slice(&whole.to_le_bytes());
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let _ = Header::decode(data);
    let mut bytes = Header { number: 1, uuid: UUID, previous: 0, bytes: 4096 }.encode();
    bytes.extend_from_slice(data);
    // The kinds of frames are few: bring the byte down to them.
    let mut at = HEADER_BYTES as usize;
    while at + 56 < bytes.len() {
        if bytes[at + 15] % 4 != 0 {
            let kind = u32::from(bytes[at + 8] % 8);
            bytes[at + 8..at + 12].copy_from_slice(&kind.to_le_bytes());
            seal(&mut bytes, at);
        }
        let length = u32::from_le_bytes([bytes[at], bytes[at + 1], 0, 0]) as usize;
        at += length.max(56).next_multiple_of(8);
    }
    let mut frames = 0;
    let mut last = 0;
    let seen = scan(1, &bytes, bytes.len() as u64, |place, frame| {
        frames += 1;
        assert!(place.offset >= last && place.offset % 8 == 0, "in order");
        last = place.offset;
        // What was read is what would be written.
        let mut again = Vec::new();
        encode(frame, UUID, place.offset, &mut again);
        let start = place.offset as usize;
        assert_eq!(again, bytes[start..start + again.len()], "{frame:?}");
        assert_eq!(decode(&again, UUID, place.offset).map(|(frame, _)| frame).as_ref(), Some(frame));
        assert_eq!(decode(&again, UUID, place.offset + 8), None, "at another place");
    });
    assert!(matches!(seen.header, HeaderCheck::Valid(_)));
    assert!(seen.runs.iter().all(|run| run.start < run.end && run.end <= bytes.len() as u64));
    assert!(seen.runs.windows(2).all(|pair| pair[0].end <= pair[1].start));
    assert!(frames > 0 || seen.claim == Position::NONE);
    let _ = (decide(std::slice::from_ref(&seen), true), decide(std::slice::from_ref(&seen), false));
});
