//! Numbers as text: respelling, range and truncation by digits alone, no floats kept. Knows no JSON values.

/// Below this many bytes a number without exponent cannot exceed a double (the largest has 309 digits).
const SURELY_DOUBLE_BYTES: usize = 300;

/// The white space that is trimmed from a number sent as text.
fn is_blank(byte: char) -> bool {
    matches!(byte, ' ' | '\t' | '\n' | '\r' | '\x0b' | '\x0c')
}

/// Whether a number spelt as in JSON is finite as a double.
#[inline]
pub fn fits_double(spelling: &str, exponent: bool) -> bool {
    (!exponent && spelling.len() < SURELY_DOUBLE_BYTES) || spelling.parse::<f64>().is_ok_and(f64::is_finite)
}

/// Appends the number that `text` spells, as `[+-]?(digits[.digits*] | .digits)([eE][+-]?digits)?` between
/// ASCII white space, spelt as JSON and never as an integer. `false` and nothing appended for any other text
/// and for a number beyond a double.
pub fn respell(text: &str, out: &mut Vec<u8>) -> bool {
    let start = out.len();
    let done = respell_parts(text.trim_matches(is_blank), out).is_some_and(|exponent| {
        std::str::from_utf8(&out[start..]).is_ok_and(|spelling| fits_double(spelling, exponent))
    });
    if !done {
        out.truncate(start);
    }
    done
}

/// Gives whether there is an exponent; `None` for text that is no number.
fn respell_parts(text: &str, out: &mut Vec<u8>) -> Option<bool> {
    let (negative, text) = sign(text);
    let whole = leading_digits(text);
    let mut rest = &text[whole.len()..];
    let fraction = rest.strip_prefix('.').map(|behind| {
        let digits = leading_digits(behind);
        rest = &behind[digits.len()..];
        digits
    });
    if whole.is_empty() && fraction.unwrap_or_default().is_empty() {
        return None;
    }
    if negative {
        out.push(b'-');
    }
    let significant = whole.trim_start_matches('0');
    out.extend_from_slice(if significant.is_empty() { b"0" } else { significant.as_bytes() });
    let exponent = rest.strip_prefix(['e', 'E']);
    match fraction {
        Some(digits) => {
            out.push(b'.');
            out.extend_from_slice(if digits.is_empty() { b"0" } else { digits.as_bytes() });
        }
        None if exponent.is_none() => out.extend_from_slice(b".0"),
        None => {}
    }
    let Some(power) = exponent else { return rest.is_empty().then_some(false) };
    let (_, digits) = sign(power);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    out.extend_from_slice(rest.as_bytes());
    Some(true)
}

/// Whether a number spelt as in JSON surely is an integer of 64 bits in its shortest form.
#[inline]
pub fn is_plain_integer(spelling: &str) -> bool {
    spelling.len() <= 18 && spelling.bytes().all(|b| b.is_ascii_digit())
}

/// The integer that a number spelt as in JSON becomes when its fraction is cut off; `None` beyond 64 bits.
pub fn truncate(spelling: &str) -> Option<i64> {
    let (negative, spelling) = sign(spelling);
    let (mantissa, power) = spelling.split_once(['e', 'E']).unwrap_or((spelling, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = || whole.bytes().chain(fraction.bytes());
    let zeros = digits().take_while(|d| *d == b'0').count();
    if zeros == whole.len() + fraction.len() {
        return Some(0);
    }
    // How many significant digits stand before the point, once the exponent has moved it.
    let places = (whole.len() as i64 - zeros as i64).saturating_add(saturating_power(power));
    if places > 19 {
        return None;
    }
    let padded = digits().skip(zeros).chain(std::iter::repeat(b'0'));
    let value = padded.take(places.max(0) as usize).fold(0i128, |value, d| value * 10 + i128::from(d - b'0'));
    i64::try_from(if negative { -value } else { value }).ok()
}

/// The integer that `text` spells, as `[+-]?digits` between ASCII white space; `None` beyond 64 bits.
pub fn integer(text: &str) -> Option<i64> {
    let text = text.trim_matches(is_blank);
    let (_, digits) = sign(text);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

/// Takes the sign off; whether it was a minus.
fn sign(text: &str) -> (bool, &str) {
    match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    }
}

fn leading_digits(text: &str) -> &str {
    &text[..text.bytes().take_while(u8::is_ascii_digit).count()]
}

/// An exponent's value; far beyond any use it stops growing.
fn saturating_power(text: &str) -> i64 {
    let (negative, digits) = sign(text);
    let value =
        digits.bytes().fold(0i64, |value, d| value.saturating_mul(10).saturating_add(i64::from(d - b'0')));
    if negative { -value } else { value }
}
