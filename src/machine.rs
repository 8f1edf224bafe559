//! Which share of the machine the process has: the CPU time and the memory that its control groups allow.
//!
//! A container is a control group, and so is a service of systemd; it may lie within others, and the tightest limit
//! counts. Both versions of the interface are read, also where both are mounted. Reads files of the kernel, and nothing
//! else: what follows from them, others decide. Which CPUs the process may use is no matter of these files, since a
//! cpuset shows in its affinity mask.
//!
//! Source: cgroups(7), and "Control Group v2" and "CFS Bandwidth Control" of the kernel's documentation.

use std::path::{Path, PathBuf};

/// The machine, and what the process may use of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Machine {
    /// CPUs that are online; 0 where the system does not tell.
    pub cpus: usize,
    /// The CPU time that all threads together may use.
    pub cpu_quota: Option<CpuQuota>,
    /// Its memory, in bytes; 0 where the system does not tell.
    pub memory_bytes: u64,
    /// The memory that the process may use, in bytes.
    pub memory_limit_bytes: Option<u64>,
}

/// A limit of CPU time. Threads that have used it up before its period ends, 100 ms as a rule, stand still until then.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CpuQuota {
    /// Seconds of CPU time in each second: as many CPUs may be busy all the time.
    pub cpus: f64,
    /// The file that says so.
    pub file: &'static str,
}

/// A limit of memory from here on is none: version 1 of the interface has a number for that, too.
const NO_MEMORY_LIMIT_BYTES: u64 = 1 << 60;

impl Machine {
    /// The machine of this process. What cannot be read is no limit.
    pub fn of_this_process() -> Machine {
        let memory = rustix::system::sysinfo();
        let memory_bytes = memory.totalram as u64 * u64::from(memory.mem_unit);
        Machine { memory_bytes, ..Machine::told_by(|path| std::fs::read_to_string(path).ok()) }
    }

    /// As the files tell that `read` reads.
    fn told_by(read: impl Fn(&Path) -> Option<String>) -> Machine {
        let text = |path: &str| read(Path::new(path)).unwrap_or_default();
        let groups = Groups { mounts: text("/proc/self/mountinfo"), memberships: text("/proc/self/cgroup") };
        let number = |path: PathBuf| read(&path)?.trim().parse::<i64>().ok();
        let quota_2 = |directory: PathBuf| {
            let text = read(&directory.join("cpu.max"))?;
            let (quota_us, period_us) = text.trim().split_once(' ')?;
            CpuQuota::of(quota_us.parse().ok()?, period_us.parse().ok()?, "cpu.max")
        };
        let quota_1 = |directory: PathBuf| {
            let (quota, period) = ("cpu.cfs_quota_us", "cpu.cfs_period_us");
            CpuQuota::of(number(directory.join(quota))?, number(directory.join(period))?, quota)
        };
        let quotas = groups.of_version_2().into_iter().filter_map(quota_2);
        let quotas = quotas.chain(groups.of_version_1("cpu").into_iter().filter_map(quota_1));
        let memory_files = groups.of_version_2().into_iter().map(|group| group.join("memory.max"));
        let memory_files_1 =
            groups.of_version_1("memory").into_iter().map(|group| group.join("memory.limit_in_bytes"));
        let memory_files = memory_files.chain(memory_files_1);
        let memory_limits = memory_files.filter_map(|file| read(&file)?.trim().parse::<u64>().ok());
        Machine {
            cpus: cpus_in(&text("/sys/devices/system/cpu/online")).unwrap_or(0),
            cpu_quota: quotas.min_by(|a, b| a.cpus.total_cmp(&b.cpus)),
            memory_bytes: 0,
            memory_limit_bytes: memory_limits.filter(|limit| *limit < NO_MEMORY_LIMIT_BYTES).min(),
        }
    }
}

impl CpuQuota {
    /// So much in each period. Less than nothing is no limit.
    fn of(quota_us: i64, period_us: i64, file: &'static str) -> Option<CpuQuota> {
        (quota_us > 0 && period_us > 0).then(|| CpuQuota { cpus: quota_us as f64 / period_us as f64, file })
    }

