//! Short ways to say what a reply must be.

use serde_json::Value;

use crate::common::Daemon;

/// The reply is good; returns it.
#[track_caller]
pub fn good(reply: Value) -> Value {
    assert_eq!(reply["ok"], true, "{reply}");
    assert!(reply.get("error").is_none(), "{reply}");
    reply
}

/// The reply is this refusal, complete in every field; returns its message.
#[track_caller]
pub fn refused(reply: &Value, code: &str) -> String {
    assert_eq!(reply["ok"], false, "expected {code}: {reply}");
    let error = &reply["error"];
    assert_eq!(error["code"], code, "{reply}");
    let may_retry =
        ["timeout", "busy", "no_space", "shutting_down", "lot_unavailable", "io_error"].contains(&code);
    assert_eq!(error["retryable"], may_retry, "{reply}");
    assert!(reply.get("records").is_none() && reply.get("lsn").is_none(), "{reply}");
    let message = error["message"].as_str().unwrap_or_else(|| panic!("a message: {reply}"));
    assert!(!message.is_empty(), "{reply}");
    message.to_owned()
}

/// Refused with this code, by a message that has these words; nothing is stored, and the connection lives on.
#[track_caller]
pub fn check_refused(daemon: &Daemon, line: impl AsRef<[u8]>, code: &str, words: &[&str]) {
    let mut connection = daemon.connect();
    let before = daemon.place.lots();
    let message = refused(&connection.ask(line.as_ref()), code);
    for word in words {
        assert!(message.contains(word), "`{word}` is not in: {message}");
    }
    good(connection.ask(r#"{"op":"sync"}"#));
    assert_eq!(daemon.place.lots(), before, "a refused batch left a file");
}

/// A batch of one item for this lot, in this session.
pub fn batch(lot: &str, session: &str, seq: u64) -> String {
    format!(
        r#"{{"session":"{session}","seq":{seq},"context":{{"lot_id":"{lot}"}},"items":[{{"sku_local":"{session}/{seq}"}}]}}"#
    )
}
