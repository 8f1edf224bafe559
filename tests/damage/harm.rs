//! What can happen to one file or one directory of a data directory.

use std::fmt;
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use crate::program::{copy_all, entries};
use crate::random::Random;

const FILE_HEADER_BYTES: usize = 48;
const FRAME_HEADER_BYTES: usize = 40;

/// What a file or directory is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    NewestSegment,
    OlderSegment,
    Snapshot,
    Manifest,
    /// The note of what is on disk beside a log.
    Synced,
    /// Its second copy, beside the layout.
    SecondSynced,
    Analytics,
    /// A file in the making.
    Unfinished,
    Shard,
    Layout,
}

pub const PARTS: [Part; 10] = [
    Part::NewestSegment,
    Part::OlderSegment,
    Part::Snapshot,
    Part::Manifest,
    Part::Synced,
    Part::SecondSynced,
    Part::Analytics,
    Part::Unfinished,
    Part::Shard,
    Part::Layout,
];

/// What happens to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Harm {
    Flip,
    Cut,
    Zero,
    Delete,
    /// A copy under another name that such a file may have.
    Duplicate,
    /// Another one of its kind, of another shard where there is one, takes its place.
    Swap,
    /// An older copy takes its place, or the place of nothing.
    Older,
    /// Of a directory: all that is in it is gone.
    Empty,
}

pub const HARMS: [Harm; 8] =
    [Harm::Flip, Harm::Cut, Harm::Zero, Harm::Delete, Harm::Duplicate, Harm::Swap, Harm::Older, Harm::Empty];

/// What was done.
#[derive(Debug)]
pub struct Done {
    pub part: Part,
    pub harm: Harm,
    /// The files or directories that were changed.
    pub paths: Vec<PathBuf>,
    /// Whether good frames, or the rest of a bad one, stand behind what was changed: a log that was cut or zeroed from
    /// some frame on looks like one that ended there.
    pub leaves_trace: bool,
    pub detail: String,
}

impl fmt::Display for Done {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} of {:?}, {}:", self.harm, self.part, self.detail)?;
        self.paths.iter().try_for_each(|path| write!(f, " {}", path.display()))
    }
}

impl Part {
    pub fn is_directory(self) -> bool {
        matches!(self, Part::Shard | Part::Layout)
    }

    /// Whether it says that others had to be there. Two of these that are gone or old together leave nothing that says
    /// so.
    pub fn vouches(self) -> bool {
        self.is_directory() || matches!(self, Part::Synced | Part::SecondSynced)
    }

    /// Whether no key is in it, and nothing that is known of any.
    pub fn is_dispensable(self) -> bool {
        matches!(self, Part::Analytics | Part::Unfinished)
    }
}

impl Harm {
    pub fn befalls(self, part: Part) -> bool {
        match self {
            Harm::Flip | Harm::Cut | Harm::Zero => !part.is_directory(),
            Harm::Empty => part.is_directory(),
            Harm::Delete | Harm::Duplicate | Harm::Swap | Harm::Older => true,
        }
    }

    /// Does it to a part of this kind in a data directory; `None` where there is none to which it can be done.
    pub fn befall(
        self,
        part: Part,
        directory: &Path,
        older: &[PathBuf],
        random: &mut Random,
    ) -> Option<Done> {
        let mut paths = vec![one_of(&parts(directory, part), random).unwrap_or_default()];
        let mut leaves_trace = false;
        let detail = match self {
            Harm::Older => {
                let (path, copy) = older_copy(part, directory, older, random)?;
                replace(&path, &copy);
                paths = vec![path];
                format!("that of {}", copy.display())
            }
            _ if paths[0].as_os_str().is_empty() => return None,
            Harm::Flip | Harm::Cut | Harm::Zero => {
                let (detail, leaves) = self.change_bytes(&paths[0], random)?;
                leaves_trace = leaves;
                detail
            }
            Harm::Delete => {
                remove(&paths[0]);
                String::new()
            }
            Harm::Empty => {
                entries(&paths[0]).iter().for_each(|path| remove(path));
                String::new()
            }
            Harm::Duplicate => {
                let name = other_name(part, &paths[0], random)?;
                let copy = paths[0].with_file_name(name);
                if copy.exists() {
                    return None;
                }
                replace(&copy, &paths[0]);
                paths.push(copy);
                String::new()
            }
            Harm::Swap => {
                let other = other_of_its_kind(part, directory, &paths[0], random)?;
                paths.push(other);
                swap(&paths[0], &paths[1], random)
            }
        };
        Some(Done { part, harm: self, paths, leaves_trace, detail })
    }

