//! `BACKUP`: a copy of all shards as they were at one moment, while they serve.
//!
//! The moment is one at which the leading worker has a lock on every shard: nothing is written, and no command over
//! several shards is under way. Each shard then hands out an image of its log, and the locks are given back. The
//! images are copied here, on a thread of its own; what the shards write meanwhile comes after the moment. No key and
//! no live log is touched.
//!
//! A copy is made under another name, and gets its own only when it is complete and on disk. Backups lie below the
//! directory that was named at the start, whatever a client asks for, and whatever becomes of the names in the path
//! while the copy is made.

mod beneath;

use std::ffi::OsStr;
use std::fs;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use shard::{Error, Reply};
use wal::{Disk, Image, OsDisk, copy_images};

use crate::config::Config;
use crate::logging::printable;
use crate::mesh::{RequestId, ShardImage};
use crate::net;
use crate::scripting::libraries::Libraries;
use crate::shared::Shared;
use crate::{logging, recovery, scripting};
use beneath::Beneath;

/// How long the path of a backup may be, and a name in it, to which the system and this module add something.
const PATH_BYTES_MAX: usize = 1024;
const NAME_BYTES_MAX: usize = 200;

/// A backup whose name is `NAME` is made as `.NAME` with this behind it.
const UNFINISHED_SUFFIX: &str = ".unfinished";

/// How much room a backup leaves on its disk at least, which may be the one of the log.
const ROOM_LEFT_BYTES: u64 = 64 * 1024 * 1024;

/// How often the progress is logged.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(1);

/// By how much the copying thread steps back behind the workers, as `nice` counts it.
const NICENESS: i32 = 10;

/// The path of a backup, below the directory for backups, out of the argument of a command.
///
/// # Errors
/// When the server makes no backups, or when that is not a path which can only lead down.
pub fn place(root: Option<&Path>, path: &[u8]) -> Result<PathBuf, Error> {
    if root.is_none() {
        return Err(Error::Unavailable(
            "no directory for backups: start the server with --backup-dir DIR (KVLITE_BACKUP_DIR)",
        ));
    }
    let path = Path::new(OsStr::from_bytes(path));
    // Names that begin with a dot are those of unfinished backups. One that could pass for something else in a terminal
    // or a log is not made.
    let is_plain = |name: &str| {
        !name.starts_with('.') && name.len() <= NAME_BYTES_MAX && !name.chars().any(logging::is_deceptive)
    };
    let leads_down = |component: Component<'_>| match component {
        Component::Normal(name) => name.to_str().is_some_and(is_plain),
        _ => false,
    };
    let is_short = path.as_os_str().len() <= PATH_BYTES_MAX;
    if !is_short || path.file_name().is_none() || !path.components().all(leads_down) {
        return Err(Error::Unavailable(
            "the path of a backup is relative to --backup-dir and has 1024 bytes at most; no name in it begins with \
             '.', is longer than 200 bytes, holds a control character or is not UTF-8",
        ));
    }
    Ok(path.to_owned())
}

/// A backup that is being copied.
pub struct Backup {
    outcome: mpsc::Receiver<Result<Done, Error>>,
    /// Who asked for it.
    request_id: RequestId,
}

/// A complete backup.
struct Done {
    keys: u64,
    bytes: u64,
    elapsed: Duration,
}

impl Backup {
    /// Begins to copy the shards to `path`. `wakeup` makes the worker take a turn when that has ended.
    ///
    /// # Errors
    /// When there can be no other thread.
    pub fn begin(
        shared: Arc<Shared>,
        (shard_images, libraries): (Vec<ShardImage>, Arc<Libraries>),
        path: PathBuf,
        request_id: RequestId,
        wakeup: OwnedFd,
    ) -> Result<Backup, Error> {
        let (sender, outcome) = mpsc::channel();
        let work = move || {
            // Where the system refuses, the copying only is a little more in the way.
            let _ = rustix::process::setpriority_process(None, NICENESS);
            let bytes = shard_images.iter().map(|image| image.image.bytes()).sum();
            let outcome = match prepare(&shared.config, &path, bytes) {
                Ok(site) => {
                    let outcome = make(&shared, (shard_images, &libraries), &site, bytes);
                    match &outcome {
                        Ok(Done { keys, bytes, elapsed }) => {
                            let ms = elapsed.as_millis() as u64;
                            tracing::info!(path = %path.display(), keys, bytes, ms, "backup complete");
                        }
                        Err(failure) => {
                            tracing::error!(path = %path.display(), error = %failure, "no backup was made");
                        }
                    }
                    outcome
                }
                // It costs the client nothing to ask again, and again.
                Err(failure) => {
                    tracing::debug!(path = %path.display(), error = %failure, "no backup was made");
                    Err(failure)
                }
            };
            let outcome =
                outcome.map_err(|failure| Error::BackupFailed { cause: printable(&failure.to_string()) });
            let _ = sender.send(outcome); // The worker waits for it as long as it runs.
            net::unpark(wakeup.as_fd());
        };
        match std::thread::Builder::new().name("kvlite-backup".to_owned()).spawn(work) {
            Ok(_) => Ok(Backup { outcome, request_id }),
            Err(error) => Err(Error::BackupFailed { cause: error.to_string().into() }),
        }
    }

