//! Values that stand outside of the arena, by the number that stands in their entries: large strings whose memory came
//! with their requests. A reader may keep one for longer than its key does. It knows no key.

use bytes::Bytes;

/// The values of one keyspace.
#[derive(Debug, Default)]
pub(crate) struct Objects {
    /// Those of free numbers are empty.
    values: Vec<Bytes>,
    free: Vec<u32>,
    bytes: usize,
}

impl Objects {
    /// Takes a value and returns its number.
    pub(crate) fn add(&mut self, value: Bytes) -> u32 {
        self.bytes += value.len();
        if let Some(number) = self.free.pop() {
            self.values[number as usize] = value;
            return number;
        }
        self.values.push(value);
        u32::try_from(self.values.len() - 1).expect("memory ends before the numbers of large values do")
    }

    /// The value with this number.
    pub(crate) fn value(&self, number: u32) -> &Bytes {
        &self.values[number as usize]
    }

    /// Gives back a value, and its number for the next one.
    pub(crate) fn remove(&mut self, number: u32) -> Bytes {
        let value = std::mem::take(&mut self.values[number as usize]);
        self.bytes -= value.len();
        self.free.push(number);
        value
    }

    /// The memory of all values, in bytes.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.bytes + self.values.capacity() * size_of::<Bytes>() + self.free.capacity() * size_of::<u32>()
    }

    /// Gives back the memory of one value, of those that are not used any more; whether some is left.
    pub(crate) fn dismantle(&mut self) -> bool {
        let value = self.values.pop();
        self.bytes -= value.as_ref().map_or(0, Bytes::len);
        value.is_some()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    impl Objects {
        /// Asserts what has to be true between two operations, when these numbers are in use.
        pub(crate) fn check(&self, used: &BTreeSet<u32>) {
            assert_eq!(used.len() + self.free.len(), self.values.len());
            assert!(self.free.iter().all(|number| !used.contains(number)));
            assert_eq!(self.bytes, self.values.iter().map(Bytes::len).sum::<usize>());
        }
    }
}
