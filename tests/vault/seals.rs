//! Sealing on the modelled disk: a kill or a power cut at every storage call of a life that seals lots.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use lotlog::batch::{Code, Durability, LotId, Outcome};
use lotlog::order::Order;
use lotlog::queue::{Mailbox, Submission};
use lotlog::seal::Footer;
use lotlog::storage::Dir;

use crate::crash::schedules;
use crate::sim::*;

/// The world before a storage call, what producers knew, and which seals had been answered.
type Image = (World, Ledger, Vec<u64>);

const LOTS: u64 = 3;

fn lot(n: u64) -> String {
    format!("lot-{n}")
}

/// Fills lots, rotates some, and seals them one after the other.
fn life(seed: u64) -> Vec<Image> {
    let (mut random, around, farm) = (Random(seed), Around::new(), Farm::default());
    let disk = SimDisk::new(World::new());
    let (images, told, orders) =
        (Arc::<Mutex<Vec<Image>>>::default(), Arc::<Mutex<Vec<u64>>>::default(), Mailbox::new());
    let mut vault = open(&disk, &around, &config()).unwrap();
    let (taken, heard, sealed) = (images.clone(), farm.clone(), told.clone());
    disk.set_hook(Box::new(move |world, _| {
        taken.lock().unwrap().push((world.clone(), heard.hear(), sealed.lock().unwrap().clone()));
        Ok(())
    }));
    let mut seqs = [0; 2];
    for n in 0..LOTS {
        let id = || LotId::new(&lot(n), &format!("\"{}\"", lot(n))).unwrap();
        for _ in 0..2 {
            let producer = random.below(2);
            seqs[producer] += 1;
            let ack = if random.chance(60) { Durability::Synced } else { Durability::Written };
            let batch =
                farm.send(&lot(n), &format!("p{producer}"), seqs[producer], ack, 1 + random.below(3), 3000);
            vault.commit_group(vec![batch], around.now()).unwrap();
            if random.chance(40) {
                let order = Submission::Order(Order::Rotate(Some(id())), unread());
                vault.commit_group(vec![order], around.now()).unwrap();
            }
            for _ in 0..random.below(30) {
                around.pass(Duration::from_millis(200));
                vault.tick(around.now()).unwrap();
            }
        }
        let order = Submission::Order(Order::Seal(id()), orders.ticket(n));
        vault.commit_group(vec![order], around.now()).unwrap();
        for _ in 0..40 {
            around.pass(Duration::from_millis(20));
            vault.tick(around.now()).unwrap();
            let mut answers = Vec::new();
            orders.collect(&mut answers);
            for (n, outcome) in answers {
                assert!(matches!(outcome, Outcome::Sealed { .. }), "seed {seed}: {outcome:?}");
                told.lock().unwrap().push(n);
            }
        }
        assert!(told.lock().unwrap().contains(&n), "seed {seed}: no answer to the seal of {}", lot(n));
    }
    disk.clear_hook();
    std::mem::take(&mut *images.lock().unwrap())
}

#[test]
fn cut_at_any_storage_call_a_lot_is_sealed_with_all_it_has_or_open_as_before() {
    let (mut cuts, mut closed) = (0, 0);
    for seed in schedules(5) {
        for (at, (world, ledger, told)) in
            life(seed).iter().enumerate().filter(|(at, _)| at % 2 == seed as usize % 2)
        {
            let mut random = Random(seed * 1000 + at as u64);
            let power = random.chance(60);
            let after = if power { world.power_cut(&mut random) } else { world.kill(&mut random) };
            let note = format!("LOTLOG_SEED={seed}, image {at}");
            let (disk, around) = (SimDisk::new(after), Around::new());
            around.pass(Duration::from_secs(100_000));
            let mut vault = open(&disk, &around, &config()).unwrap();
            let found = lots(&disk.world.lock().unwrap());
            assert_eq!(judge(&found, ledger, power), Verdict::default(), "{note}");
            for n in 0..LOTS {
                let text = disk.world.lock().unwrap().read(Dir::Lots, &format!("{}.sealed", lot(n)));
                assert!(text.is_some() || !told.contains(&n), "{note}: the seal of {} is gone", lot(n));
                let answers = Mailbox::new();
                let batch = batch(&lot(n), &format!("new{n}"), 1, Durability::Synced, 1, 10);
                commit(&mut vault, vec![Submission::Batch(batch, answers.ticket(0))], &around).unwrap();
                let mut got = Vec::new();
                answers.collect(&mut got);
                match text {
                    Some(text) => {
                        let footer: Footer = serde_json::from_slice(&text).unwrap();
                        let has = &found[&lot(n)];
                        assert_eq!(footer.bytes, has.len() as u64, "{note}");
                        assert_eq!(
                            footer.records,
                            has.iter().filter(|b| **b == b'\n').count() as u64,
                            "{note}"
                        );
                        let hash = xxhash_rust::xxh3::xxh3_128(has);
                        assert_eq!(footer.xxh3_128, format!("{hash:032x}"), "{note}");
                        let is_refused =
                            matches!(&got[..], [(0, Outcome::Refused(r))] if r.code == Code::LotSealed);
                        assert!(is_refused, "{note}: {got:?}");
                        closed += 1;
                    }
                    None => assert!(matches!(got[..], [(0, Outcome::Stored { .. })]), "{note}: {got:?}"),
                }
            }
            cuts += 1;
        }
    }
    println!("{cuts} cuts, {closed} sealed lots met");
    assert!(cuts > 50 && closed > 20, "{cuts} cuts, {closed} sealed lots");
}

