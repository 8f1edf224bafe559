//! Whether two replies are the same, as far as they can be.

use crate::client::Value;

/// How the replies to a command are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Check {
    /// They are the same.
    Exact,
    /// Integers above 0 differ by no more than this: they tell of time.
    Near(i64),
    /// The same in another order.
    Sorted,
    /// Of the same type; errors and nothing are the same.
    Shape,
    /// Both are errors, and then the same, or neither is.
    Ignored,
}

impl Check {
    /// Whether these replies of Redis and kvlite are the same.
    pub fn holds(self, redis: &Value, kvlite: &Value) -> bool {
        if let (Value::Error(one), Value::Error(other)) = (redis, kvlite) {
            return one == other;
        }
        match self {
            Check::Exact => redis == kvlite,
            Check::Near(tolerance) => match (redis, kvlite) {
                (Value::Integer(one), Value::Integer(other)) => {
                    one == other || (*one >= 0 && *other >= 0 && one.abs_diff(*other) <= tolerance as u64)
                }
                _ => redis == kvlite,
            },
            Check::Sorted => sorted(redis) == sorted(kvlite),
            Check::Shape => shape(redis) == shape(kvlite),
            Check::Ignored => matches!(redis, Value::Error(_)) == matches!(kvlite, Value::Error(_)),
        }
    }
}

/// The reply with what it contains in a fixed order.
fn sorted(value: &Value) -> Value {
    let in_order = |items: &[Value]| {
        let mut items: Vec<Value> = items.iter().map(sorted).collect();
        items.sort_by_key(ToString::to_string);
        items
    };
    match value {
        Value::Array(items) => Value::Array(in_order(items)),
        Value::Set(items) => Value::Set(in_order(items)),
        Value::Map(pairs) => {
            let pairs: Vec<Value> =
                pairs.iter().map(|(key, value)| Value::Array(vec![sorted(key), sorted(value)])).collect();
            Value::Array(in_order(&pairs))
        }
        other => other.clone(),
    }
}

/// The type of a reply; of nothing that it is nothing.
pub fn shape(value: &Value) -> &'static str {
    match value {
        Value::Simple(_) => "simple",
        Value::Error(_) => "error",
        Value::Integer(_) => "integer",
        Value::Bulk(_) => "bulk",
        Value::Nil => "nil",
        Value::NilArray => "nil array",
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Double(_) => "double",
        Value::Verbatim(..) => "verbatim",
        Value::Array(_) => "array",
        Value::Set(_) => "set",
        Value::Map(_) => "map",
        Value::Push(_) => "push",
    }
}
