//! How much is kept of what callers write, in exchange records, the audit trail, log lines and spans.

pub const METHOD_BYTES_MAX: usize = 32;

/// Every path of ours is shorter. What comes behind `/api/verify/` is the guarded service's path.
pub const PATH_BYTES_MAX: usize = 512;

/// A UUID has 36; the rest is for whoever takes an id for something else and looks for it in the trail.
pub const OBJECT_ID_BYTES_MAX: usize = 128;

/// Proxies on the way, nearest to us.
pub const HOPS_MAX: usize = 16;

/// The start of `text`: whole characters, at most so many bytes.
pub fn cut(text: &str, bytes_max: usize) -> &str {
    &text[..text.floor_char_boundary(bytes_max)]
}