#[test]
fn a_seal_whose_call_fails_is_refused_and_leaves_the_lot_open_unless_the_disk_must_be_given_up() {
    let (mut runs, mut stops) = (0, 0);
    // EIO, ENOSPC, EROFS, EDQUOT, EPERM
    for errno in [5, 28, 30, 122, 1] {
        for n in 1.. {
            let (around, farm) = (Around::new(), Farm::default());
            let disk = SimDisk::new(World::new());
            let mut vault = open(&disk, &around, &config()).unwrap();
            let id = || LotId::new("A", "\"A\"").unwrap();
            for seq in 1..=2 {
                let batch = farm.send("A", "p", seq, Durability::Synced, 2, 3000);
                commit(&mut vault, vec![batch], &around).unwrap();
                if seq == 1 {
                    let order = Submission::Order(Order::Rotate(Some(id())), unread());
                    commit(&mut vault, vec![order], &around).unwrap();
                    for _ in 0..200 {
                        around.pass(Duration::from_millis(10));
                        vault.tick(around.now()).unwrap();
                    }
                }
            }
            // Those of the footer, and opening what it is about.
            let hit: Arc<Mutex<(usize, Option<String>)>> = Arc::default();
            let fails = move |hit: &Arc<Mutex<(usize, Option<String>)>>, what: &str, wanted: bool| {
                let mut seen = hit.lock().unwrap();
                seen.0 += usize::from(wanted);
                if !wanted || seen.0 != n {
                    return Ok(());
                }
                seen.1 = Some(what.to_owned());
                Err(std::io::Error::from_raw_os_error(errno))
            };
            let orders = Mailbox::new();
            let order = Submission::Order(Order::Seal(id()), orders.ticket(0));
            let mut stopped = commit(&mut vault, vec![order], &around).is_err();
            assert!(!stopped);
            let (of_calls, of_looks) = (hit.clone(), hit.clone());
            disk.set_hook(Box::new(move |_, what| {
                let wanted = what.contains("A.sealed") || what == "sync lots/";
                fails(&of_calls, what, wanted)
            }));
            disk.set_look(Box::new(move |what| {
                fails(&of_looks, what, what.starts_with("open archive/") || what.starts_with("read archive/"))
            }));
            let mut answers = Vec::new();
            for _ in 0..60 {
                around.pass(Duration::from_millis(20));
                stopped |= vault.tick(around.now()).is_err();
                orders.collect(&mut answers);
            }
            disk.clear_hook();
            disk.set_look(Box::new(|_| Ok(())));
            let Some(what) = hit.lock().unwrap().1.clone() else { break };
            let note = format!("call {n} (`{what}`) fails with error {errno}");
            runs += 1;
            let no_space = [28, 122].contains(&errno);
            let must_stop = what == "sync lots/" || (what.starts_with("rename") && !no_space);
            assert_eq!(stopped, must_stop, "{note}");
            let world = disk.world.lock().unwrap().clone();
            if stopped {
                stops += 1;
                drop(vault);
                orders.collect(&mut answers);
                assert!(matches!(answers[..], [(0, Outcome::Unknown)]), "{note}: {answers:?}");
                continue;
            }
            let code = if no_space { Code::NoSpace } else { Code::LotUnavailable };
            let refused = matches!(&answers[..], [(0, Outcome::Refused(refusal))] if refusal.code == code);
            assert!(refused, "{note}: {answers:?}");
            let names = world.names(Dir::Lots);
            assert!(!names.iter().any(|name| name.contains("sealed")), "{note}: {names:?}");
            let batch = farm.send("A", "p", 3, Durability::Synced, 1, 10);
            commit(&mut vault, vec![batch], &around).unwrap();
            let ledger = farm.hear();
            assert_eq!(
                judge(&lots(&disk.world.lock().unwrap()), &ledger, false),
                Verdict::default(),
                "{note}"
            );
            assert!(
                matches!(ledger.sent[2].answer, Some(Outcome::Stored { .. })),
                "{note}: {:?}",
                ledger.sent[2]
            );
        }
    }
    println!("{runs} runs, {stops} stops");
    assert!(runs > 20 && stops > 5, "{runs} runs, {stops} stops");
}

#[test]
fn an_order_that_the_daemons_end_overtakes_is_of_unknown_fate() {
    let (around, farm) = (Around::new(), Farm::default());
    let disk = SimDisk::new(World::new());
    let mut vault = open(&disk, &around, &config()).unwrap();
    let batch = farm.send("A", "p", 1, Durability::Synced, 2, 3000);
    commit(&mut vault, vec![batch], &around).unwrap();
    let id = || LotId::new("A", "\"A\"").unwrap();
    let orders = Mailbox::new();
    let given = [Order::Rotate(Some(id())), Order::Seal(id())];
    for (slot, order) in given.into_iter().enumerate() {
        vault.commit_group(vec![Submission::Order(order, orders.ticket(slot as u64))], around.now()).unwrap();
    }
    drop(vault);
    let mut answers = Vec::new();
    orders.collect(&mut answers);
    answers.sort_by_key(|(slot, _)| *slot);
    assert!(matches!(answers[..], [(0, Outcome::Unknown), (1, Outcome::Unknown)]), "{answers:?}");
}
