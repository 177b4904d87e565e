//! lotlog: a durable logging daemon for auction-lot predictions.
//!
//! Many optimiser processes send prediction batches over a Unix socket to **one writer**, which puts them in
//! order, turns them into JSONL records and appends them to one file per lot: whole, once, kept. The binary
//! `lotlogd` is the daemon, `lotlog` its companion; `docs/protocol.md` is the contract with producers.
//!
//! # The way of a batch
//!
//! ```text
//!  producers            FRONT (async, tokio)                    HATCH        VAULT (one plain thread)
//!  ---------            --------------------                    -----        ------------------------
//!  client == socket ==> server -> connection -> protocol    ==> queue ==>    writer -> journal -> apply -> lots
//!                                    |   item, context, record                 |                     |
//!         <== replies ==          connection <- replies     <== ticket <==   writer              storage -> disk
//!                                                                            recovery (before the door opens)
//! ```
//! 1. [`connection`] reads a line, [`protocol`] decodes it, [`item`] and [`context`] normalise it: each item
//!    becomes the text of its record up to the context. All checks that need no state happen here.
//! 2. [`queue`] carries it over, with a ticket that is answered exactly once.
//! 3. [`writer`] takes what waits as a group: session check, lsn, timestamp, one [`frame`] a batch.
//! 4. The group goes to the [`journal`]; `written` tickets are answered.
//! 5. One `fdatasync` of the journal ([`commit`]), however many lots and producers, while the writer goes on; then
//!    [`apply`] appends to the [`lots`], page cache only, and `synced` tickets are answered. [`writer`] states the
//!    promise above `commit_group`.
//! 6. [`checkpoint`] syncs lot files in the background, so that the journal can be trimmed; after a crash
//!    [`recovery`] redoes what the journal has and the lots may not.
//!
//! # Rooms, in reading order
//!
//! | room | holds |
//! |---|---|
//! | [`batch`] | the cargo: lot, session, batch, refusal, outcome |
//! | [`config`], [`settings`], [`values`], [`load`], [`places`], [`units`] | every limit by name; the table of settings; how their values are read; how they are loaded; where things are; sizes and times as text |
//! | [`protocol`], [`answers`], [`scan`], [`token`], [`text`], [`number`] | the wire, in and out; a strict JSON scanner; its tokens; strings; numbers by their digits |
//! | [`item`], [`context`], [`record`], [`tally`], [`dropped`] | the record: its two halves, composing its lines, and what of a request was not stored, for its reply and in all |
//! | [`server`], [`door`], [`front`] | accepting and draining; the socket file; what connections share and who may connect |
//! | [`users`] | quotas by user |
//! | [`connection`], [`inbox`], [`purse`], [`allowance`], [`patience`], [`replies`], [`express`], [`status`], [`parting`] | one connection; its bytes, its share of its user's quota and of the budget, its deadlines, its replies in order; how they are sent while it sleeps; the status page; how it ends |
//! | [`queue`], [`budget`], [`order`] | the hatch: submissions and tickets; the bytes in flight; what operators ask for |
//! | [`vault`], [`writer`], [`commit`], [`apply`], [`checkpoint`], [`rotation`], [`chores`], [`means`], [`steady`] | the vault's state; groups; their syncs; into the lot files; checkpoints; to the archive; finished files; clock and space; whether an age may be believed |
//! | [`sessions`] | what each session stored last |
//! | [`frame`], [`journal`], [`spares`], [`chain`], [`window`] | journal bytes; writing them; segments to come; reading them back and deciding what they mean; a window at a time |
//! | [`lots`], [`hands`], [`archive`], [`seal`], [`keeping`], [`packing`], [`quarantine`] | lot files; what others did to them; where finished ones go, how a lot is closed, the archive kept, and a file compressed; what is set aside |
//! | [`recovery`], [`redo`], [`rebase`], [`rewrite`] | from whatever a crash left to a vault that may take batches |
//! | [`lane`], [`background`], [`chore`], [`marker`] | the vault's helpers, each a thread; their work: segments prepared and removed, lots synced; that they are being synced |
//! | [`storage`], [`medium`], [`disk`], [`taking`] | the disk seam with its failure latch; what a disk can do; the real one, and why it cannot be had |
//! | [`metrics`] | counters, quantiles and histograms |
//! | [`scrape`], [`exposition`], [`sampler`] | the metrics page over HTTP, where it is asked for; what stands on it; figures of the process and the disk |
//! | [`shutdown`], [`systemd`], [`ownlog`], [`check`] | signals; readiness and watchdog; the own log; `--check` |
//! | [`client`], [`session`], [`session_error`] | the producer's side: one connection; a session that resends and renumbers, and why it cannot go on |
//! | [`shelf`], [`verify`], [`lines`], [`inventory`], [`findings`] | a lot's files in order; reading a data directory; its lot files; what else lies there; what can be wrong, and what to do |
//!
//! # Deliberately absent
//!
//! The vault knows no sockets and no runtime; the front knows no files; nothing of the vault opens a file but
//! through [`storage`]; nothing outside [`item`], [`context`] and [`record`] knows the record; nothing in the
//! vault reads the clock but its loop (time is an argument); nothing is unbounded; a scan never writes. There
//! is no network code but the metrics page, where an operator asks for it: forwarding is another process's work,
//! from the same journal. `tests/tidy.rs` holds what
//! of this can be held.

pub mod allowance;
pub mod answers;
pub mod apply;
pub mod archive;
pub mod background;
pub mod batch;
pub mod budget;
pub mod chain;
pub mod check;
pub mod checkpoint;
pub mod chore;
pub mod chores;
pub mod client;
pub mod commit;
pub mod config;
pub mod connection;
pub mod context;
pub mod disk;
pub mod door;
pub mod dropped;
pub mod exposition;
pub mod express;
pub mod findings;
pub mod frame;
pub mod front;
pub mod hands;
pub mod inbox;
pub mod inventory;
pub mod item;
pub mod journal;
pub mod keeping;
pub mod lane;
pub mod lines;
pub mod load;
pub mod lots;
pub mod marker;
pub mod means;
pub mod medium;
pub mod metrics;
pub mod number;
pub mod order;
pub mod ownlog;
pub mod packing;
pub mod parting;
pub mod patience;
pub mod places;
pub mod protocol;
pub mod purse;
pub mod quarantine;
pub mod queue;
pub mod rebase;
pub mod record;
pub mod recovery;
pub mod redo;
pub mod replies;
pub mod rewrite;
pub mod rotation;
pub mod sampler;
pub mod scan;
pub mod scrape;
pub mod seal;
pub mod server;
pub mod session;
pub mod session_error;
pub mod sessions;
pub mod settings;
pub mod shelf;
pub mod shutdown;
pub mod spares;
pub mod status;
pub mod steady;
pub mod storage;
pub mod systemd;
pub mod taking;
pub mod tally;
pub mod text;
pub mod token;
pub mod units;
pub mod users;
pub mod values;
pub mod vault;
pub mod verify;
pub mod window;
pub mod writer;