    /// How many threads can be busy all the time without standing still: at least one, which has to.
    pub fn whole_cpus(&self) -> usize {
        (self.cpus as usize).max(1)
    }
}

/// Where the control groups are mounted, and in which the process is: `/proc/self/mountinfo` and `/proc/self/cgroup`.
struct Groups {
    mounts: String,
    memberships: String,
}

impl Groups {
    /// The directories of the process' group and of those around it, in version 2.
    fn of_version_2(&self) -> Vec<PathBuf> {
        self.directories("cgroup2", |_| true, str::is_empty)
    }

    /// The same for a controller of version 1.
    fn of_version_1(&self, controller: &str) -> Vec<PathBuf> {
        let names_it = |list: &str| list.split(',').any(|name| name == controller);
        self.directories("cgroup", names_it, names_it)
    }

    /// The directories in the mounts of this type with such options, of the membership with such controllers.
    fn directories(
        &self,
        file_system: &str,
        is_mount: impl Fn(&str) -> bool,
        is_membership: impl Fn(&str) -> bool,
    ) -> Vec<PathBuf> {
        // 9:cpu,cpuacct:/docker/1f0c
        let memberships = self.memberships.lines().filter_map(|line| {
            let (controllers, group) = line.split_once(':')?.1.split_once(':')?;
            is_membership(controllers).then_some(Path::new(group))
        });
        let memberships: Vec<&Path> = memberships.collect();
        // 32 31 0:29 /docker/1f0c /sys/fs/cgroup/cpu ro,nosuid - cgroup cgroup rw,cpu
        let mounts = self.mounts.lines().filter_map(|line| {
            let (mount, what) = line.split_once(" - ")?;
            let mut mount = mount.split(' ').skip(3);
            let (root, place) = (Path::new(mount.next()?), Path::new(mount.next()?));
            let mut what = what.split(' ');
            let is_it = what.next()? == file_system && is_mount(what.nth(1)?);
            is_it.then_some((root, place))
        });
        let mut directories = Vec::new();
        for (root, place) in mounts {
            for group in &memberships {
                // A container sees its own group at the place of the mount, under whatever name it has outside.
                let below = group.strip_prefix(root).unwrap_or(Path::new(""));
                directories.extend(below.ancestors().map(|below| place.join(below)));
            }
        }
        directories
    }
}

