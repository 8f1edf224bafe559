//! Answers that wait for the disk.

use std::collections::VecDeque;

use shard::{Error, Reply};

use crate::mesh::{Answer, Mesh, RequestId};

/// Answers that wait, each for the frame that it depends on.
#[derive(Default)]
pub(super) struct Pending {
    /// For a sync, in the order of their frames.
    awaiting_sync: VecDeque<Held>,
    /// For the frames in the log's buffer to be written.
    awaiting_write: Vec<Held>,
}

/// An answer that is held back.
pub(super) struct Held {
    /// The frame that it waits for.
    seq: u64,
    origin: usize,
    request_id: RequestId,
    answer: HeldAnswer,
}

enum HeldAnswer {
    /// The bytes of an [`Answer::Bytes`].
    Rendered(Vec<u8>),
    Whole(Answer),
}

impl Pending {
    pub fn await_sync(&mut self, held: Held) {
        self.awaiting_sync.push_back(held);
    }

    pub fn await_write(&mut self, held: Held) {
        self.awaiting_write.push(held);
    }

    /// How many wait for a sync.
    pub fn awaiting_sync(&self) -> usize {
        self.awaiting_sync.len()
    }

    /// Takes back all answers of this turn, which have not left yet: they wait for frame `seq` to be written.
    pub fn withdraw(&mut self, seq: u64, mesh: &mut Mesh) {
        mesh.withdraw_answers(|origin, request_id, answer, batch| {
            let held = match answer {
                Answer::Bytes(range) => Held::rendered(seq, origin, request_id, batch.bytes(range).to_vec()),
                answer => Held::new(seq, origin, request_id, answer),
            };
            self.awaiting_write.push(held);
        });
    }

    /// The frames up to this one are on disk.
    pub fn answer_synced(&mut self, durable_seq: u64, mesh: &mut Mesh) {
        while let Some(held) = self.awaiting_sync.pop_front_if(|held| held.seq <= durable_seq) {
            held.give(mesh);
        }
    }

    /// All frames are written.
    pub fn answer_written(&mut self, mesh: &mut Mesh) {
        self.awaiting_write.drain(..).for_each(|held| held.give(mesh));
    }

    /// Gives this error in place of answers: of those to parts of transactions where `parts_too`, of all others where
    /// `others_too`.
    pub fn give_up(&mut self, error: &Error, parts_too: bool, others_too: bool, mesh: &mut Mesh) {
        let mut keeps = |held: Held| {
            let goes = if held.is_part_of_transaction() { parts_too } else { others_too };
            match goes {
                true => {
                    held.give_error(error.clone(), mesh);
                    None
                }
                false => Some(held),
            }
        };
        self.awaiting_sync =
            std::mem::take(&mut self.awaiting_sync).into_iter().filter_map(&mut keeps).collect();
        self.awaiting_write =
            std::mem::take(&mut self.awaiting_write).into_iter().filter_map(keeps).collect();
    }
}

impl Held {
    pub fn new(seq: u64, origin: usize, request_id: RequestId, answer: Answer) -> Held {
        Held { seq, origin, request_id, answer: HeldAnswer::Whole(answer) }
    }

    /// An answer of these bytes.
    pub fn rendered(seq: u64, origin: usize, request_id: RequestId, bytes: Vec<u8>) -> Held {
        Held { seq, origin, request_id, answer: HeldAnswer::Rendered(bytes) }
    }

    pub fn is_part_of_transaction(&self) -> bool {
        matches!(self.answer, HeldAnswer::Whole(Answer::Committed(_) | Answer::Ran(_) | Answer::Held { .. }))
    }

    pub fn give(self, mesh: &mut Mesh) {
        let batch = mesh.to(self.origin);
        match self.answer {
            HeldAnswer::Rendered(bytes) => {
                batch.answer_bytes(self.request_id, |out| out.extend_from_slice(&bytes));
            }
            HeldAnswer::Whole(answer) => batch.answer(self.request_id, answer),
        }
    }

    pub fn give_error(self, error: Error, mesh: &mut Mesh) {
        let answer = match self.answer {
            HeldAnswer::Rendered(_) | HeldAnswer::Whole(Answer::Value(_) | Answer::Failed(_)) => {
                Answer::Failed(error)
            }
            HeldAnswer::Whole(_) => Answer::Part(Reply::Error(error)),
        };
        mesh.to(self.origin).answer(self.request_id, answer);
    }
}