    /// Which client to answer what, once it has ended. `now_ms` is the server's time.
    pub fn ended(&self, shared: &Shared, now_ms: u64) -> Option<(RequestId, Reply<'static>)> {
        let outcome = self.outcome.try_recv().ok()?;
        shared.backups.end(outcome.is_err(), now_ms);
        let reply = outcome.map_or_else(Reply::Error, |done| {
            let figures =
                [("keys", done.keys), ("bytes", done.bytes), ("ms", done.elapsed.as_millis() as u64)];
            let figures = figures.into_iter();
            Reply::Map(figures.map(|(name, n)| (name.into(), Reply::Integer(n as i64))).collect())
        });
        Some((self.request_id, reply))
    }
}

/// Why there is no backup.
#[derive(Debug)]
enum Failure {
    /// The place is not one where a backup may be put.
    Place(&'static str),
    /// There is not enough room for it, in bytes.
    Room { needed: u64, free: u64 },
    /// A directory of it could not be made or looked at.
    Directory { action: &'static str, path: PathBuf, error: io::Error },
    /// The copying failed.
    Copy(wal::Error),
    /// The server is told to stop.
    Stopped,
}

impl From<wal::Error> for Failure {
    fn from(error: wal::Error) -> Failure {
        Failure::Copy(error)
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Failure::Place(why) => write!(f, "{why}"),
            Failure::Room { needed, free } => {
                write!(f, "{needed} bytes have to be free on its disk, and {free} are; free more")
            }
            Failure::Directory { action, path, error } => {
                write!(f, "cannot {action} {}: {error}", path.display())
            }
            Failure::Copy(error) => write!(f, "{error}"),
            Failure::Stopped => write!(f, "the server stops"),
        }
    }
}

impl Failure {
    fn directory(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Failure {
        let path = path.to_owned();
        move |error| Failure::Directory { action, path, error }
    }

    /// A failed look-up beneath the directory for backups.
    fn descent(path: &Path) -> impl FnOnce(io::Error) -> Failure {
        move |error| match error.raw_os_error() {
            Some(libc::EXDEV) => {
                Failure::Place("its path leads out of --backup-dir, or through a link to an absolute path")
            }
            Some(libc::ENOSYS | libc::EPERM) => Failure::Place(
                "the system refuses openat2, without which nothing keeps it below --backup-dir; allow it in the \
                 seccomp profile of the container",
            ),
            _ => Failure::directory("find", path)(error),
        }
    }
}

/// Where a backup is made.
struct Site {
    /// The directories above it, from the root down.
    parents: Vec<Beneath>,
    target: PathBuf,
    /// Its path until it is complete.
    unfinished: PathBuf,
}

/// Looks whether a backup of this size may be put at `path`, and makes room for it there.
fn prepare(config: &Config, path: &Path, bytes: u64) -> Result<Site, Failure> {
    let root = config.backup_dir.as_deref().expect("only a server with such a directory makes backups");
    let parents = prepare_parents(root, path, &config.wal_path)?;
    let (parent, name) = (&parents[parents.len() - 1], path.file_name().expect("the path was looked at"));
    let target = parent.path().join(name);
    match parent.is_free(name).map_err(Failure::directory("look at", &target))? {
        true => expect_room(parent, bytes)?,
        false => return Err(Failure::Place("its path exists already and is not an empty directory")),
    }
    let mut unfinished = OsStr::new(".").to_owned();
    unfinished.push(name);
    unfinished.push(UNFINISHED_SUFFIX);
    let unfinished = parent.path().join(unfinished);
    remove_all(parent, &unfinished)?; // Of a process that was killed.
    Ok(Site { parents, target, unfinished })
}

fn make(
    shared: &Shared,
    (shard_images, libraries): (Vec<ShardImage>, &Libraries),
    site: &Site,
    bytes: u64,
) -> Result<Done, Failure> {
    let started = Instant::now();
    let Site { parents, target, unfinished } = site;
    let parent = &parents[parents.len() - 1];
    let keys = shard_images.iter().map(|image| image.keys).sum();
    let images = shard_images.into_iter().map(|image| image.image).collect();
    let made = copy(shared, images, parent, unfinished, bytes).and_then(|()| {
        if libraries.library_count() > 0 {
            scripting::file::write(parent, unfinished, libraries).map_err(Failure::Copy)?;
        }
        // An empty directory of that name gives way; should there be anything in it by now, this fails.
        parent.rename(unfinished, target).map_err(Failure::directory("name", target))
    });
    if let Err(failure) = made {
        if let Err(left) = remove_all(parent, unfinished) {
            tracing::warn!(error = %left, "the unfinished backup could not be removed");
        }
        return Err(failure);
    }
    for parent in parents.iter().rev() {
        parent.sync().map_err(Failure::directory("sync", parent.path()))?;
    }
    Ok(Done { keys, bytes, elapsed: started.elapsed() })
}

/// Copies the images, and notes and logs the progress.
fn copy(
    shared: &Shared,
    images: Vec<Image>,
    parent: &Beneath,
    to: &Path,
    total_bytes: u64,
) -> Result<(), Failure> {
    let backups = &shared.backups;
    backups.begin_copying(total_bytes);
    let (mut seen_bytes, mut seen_at) = (0, Instant::now());
    copy_images(&OsDisk::default(), parent, images, to, recovery::random_tag(), |piece_bytes| {
        let bytes = backups.note_copied(piece_bytes);
        if seen_at.elapsed() >= PROGRESS_INTERVAL {
            let bytes_per_second = ((bytes - seen_bytes) as f64 / seen_at.elapsed().as_secs_f64()) as u64;
            tracing::info!(percent = backups.percent(), bytes_per_second, "backup");
            (seen_bytes, seen_at) = (bytes, Instant::now());
        }
        if shared.stopping() { Err(Failure::Stopped) } else { Ok(()) }
    })
}

/// Creates and opens the directories above a backup, from the root down, all of which lie beneath the root and outside
/// of the data directory, wherever links lead.
fn prepare_parents(root: &Path, path: &Path, data: &Path) -> Result<Vec<Beneath>, Failure> {
    fs::create_dir_all(root).map_err(Failure::directory("create", root))?;
    let top = Beneath::root(root).map_err(Failure::directory("find", root))?;
    let mut parents = vec![top.descend(Path::new("")).map_err(Failure::descent(root))?];
    let mut relative = PathBuf::new();
    for name in path.parent().into_iter().flatten() {
        relative.push(name);
        let shown = root.join(&relative);
        let created = parents[parents.len() - 1].create_dir(name);
        created.map_err(Failure::directory("create", &shown))?;
        parents.push(top.descend(&relative).map_err(Failure::descent(&shown))?);
    }
    let is_in_data = parents[parents.len() - 1].lies_in(data).map_err(Failure::directory("look at", data))?;
    match is_in_data {
        true => Err(Failure::Place("its path leads into the data directory")),
        false => Ok(parents),
    }
}

fn expect_room(parent: &Beneath, bytes: u64) -> Result<(), Failure> {
    let free = parent.free_bytes().map_err(Failure::directory("measure", parent.path()))?;
    let needed = bytes + ROOM_LEFT_BYTES;
    if free < needed { Err(Failure::Room { needed, free }) } else { Ok(()) }
}

fn remove_all(parent: &Beneath, path: &Path) -> Result<(), Failure> {
    match parent.remove_dir_all(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(Failure::directory("remove", path)(error)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn refused<T>(result: Result<T, impl std::fmt::Debug>) -> String {
        format!("{:?}", result.err().expect("it is refused"))
    }

    #[test]
    fn a_path_only_leads_down() {
        let root = Some(Path::new("/backups"));
        assert!(refused(place(None, b"a")).contains("--backup-dir"));
        let (name, path) = ("n".repeat(NAME_BYTES_MAX), "n/".repeat(PATH_BYTES_MAX / 2));
        let (long_name, long_path) = (format!("{name}n"), format!("{path}n"));
        for path in [
            "",
            "/",
            "/a",
            "..",
            "../a",
            "a/..",
            "a/../../b",
            ".",
            "./a",
            "a/.b",
            ".a",
            &long_name,
            &long_path,
        ] {
            assert!(refused(place(root, path.as_bytes())).contains("relative"), "{path}");
        }
        for path in ["a", "a/b", "a b", "a..b", "\u{e4}", "a/./b", "a/", &name, &path] {
            assert_eq!(place(root, path.as_bytes()).unwrap(), Path::new(path), "{path}");
        }
        // The bytes of control characters, of others that steer how text is shown, and of none.
        let bytes: [&[u8]; 9] = [
            b"a\0b",
            b"a\nb",
            b"x\r",
            b"\x1b[31m/a",
            b"a\x7f",
            b"a\t",
            "\u{9b}1m".as_bytes(),
            "\u{202e}a".as_bytes(),
            b"\xff",
        ];
        for path in bytes {
            assert!(refused(place(root, path)).contains("control character"), "{path:?}");
        }
    }

    #[test]
    fn directories_are_made_below_the_root_and_nowhere_else() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let (root, data) = (path("root"), path("data"));
        for name in ["root/inside", "data", "outside"] {
            fs::create_dir_all(path(name)).unwrap();
        }
        symlink(path("outside"), root.join("out")).unwrap();
        symlink("../outside", root.join("up")).unwrap();
        symlink("nowhere", root.join("dangling")).unwrap();
        symlink("inside", root.join("in")).unwrap();
        symlink("../../data", root.join("inside/data")).unwrap();
        let parents = |name: &str| {
            let parents = prepare_parents(&root, Path::new(name), &data)?;
            Ok::<_, Failure>(parents.iter().map(|it| it.path().to_owned()).collect::<Vec<_>>())
        };

        assert_eq!(parents("a").unwrap(), [&*root]);
        assert_eq!(parents("x/y/a").unwrap(), [root.clone(), root.join("x"), root.join("x/y")]);
        assert_eq!(parents("in/z/a").unwrap(), [root.clone(), root.join("in"), root.join("in/z")]);
        assert!(path("root/inside/z").is_dir());
        for name in ["out/a", "out/x/a", "up/a", "inside/data/a"] {
            assert!(refused(parents(name)).contains("leads out"), "{name}");
        }
        assert!(refused(parents("dangling/a")).contains("find"));
        assert_eq!(fs::read_dir(path("outside")).unwrap().count(), 0);
        assert!(!path("root/nowhere").exists());
        let into_data = |root: &Path, name: &str| prepare_parents(root, Path::new(name), &data);
        assert!(refused(into_data(directory.path(), "data/a")).contains("data directory"));
        assert!(refused(into_data(directory.path(), "data/deeper/a")).contains("data directory"));
        assert!(refused(into_data(directory.path(), "root/inside/data/a")).contains("data directory"));
        assert!(refused(into_data(&data, "a")).contains("data directory"));
    }

    #[test]
    fn only_an_empty_directory_gives_way() {
        let root = tempfile::tempdir().unwrap();
        let path = |name: &str| root.path().join(name);
        fs::create_dir_all(path("full/a")).unwrap();
        fs::create_dir(path("empty")).unwrap();
        fs::write(path("file"), "a").unwrap();
        symlink(path("empty"), path("link")).unwrap();
        symlink(path("nowhere"), path("dangling")).unwrap();
        let root = Beneath::root(root.path()).unwrap();
        for name in ["empty", "new"] {
            assert!(root.is_free(OsStr::new(name)).unwrap(), "{name}");
        }
        for name in ["full", "file", "link", "dangling"] {
            assert!(!root.is_free(OsStr::new(name)).unwrap(), "{name}");
        }
        assert!(refused(expect_room(&root, u64::MAX / 2)).contains("Room"));
    }

    #[test]
    fn nothing_beneath_an_open_directory_is_reached_by_a_link() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        fs::create_dir_all(path("root/inside/deeper")).unwrap();
        fs::write(path("root/inside/deeper/file"), "removed").unwrap();
        fs::create_dir(path("outside")).unwrap();
        fs::write(path("outside/file"), "kept").unwrap();
        let root = Beneath::root(&path("root")).unwrap();
        symlink("../outside", path("root/link")).unwrap();
        symlink("../../outside/file", path("root/inside/file")).unwrap();
        symlink("../../outside", path("root/inside/outside")).unwrap();
        assert!(root.create(&path("root/link/new")).is_err());
        assert!(root.create(&path("root/inside/file")).is_err());
        assert!(root.open(&path("root/link/file")).is_err());
        assert!(root.create_dir_all(&path("root/link/new/deeper")).is_err());
        assert!(root.try_lock(&path("root/link/lock")).is_err());
        assert!(root.rename(&path("root/inside"), &path("root/link/inside")).is_err());
        assert!(root.remove_file(&path("root/link/file")).is_err());
        assert!(root.remove_dir_all(&path("root/link/file")).is_err());
        // The links themselves can be removed.
        root.remove_dir_all(&path("root/inside")).unwrap();
        root.remove_dir_all(&path("root/link")).unwrap();
        assert_eq!(root.list(&path("root")).unwrap(), [""; 0]);
        assert_eq!(fs::read_dir(path("outside")).unwrap().count(), 1);
        assert_eq!(fs::read_to_string(path("outside/file")).unwrap(), "kept");
        // Its name may lead elsewhere by now.
        fs::rename(path("root"), path("moved")).unwrap();
        symlink("outside", path("root")).unwrap();
        root.create_dir_all(&path("root/new")).unwrap();
        assert!(path("moved/new").is_dir() && !path("outside/new").exists());
    }
}
