//! Which shard owns a key. A key belongs to one of 16,384 hash slots, as in Redis Cluster, and each shard owns a run of
//! slots.

use shard::Request;

/// The number of hash slots.
pub const SLOTS: usize = 16_384;

/// The greatest number of shards: answers and log frames name a shard in 16 bits, cursors in 12.
pub const SHARDS_MAX: usize = 1024;

/// CRC16 in the variant of Redis Cluster, with the tables that take 16 bytes at a step: every key is hashed.
static CRC: crc::Crc<u16, crc::Table<16>> = crc::Crc::<u16, crc::Table<16>>::new(&crc::CRC_16_XMODEM);

/// The hash slot of a key. Only what stands between the first `{` and the next `}` counts, if anything does, so
/// that keys with the same tag live together.
pub fn slot(key: &[u8]) -> usize {
    usize::from(CRC.checksum(hash_tag(key))) % SLOTS
}

fn hash_tag(key: &[u8]) -> &[u8] {
    let Some(open) = key.iter().position(|byte| *byte == b'{') else { return key };
    let behind = &key[open + 1..];
    match behind.iter().position(|byte| *byte == b'}') {
        None | Some(0) => key,
        Some(close) => &behind[..close],
    }
}

/// The shard, of `shards`, that owns a key.
pub fn owner(key: &[u8], shards: usize) -> usize {
    if shards == 1 { 0 } else { slot(key) * shards / SLOTS }
}

/// Who runs a request with keys.
pub enum Route {
    /// One shard owns all of its keys.
    One(usize),
    /// Several shards own keys of it.
    Several,
    /// Any shard: its arguments name no key.
    Any,
}

/// Who runs a request with keys.
pub fn route(request: &Request<'_>, shards: usize) -> Route {
    if shards == 1 {
        return Route::One(0);
    }
    let mut owners = request.keys().map(|key| owner(key, shards));
    let Some(first) = owners.next() else { return Route::Any };
    if owners.all(|other| other == first) { Route::One(first) } else { Route::Several }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_of_redis_cluster() {
        // Figures that `CLUSTER KEYSLOT` of Redis gives.
        for (key, expected) in [("123456789", 12739), ("foo", 12182), ("", 0), ("hello", 866)] {
            assert_eq!(slot(key.as_bytes()), expected, "{key}");
        }
    }

    #[test]
    fn keys_with_the_same_tag_share_a_slot() {
        for (key, tag) in [
            ("{user1000}.following", "user1000"),
            ("foo{}{bar}", "foo{}{bar}"),
            ("foo{{bar}}zap", "{bar"),
            ("foo{bar}{zap}", "bar"),
            ("foo{bar", "foo{bar"),
        ] {
            assert_eq!(hash_tag(key.as_bytes()), tag.as_bytes(), "{key}");
        }
    }

    #[test]
    fn every_shard_owns_slots_and_no_other_exists() {
        for shards in [1, 2, 3, 5, 7, 64, SHARDS_MAX] {
            let mut seen = vec![0; shards];
            (0..100_000).for_each(|n: u32| seen[owner(&n.to_le_bytes(), shards)] += 1);
            assert!(seen.iter().all(|keys| *keys > 0), "{shards} shards");
        }
    }
}
