//! `BACKUP`: a copy of all shards as they were at one moment, while they serve.
//!
//! The moment is one at which the leading worker has a lock on every shard: nothing is written, and no command over
//! several shards is under way. Each shard then hands out an image of its log, and the locks are given back. The
//! images are copied here, on a thread of its own; what the shards write meanwhile comes after the moment. No key and
//! no live log is touched.
//!
//! A copy is made under another name, and gets its own only when it is complete and on disk. Backups lie below the
//! directory that was named at the start, whatever a client asks for.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use shard::{Error, Reply};
use wal::{Image, OsDisk, copy_images};

use crate::mail::Token;
use crate::net::Net;
use crate::server::Shared;
use crate::worker::wall_clock_us;

/// A backup whose name is `NAME` is made as `.NAME` with this behind it.
const UNFINISHED_SUFFIX: &str = ".unfinished";

/// How much room a backup leaves on its disk at least, which may be the one of the log.
const ROOM_LEFT_BYTES: u64 = 64 * 1024 * 1024;

/// How often the progress is logged.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(1);

/// By how much the copying thread steps back behind the workers, as `nice` counts it.
const NICENESS: i32 = 10;

/// A shard at the moment of a backup.
#[derive(Debug)]
pub struct Still {
    /// Its log.
    pub image: Image,
    /// How many keys it had.
    pub keys: u64,
}

/// How the backup goes that is being made, and how the last one went; for whoever asks.
#[derive(Debug, Default)]
pub struct Backups {
    running: AtomicBool,
    copied_bytes: AtomicU64,
    total_bytes: AtomicU64,
    last_s: AtomicU64,
    last_failed: AtomicBool,
}

impl Backups {
    /// How much of a backup is copied, in percent, if one is being made.
    pub fn percent(&self) -> Option<u64> {
        let copied = u128::from(self.copied_bytes.load(Ordering::Relaxed));
        let total = u128::from(self.total_bytes.load(Ordering::Relaxed).max(1));
        self.running.load(Ordering::Relaxed).then_some((copied * 100 / total).min(100) as u64)
    }

    /// When the last complete backup since the start was complete, in seconds since the Unix epoch; 0 if there is
    /// none.
    pub fn last_s(&self) -> u64 {
        self.last_s.load(Ordering::Relaxed)
    }

    /// Whether the last backup that was begun has failed.
    pub fn last_failed(&self) -> bool {
        self.last_failed.load(Ordering::Relaxed)
    }

    /// Takes the right to make a backup, which only one has.
    ///
    /// # Errors
    /// When somebody has it.
    pub fn begin(&self) -> Result<(), Error> {
        match self.running.swap(true, Ordering::Acquire) {
            true => Err(Error::Unavailable("a backup is being made already")),
            false => Ok(()),
        }
    }

    /// Gives it back.
    pub fn end(&self, has_failed: bool) {
        self.last_failed.store(has_failed, Ordering::Relaxed);
        if !has_failed {
            self.last_s.store(wall_clock_us() / 1_000_000, Ordering::Relaxed);
        }
        self.running.store(false, Ordering::Release);
    }
}

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
    // Names that begin with a dot are those of unfinished backups.
    let leads_down = |component: Component<'_>| match component {
        Component::Normal(name) => !name.as_bytes().starts_with(b".") && !name.as_bytes().contains(&0),
        _ => false,
    };
    if path.file_name().is_none() || !path.components().all(leads_down) {
        return Err(Error::Unavailable(
            "the path of a backup is relative to --backup-dir, and no name in it begins with '.'",
        ));
    }
    Ok(path.to_owned())
}

