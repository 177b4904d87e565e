//! The decision over every small journal, against the rules of recovery written out slowly. A journal is what its
//! writer wrote, frame by frame, and then damaged: so the truth is known apart from any scan.

use lotlog::chain::{Checkpoint, Decision, Run, Scanned, decide};
use lotlog::frame::{HEADER_BYTES, Header, HeaderCheck, Position};

/// A frame of 100 bytes in a small journal.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Slot {
    Batch,
    Begin,
    End,
    /// Ends the segment.
    Close,
    /// Damaged, or never written.
    Hole,
    /// Zeros.
    Empty,
}

const SLOTS: usize = 4;
const FRAME: u64 = 104;

/// A segment: its header, its frames, what each frame claims (as an index into all places), a cut.
#[derive(Clone, Debug)]
struct Segment {
    number: u64,
    header: HeaderCheck,
    slots: [Slot; SLOTS],
    claim: Position,
    cut: bool,
}

fn at(number: u64, slot: usize) -> Position {
    Position { segment: number, offset: HEADER_BYTES + slot as u64 * FRAME }
}

fn is_frame(slot: Slot) -> bool {
    !matches!(slot, Slot::Hole | Slot::Empty)
}

/// What a scan must see in a segment; the last valid frame makes the claim.
fn scanned(segment: &Segment, last_begin: &mut Position) -> Scanned {
    let mut runs: Vec<Run> = Vec::new();
    let (mut checkpoints, mut batches, mut used) = (Vec::new(), 0, HEADER_BYTES);
    let readable = matches!(segment.header, HeaderCheck::Valid(_));
    let mut open = false;
    for (index, slot) in segment.slots.iter().enumerate() {
        let place = at(segment.number, index);
        if *slot != Slot::Empty {
            used = place.offset + FRAME;
        }
        if !readable || !is_frame(*slot) {
            open = false;
            continue;
        }
        if !open {
            runs.push(Run { start: place.offset, end: place.offset, closed: false });
            open = true;
        }
        let run = runs.last_mut().unwrap();
        run.end = place.offset + FRAME;
        run.closed = *slot == Slot::Close;
        match slot {
            Slot::Batch => batches += 1,
            Slot::Begin => *last_begin = place,
            Slot::End => checkpoints.push(Checkpoint {
                id: u128::from(last_begin.segment) << 64 | u128::from(last_begin.offset),
                begin: *last_begin,
                end: at(segment.number, index + 1),
            }),
            _ => {}
        }
        if *slot == Slot::Close {
            break;
        }
    }
    let claim = if runs.is_empty() { Position::NONE } else { segment.claim };
    Scanned {
        number: segment.number,
        header: segment.header,
        cut_at: (readable && segment.cut).then_some(used),
        runs,
        checkpoints,
        claim,
        batches,
        used_end: used,
    }
}

/// What must come, without offsets and words.
#[derive(Debug, PartialEq)]
enum Must {
    Fresh,
    Redo { begin: Position, hole: Position },
    Damaged,
    Newer,
}

/// The frame at a place, if the scan can read it.
fn frame(segments: &[Segment], place: Position) -> Option<Slot> {
    let segment = segments.iter().find(|s| s.number == place.segment)?;
    let index = (place.offset.checked_sub(HEADER_BYTES)? / FRAME) as usize;
    let before_close = !segment.slots[..index.min(SLOTS)].contains(&Slot::Close);
    let readable = matches!(segment.header, HeaderCheck::Valid(_)) && before_close;
    segment.slots.get(index).copied().filter(|slot| readable && is_frame(*slot))
}

/// Where the frame behind this one stands.
fn next(segments: &[Segment], place: Position) -> Result<Position, &'static str> {
    if frame(segments, place) != Some(Slot::Close) {
        return Ok(Position { offset: place.offset + FRAME, ..place });
    }
    let this = segments.iter().find(|s| s.number == place.segment).ok_or("missing")?;
    let following = segments.iter().find(|s| s.number == place.segment + 1).ok_or("missing")?;
    match (this.header, following.header) {
        (HeaderCheck::Valid(this), HeaderCheck::Valid(following)) if following.previous == this.uuid => {
            Ok(at(following.number, 0))
        }
        _ => Err("not linked"),
    }
}

