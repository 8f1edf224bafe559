//! What the system says of this process: memory, CPU time, threads, files. Each is left out where it does not say. And
//! what a thread asks of it: to get less of a busy core than a worker.

use rustix::process::{Resource, getrlimit, setpriority_process};

/// How far a thread stands back behind the workers, whose cores it shares.
const NICENESS: i32 = 5;

/// What the system says of this process.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Usage {
    /// CPU time in its own code, in seconds.
    pub user_s: f64,
    /// CPU time in the kernel, in seconds.
    pub system_s: f64,
    /// Threads.
    pub threads: u64,
    /// Address space, in bytes.
    pub virtual_bytes: u64,
    /// Resident memory, in bytes.
    pub resident_bytes: u64,
}

/// Asks the system.
pub fn usage() -> Option<Usage> {
    parse(&std::fs::read_to_string("/proc/self/stat").ok()?)
}

/// What the system says of the thread with which the process began.
pub fn usage_of_main_thread() -> Option<Usage> {
    parse(&std::fs::read_to_string(format!("/proc/self/task/{}/stat", std::process::id())).ok()?)
}

/// Reads the line of `/proc/PID/stat`; see proc_pid_stat(5).
fn parse(stat: &str) -> Option<Usage> {
    // The fields from the third on stand behind the name, which is in parentheses and may hold anything.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
    let seconds = |field| Some(number(field)? as f64 / rustix::param::clock_ticks_per_second() as f64);
    Some(Usage {
        user_s: seconds(14)?,
        system_s: seconds(15)?,
        threads: number(20)?,
        virtual_bytes: number(23)?,
        resident_bytes: number(24)? * rustix::param::page_size() as u64,
    })
}

/// Has this thread stand back behind the workers from now on. Where that is not allowed, it only delays them more.
pub fn stand_back() {
    let _ = setpriority_process(None, NICENESS); // On Linux that of this thread alone.
}

/// How many files are open.
pub fn open_files() -> Option<u64> {
    let count = std::fs::read_dir("/proc/self/fd").ok()?.count() as u64;
    Some(count.saturating_sub(1)) // The directory itself.
}

/// How many files may be open; `None` for as many as there can be.
pub fn open_files_max() -> Option<u64> {
    getrlimit(Resource::Nofile).current
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_and_blanks_is_passed_over() {
        let fields = "S 1 7 7 0 -1 4194560 900 0 1 0 250 50 0 0 20 0 9 0 1234 8192000 77 184";
        let usage = parse(&format!("7 (a) (b c) {fields}")).unwrap();
        let ticks = rustix::param::clock_ticks_per_second() as f64;
        assert_eq!((usage.user_s * ticks, usage.system_s * ticks), (250.0, 50.0));
        assert_eq!((usage.threads, usage.virtual_bytes), (9, 8_192_000));
        assert_eq!(usage.resident_bytes, 77 * rustix::param::page_size() as u64);
        assert_eq!(parse("7 (a) S 1"), None);
    }

    #[test]
    fn this_process_has_memory_threads_and_files() {
        let usage = usage().unwrap();
        assert!(usage.threads > 0 && usage.resident_bytes > 0 && usage.virtual_bytes > usage.resident_bytes);
        assert!(open_files().unwrap() >= 3);
    }
}
