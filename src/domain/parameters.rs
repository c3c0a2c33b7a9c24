//! Parses header parameters, `name=value; name="value"`, for `Content-Type`, `Content-Disposition`
//! (RFC 9110 5.6.6) and `Forwarded` (RFC 7239 4).

use std::borrow::Cow;

/// A name as written, and its value without quotation marks and escapes.
pub type Parameter<'a> = (&'a str, Cow<'a, str>);

/// Reads parameters up to the first comma outside quotation marks, or to the end. Returns them with the rest
/// of the text, which begins with the comma. `None` if the text is malformed.
///
/// Spaces around semicolons and empty parameters are accepted. `is_bare` says which bytes a value may have
/// without quotation marks. It must accept only ASCII, and neither spaces nor any of `";,\`.
pub fn read(text: &str, is_bare: fn(u8) -> bool) -> Option<(Vec<Parameter<'_>>, &str)> {
    let mut found = Vec::new();
    let mut rest = text;
    loop {
        rest = rest.trim_start_matches(BLANKS);
        let (name, after) = split_while(rest, is_token);
        if !name.is_empty() {
            let (value, after) = value(after.strip_prefix('=')?, is_bare)?;
            found.push((name, value));
            rest = after.trim_start_matches(BLANKS);
        }
        match rest.strip_prefix(';') {
            Some(after) => rest = after,
            None if rest.is_empty() || rest.starts_with(',') => return Some((found, rest)),
            None => return None,
        }
    }
}

const BLANKS: [char; 2] = [' ', '\t'];

/// Whether a token may have this byte (RFC 9110 5.6.2).
pub const fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(byte, b'!' | b'#'..=b'\'' | b'*' | b'+' | b'-' | b'.' | b'^'..=b'`' | b'|' | b'~')
}

fn value(text: &str, is_bare: fn(u8) -> bool) -> Option<(Cow<'_, str>, &str)> {
    let Some(text) = text.strip_prefix('"') else {
        let (value, rest) = split_while(text, is_bare);
        return (!value.is_empty()).then_some((Cow::Borrowed(value), rest));
    };
    let mut is_escaped = false;
    let end = text.find(|c| {
        let is_end = c == '"' && !is_escaped;
        is_escaped = c == '\\' && !is_escaped;
        is_end
    })?;
    let quoted = &text[..end];
    let value = if quoted.contains('\\') { Cow::Owned(unescaped(quoted)) } else { Cow::Borrowed(quoted) };
    Some((value, &text[end + 1..]))
}

fn unescaped(quoted: &str) -> String {
    let mut is_escape = false;
    let is_kept = |c: &char| {
        is_escape = *c == '\\' && !is_escape;
        !is_escape
    };
    quoted.chars().filter(is_kept).collect()
}

fn split_while(text: &str, is_part: fn(u8) -> bool) -> (&str, &str) {
    // This cannot split a character: `end` is at an ASCII byte or at the first byte of a longer character.
    let end = text.bytes().position(|byte| !is_part(byte)).unwrap_or(text.len());
    text.split_at(end)
}
