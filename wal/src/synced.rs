//! What is known of a log beside it: up to where it is on disk for certain, up to where it was written, and what must
//! exist of it. Without that, a newest segment or a snapshot could go missing, or its last frames, and nothing would
//! tell.
//!
//! It stands twice: in the file `synced` of the shard's directory, and in the shard's slot of a file beside the
//! layout's directory, so that neither a file nor a directory that is lost, or put back from an old copy, takes the
//! knowledge of itself away. One of the two will do; the one that is missing or damaged is written again.
//!
//! It is written when the log is opened and closed, once for each segment as soon as its name and first frames are on
//! disk, and about twice a second while something changes. It is synced itself only in a new layout, before what a
//! snapshot replaces is removed, and where one place was not whole: an older one promises less and nothing wrong.

use std::io;
use std::path::{Path, PathBuf};

use crate::header::{
    FILE_HEADER_BYTES, FileHeader, NUMBER_MAX, SNAPSHOT_SUFFIX, SYNCED_MAGIC, SYNCED_NAME, number_of, u32_at,
    u64_at,
};
use crate::layout::{Layout, layout_of_shard};
use crate::sync::sync_directory;
use crate::{BootId, Disk, DiskFile, Error, Place};

const BYTES: usize = 112;
/// In version 2, before a witness was noted.
const BYTES_V2: usize = 100;
/// A slot is a sector, so that no slot is written with another one.
const SLOT_BYTES: u64 = 512;

/// What is known of a log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Synced {
    /// Its newest segment with a frame that is on disk, and how far frames are; zeros where there is none.
    pub header: FileHeader,
    /// How often this was written.
    pub stamp: u64,
    /// Frames up to this one were handed to the system.
    pub written_seq: u64,
    /// Frames up to this one are on disk, and so is every part of the transactions among them, on every shard.
    pub settled_seq: u64,
    /// The position of the snapshot that the log goes on from; 0 for none. There is that one or a later one.
    pub snapshot: u64,
    /// The run of the machine in which the frames were written; `None` where what was written may be gone all the same.
    pub boot: Option<BootId>,
    pub witness: Option<Witness>,
}

/// A frame that is on disk for good, by its checksum: a copy of the log that went on has another one in its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Witness {
    pub seq: u64,
    pub crc: u32,
}

/// What both places tell.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// The later one of both; `None` when neither is whole.
    pub synced: Option<Synced>,
    /// The place that has to tell it too and does not.
    pub lacking: Option<PathBuf>,
    /// Those of both.
    pub witnesses: Witnesses,
}

impl Found {
    fn of(own: Option<Synced>, slot: Option<Synced>, lacking: Option<PathBuf>) -> Found {
        let witnesses = Witnesses([&own, &slot].map(|place| place.as_ref()?.witness));
        let synced = own.into_iter().chain(slot).max_by_key(|synced| synced.stamp);
        Found { synced, lacking, witnesses }
    }
}

/// Frames that a log has to hold as they were written, as far as it goes back to them.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Witnesses([Option<Witness>; 2]);

impl Witnesses {
    /// The checksum that this frame has to have, if one is noted and it has another one.
    pub fn contradict(&self, seq: u64, crc: u32) -> Option<u32> {
        let noted = self.0.iter().flatten().find(|noted| noted.seq == seq && noted.crc != crc);
        noted.map(|noted| noted.crc)
    }
}

