//! What `INFO` tells, as types.

use std::collections::HashMap;

/// The sections that are read.
pub const SECTIONS: &str = "everything";

/// The figures of a server.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    /// The version of kvlite.
    pub version: String,
    /// `io_uring` or `epoll`.
    pub io_backend: String,
    /// For how long it has run, in seconds.
    pub uptime_s: u64,
    /// Where its clients are.
    pub clients: Clients,
    /// How much memory it has, and keys.
    pub memory: Memory,
    /// Its files.
    pub disk: Disk,
    /// What was counted since the start.
    pub counters: Counters,
    /// Each command that was called, the most called first.
    pub commands: Vec<Command>,
    /// Each shard, by its number.
    pub shards: Vec<Shard>,
}

/// Clients.
#[derive(Clone, Copy, Debug, Default)]
pub struct Clients {
    /// How many there are.
    pub connected: u64,
    /// How many there may be.
    pub limit: u64,
    /// Those that are not read from.
    pub paused: u64,
    /// How many ever came.
    pub accepted: u64,
    /// Those of them that were one too many.
    pub refused: u64,
}

/// Keys and memory, in bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Memory {
    /// Keys.
    pub keys: u64,
    /// Those of them with a TTL.
    pub keys_with_ttl: u64,
    /// Memory of keys and values.
    pub keys_bytes: u64,
    /// Resident memory of the process.
    pub resident_bytes: u64,
    /// The limit of the control group; 0 for none.
    pub limit_bytes: u64,
    /// The memory of the machine.
    pub machine_bytes: u64,
}

/// The log and the snapshots.
#[derive(Clone, Debug, Default)]
pub struct Disk {
    /// How much of the data is read back, in percent, while that is under way.
    pub loading_percent: Option<u8>,
    /// Why writes are refused; empty where they are not.
    pub log_error: String,
    /// Why there is no newer snapshot; empty where nothing is wrong with that.
    pub snapshot_error: String,
    /// Bytes that a restart would read.
    pub log_bytes: u64,
    /// Changes in the log behind the snapshot.
    pub log_entries: u64,
    /// The length of the log in terms of the limit that it is closest to.
    pub log_fill: f64,
    /// A snapshot is being written.
    pub compacting: bool,
    /// Unix time of the last snapshot, or of the start; 0 where it is not known.
    pub saved_s: u64,
}

/// Counters since the start.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counters {
    /// Requests.
    pub requests: u64,
    /// Requests in the last second.
    pub requests_per_second: u64,
    /// Keys that reads have found.
    pub hits: u64,
    /// Keys that reads have not found.
    pub misses: u64,
    /// Keys whose TTL was over.
    pub expired: u64,
    /// Errors that clients were answered.
    pub errors: u64,
    /// Bytes from clients.
    pub received_bytes: u64,
    /// Bytes to clients.
    pub sent_bytes: u64,
}

/// A command.
#[derive(Clone, Debug, Default)]
pub struct Command {
    /// Its name.
    pub name: String,
    /// How often it was called.
    pub calls: u64,
    /// How many of the calls were refused or failed.
    pub errors: u64,
    /// How long its calls took together, in microseconds.
    pub took_us: u64,
    /// How long a call takes on average, in microseconds.
    pub mean_us: f64,
    /// Within how many microseconds half of the calls end, 99 of 100, and 999 of 1000.
    pub quantiles_us: [f64; 3],
}

/// A shard.
#[derive(Clone, Copy, Debug, Default)]
pub struct Shard {
    /// Its keys.
    pub keys: u64,
    /// Their memory, in bytes.
    pub memory_bytes: u64,
    /// How often it has read or written for a request, whichever thread took that.
    pub operations: u64,
    /// For how long its thread was busy, in microseconds.
    pub busy_us: u64,
    /// Bytes that a restart would read.
    pub log_bytes: u64,
    /// Time since its thread began its last turn, in milliseconds.
    pub turn_age_ms: u64,
}

impl Figures {
    /// What `INFO everything` says; `None` where that is no answer of kvlite's.
    pub fn read(info: &str) -> Option<Figures> {
        let lines: HashMap<&str, &str> = info.lines().filter_map(|line| line.split_once(':')).collect();
        let text = |name: &str| lines.get(name).map(ToString::to_string).unwrap_or_default();
        let number = |name: &str| lines.get(name).and_then(|text| text.parse().ok()).unwrap_or(0);
        let is = |name: &str| number(name) == 1;
        let keyspace = Fields(lines.get("db0").copied().unwrap_or_default());
        Some(Figures {
            version: lines.get("kvlite_version")?.to_string(),
            io_backend: text("io_backend"),
            uptime_s: number("uptime_in_seconds"),
            clients: Clients {
                connected: number("connected_clients"),
                limit: number("maxclients"),
                paused: number("paused_clients"),
                accepted: number("total_connections_received"),
                refused: number("rejected_connections"),
            },
            memory: Memory {
                keys: keyspace.number("keys"),
                keys_with_ttl: keyspace.number("expires"),
                keys_bytes: number("used_memory"),
                resident_bytes: number("used_memory_rss"),
                limit_bytes: number("cgroup_memory_limit"),
                machine_bytes: number("total_system_memory"),
            },
            disk: Disk {
                loading_percent: is("loading")
                    .then(|| text("loading_loaded_perc").split('.').next()?.parse().ok())
                    .flatten(),
                log_error: text("wal_error"),
                snapshot_error: text("snapshot_error"),
                log_bytes: number("wal_size"),
                log_entries: number("wal_entries"),
                log_fill: text("wal_fill").parse().unwrap_or(0.0),
                compacting: is("rdb_bgsave_in_progress"),
                saved_s: number("rdb_last_save_time"),
            },
            counters: Counters {
                requests: number("total_commands_processed"),
                requests_per_second: number("instantaneous_ops_per_sec"),
                hits: number("keyspace_hits"),
                misses: number("keyspace_misses"),
                expired: number("expired_keys"),
                errors: number("total_error_replies"),
                received_bytes: number("total_net_input_bytes"),
                sent_bytes: number("total_net_output_bytes"),
            },
            commands: commands(&lines),
            shards: (0..)
                .map_while(|shard: u32| lines.get(&*format!("shard{shard}")))
                .map(|it| shard(it))
                .collect(),
        })
    }