    /// Says what it has done, and whether what is left shows it.
    fn change_bytes(self, path: &Path, random: &mut Random) -> Option<(String, bool)> {
        let mut bytes = fs::read(path).unwrap();
        let used = bytes.iter().rposition(|byte| *byte != 0)? + 1;
        let within = |random: &mut Random, end: usize| random.below(end as u64) as usize;
        let bounds = frame_bounds(&bytes);
        let [.., last_frame, end] = bounds[..] else { unreachable!("a file has a begin and an end") };
        let bound = |random: &mut Random| bounds[within(random, bounds.len())];
        let done = match self {
            Harm::Flip => {
                let at = match random.below(10) {
                    0 => within(random, bytes.len()),
                    1 => within(random, used.min(FILE_HEADER_BYTES)),
                    2..5 => (bound(random) + within(random, FRAME_HEADER_BYTES)).min(used - 1),
                    _ => within(random, used),
                };
                let bit = random.below(8);
                bytes[at] ^= 1 << bit;
                (format!("bit {bit} of byte {at}"), at < end)
            }
            Harm::Cut => {
                let len = match random.below(10) {
                    0 => 0,
                    1 => FILE_HEADER_BYTES.min(used),
                    2..6 => bound(random),
                    _ => within(random, used),
                };
                bytes.truncate(len);
                (format!("to {len} bytes"), false)
            }
            _ => {
                let range: Range<usize> = match random.below(10) {
                    0 => 0..bytes.len(),
                    1 => 0..FILE_HEADER_BYTES.min(used),
                    2..5 => bound(random)..bytes.len(),
                    _ => {
                        let from = within(random, used);
                        from..(from + 1 + within(random, used - from)).min(used)
                    }
                };
                bytes[range.clone()].fill(0);
                (format!("bytes {range:?}"), range.end <= last_frame)
            }
        };
        fs::write(path, bytes).unwrap();
        Some(done)
    }
}

/// Everything of this kind in a data directory.
pub fn parts(directory: &Path, part: Part) -> Vec<PathBuf> {
    let of_layouts: Vec<_> = entries(directory).into_iter().filter(|path| path.is_dir()).collect();
    let of_shards: Vec<_> = of_layouts.iter().flat_map(|layout| entries(layout)).collect();
    let files = || of_shards.iter().filter(|shard| shard.is_dir()).map(|shard| entries(shard));
    let is = |path: &Path, suffix: &str| path.to_str().is_some_and(|path| path.ends_with(suffix));
    let segments = || files().map(move |files| files.into_iter().filter(move |path| is(path, ".log")));
    match part {
        Part::NewestSegment => segments().filter_map(Iterator::last).collect(),
        Part::OlderSegment => {
            let but_last = |segments: Vec<PathBuf>| {
                let count = segments.len().saturating_sub(1);
                segments.into_iter().take(count)
            };
            segments().flat_map(|segments| but_last(segments.collect())).collect()
        }
        Part::Snapshot => files().flatten().filter(|path| is(path, ".snapshot")).collect(),
        Part::Manifest => entries(directory).into_iter().filter(|path| is(path, "/MANIFEST")).collect(),
        Part::Synced => files().flatten().filter(|path| is(path, "/synced")).collect(),
        Part::SecondSynced => entries(directory).into_iter().filter(|path| is(path, ".synced")).collect(),
        Part::Analytics => files().flatten().filter(|path| is(path, "/analytics")).collect(),
        Part::Unfinished => {
            let names = ["/spare", "/reserve", "/staged", "/snapshot.tmp"];
            files().flatten().filter(|path| names.iter().any(|name| is(path, name))).collect()
        }
        Part::Shard => of_shards,
        Part::Layout => of_layouts,
    }
}