impl Synced {
    fn encode(&self, place: Place) -> [u8; BYTES] {
        let mut bytes = [0; BYTES];
        bytes[..FILE_HEADER_BYTES].copy_from_slice(&self.header.encode(SYNCED_MAGIC, place));
        let numbers = [self.stamp, self.written_seq, self.settled_seq, self.snapshot];
        for (at, number) in (48..).step_by(8).zip(numbers) {
            bytes[at..at + 8].copy_from_slice(&number.to_le_bytes());
        }
        bytes[80..96].copy_from_slice(&self.boot.map_or([0; BootId::BYTES], BootId::bytes));
        if let Some(Witness { seq, crc }) = self.witness {
            bytes[96..104].copy_from_slice(&seq.to_le_bytes());
            bytes[104..108].copy_from_slice(&crc.to_le_bytes());
        }
        let crc = crc32fast::hash(&bytes[..BYTES - 4]);
        bytes[BYTES - 4..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// `None` when the bytes are damaged, or none.
    fn decode(bytes: &[u8], place: Place, path: &Path) -> Result<Option<Synced>, Error> {
        let Some(header) = FileHeader::decode(bytes, SYNCED_MAGIC, place, path)? else { return Ok(None) };
        let crc_at = match u32_at(bytes, 8) {
            // That was the header and no more.
            1 => return Ok(Some(Synced { header, written_seq: header.synced_seq, ..Synced::default() })),
            2 => BYTES_V2 - 4,
            _ => BYTES - 4,
        };
        if bytes.len() < crc_at + 4 {
            return Ok(None);
        }
        let [stamp, written_seq, settled_seq, snapshot] = [48, 56, 64, 72].map(|at| u64_at(bytes, at));
        let is_whole = crc32fast::hash(&bytes[..crc_at]) == u32_at(bytes, crc_at)
            && [stamp, written_seq, settled_seq, snapshot].iter().all(|number| *number <= NUMBER_MAX);
        let boot = *bytes[80..].first_chunk().expect("the length is right");
        let boot = BootId::of_bytes(boot);
        let witness = (crc_at > 96).then(|| Witness { seq: u64_at(bytes, 96), crc: u32_at(bytes, 104) });
        let witness = witness.filter(|witness| witness.seq > 0);
        Ok(is_whole.then_some(Synced { header, stamp, written_seq, settled_seq, snapshot, boot, witness }))
    }

    /// Whether it tells of anything that has to exist.
    pub fn knows_data(&self) -> bool {
        self.written_seq > 0 || self.header.synced_seq > 0 || self.snapshot > 0
    }
}

/// Writes what is known of a log in both places, one after the other, so that one of both is always whole.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Writer {
    /// The slot is written first: it may not be whole, but then the other place is.
    slot_first: bool,
    /// The place that is written first is not whole: it has to be so on disk before the other one is touched.
    first_is_torn: bool,
}

impl Writer {
    /// `lacking` is the place that does not tell what it has to, if one does not.
    pub fn new(lacking: Option<&Path>) -> Writer {
        let slot_first = lacking.is_some_and(|path| !path.ends_with(SYNCED_NAME));
        Writer { slot_first, first_is_torn: lacking.is_some() }
    }

    /// Writes both places. Where the first one is not whole, it waits until that is on disk.
    ///
    /// # Errors
    /// As the disk. After a failure the other place is as it was, or written.
    pub fn write<D: Disk>(
        &mut self,
        disk: &D,
        directory: &Path,
        place: Place,
        synced: &Synced,
    ) -> io::Result<()> {
        let file = self.write_one(disk, directory, place, synced, self.slot_first)?;
        if std::mem::take(&mut self.first_is_torn)
            && let Some(file) = file
            && let Err(error) = file.sync_data()
        {
            self.first_is_torn = true;
            return Err(error);
        }
        self.write_one(disk, directory, place, synced, !self.slot_first).map(drop)
    }

    /// As [`Self::write`], but never waits: where the first place is not whole, the other one stays as it is.
    pub fn write_at_once<D: Disk>(
        &mut self,
        disk: &D,
        directory: &Path,
        place: Place,
        synced: &Synced,
    ) -> io::Result<()> {
        match self.first_is_torn {
            true => self.write_one(disk, directory, place, synced, self.slot_first).map(drop),
            false => self.write(disk, directory, place, synced),
        }
    }

    /// Writes one of the places, if there is one.
    fn write_one<D: Disk>(
        &mut self,
        disk: &D,
        directory: &Path,
        place: Place,
        synced: &Synced,
        is_slot: bool,
    ) -> io::Result<Option<D::File>> {
        let (file, at) = match (slots_path(directory), is_slot) {
            (None, true) => return Ok(None),
            (Some(path), true) => (disk.open_or_create(&path)?, slot(place.shard_index)),
            (_, false) => (disk.open_or_create(&directory.join(SYNCED_NAME))?, 0),
        };
        if let Err(error) = file.write_all_at(&synced.encode(place), at) {
            (self.slot_first, self.first_is_torn) = (is_slot, true);
            return Err(error);
        }
        Ok(Some(file))
    }
}

/// What both places tell.
///
/// # Errors
/// [`Error::Io`], [`Error::NewerVersion`]; [`Error::WrongShard`] when one place has what belongs to another shard, and
/// the other place has nothing.
pub(crate) fn read<D: Disk>(disk: &D, directory: &Path, place: Place) -> Result<Found, Error> {
    let own_path = directory.join(SYNCED_NAME);
    let own = read_at(disk, &own_path, 0, place);
    let Some(slots_path) = slots_path(directory) else { return Ok(Found::of(own?, None, None)) };
    let slot = read_at(disk, &slots_path, slot(place.shard_index), place);
    let (own, slot) = match (own, slot) {
        (Err(Error::WrongShard { .. } | Error::OtherLayout { .. }), Ok(Some(slot))) => (None, Some(slot)),
        (Ok(Some(own)), Err(Error::WrongShard { .. } | Error::OtherLayout { .. })) => (Some(own), None),
        (own, slot) => (own?, slot?),
    };
    let lacking = match (&own, &slot) {
        (Some(own), None) if own.stamp > 0 => Some(slots_path),
        (None, Some(_)) => Some(own_path),
        _ => None,
    };
    Ok(Found::of(own, slot, lacking))
}

fn read_at<D: Disk>(disk: &D, path: &Path, offset: u64, place: Place) -> Result<Option<Synced>, Error> {
    let file = match disk.open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(Error::io("open", path))?,
    };
    let mut bytes = [0; BYTES];
    let read = file.read_at(&mut bytes, offset).map_err(Error::io("read", path))?;
    Synced::decode(&bytes[..read], place, path)
}