    /// Of the keys that reads looked for, how many they have found.
    pub fn hit_ratio(&self) -> Option<f64> {
        let Counters { hits, misses, .. } = self.counters;
        (hits + misses > 0).then(|| hits as f64 / (hits + misses) as f64)
    }
}

fn shard(line: &str) -> Shard {
    let fields = Fields(line);
    Shard {
        keys: fields.number("keys"),
        memory_bytes: fields.number("memory"),
        operations: fields.number::<u64>("reads") + fields.number::<u64>("writes"),
        busy_us: fields.number("busy_usec"),
        log_bytes: fields.number("wal_size"),
        turn_age_ms: fields.number("turn_age_ms"),
    }
}

fn commands(lines: &HashMap<&str, &str>) -> Vec<Command> {
    let mut commands: Vec<Command> = lines
        .iter()
        .filter_map(|(name, line)| {
            let name = name.strip_prefix("cmdstat_")?;
            let fields = Fields(line);
            let latency = format!("latency_percentiles_usec_{name}");
            let quantiles = Fields(lines.get(&*latency).copied().unwrap_or_default());
            Some(Command {
                name: name.to_owned(),
                calls: fields.number("calls"),
                errors: fields.number::<u64>("rejected_calls") + fields.number::<u64>("failed_calls"),
                took_us: fields.number("usec"),
                mean_us: fields.number("usec_per_call"),
                quantiles_us: ["p50", "p99", "p99.9"].map(|name| quantiles.number(name)),
            })
        })
        .collect();
    commands.sort_by(|a, b| (b.calls, &a.name).cmp(&(a.calls, &b.name)));
    commands
}

/// `name=value,name=value`.
struct Fields<'a>(&'a str);

impl Fields<'_> {
    fn number<T: std::str::FromStr + Default>(&self, name: &str) -> T {
        let values = self.0.split(',').filter_map(|field| field.split_once('='));
        let value = values.into_iter().find(|(known, _)| *known == name);
        value.and_then(|(_, value)| value.parse().ok()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_info_says_is_read_and_other_servers_are_told_apart() {
        let info = "# Server\r\nredis_version:7.0.15\r\nkvlite_version:1.2\r\nio_backend:epoll\r\n\
            connected_clients:3\r\nloading:1\r\nloading_loaded_perc:42.00\r\nwal_error:a: b\r\nwal_fill:0.5000\r\n\
            db0:keys=7,expires=2,avg_ttl=0\r\nkeyspace_hits:3\r\nkeyspace_misses:1\r\n\
            cmdstat_get:calls=4,usec=80,usec_per_call=20.00,rejected_calls=1,failed_calls=2\r\n\
            latency_percentiles_usec_get:p50=15.000,p99=90.500,p99.9=99.000\r\ncmdstat_set:calls=9,usec=1\r\n\
            shard0:keys=3,memory=10,reads=5,writes=2,requests=9,busy_usec=9,wal_size=4,turn_age_ms=1\r\n\
            shard1:keys=4,memory=10\r\n";
        let it = Figures::read(info).unwrap();
        assert_eq!((&*it.version, &*it.io_backend, it.clients.connected), ("1.2", "epoll", 3));
        assert_eq!((it.disk.loading_percent, &*it.disk.log_error, it.disk.log_fill), (Some(42), "a: b", 0.5));
        assert_eq!((it.memory.keys, it.memory.keys_with_ttl, it.hit_ratio()), (7, 2, Some(0.75)));
        let [set, get] = &it.commands[..] else { panic!("{:?}", it.commands) };
        assert_eq!((&*set.name, set.calls, &*get.name, get.calls, get.errors), ("set", 9, "get", 4, 3));
        assert_eq!((get.mean_us, get.quantiles_us), (20.0, [15.0, 90.5, 99.0]));
        assert_eq!(it.shards.iter().map(|it| it.keys).collect::<Vec<_>>(), [3, 4]);
        assert_eq!(it.shards[0].operations, 7);
        assert!(Figures::read("redis_version:7.0.15\r\n").is_none());
    }
}
