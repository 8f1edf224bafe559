//! Small file systems that a test fills, or takes the power from. They need root; who lacks it is told so.
//!
//! A power cut is the shutdown of a mounted ext4 in a file: from then on nothing reaches that file, and the next
//! mount finds what had been written to it, as after a reboot. It tells what was synced from what was not; it cannot
//! tell whether a device keeps what it calls synced.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::Command;
use std::thread;

use tempfile::TempDir;

use crate::process::within_deadline;

/// `EXT4_IOC_SHUTDOWN`; `ioctl` is unsafe in Rust, and Perl is a part of the systems that have `mkfs.ext4`.
const SHUTDOWN: &str = "\
    open(my $mount, '<', $ARGV[0]) or die \"open: $!\"; \
    my $flag = pack('L', $ARGV[1]); \
    ioctl($mount, 0x8004587d, $flag) or die \"ioctl: $!\";";

/// What a power cut leaves of the file system's own journal.
#[derive(Clone, Copy, Debug)]
pub enum Journal {
    /// Names and sizes of files are as they last were, data that was not synced is lost.
    Written = 1,
    /// Names and sizes that were not synced are lost too.
    Lost = 2,
}

/// A mounted file system of its own.
pub struct Mount {
    directory: TempDir,
    mounted: bool,
    /// How often its power was cut.
    cuts: u32,
}

impl Mount {
    /// An ext4 in a file. Says why when this machine does not allow it.
    pub fn ext4(mib: u64) -> Result<Mount, String> {
        let mut mount = Mount::prepare();
        let image = mount.image();
        File::create(&image).and_then(|file| file.set_len(mib << 20)).expect("/tmp takes a sparse file");
        run(Command::new("mkfs.ext4").arg("-q").arg("-F").arg(&image))?;
        mount.mount()?;
        Ok(mount)
    }

    /// A tmpfs. Says why when this machine does not allow it.
    pub fn tmpfs(mib: u64) -> Result<Mount, String> {
        let mut mount = Mount::prepare();
        let size = format!("size={mib}m");
        run(Command::new("mount").args(["-t", "tmpfs", "-o", &size, "kvlite-test"]).arg(mount.path()))?;
        mount.mounted = true;
        Ok(mount)
    }

    fn prepare() -> Mount {
        let directory = TempDir::with_prefix("kvlite-mount-").expect("the temporary directory is writable");
        fs::create_dir(directory.path().join("mount")).expect("it is empty");
        Mount { directory, mounted: false, cuts: 0 }
    }

    fn image(&self) -> PathBuf {
        self.directory.path().join("image")
    }

    /// Where it is mounted.
    pub fn path(&self) -> PathBuf {
        self.directory.path().join("mount")
    }

    /// Bytes that can still be written.
    pub fn free_bytes(&self) -> u64 {
        let state = rustix::fs::statvfs(self.path()).expect("it is mounted");
        state.f_bavail * state.f_frsize
    }

    /// A file system that can be taken the power from, or why there is none.
    pub fn with_power(mib: u64) -> Result<Mount, String> {
        run(Command::new("perl").arg("-e").arg("1"))?;
        Mount::ext4(mib)
    }

    /// From now on nothing reaches the disk, and writes and syncs fail.
    pub fn cut_power(&self, journal: Journal) {
        let flag = (journal as u32).to_string();
        run(Command::new("perl").args(["-e", SHUTDOWN]).arg(self.path()).arg(flag))
            .expect("a mounted ext4 can be shut down");
    }

    /// Mounts it again, as after a reboot. No file on it is open.
    pub fn reboot(&mut self) {
        self.unmount();
        self.mount().expect("it was mounted before");
        self.cuts += 1;
    }

    /// The value of `--boot-id` for a server on it: the machine did not go down with the file system, but the server is
    /// to take it so.
    pub fn boot_id(&self) -> String {
        format!("{:032x}", self.cuts + 1)
    }

    fn mount(&mut self) -> Result<(), String> {
        run(Command::new("mount").args(["-o", "loop"]).arg(self.image()).arg(self.path()))?;
        self.mounted = true;
        Ok(())
    }

    fn unmount(&mut self) {
        let mut answer = Ok(());
        // After a kill the kernel still finishes what the process had submitted, and holds its files meanwhile.
        let unmounted = within_deadline(|| {
            answer = run(Command::new("umount").arg(self.path()));
            answer.is_ok()
        });
        assert!(unmounted, "{answer:?}");
        self.mounted = false;
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if thread::panicking() {
            self.directory.disable_cleanup(true);
            println!("kept for inspection, mounted: {}", self.path().display());
        } else if self.mounted {
            self.unmount();
        }
    }
}

/// A file that takes up all space but `free_bytes`; without it there is space again.
pub fn fill(mount: &Mount, free_bytes: u64) -> Ballast {
    let path = mount.path().join("ballast");
    let file = File::create(&path).expect("there is still space");
    let allocate = |len| rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, len);
    // The server may have taken some of the space since it was counted.
    while let Err(error) = allocate(mount.free_bytes().saturating_sub(free_bytes)) {
        assert_eq!(error, rustix::io::Errno::NOSPC);
        file.set_len(0).expect("a file can be shortened");
    }
    file.sync_all().expect("there is space");
    Ballast { path }
}

/// See [`fill`].
pub struct Ballast {
    path: PathBuf,
}

impl Ballast {
    /// Gives the space back.
    pub fn remove(self) {
        fs::remove_file(&self.path).expect("it is there");
    }
}

fn run(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{command:?}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim()))
}