/// Makes what is known of a new layout's logs durable, in both places; where nothing was noted yet, a log that is empty
/// but for its snapshot.
///
/// # Errors
/// [`Error::Io`] and those of [`read`].
pub(crate) fn begin<D: Disk>(disk: &D, layout: &Layout) -> Result<(), Error> {
    for shard_index in 0..layout.shards {
        let (directory, place) = (layout.shard_dir(shard_index), layout.place(shard_index));
        let mut synced = match read(disk, &directory, place) {
            // A power cut brought back what an earlier try to fill a layout with this number had noted.
            Err(Error::OtherLayout { .. }) => Synced::default(),
            found => found?.synced.unwrap_or_default(),
        };
        if synced.stamp == 0 {
            let names = disk.list(&directory).map_err(Error::io("list", &directory))?;
            let snapshots = names.iter().filter_map(|name| number_of(name, SNAPSHOT_SUFFIX));
            (synced.stamp, synced.snapshot) = (1, snapshots.max().unwrap_or(0));
        }
        let path = directory.join(SYNCED_NAME);
        Writer::default().write(disk, &directory, place, &synced).map_err(Error::io("write", &path))?;
        sync_file(disk, &path)?;
        sync_directory(disk, &directory)?;
    }
    sync_file(disk, &layout.slots_path())
}

impl Layout {
    /// Demands that something is known of the log of this shard, where the layout is not older than that.
    ///
    /// # Errors
    /// [`Error::MissingSynced`]; [`Error::WrongShard`], [`Error::NewerVersion`], [`Error::Io`].
    pub fn expect_synced<D: Disk>(&self, disk: &D, shard_index: u32) -> Result<(), Error> {
        let directory = self.shard_dir(shard_index);
        let is_known = read(disk, &directory, self.place(shard_index))?.synced.is_some();
        if is_known || self.version == 1 {
            return Ok(());
        }
        Err(Error::MissingSynced { path: directory.join(SYNCED_NAME), copy: self.slots_path() })
    }
}

/// The places that tell what is known of the log in this directory.
pub(crate) fn paths(directory: &Path) -> Vec<PathBuf> {
    [directory.join(SYNCED_NAME)].into_iter().chain(slots_path(directory)).collect()
}

pub(crate) fn sync_file<D: Disk>(disk: &D, path: &Path) -> Result<(), Error> {
    let file = disk.open(path).map_err(Error::io("open", path))?;
    file.sync_data().map_err(Error::io("sync", path))
}

/// Whether a file of slots tells of anything that has to exist. What is not readable in it tells nothing.
///
/// # Errors
/// [`Error::Io`].
pub(crate) fn slots_know_data<D: Disk>(disk: &D, path: &Path) -> Result<bool, Error> {
    let file = disk.open(path).map_err(Error::io("open", path))?;
    let slots = file.len().map_err(Error::io("measure", path))?.div_ceil(SLOT_BYTES);
    for index in 0..slots {
        let mut bytes = [0; BYTES];
        let read = file.read_at(&mut bytes, index * SLOT_BYTES).map_err(Error::io("read", path))?;
        let Ok(Some((_, place))) = FileHeader::decode_any(&bytes[..read], SYNCED_MAGIC, path) else {
            continue;
        };
        if let Ok(Some(synced)) = Synced::decode(&bytes[..read], place, path)
            && synced.knows_data()
        {
            return Ok(true);
        }
    }
    Ok(false)
}

fn slot(shard_index: u32) -> u64 {
    u64::from(shard_index) * SLOT_BYTES
}

/// The file with the slots of the layout that the shard's directory belongs to, if it is one of a layout.
fn slots_path(directory: &Path) -> Option<PathBuf> {
    Some(layout_of_shard(directory)?.slots_path())
}