/// The rules, one after the other.
fn must(segments: &[Segment], seen: &[Scanned], lots_exist: bool) -> Must {
    if segments.iter().any(|s| matches!(s.header, HeaderCheck::Newer(_))) {
        return Must::Newer;
    }
    let mut checkpoints: Vec<Checkpoint> = seen.iter().flat_map(|s| s.checkpoints.clone()).collect();
    checkpoints.sort_by_key(|checkpoint| checkpoint.end);
    // The newest one whose frames are all there, from its begin to its end.
    let whole = |checkpoint: &Checkpoint| {
        let mut place = checkpoint.begin;
        while place < checkpoint.end {
            if frame(segments, place).is_none() {
                return false;
            }
            match next(segments, place) {
                Ok(next) => place = next,
                Err(_) => return false,
            }
        }
        true
    };
    let Some(checkpoint) = checkpoints.into_iter().rev().find(whole) else {
        let nothing = seen.iter().all(|s| s.batches == 0 && s.claim == Position::NONE)
            && segments.iter().all(|s| matches!(s.header, HeaderCheck::Valid(_)) && !s.cut)
            && segments.first().is_none_or(|s| s.number == 1);
        return if nothing && !lots_exist { Must::Fresh } else { Must::Damaged };
    };
    // From the begin to the first place without a frame.
    let mut hole = checkpoint.begin;
    while frame(segments, hole).is_some() {
        match next(segments, hole) {
            Ok(next) => hole = next,
            // Closed, and what was made before the close is not there.
            Err(_) => return Must::Damaged,
        }
    }
    // All segments from there on, in order, as far as they are of this chain, which must be whole.
    let from = segments.iter().position(|s| s.number == checkpoint.begin.segment).unwrap();
    let mut later_chain = false;
    for index in from..segments.len() {
        let segment = &segments[index];
        let HeaderCheck::Valid(header) = segment.header else { return Must::Damaged };
        if segment.cut {
            return Must::Damaged;
        }
        if index > from && header.previous == 0 {
            later_chain = true;
        }
        if index > from && !later_chain {
            let HeaderCheck::Valid(before) = segments[index - 1].header else { return Must::Damaged };
            if segment.number != segments[index - 1].number + 1 || header.previous != before.uuid {
                return Must::Damaged;
            }
        }
        let claim = seen[index].claim;
        let allowed = if later_chain { Position::NONE } else { hole };
        if claim > allowed {
            return Must::Damaged;
        }
    }
    Must::Redo { begin: checkpoint.begin, hole }
}

fn check(segments: &[Segment], lots_exist: bool) -> Must {
    let mut last_begin = Position::NONE;
    let seen: Vec<Scanned> = segments.iter().map(|segment| scanned(segment, &mut last_begin)).collect();
    let expected = must(segments, &seen, lots_exist);
    let decision = decide(&seen, lots_exist);
    let got = match &decision {
        Decision::Fresh => Must::Fresh,
        Decision::Redo { checkpoint, hole, .. } => Must::Redo { begin: checkpoint.begin, hole: *hole },
        Decision::Damaged { at, .. } => {
            let known = segments.iter().any(|s| s.number == at.segment || s.number + 1 == at.segment);
            assert!(known || segments.is_empty(), "{at} is nowhere: {segments:?}");
            Must::Damaged
        }
        Decision::Newer { .. } => Must::Newer,
    };
    assert_eq!(got, expected, "{decision:?} for {segments:#?}");
    expected
}

/// Rows of frames that tell different stories.
const ROWS: [[Slot; SLOTS]; 13] = {
    use Slot::*;
    [
        [Empty, Empty, Empty, Empty],
        [Begin, End, Empty, Empty],
        [Begin, End, Batch, Empty],
        [Begin, End, Batch, Close],
        [Begin, End, Hole, Batch],
        [Begin, Hole, Batch, Close],
        [Batch, Batch, Batch, Close],
        [Batch, Begin, End, Close],
        [Batch, Begin, Batch, Close],
        [End, Batch, Batch, Empty],
        [Hole, End, Batch, Close],
        [Batch, Hole, Begin, End],
        [Hole, Hole, Hole, Hole],
    ]
};

fn headers(number: u64) -> Vec<HeaderCheck> {
    let uuid = |number: u64| u128::from(number) + 100;
    let header = |previous| HeaderCheck::Valid(Header { number, uuid: uuid(number), previous, bytes: 8192 });
    vec![header(uuid(number - 1)), header(0), header(7), HeaderCheck::Invalid]
}

/// Every kind of segment under a number.
fn segments(number: u64, claims: &[Position]) -> Vec<Segment> {
    let mut all = Vec::new();
    for header in headers(number) {
        for slots in ROWS {
            for claim in claims {
                all.push(Segment { number, header, slots, claim: *claim, cut: false });
            }
        }
    }
    let whole = Segment { number, header: headers(number)[0], slots: ROWS[2], claim: claims[0], cut: true };
    all.push(whole.clone());
    all.push(Segment { header: HeaderCheck::Newer(2), ..whole });
    all
}

#[test]
fn every_small_journal_is_decided_as_the_rules_say() {
    let none = Position::NONE;
    let (mut fresh, mut redo, mut damaged, mut newer) = (0u64, 0u64, 0u64, 0u64);
    let mut count = |must: Must| match must {
        Must::Fresh => fresh += 1,
        Must::Redo { .. } => redo += 1,
        Must::Damaged => damaged += 1,
        Must::Newer => newer += 1,
    };
    for lots_exist in [false, true] {
        count(check(&[], lots_exist));
        for first in [1, 3] {
            let firsts = segments(first, &[none, at(first, 1), at(first, 3)]);
            // The next number, or one is missing.
            for second in [first + 1, first + 2] {
                let claims = [none, at(first, 2), at(first, 4), at(second, 1), at(second, 4)];
                let seconds = segments(second, &claims);
                for one in &firsts {
                    count(check(std::slice::from_ref(one), lots_exist));
                    for two in &seconds {
                        count(check(&[one.clone(), two.clone()], lots_exist));
                    }
                }
                if first > 1 || second > 2 {
                    continue;
                }
                let thirds = segments(second + 1, &[none, at(second, 1), at(second + 1, 2)]);
                for one in firsts.iter().step_by(3) {
                    for two in seconds.iter().step_by(5) {
                        for three in &thirds {
                            count(check(&[one.clone(), two.clone(), three.clone()], lots_exist));
                        }
                    }
                }
            }
        }
    }
    println!("decisions: {fresh} fresh, {redo} redo, {damaged} damaged, {newer} newer");
    assert!(fresh > 10 && redo > 10_000 && damaged > 10_000 && newer > 100);
}
