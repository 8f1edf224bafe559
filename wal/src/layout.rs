//! A layout of a data directory: one directory for each shard, told from all else by their names alone.

use std::path::{Path, PathBuf};

use crate::Place;

/// From version 2 on, what is known of each log stands beside it; from version 3 on, the files of a layout have a tag.
pub(crate) const MANIFEST_VERSION: u32 = 3;
const LAYOUT_PREFIX: &str = "layout-";
const SHARD_PREFIX: &str = "shard-";
const SLOTS_SUFFIX: &str = ".synced";

/// A set of shard directories.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Its number; a later layout has a higher one.
    pub id: u64,
    /// The number of shards.
    pub shards: u32,
    /// See [`Place::tag`].
    pub tag: u32,
    pub(crate) path: PathBuf,
    /// The version of the manifest that names it.
    pub(crate) version: u32,
}

impl Layout {
    /// The directory of one shard.
    pub fn shard_dir(&self, shard_index: u32) -> PathBuf {
        self.path.join(format!("{SHARD_PREFIX}{shard_index}"))
    }

    /// The place of one shard.
    pub fn place(&self, shard_index: u32) -> Place {
        Place { shard_index, shard_count: self.shards, tag: self.tag }
    }

    /// Beside the layout's directory: what is known of the logs in it, once more.
    pub(crate) fn slots_path(&self) -> PathBuf {
        self.path.with_extension(&SLOTS_SUFFIX[1..])
    }

    pub(crate) fn new(root: &Path, id: u64, shards: u32, tag: u32) -> Layout {
        let path = root.join(format!("{LAYOUT_PREFIX}{id}"));
        Layout { id, shards, tag, path, version: MANIFEST_VERSION }
    }
}

/// The data directory that this file or directory belongs to, by the names alone.
pub fn data_dir_of(path: &Path) -> Option<&Path> {
    let is_layout =
        |path: &&Path| path.file_name().is_some_and(|name| layout_id(&name.to_string_lossy()).is_some());
    path.ancestors().find(is_layout).unwrap_or(path).parent()
}

/// The number of a layout, by the name of its directory.
pub(crate) fn layout_id(name: &str) -> Option<u64> {
    let digits = name.strip_prefix(LAYOUT_PREFIX)?;
    digits.parse().ok().filter(|id: &u64| id.to_string() == digits)
}

/// The layout to which a file of slots belongs, by its name.
pub(crate) fn layout_of_slots(name: &str) -> Option<u64> {
    layout_id(name.strip_suffix(SLOTS_SUFFIX)?)
}

/// The layout that a shard's directory belongs to, by the names alone, which do not tell the number of shards.
pub(crate) fn layout_of_shard(directory: &Path) -> Option<Layout> {
    let name = |path: &Path| Some(path.file_name()?.to_str()?.to_owned());
    let layout = directory.parent()?;
    let is_shard = name(directory)?.starts_with(SHARD_PREFIX);
    let id = layout_id(&name(layout)?).filter(|_| is_shard)?;
    Some(Layout::new(layout.parent()?, id, 0, 0))
}
