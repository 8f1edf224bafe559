//! What differs from Redis on purpose: all of it, each with its reason. docs/compatibility.md says the same to users.

use crate::client::Value;
use crate::compare::shape;

/// One intended difference.
pub struct Allowed {
    /// Why it differs.
    pub reason: &'static str,
    /// Whether the replies of Redis and kvlite to this request, its words in capitals, differ in this way.
    pub applies: fn(&[String], &Value, &Value) -> bool,
}

/// All of them.
pub const ALLOWED: &[Allowed] = &[
    Allowed {
        reason: "kvlite is another program of another version, with connections of its own",
        applies: |request, redis, kvlite| {
            request[0] == "HELLO" && !matches!(redis, Value::Error(_)) && !matches!(kvlite, Value::Error(_))
        },
    },
    Allowed {
        reason: "each has commands of its own, and options of its own",
        applies: |request, redis, kvlite| {
            let of_all = request.len() == 1 && request[0] == "COMMAND"
                || request[0] == "CONFIG" && request[1..].iter().any(|word| word.contains(['*', '[', '?']));
            of_all && shape(redis) == shape(kvlite)
        },
    },
];

/// The reason why these replies differ, if it is on purpose.
pub fn reason(request: &[Vec<u8>], redis: &Value, kvlite: &Value) -> Option<&'static str> {
    let words: Vec<String> =
        request.iter().map(|word| String::from_utf8_lossy(word).to_uppercase()).collect();
    ALLOWED.iter().find(|allowed| (allowed.applies)(&words, redis, kvlite)).map(|allowed| allowed.reason)
}
