//! A daemon of a few lines that answers as the contract says, keeps everything in memory, and misbehaves
//! where a test wants it: cuts connections, refuses, stays silent.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

/// What happens to one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// As the contract says.
    Serve,
    /// The connection ends before anything is stored.
    CutBefore,
    /// Stored, but the reply is lost.
    CutAfter,
    /// Stored, and half of the reply arrives.
    CutInReply,
    /// No answer, connection open.
    Silence,
    /// Refused with this code.
    Refuse(&'static str),
    /// Refused with this code, and the connection ends.
    RefuseAndClose(&'static str),
}

/// What a batch of a session was stored as: its session, its number, and its items' texts.
pub type Stored = (Option<(String, u64)>, Vec<Value>);

#[derive(Default)]
struct Memory {
    sessions: HashMap<String, (u64, Value)>,
    stored: Vec<Stored>,
    requests: usize,
    connections: usize,
}

type Rule = dyn Fn(usize, &Value) -> Fate + Send + Sync;

/// The daemon; its thread ends with the test's process.
pub struct Fake {
    memory: Arc<Mutex<Memory>>,
    path: PathBuf,
}

impl Fake {
    /// Serves `dir/s`. `rule(n, request)` says what happens to the n-th request of all (from 0).
    pub fn start(dir: &Path, rule: impl Fn(usize, &Value) -> Fate + Send + Sync + 'static) -> Fake {
        let path = dir.join("s");
        let listener = UnixListener::bind(&path).unwrap();
        let memory: Arc<Mutex<Memory>> = Arc::default();
        let (shared, rule): (_, Arc<Rule>) = (Arc::clone(&memory), Arc::new(rule));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (shared, rule) = (Arc::clone(&shared), Arc::clone(&rule));
                shared.lock().unwrap().connections += 1;
                // The client may be gone at any time: then this connection just ends.
                std::thread::spawn(move || stream.and_then(|stream| serve(&stream, &shared, &*rule)));
            }
        });
        Fake { memory, path }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn stored(&self) -> Vec<Stored> {
        self.memory.lock().unwrap().stored.clone()
    }

    /// All items stored, in order.
    pub fn items(&self) -> Vec<Value> {
        self.stored().into_iter().flat_map(|(_, items)| items).collect()
    }

    pub fn connections(&self) -> usize {
        self.memory.lock().unwrap().connections
    }

    /// As another data directory: no session is known.
    pub fn forget_sessions(&self) {
        self.memory.lock().unwrap().sessions.clear();
    }
}

fn serve(mut stream: &UnixStream, memory: &Mutex<Memory>, rule: &Rule) -> std::io::Result<()> {
    for line in BufReader::new(stream).lines() {
        let line = line?;
        let request: Value = serde_json::from_str(&line).unwrap_or(Value::Null);
        let mut held = memory.lock().unwrap();
        let fate = rule(held.requests, &request);
        held.requests += 1;
        let reply = match fate {
            Fate::CutBefore => return Ok(()),
            Fate::Silence => continue,
            Fate::Refuse(code) | Fate::RefuseAndClose(code) => refusal(&request, code, None),
            _ => held.answer(&request),
        };
        drop(held);
        let text = format!("{reply}\n");
        match fate {
            Fate::CutAfter => return Ok(()),
            Fate::CutInReply => return stream.write_all(&text.as_bytes()[..text.len() / 2]),
            Fate::RefuseAndClose(_) => return stream.write_all(text.as_bytes()),
            _ => stream.write_all(text.as_bytes())?,
        }
    }
    Ok(())
}

fn refusal(request: &Value, code: &str, expected: Option<u64>) -> Value {
    let retryable =
        matches!(code, "busy" | "no_space" | "shutting_down" | "lot_unavailable" | "io_error" | "timeout");
    let mut error = json!({"code": code, "message": format!("test: {code}"), "retryable": retryable});
    if let Some(expected) = expected {
        error["expected"] = expected.into();
    }
    json!({"ok": false, "seq": request["seq"], "error": error})
}

impl Memory {
    fn answer(&mut self, request: &Value) -> Value {
        if request["op"] == "status" {
            return json!({"ok": true, "version": "0", "pid": 1, "data_dir": "/nowhere"});
        }
        let Some(items) = request["items"].as_array() else {
            return refusal(request, "invalid_request", None);
        };
        let (seq, durability) = (request["seq"].as_u64(), "synced");
        if let Some(at) = items.iter().position(|item| item.get("poison").is_some()) {
            let mut reply = refusal(request, "invalid_request", None);
            reply["error"]["message"] = format!("items[{at}] is poison").into();
            return reply;
        }
        let mut reply = json!({"ok": true, "lot": "unassigned", "records": items.len(), "seq": seq, "durability": durability});
        if items.is_empty() {
            return reply;
        }
        let session = request["session"].as_str().map(str::to_owned);
        if let (Some(session), Some(seq)) = (&session, seq) {
            let (last, content) = self.sessions.get(session).cloned().unwrap_or((0, Value::Null));
            if seq > last + 1 {
                return refusal(request, "out_of_sequence", Some(last + 1));
            }
            if seq == last && content != request["items"] {
                return refusal(request, "conflict", None);
            }
            if seq <= last {
                reply["duplicate"] = true.into();
                return reply;
            }
            self.sessions.insert(session.clone(), (seq, request["items"].clone()));
        }
        self.stored.push((session.zip(seq), items.clone()));
        reply["lsn"] = self.stored.len().into();
        reply
    }
}
