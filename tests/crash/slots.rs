//! Keys that lie on different shards, whatever their number.

/// Spreads of tags; see [`spread_tags`].
pub const TAG_COUNT: usize = 8;

/// Hash tags in ascending order of their slots, one in each eighth of the slots: together they reach every shard
/// of up to eight.
pub fn spread_tags() -> [String; TAG_COUNT] {
    std::array::from_fn(|eighth| {
        let tags = (0..).map(|number| format!("{{t{number}}}"));
        let mut inside = tags.map(|tag| (slot(&tag.as_bytes()[1..tag.len() - 1]), tag));
        let found = inside.find(|(slot, _)| usize::from(*slot) * TAG_COUNT / 16_384 == eighth);
        found.expect("numbers are endless").1
    })
}

/// The hash slot of a tag in Redis Cluster: CRC16/XMODEM modulo 16,384.
fn slot(tag: &[u8]) -> u16 {
    let mut crc = 0_u16;
    for byte in tag {
        crc ^= u16::from(*byte) << 8;
        for _ in 0..8 {
            crc = if crc & 0x8000 == 0 { crc << 1 } else { crc << 1 ^ 0x1021 };
        }
    }
    crc % 16_384
}

#[test]
fn slots_are_those_of_redis_cluster() {
    assert_eq!((slot(b"foo"), slot(b"123456789")), (12_182, 12_739));
}
