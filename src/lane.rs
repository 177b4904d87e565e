//! The vault's helpers: lanes of background work, each in order on a thread of its own. Knows jobs by their steps and
//! ends, not what they do. In tests a lane runs inline, one storage step at a time, so that a schedule can be replayed.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, OnceLock, mpsc};
use std::time::Duration;

use crate::background::{Done, Job, Step};
use crate::queue::Bell;
use crate::storage::{Storage, StorageError};

/// How long a job that cannot go on rests.
const STALL: Duration = Duration::from_millis(250);
/// After a part of a job that gave the disk much to do, others have it for so long: the flush of a journal sync takes with it whatever the disk was given before.
const REST: Duration = Duration::from_millis(1);
/// Of so many stalls one is worth a word: about once a minute.
const STALLS_PER_WORD: u32 = 240;

/// The lane that keeps the archive: everything else comes before it.
pub const KEEPING: &str = "keeping";
/// As far as niceness goes.
const LOWEST_PRIORITY: i32 = 19;

/// One lane of background work.
#[derive(Debug)]
pub struct Lane(Kind);

#[derive(Debug)]
enum Kind {
    Thread {
        jobs: mpsc::Sender<Job>,
        done: mpsc::Receiver<Done>,
        bell: Arc<OnceLock<Bell>>,
        /// Somebody waits for the job's end, or soon will.
        hurry: Arc<AtomicBool>,
    },
    Inline {
        storage: StorageBox,
        jobs: VecDeque<Job>,
    },
}

struct StorageBox(Storage);

impl std::fmt::Debug for StorageBox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Storage")
    }
}

impl Lane {
    /// A lane on a thread of its own, which ends with the lane.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn thread(name: &str, storage: Storage) -> std::io::Result<Lane> {
        let (jobs, inbox) = mpsc::channel::<Job>();
        let (outbox, done) = mpsc::channel();
        let bell = Arc::new(OnceLock::<Bell>::new());
        let rings = bell.clone();
        let hurry = Arc::new(AtomicBool::new(false));
        let hurries = hurry.clone();
        let yields = name == KEEPING;
        std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            if yields {
                // Its work can wait; where the system does not let it, it takes its share.
                let _ = rustix::process::setpriority_process(None, LOWEST_PRIORITY);
            }
            for mut job in inbox {
                let mut stalls = 0_u32;
                let end = loop {
                    match job.step(&storage, &hurries) {
                        Step::End(end) => break end,
                        Step::More => {}
                        Step::Rest if hurries.load(Relaxed) => {}
                        Step::Rest => std::thread::sleep(REST),
                        Step::Stalled(error) => {
                            if stalls.is_multiple_of(STALLS_PER_WORD) {
                                tracing::warn!(%error, "background work waits, and goes on by itself");
                            }
                            stalls = stalls.wrapping_add(1);
                            std::thread::sleep(STALL);
                        }
                    }
                };
                drop(job);
                hurries.store(false, Relaxed);
                if outbox.send(end).is_err() {
                    return;
                }
                if let Some(bell) = rings.get() {
                    bell.ring();
                }
            }
        })?;
        Ok(Lane(Kind::Thread { jobs, done, bell, hurry }))
    }

    /// From now on the lane rings at the end of each job.
    pub fn ring(&self, with: Bell) {
        if let Kind::Thread { bell, .. } = &self.0 {
            // Set once, by the one writer.
            let _ = bell.set(with);
        }
    }

    /// A lane that works when it is polled, one step at a time.
    pub fn inline(storage: Storage) -> Lane {
        Lane(Kind::Inline { storage: StorageBox(storage), jobs: VecDeque::new() })
    }

    /// Hands a job to the lane.
    pub fn submit(&mut self, job: Job) {
        match &mut self.0 {
            // A lane whose thread is gone shows at the next poll.
            Kind::Thread { jobs, .. } => drop(jobs.send(job)),
            Kind::Inline { jobs, .. } => jobs.push_back(job),
        }
    }

    /// A job's end, if one has come.
    pub fn poll(&mut self) -> Option<Done> {
        match &mut self.0 {
            Kind::Thread { done, .. } => match done.try_recv() {
                Ok(end) => Some(end),
                Err(mpsc::TryRecvError::Empty) => None,
                Err(mpsc::TryRecvError::Disconnected) => Some(gone()),
            },
            Kind::Inline { storage, jobs } => {
                let Step::End(end) = jobs.front_mut()?.step(&storage.0, &AtomicBool::new(false)) else {
                    return None;
                };
                jobs.pop_front();
                Some(end)
            }
        }
    }

    /// The job under way is to end soon: it no longer spares others, who would wait for its end.
    pub fn hurry(&self) {
        if let Kind::Thread { hurry, .. } = &self.0 {
            hurry.store(true, Relaxed);
        }
    }

    /// Waits for a job's end. Only for a lane that has been given one.
    pub fn wait(&mut self) -> Done {
        self.hurry();
        if let Kind::Thread { done, .. } = &mut self.0 {
            return done.recv().unwrap_or_else(|_| gone());
        }
        loop {
            if let Some(end) = self.poll() {
                return end;
            }
            if matches!(&self.0, Kind::Inline { jobs, .. } if jobs.is_empty()) {
                return gone();
            }
        }
    }
}

fn gone() -> Done {
    let source = std::io::Error::other("a background thread ended");
    Done::Failed(StorageError { what: "background work".to_owned(), source })
}
