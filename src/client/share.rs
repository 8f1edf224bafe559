//! What a client may have of a turn, and when it last got on.

/// How many commands of one client a turn runs at most: a quarter of a millisecond of work.
const COMMANDS_PER_TURN_MAX: usize = 256;

/// After how many arguments of its commands a client's turn has come to its end: a key costs a fraction of a command.
const ARGS_PER_TURN_MAX: usize = 2048;

/// What a client has had of a turn.
#[derive(Default)]
pub struct TurnShare {
    /// The last turn of the worker in which its requests were looked at, and how much was run in it.
    turn: u64,
    commands: usize,
    args: usize,
}

impl TurnShare {
    /// Its requests are looked at in this turn.
    #[inline]
    pub fn begin(&mut self, turn: u64) {
        if self.turn != turn {
            *self = TurnShare { turn, ..TurnShare::default() };
        }
    }

    /// A command with so many arguments was run.
    #[inline]
    pub fn count(&mut self, args: usize) {
        self.commands += 1;
        self.args += args;
    }

    /// A command made as much work as so many arguments.
    pub fn count_work(&mut self, args: usize) {
        self.args += args;
    }

    /// How many commands were run in this turn.
    #[inline]
    pub fn commands(&self) -> usize {
        self.commands
    }

    /// Whether it has had its share.
    #[inline]
    pub fn is_used_up(&self) -> bool {
        self.commands == COMMANDS_PER_TURN_MAX || self.args >= ARGS_PER_TURN_MAX
    }
}

/// Whether a client gets on.
#[derive(Default)]
pub struct Progress {
    /// When something was last received from it, answered, or taken by it, in milliseconds from the start of the server.
    since_ms: u64,
    /// What it had taken when that was last looked at.
    taken_bytes: u64,
    /// The log tells that it is not read from.
    pub is_told_of: bool,
}

impl Progress {
    /// It has got on.
    #[inline]
    pub fn note(&mut self, now_ms: u64) {
        self.since_ms = now_ms;
    }

    /// For how long it has not, in milliseconds.
    pub fn stalled_ms(&self, now_ms: u64) -> u64 {
        now_ms.saturating_sub(self.since_ms)
    }

    /// Notes how much it has taken in all; whether that is anything since the last look.
    pub fn takes(&mut self, taken_bytes: u64, now_ms: u64) -> bool {
        let takes = taken_bytes != std::mem::replace(&mut self.taken_bytes, taken_bytes);
        if takes {
            self.note(now_ms);
        }
        takes
    }
}
