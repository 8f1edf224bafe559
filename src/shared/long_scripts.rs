//! Which workers run a script that takes long, and which of these scripts are to end.

use std::sync::atomic::{AtomicU8, Ordering};

use shard::Error;

/// A script has taken longer than others should wait for it.
const LONG: u8 = 1;
/// It is a function of a library.
const FUNCTION: u8 = 2;
/// It has changed keys.
const WROTE: u8 = 4;
/// It is to end.
const KILLED: u8 = 8;

/// What is known of the long script of each worker. A worker writes its own place; others read it, and ask for an end.
#[derive(Debug)]
pub struct LongScripts(Box<[AtomicU8]>);

impl LongScripts {
    /// None, of so many workers.
    pub fn new(workers: usize) -> LongScripts {
        LongScripts((0..workers).map(|_| AtomicU8::new(0)).collect())
    }

    /// A worker's script takes long.
    pub fn begin(&self, worker: usize, is_function: bool) {
        self.0[worker].store(LONG | if is_function { FUNCTION } else { 0 }, Ordering::Relaxed);
    }

    /// It has changed keys.
    pub fn note_write(&self, worker: usize) {
        self.0[worker].fetch_or(WROTE, Ordering::Relaxed);
    }

    /// It has ended.
    pub fn end(&self, worker: usize) {
        self.0[worker].store(0, Ordering::Relaxed);
    }

    /// Whether it is to end.
    pub fn is_killed(&self, worker: usize) -> bool {
        self.0[worker].load(Ordering::Relaxed) & KILLED != 0
    }

    /// The error for what needs a worker whose script takes long.
    #[inline]
    pub fn busy(&self, worker: usize) -> Option<Error> {
        match self.0[worker].load(Ordering::Relaxed) {
            0 => None,
            state => Some(Error::Busy { is_function: state & FUNCTION != 0 }),
        }
    }

    /// The error for what needs all workers.
    pub fn any_busy(&self) -> Option<Error> {
        (0..self.0.len()).find_map(|worker| self.busy(worker))
    }

    /// Has the scripts end that take long, or the functions.
    ///
    /// # Errors
    /// There is none, it is one of the others, or it has changed keys.
    pub fn kill(&self, functions: bool) -> Result<(), Error> {
        let mut refusal = Error::NotBusy;
        let mut is_any = false;
        for (worker, state) in self.0.iter().enumerate() {
            match state.load(Ordering::Relaxed) {
                0 => {}
                state if state & WROTE != 0 => refusal = Error::Unkillable,
                state if (state & FUNCTION != 0) != functions => {
                    refusal = Error::Busy { is_function: state & FUNCTION != 0 };
                }
                _ => {
                    self.0[worker].fetch_or(KILLED, Ordering::Relaxed);
                    is_any = true;
                }
            }
        }
        if is_any { Ok(()) } else { Err(refusal) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_long_script_that_changed_nothing_is_killed_and_by_its_own_command() {
        let scripts = LongScripts::new(2);
        assert_eq!((scripts.kill(false), scripts.any_busy()), (Err(Error::NotBusy), None));
        scripts.begin(1, true);
        assert_eq!(scripts.kill(false), Err(Error::Busy { is_function: true }));
        assert_eq!((scripts.kill(true), scripts.is_killed(1), scripts.is_killed(0)), (Ok(()), true, false));
        scripts.end(1);
        assert!(!scripts.is_killed(1));
        scripts.begin(0, false);
        scripts.note_write(0);
        assert_eq!(
            [scripts.kill(false), scripts.kill(true)],
            [Err(Error::Unkillable), Err(Error::Unkillable)]
        );
    }
}