/// How many CPUs a list of the kernel's names, such as `0-3,6`.
fn cpus_in(list: &str) -> Option<usize> {
    let runs = list.trim().split(',').map(|run| {
        let (first, last) = run.split_once('-').unwrap_or((run, run));
        Some(last.parse::<usize>().ok()?.checked_sub(first.parse().ok()?)? + 1)
    });
    runs.sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The machine that these files tell of.
    fn machine(files: &[(&str, &str)]) -> Machine {
        Machine::told_by(|path| {
            let file = files.iter().find(|(name, _)| Path::new(name) == path);
            file.map(|(_, text)| format!("{text}\n"))
        })
    }

    fn quota(cpus: f64, file: &'static str) -> Option<CpuQuota> {
        Some(CpuQuota { cpus, file })
    }

    const MOUNT_2: (&str, &str) =
        ("/proc/self/mountinfo", "31 23 0:28 / /sys/fs/cgroup ro,nosuid - cgroup2 cgroup rw,nsdelegate");

    #[test]
    fn a_container_of_version_2_sees_its_limits_at_the_root() {
        let told = machine(&[
            MOUNT_2,
            ("/proc/self/cgroup", "0::/"),
            ("/sys/fs/cgroup/cpu.max", "200000 100000"),
            ("/sys/fs/cgroup/memory.max", "536870912"),
            ("/sys/devices/system/cpu/online", "0-63"),
        ]);
        let expected = Machine {
            cpus: 64,
            cpu_quota: quota(2.0, "cpu.max"),
            memory_bytes: 0,
            memory_limit_bytes: Some(512 << 20),
        };
        assert_eq!(told, expected);
    }

    #[test]
    fn the_tightest_limit_of_the_groups_around_counts() {
        let told = machine(&[
            MOUNT_2,
            ("/proc/self/cgroup", "0::/system.slice/kvlite.service"),
            ("/sys/fs/cgroup/system.slice/kvlite.service/cpu.max", "max 100000"),
            ("/sys/fs/cgroup/system.slice/kvlite.service/memory.max", "2147483648"),
            ("/sys/fs/cgroup/system.slice/cpu.max", "75000 50000"),
            ("/sys/fs/cgroup/system.slice/memory.max", "1073741824"),
            ("/sys/fs/cgroup/other.slice/cpu.max", "1000 100000"),
        ]);
        assert_eq!(told.cpu_quota, quota(1.5, "cpu.max"));
        assert_eq!(told.memory_limit_bytes, Some(1 << 30));
    }

    #[test]
    fn no_limit_is_none() {
        let told = machine(&[
            MOUNT_2,
            ("/proc/self/cgroup", "0::/a"),
            ("/sys/fs/cgroup/a/cpu.max", "max 100000"),
            ("/sys/fs/cgroup/a/memory.max", "max"),
        ]);
        assert_eq!(told, Machine::default());
        assert_eq!(machine(&[]), Machine::default());
        assert_eq!(machine(&[MOUNT_2, ("/proc/self/cgroup", "")]), Machine::default());
    }

    const MOUNTS_1: &str = "\
        31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n\
        32 31 0:29 /docker/1f /sys/fs/cgroup/cpu,cpuacct ro - cgroup cgroup rw,cpu,cpuacct\n\
        33 31 0:31 /docker/1f /sys/fs/cgroup/cpuset ro - cgroup cgroup rw,cpuset\n\
        34 31 0:32 /docker/1f /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n\
        35 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw";

    #[test]
    fn a_container_of_version_1_sees_its_own_group_at_the_mount() {
        let told = machine(&[
            ("/proc/self/mountinfo", MOUNTS_1),
            ("/proc/self/cgroup", "4:memory:/docker/1f\n3:cpuset:/docker/1f\n1:cpu,cpuacct:/docker/1f\n0::/"),
            ("/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "150000"),
            ("/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000"),
            ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "67108864"),
        ]);
        assert_eq!(told.cpu_quota, quota(1.5, "cpu.cfs_quota_us"));
        assert_eq!(told.memory_limit_bytes, Some(64 << 20));
    }

    #[test]
    fn version_1_has_numbers_for_no_limit() {
        let told = machine(&[
            ("/proc/self/mountinfo", MOUNTS_1),
            ("/proc/self/cgroup", "4:memory:/docker/1f\n1:cpu,cpuacct:/docker/1f\n0::/"),
            ("/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "-1"),
            ("/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000"),
            ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712"),
        ]);
        assert_eq!(told, Machine::default());
    }

    #[test]
    fn what_is_no_answer_is_no_limit() {
        for (cpu, memory) in [("", ""), ("1", "-1"), ("0 100000", "1.5g"), ("1 0", "lots"), ("a b", " ")] {
            let told = machine(&[
                MOUNT_2,
                ("/proc/self/cgroup", "0::/\nnonsense\n1:"),
                ("/sys/fs/cgroup/cpu.max", cpu),
                ("/sys/fs/cgroup/memory.max", memory),
                ("/sys/devices/system/cpu/online", "3-1"),
            ]);
            assert_eq!(told, Machine::default(), "{cpu:?} {memory:?}");
        }
    }

    #[test]
    fn a_quota_is_rounded_down_to_whole_cpus_and_at_least_one() {
        for (cpus, whole) in [(0.25, 1), (1.0, 1), (1.5, 1), (2.0, 2), (3.99, 3)] {
            assert_eq!(CpuQuota { cpus, file: "cpu.max" }.whole_cpus(), whole, "{cpus}");
        }
    }

    #[test]
    fn this_machine_has_cpus_and_memory() {
        let machine = Machine::of_this_process();
        assert!(machine.cpus >= 1 && machine.memory_bytes > 1 << 20, "{machine:?}");
        assert!(machine.cpu_quota.is_none_or(|quota| quota.cpus > 0.0), "{machine:?}");
    }
}
