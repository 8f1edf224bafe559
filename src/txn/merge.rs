//! One reply out of those of several shards.

use shard::Reply;
use shard::command::Merge;

/// One reply out of the replies of parts, each with the numbers of the keys it is about.
pub(super) fn merge_parts(
    merge: Merge,
    key_count: usize,
    parts: impl Iterator<Item = (Vec<usize>, Reply<'static>)>,
) -> Reply<'static> {
    let mut sum = 0;
    let mut by_key = vec![Reply::Nil; if merge == Merge::ByKey { key_count } else { 0 }];
    for (keys, reply) in parts {
        match reply {
            Reply::Error(error) => return Reply::Error(error),
            Reply::Integer(n) => sum += n,
            Reply::Array(items) => keys.into_iter().zip(items).for_each(|(key, item)| by_key[key] = item),
            _ => {}
        }
    }
    match merge {
        Merge::Sum => Reply::Integer(sum),
        Merge::ByKey => Reply::Array(by_key),
        Merge::AllOk => Reply::Ok,
    }
}