/// A backup that is being copied.
pub struct Backup {
    outcome: mpsc::Receiver<Result<Done, Error>>,
    /// Who asked for it.
    token: Token,
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
        stills: Vec<Still>,
        path: PathBuf,
        token: Token,
        wakeup: OwnedFd,
    ) -> Result<Backup, Error> {
        let (sender, outcome) = mpsc::channel();
        let work = move || {
            // Where the system refuses, the copying only is a little more in the way.
            let _ = rustix::process::setpriority_process(None, NICENESS);
            let outcome = make(&shared, stills, &path);
            match &outcome {
                Ok(Done { keys, bytes, elapsed }) => {
                    let ms = elapsed.as_millis() as u64;
                    tracing::info!(path = %path.display(), keys, bytes, ms, "backup complete");
                }
                Err(failure) => tracing::error!(path = %path.display(), "no backup was made: {failure}"),
            }
            let outcome = outcome.map_err(|failure| Error::BackupFailed { cause: failure.text().into() });
            let _ = sender.send(outcome); // The worker waits for it as long as it runs.
            Net::unpark(wakeup.as_fd());
        };
        match std::thread::Builder::new().name("kvlite-backup".to_owned()).spawn(work) {
            Ok(_) => Ok(Backup { outcome, token }),
            Err(error) => Err(Error::BackupFailed { cause: error.to_string().into() }),
        }
    }

    /// Whom to answer what, once it has ended.
    pub fn ended(&self, shared: &Shared) -> Option<(Token, Reply<'static>)> {
        let outcome = self.outcome.try_recv().ok()?;
        shared.backups.end(outcome.is_err());
        let reply = outcome.map_or_else(Reply::Error, |done| {
            let figures =
                [("keys", done.keys), ("bytes", done.bytes), ("ms", done.elapsed.as_millis() as u64)];
            let figures = figures.into_iter();
            Reply::Map(figures.map(|(name, n)| (name.into(), Reply::Integer(n as i64))).collect())
        });
        Some((self.token, reply))
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
    /// As a part of a reply: one line.
    fn text(&self) -> String {
        self.to_string().chars().map(|char| if char.is_control() { '?' } else { char }).collect()
    }

    fn directory(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Failure {
        let path = path.to_owned();
        move |error| Failure::Directory { action, path, error }
    }
}

fn make(shared: &Shared, stills: Vec<Still>, path: &Path) -> Result<Done, Failure> {
    let started = Instant::now();
    let root =
        shared.config.backup_dir.as_deref().expect("only a server with such a directory makes backups");
    let keys = stills.iter().map(|still| still.keys).sum();
    let bytes = stills.iter().map(|still| still.image.bytes()).sum();
    let parents = prepare_parents(root, path, &shared.config.wal_path)?;
    let (parent, name) = (&parents[parents.len() - 1], path.file_name().expect("the path was looked at"));
    let target = parent.join(name);
    expect_free(&target)?;
    expect_room(parent, bytes)?;
    let mut unfinished = OsStr::new(".").to_owned();
    unfinished.push(name);
    unfinished.push(UNFINISHED_SUFFIX);
    let unfinished = parent.join(unfinished);
    remove_all(&unfinished)?; // Of a process that was killed.
    let images = stills.into_iter().map(|still| still.image).collect();
    let made = copy(shared, images, &unfinished, bytes).and_then(|()| {
        // An empty directory of that name gives way; should there be anything in it by now, this fails.
        fs::rename(&unfinished, &target).map_err(Failure::directory("name", &target))
    });
    if let Err(failure) = made {
        if let Err(left) = remove_all(&unfinished) {
            tracing::warn!("{left}; it is no backup and can be removed");
        }
        return Err(failure);
    }
    for parent in parents.iter().rev() {
        let synced = File::open(parent).and_then(|directory| directory.sync_all());
        synced.map_err(Failure::directory("sync", parent))?;
    }
    Ok(Done { keys, bytes, elapsed: started.elapsed() })
}

/// Copies the images, and notes and logs the progress.
fn copy(shared: &Shared, images: Vec<Image>, to: &Path, total_bytes: u64) -> Result<(), Failure> {
    let backups = &shared.backups;
    backups.copied_bytes.store(0, Ordering::Relaxed);
    backups.total_bytes.store(total_bytes, Ordering::Relaxed);
    let (mut seen_bytes, mut seen_at) = (0, Instant::now());
    copy_images(&OsDisk, images, to, |piece_bytes| {
        let bytes = backups.copied_bytes.fetch_add(piece_bytes, Ordering::Relaxed) + piece_bytes;
        if seen_at.elapsed() >= PROGRESS_INTERVAL {
            let bytes_per_second = ((bytes - seen_bytes) as f64 / seen_at.elapsed().as_secs_f64()) as u64;
            tracing::info!(percent = backups.percent(), bytes_per_second, "backup");
            (seen_bytes, seen_at) = (bytes, Instant::now());
        }
        if shared.stopping() { Err(Failure::Stopped) } else { Ok(()) }
    })
}

/// Creates the directories above a backup, from the root down, and demands that all of them lie below the root and
/// outside of the data directory, wherever links lead.
fn prepare_parents(root: &Path, path: &Path, data: &Path) -> Result<Vec<PathBuf>, Failure> {
    let canonical = |path: &Path| path.canonicalize().map_err(Failure::directory("find", path));
    fs::create_dir_all(root).map_err(Failure::directory("create", root))?;
    let (root, data) = (canonical(root)?, canonical(data)?);
    let mut parents = vec![root.clone()];
    for name in path.parent().into_iter().flatten() {
        let parent = parents[parents.len() - 1].join(name);
        match fs::create_dir(&parent) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                return Err(Failure::directory("create", &parent)(error));
            }
            _ => parents.push(canonical(&parent)?),
        }
        if !parents[parents.len() - 1].starts_with(&root) {
            return Err(Failure::Place("its path leads out of --backup-dir"));
        }
    }
    match parents[parents.len() - 1].starts_with(&data) {
        true => Err(Failure::Place("its path leads into the data directory")),
        false => Ok(parents),
    }
}

