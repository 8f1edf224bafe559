//! What a command costs where a shard is one of many: measured costs in, predicted ones out. It measures nothing.

/// The numbers of cores that are predicted.
pub const SHARDS: [usize; 6] = [2, 8, 16, 32, 64, 128];

/// How many commands a worker finds in a turn: few where it waits for its clients, many where they wait for it.
pub const COMMANDS_PER_TURN: [f64; 3] = [16.0, 64.0, 256.0];

/// What was measured in process, in microseconds of CPU time, of all shards together.
#[derive(Clone, Copy, Debug)]
pub struct Costs {
    /// A command on the worker's own shard.
    pub local_us: f64,
    /// How much more a command costs on another one.
    pub remote_us: f64,
    /// A message and the one that answers it.
    pub message_us: f64,
}

impl Costs {
    /// Finds the costs that explain best, by least squares, what a remote command took in messages of several sizes:
    /// `local + remote + message / batch`.
    pub fn of(local_us: f64, batches: &[usize], remote_us: &[f64]) -> Costs {
        let count = batches.len() as f64;
        let shares: Vec<f64> = batches.iter().map(|batch| 1.0 / *batch as f64).collect();
        let mean = |values: &[f64]| values.iter().sum::<f64>() / count;
        let (share, us) = (mean(&shares), mean(remote_us));
        let products = shares.iter().zip(remote_us).map(|(x, y)| (x - share) * (y - us));
        let message_us = products.sum::<f64>() / shares.iter().map(|x| (x - share).powi(2)).sum::<f64>();
        Costs { local_us, remote_us: us - message_us * share - local_us, message_us }
    }

    /// The CPU time of a command on a server with so many shards and keys of all of them. `single_us`: what it takes
    /// with one shard.
    pub fn cpu_us_per_command(&self, single_us: f64, shards: usize, commands_per_turn: f64) -> f64 {
        let remote = (shards - 1) as f64 / shards as f64;
        let to_each_peer = (commands_per_turn / shards as f64).max(1.0);
        single_us + remote * (self.remote_us + self.message_us / to_each_peer)
    }
}
