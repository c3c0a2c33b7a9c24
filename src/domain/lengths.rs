//! Limits on the text from callers that we keep in exchange records, the audit trail, logs and spans.

pub const METHOD_BYTES_MAX: usize = 32;

/// All our own paths are shorter. The rest of a `/api/verify/` path is the path of the guarded service.
pub const PATH_BYTES_MAX: usize = 512;

/// A UUID has 36. The rest leaves room for a wrong id, so that it can still be found in the trail.
pub const OBJECT_ID_BYTES_MAX: usize = 128;

/// How many proxies of a call are kept: those nearest to us.
pub const HOPS_MAX: usize = 16;

/// The start of `text`, at most `bytes_max` bytes, without splitting a character.
pub fn cut(text: &str, bytes_max: usize) -> &str {
    &text[..text.floor_char_boundary(bytes_max)]
}
