//! A finished record as the bench writes it where no daemon does: the item, the aliases, the flattened context and the
//! context, as long as lotlogd's. Nothing is validated, and only the bench's own requests are understood.

use std::io;

const BEFORE_CONTEXT: &[u8] = b"\"context\":{";
const AFTER_CONTEXT: &[u8] = b"},\"items\":[";
/// Bytes that make a record as long as lotlogd's: the two aliases, the timestamp in both of its places, the session.
const ALIASES: &[u8] = br#","predicted_price":123.45,"predicted_sell_p60":0.1234"#;
const TIMESTAMP: &[u8] = br#","timestamp":"2025-08-23T18:45:12.345678+00:00""#;
const SESSION: &[u8] = br#","session":"0b8bd3b5-7c5b-4ea5-a4f5-16d06bc4b6ae","seq":12345"#;

/// Buffers that are used again.
#[derive(Default)]
pub struct Composer {
    suffix: Vec<u8>,
}

impl Composer {
    /// Appends the lines of one request to `lines`, each with `prefix` in front, and gives its lot.
    pub fn compose<'a>(
        &mut self,
        request: &'a [u8],
        prefix: &[u8],
        lines: &mut Vec<u8>,
    ) -> io::Result<&'a [u8]> {
        let strange = || io::Error::new(io::ErrorKind::InvalidData, "not a request of this bench");
        let (from, end) = between(request, BEFORE_CONTEXT, AFTER_CONTEXT).ok_or_else(strange)?;
        let context = &request[from..end];
        let (lot_from, lot_end) = between(context, b"\"lot_id\":\"", b"\"").ok_or_else(strange)?;
        let flat = memchr::memmem::find(context, b",\"opt_source\"").unwrap_or(context.len());
        // They end in `}]}`: the last item's brace, then the list's and the request's end.
        let end_of_items = request.len().checked_sub(3).ok_or_else(strange)?;
        let items = request.get(end + AFTER_CONTEXT.len()..end_of_items).ok_or_else(strange)?;

        self.suffix.clear();
        for part in [
            ALIASES,
            b",",
            &context[..flat],
            TIMESTAMP,
            b",\"context\":{",
            context,
            TIMESTAMP,
            SESSION,
            b"}}\n",
        ] {
            self.suffix.extend_from_slice(part);
        }
        let mut from = 0;
        let middles = memchr::memmem::find_iter(items, b"},{").chain([items.len()]);
        for middle in middles {
            lines.extend_from_slice(prefix);
            lines.extend_from_slice(&items[from..middle]);
            lines.extend_from_slice(&self.suffix);
            from = middle + 2;
        }
        Ok(&context[lot_from..lot_end])
    }
}

/// Where the text between the first `before` and the next `after` lies.
fn between(text: &[u8], before: &[u8], after: &[u8]) -> Option<(usize, usize)> {
    let from = memchr::memmem::find(text, before)? + before.len();
    Some((from, from + memchr::memmem::find(&text[from..], after)?))
}
