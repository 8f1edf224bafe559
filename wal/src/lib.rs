//! The log files of kvlite: segments, snapshots, manifest. Payloads are opaque bytes.
//!
//! This crate owns every byte below the data directory and all blocking file operations on it. It never knows
//! what a payload means, starts no thread, and waits for nothing but the disk.
//!
//! # Files
//!
//! ```text
//! <wal-path>/LOCK                            held while a process uses the directory
//! <wal-path>/MANIFEST                        names the layout that counts
//! <wal-path>/layout-<id>.synced              what is known of each log of the layout: a slot of 512 bytes each
//! <wal-path>/layout-<id>/shard-<index>/      one directory per shard
//!     <generation, 20 digits>.log            a segment
//!     <sequence number, 20 digits>.snapshot  the state; the log is replayed from this number on
//!     snapshot.tmp                           a snapshot that is being written
//!     synced                                 what is known of the log, once more: the bytes of its slot
//!     <a segment>.<sequence number>.cut      a segment of which a start cut frames from this number on, as it was
//!     spare                                  a preallocated file that becomes the next segment
//!     staged                                 a large payload whose frame follows, and that becomes a segment with it
//!     analytics                              a note that may be lost, drawn in `note`
//! ```
//!
//! The manifest is a text; the checksum in its last line covers the bytes of the lines before it. In version 1 nothing
//! had to be known of a log, in version 2 there was no tag:
//!
//! ```text
//! kvlite manifest 3
//! layout 3
//! shards 4
//! tag 5e1f00d5
//! crc32 d93c393f
//! ```
//!
//! # Bytes
//!
//! `tests/golden` holds files of every format version, which tests write and read byte for byte.
//!
//! Integers are little-endian, checksums are CRC-32 (IEEE). A segment is a file header and frames; behind the
//! last frame there are zeros, or stale bytes from the file's earlier life.
//!
//! ```text
//! file header, 48 bytes
//!   0  magic        8   "KVLITLOG", "KVLITSNP" or "KVLITSYN"
//!   8  version      4   2; `synced`: 3
//!  12  shard index  2
//!  14  shard count  2
//!  16  tag          4   a random number of the layout; 0 in a layout of an older version
//!  20  generation   8   of the file; every new or recycled file of the shard gets a higher one;
//!                      `synced`: of the newest segment, 0 if there is none
//!  28  first seq    8   segment: of its first frame; snapshot: replay the log from here; `synced`: of that segment
//!  36  synced seq   8   frames up to this one were on disk when this was written; snapshot: 0
//!  44  crc          4   of bytes 0 to 43, in every version
//!
//! file header of version 1, and of `synced` up to version 2: without a tag
//!  12  shard index  4
//!  16  shard count  4
//!
//! `synced` goes on, to 112 bytes; in version 1 it was the header alone
//!  48  stamp        8   how often this was written; of two copies the one with more counts
//!  56  written seq  8   frames up to this one were handed to the system
//!  64  settled seq  8   frames up to this one are on disk, with all parts of the transactions among them
//!  72  snapshot     8   there is a snapshot with this number or a higher one; 0 if there need be none
//!  80  boot        16   the run of the machine in which the frames were written; 0 if a part of them may be gone
//!  96  witness seq  8   a frame that is on disk for good; 0 if none was noted
//! 104  witness crc  4   its checksum: a copy of the log that went on has another one in its place
//! 108  crc          4   of bytes 0 to 107; version 2 had no witness, and this at 96, of bytes 0 to 95
//!
//! frame, 40 bytes and a body
//!   0  crc          4   of all that follows, body included
//!   4  body bytes   4
//!   8  seq          8   1, 2, 3, ... without gaps, over all segments; in a snapshot from 1 on
//!  16  generation   8   of the file
//!  24  synced seq   8   as in the file header
//!  32  entries      4   number of changes in the payload
//!  36  kind         1   0 batch, 1 transaction, 2 mark, 3 trailer
//!  37  zero         1
//!  38  participants 2   number of participants; 0 unless a transaction
//!  40  body
//!        batch        payload
//!        transaction  id 8, participants 4 each (shard indexes), payload
//!        mark         nothing: the log was closed after the frame before it was synced
//!        trailer      frames 8, entries 8, log end 8, crc 4 of the crc fields of all frames before it
//! ```
//!
//! A snapshot ends with a trailer and nothing behind it; without it the snapshot is damaged. Its log end is
//! the sequence number that was next when its last entry was taken: a snapshot shows effects of frames up
//! to there, so they are synced before it gets its name.
//!
//! # Torn or damaged
//!
//! After a power cut the file system may have kept any part of what was not synced, in any order: good
//! frames behind a bad one prove nothing by themselves. Frames therefore state up to where the log had been
//! synced when they were written. Replay ends at the first frame that is not good. If anything behind it
//! states that this frame had been synced, it was damaged, and recovery refuses; otherwise it is the torn
//! end of the log, and is cut; where whole frames are cut with it, the segment is kept aside. The file `synced` states
//! it too, for frames of which no later one is left, such as those of a newest segment that is missing as a whole.
//!
//! As long as the machine runs, nothing that a process has written is lost with it, synced or not. A log whose last
//! run of the machine is the present one therefore ends before its very last write at most: a bad frame before a good
//! one, or before one that `synced` knows to be written, was damaged.
//!
//! A file of another layout is refused by its tag: of another server, or of this one before its keys were moved or
//! repaired. A copy of a data directory has the same tag. When it goes on by itself, its frames become others, and the
//! witness tells them, where it is newer than the copy and the log still has that frame.
//!
//! Frames of a closed segment end where the next
//! segment begins, whatever bytes follow: a write that failed halfway is repeated in a fresh segment under the
//! same sequence numbers.

#![forbid(unsafe_code)]

mod boot;
mod directory;
mod disk;
mod error;
mod frame;
mod header;
mod image;
mod layout;
mod log;
mod note;
mod recovery;
mod salvage;
mod segment;
mod snapshot;
mod spare;
mod staged;
mod sync;
mod synced;

pub use boot::{BootId, NoBootId};
pub use directory::{DataDir, Inspection, is_unfinished};
pub use disk::{Disk, DiskFile, MemDisk, MemFile, OsDisk, ReadOnlyDisk};
pub use error::{Error, Evidence, Fault, ManifestFault, Proof};
pub use frame::{FRAME_BODY_BYTES_MAX, Kind};
pub use header::{FORMAT_VERSION, Place};
pub use image::{Image, copy_images};
pub use layout::{Layout, data_dir_of};
pub use log::Log;
pub use note::{NOTE_BYTES_MAX, Note};
pub use recovery::{Cut, Record, Recovered, Replay, Replayed, check, discard_cut, replay};
pub use salvage::{Loss, LossCause, Readable, Salvage, Salvaged};
pub use snapshot::{FailedSnapshot, Snapshot, SnapshotEnd, SnapshotWriter};
pub use spare::{Obsolete, Preparation, Spare};
pub use staged::Staged;
pub use sync::SyncTicket;