/// A path in the directory, and what stood there before.
fn older_copy(
    part: Part,
    directory: &Path,
    older: &[PathBuf],
    random: &mut Random,
) -> Option<(PathBuf, PathBuf)> {
    let older = one_of(older, random)?;
    let copy = one_of(&parts(&older, part), random)?;
    let path = directory.join(copy.strip_prefix(&older).expect("a part lies in its directory"));
    let has_place = path.parent().is_some_and(Path::exists);
    let is_other = part.is_directory() || fs::read(&path).ok() != fs::read(&copy).ok();
    (has_place && is_other).then_some((path, copy))
}

fn other_name(part: Part, path: &Path, random: &mut Random) -> Option<String> {
    let name = path.file_name()?.to_str()?;
    let number = |text: &str| -> Option<u64> { text.get(..20)?.parse().ok() };
    Some(match part {
        Part::NewestSegment | Part::OlderSegment | Part::Snapshot => {
            let (number, suffix) = (number(name)?, &name[20..]);
            let other = [number + 1, number + 2, number.saturating_sub(1), 9999, 0, u64::MAX];
            format!("{:020}{suffix}", random.one_of(&other))
        }
        Part::Shard => format!("shard-{}", random.below(5)),
        Part::Layout => format!("layout-{}", random.below(9)),
        Part::Manifest => random.one_of(&["MANIFEST.tmp", "MANIFEST.old"]).to_owned(),
        Part::SecondSynced => format!("layout-{}.synced", random.below(9)),
        Part::Synced | Part::Analytics | Part::Unfinished => {
            let names = ["spare", "reserve", "staged", "snapshot.tmp", "analytics", "synced.tmp"];
            random.one_of(&names).to_owned()
        }
    })
}

fn other_of_its_kind(part: Part, directory: &Path, path: &Path, random: &mut Random) -> Option<PathBuf> {
    let mut others = parts(directory, part);
    if matches!(part, Part::NewestSegment | Part::OlderSegment) {
        others = [Part::NewestSegment, Part::OlderSegment].map(|part| parts(directory, part)).concat();
    }
    others.retain(|other| other != path);
    let elsewhere: Vec<_> = others.iter().filter(|other| other.parent() != path.parent()).cloned().collect();
    one_of(if elsewhere.is_empty() { &others } else { &elsewhere }, random)
}

/// Both exchange their places, or the second one takes the place of the first, too.
fn swap(path: &Path, other: &Path, random: &mut Random) -> String {
    if random.below(2) == 0 {
        replace(path, other);
        return "the first is as the second".to_owned();
    }
    let aside = path.with_file_name("aside");
    fs::rename(path, &aside).unwrap();
    fs::rename(other, path).unwrap();
    fs::rename(&aside, other).unwrap();
    "one against the other".to_owned()
}

fn replace(path: &Path, by: &Path) {
    if by.is_dir() {
        remove(path);
        copy_all(by, path);
    } else {
        fs::copy(by, path).unwrap();
    }
}

fn remove(path: &Path) {
    if path.is_dir() {
        fs::remove_dir_all(path).unwrap();
    } else if path.exists() {
        fs::remove_file(path).unwrap();
    }
}

fn one_of(choices: &[PathBuf], random: &mut Random) -> Option<PathBuf> {
    let index = random.below(choices.len().max(1) as u64) as usize;
    choices.get(index).cloned()
}

/// The file's begin, then where the frames of a segment or a snapshot begin, and where the last one ends; without
/// frames the file's begin and end.
fn frame_bounds(bytes: &[u8]) -> Vec<usize> {
    let generation = bytes.get(20..28);
    let mut bounds = vec![0];
    let mut at = FILE_HEADER_BYTES;
    while let Some(header) = bytes.get(at..at + FRAME_HEADER_BYTES) {
        let len = u32::from_le_bytes(*header[4..].first_chunk().expect("a header has 40 bytes")) as usize;
        let end = at + FRAME_HEADER_BYTES + len;
        // What follows is room, or was written in the file's earlier life.
        if end > bytes.len() || header.get(16..24) != generation {
            break;
        }
        bounds.push(at);
        at = end;
    }
    bounds.push(at.min(bytes.len()));
    bounds
}
