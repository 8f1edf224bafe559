//! One segment file of a log, as far as the log goes on with it: the frames in it, not their bytes.

use std::path::PathBuf;

/// Segments that are larger than usual, for one large batch, have a multiple of this size.
pub(crate) const BLOCK_BYTES: u64 = 4096;

/// A segment with its frames; they may go on in the next one.
#[derive(Debug)]
pub(crate) struct Segment<F> {
    pub generation: u64,
    pub path: PathBuf,
    /// Open as long as it has to be synced.
    pub file: Option<F>,
    pub first_seq: u64,
    pub last_seq: u64,
    /// Bytes of its frames.
    pub bytes: u64,
    pub entries: u64,
    pub file_bytes: u64,
}