fn expect_free(target: &Path) -> Result<(), Failure> {
    let taken = Failure::Place("its path exists already and is not an empty directory");
    match fs::symlink_metadata(target) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(Failure::directory("look at", target)(error)),
        Ok(metadata) if !metadata.is_dir() => Err(taken),
        Ok(_) => match fs::read_dir(target).map_err(Failure::directory("list", target))?.next() {
            None => Ok(()),
            Some(_) => Err(taken),
        },
    }
}

fn expect_room(parent: &Path, bytes: u64) -> Result<(), Failure> {
    let disk = rustix::fs::statvfs(parent);
    let disk = disk.map_err(|errno| Failure::directory("measure", parent)(errno.into()))?;
    let (needed, free) = (bytes + ROOM_LEFT_BYTES, disk.f_bavail * disk.f_frsize);
    if free < needed { Err(Failure::Room { needed, free }) } else { Ok(()) }
}

fn remove_all(path: &Path) -> Result<(), Failure> {
    match fs::remove_dir_all(path) {
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
        for path in ["", "/", "/a", "..", "../a", "a/..", "a/../../b", ".", "./a", "a/.b", ".a", "a\0b"] {
            assert!(refused(place(root, path.as_bytes())).contains("relative"), "{path}");
        }
        for path in ["a", "a/b", "a b", "a..b", "\u{e4}", "a/./b", "a/"] {
            assert_eq!(place(root, path.as_bytes()).unwrap(), Path::new(path), "{path}");
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
        symlink(path("nowhere"), root.join("dangling")).unwrap();
        symlink(path("root/inside"), root.join("in")).unwrap();
        let parents = |name: &str| prepare_parents(&root, Path::new(name), &data);

        assert_eq!(parents("a").unwrap(), [&*root]);
        assert_eq!(parents("x/y/a").unwrap(), [root.clone(), root.join("x"), root.join("x/y")]);
        assert_eq!(parents("in/a").unwrap(), [root.clone(), root.join("inside")]);
        assert!(refused(parents("out/a")).contains("leads out"));
        assert!(refused(parents("out/x/a")).contains("leads out"));
        assert!(refused(parents("dangling/a")).contains("find"));
        assert_eq!(fs::read_dir(path("outside")).unwrap().count(), 0);
        assert!(!path("nowhere").exists());
        let in_data = prepare_parents(directory.path(), Path::new("data/a"), &data);
        assert!(refused(in_data).contains("data directory"));
        assert!(refused(prepare_parents(&data, Path::new("a"), &data)).contains("data directory"));
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
        for name in ["empty", "new"] {
            expect_free(&path(name)).unwrap();
        }
        for name in ["full", "file", "link", "dangling"] {
            assert!(refused(expect_free(&path(name))).contains("exists already"), "{name}");
        }
        assert!(refused(expect_room(root.path(), u64::MAX / 2)).contains("Room"));
    }
}
