//! The replies of one client, which leave in the order of its requests.

use std::collections::VecDeque;

use bytes::Bytes;
use shard::Command;

use crate::net::Outbound;

/// What may come all together from other shards, in bytes of replies.
const LATE_REPLY_BYTES_MAX: usize = 1024 * 1024;

/// How many requests of one client may be under way at other shards.
const WAITING_MAX: usize = 256;

/// Replies that are ready wait for later ones of other shards only while they are smaller than this.
const GATHERED_REPLY_BYTES_MAX: usize = 16 * 1024;

/// Buffers that a client does not need are kept for reuse up to this size.
const BUFFER_KEPT_BYTES: usize = 64 * 1024;

/// From this size on a message that others get as well is sent from where it lies.
const SHARED_MESSAGE_BYTES_MIN: usize = 16 * 1024;

/// The size that the first reply from another shard is taken to have.
const REPLY_BYTES_GUESS: usize = 32 * 1024;

/// The replies of one client. Requests may be answered in any order; replies leave in that of the requests.
pub struct Replies {
    /// Whole buffers that leave before `out`, and their size.
    sealed: VecDeque<Outbound>,
    sealed_bytes: usize,
    /// Messages that belong to no request, while they must not stand behind what is ready to leave.
    held: Option<Box<Held>>,
    /// Replies in order, ready to leave.
    out: Vec<u8>,
    /// Requests that wait for an answer, and answered ones behind the first of them.
    slots: VecDeque<Slot>,
    /// The number of the request behind the last slot.
    sequence: u32,
    /// The replies of answered slots.
    late: Vec<u8>,
    /// The size of the replies that came lately from other shards: the largest, slowly forgotten.
    usual_bytes: usize,
    /// Requests that were answered with an error before their worker did.
    given_up: Vec<(u32, Sent)>,
    /// What is in `out` does not leave: its client wants no replies.
    is_muted: bool,
}

/// Messages that wait for a reply.
#[derive(Default)]
struct Held {
    messages: Vec<Bytes>,
    size_bytes: usize,
    /// For so many replies they wait, one within the other.
    replies: usize,
}

enum Slot {
    Waiting { command: &'static Command, worker: u16, size_bytes: u32, since_ms: u64 },
    Answered { start: usize, end: usize },
}

/// A place among the replies.
#[derive(Clone, Copy, Debug)]
pub struct Mark(usize);

/// A request that was sent to a worker, as it was counted there.
#[derive(Clone, Copy, Debug)]
pub struct Sent {
    /// The worker.
    pub worker: usize,
    /// Its size in bytes.
    pub size_bytes: usize,
}

impl Default for Replies {
    fn default() -> Replies {
        Replies {
            sealed: VecDeque::new(),
            sealed_bytes: 0,
            held: None,
            out: Vec::new(),
            slots: VecDeque::new(),
            sequence: 0,
            late: Vec::new(),
            usual_bytes: REPLY_BYTES_GUESS,
            given_up: Vec::new(),
            is_muted: false,
        }
    }
}

impl Replies {
    /// From now on replies are dropped, until [`Replies::unmute`]. Every earlier request must be answered.
    pub fn mute(&mut self) {
        debug_assert!(self.slots.is_empty(), "the last reply that leaves is known");
        self.seal(std::iter::empty::<Outbound>());
        self.is_muted = true;
    }

    /// From now on replies leave. Every earlier request must be answered.
    pub fn unmute(&mut self) {
        self.drop_muted();
        self.is_muted = false;
    }

    /// Frees what is not to leave.
    pub fn drop_muted(&mut self) {
        if self.is_muted {
            self.out.clear();
        }
    }

    /// Answers the next request.
    pub fn now(&mut self, render: impl FnOnce(&mut Vec<u8>)) {
        if self.slots.is_empty() {
            render(&mut self.out);
            return;
        }
        let start = self.late.len();
        render(&mut self.late);
        self.sequence = self.sequence.wrapping_add(1);
        self.slots.push_back(Slot::Answered { start, end: self.late.len() });
    }

    /// As [`Replies::now`], also to a client that wants no replies: it is told of its subscriptions all the same.
    pub fn tell(&mut self, told: Vec<u8>) {
        if self.is_muted {
            self.out.clear();
            self.seal([told]);
        } else {
            self.now(|out| out.extend_from_slice(&told));
        }
    }

    /// Answers the next request with whole buffers, without a copy. Every earlier request must be answered.
    pub fn now_sealed(&mut self, buffers: impl IntoIterator<Item = impl Into<Outbound>>) {
        debug_assert!(self.slots.is_empty(), "jobs run alone");
        if !self.is_muted {
            self.seal(buffers);
        }
    }

    /// Marks the place behind the replies so far. Until [`Replies::release_messages`] nothing may be [taken](Self::take),
    /// and messages wait. Every earlier request must be answered.
    pub fn mark(&mut self) -> Mark {
        self.hold_messages();
        self.now_sealed(std::iter::empty::<Vec<u8>>());
        Mark(self.sealed.len())
    }

    /// Drops the replies behind a mark.
    pub fn rewind(&mut self, mark: Mark) {
        for buffer in self.sealed.drain(mark.0..) {
            self.sealed_bytes -= buffer.len();
        }
        self.out.clear();
    }

    fn seal(&mut self, buffers: impl IntoIterator<Item = impl Into<Outbound>>) {
        if !self.out.is_empty() {
            self.sealed_bytes += self.out.len();
            self.sealed.push_back(std::mem::take(&mut self.out).into());
        }
        for buffer in buffers.into_iter().map(Into::into).filter(|buffer: &Outbound| !buffer.is_empty()) {
            self.sealed_bytes += buffer.len();
            self.sealed.push_back(buffer);
        }
    }

    /// Adds a message that belongs to no request, behind the replies that are ready: it may overtake those that other
    /// workers owe.
    pub fn push(&mut self, message: &Bytes) {
        match &mut self.held {
            Some(held) => {
                held.size_bytes += message.len();
                held.messages.push(message.clone());
            }
            None if self.is_muted => {
                self.out.clear();
                self.seal([message.clone()]);
            }
            None if message.len() < SHARED_MESSAGE_BYTES_MIN => self.out.extend_from_slice(message),
            None => self.seal([message.clone()]),
        }
    }

    /// As [`Replies::push`], behind the replies to all requests so far: it overtakes none.
    pub fn push_in_order(&mut self, message: &Bytes) {
        if self.held.is_some() || self.slots.is_empty() {
            self.push(message);
        } else {
            self.now(|out| out.extend_from_slice(message));
        }
    }

    /// From now on a reply leaves in pieces, or has to leave before any message: messages wait.
    pub fn hold_messages(&mut self) {
        self.held.get_or_insert_default().replies += 1;
    }

    /// That reply is whole. Messages that have waited stand behind it.
    pub fn release_messages(&mut self) {
        let is_whole = |held: &mut Box<Held>| {
            held.replies -= 1;
            held.replies == 0
        };
        let Some(held) = self.held.take_if(is_whole) else { return };
        held.messages.iter().for_each(|message| self.push(message));
    }

    /// No reply is under way. Messages that have waited stand behind all of them.
    pub fn release_all_messages(&mut self) {
        let Some(held) = self.held.take() else { return };
        held.messages.iter().for_each(|message| self.push(message));
    }

    /// Reserves the place of the next request, one of `command`, which a worker answers later. Returns its number. Times
    /// are in milliseconds from the start of the server.
    pub fn later(&mut self, command: &'static Command, worker: usize, size_bytes: usize, now_ms: u64) -> u32 {
        let sequence = self.sequence;
        self.sequence = self.sequence.wrapping_add(1);
        let (worker, size_bytes) = (worker as u16, size_bytes as u32);
        self.slots.push_back(Slot::Waiting { command, worker, size_bytes, since_ms: now_ms });
        sequence
    }

    /// Gives away the next number, so that no later request has it. Every earlier request must be answered.
    pub fn skip_number(&mut self) -> u32 {
        debug_assert!(self.slots.is_empty(), "jobs run alone");
        let sequence = self.sequence;
        self.sequence = self.sequence.wrapping_add(1);
        sequence
    }

    /// Answers those of the oldest requests that have waited since before `before_ms` in place of their workers,
    /// whose answers are dropped when they come. What a worker owes that `is_busy` is still waited for. Returns whether
    /// there were any.
    pub fn give_up(
        &mut self,
        before_ms: u64,
        is_busy: impl Fn(usize) -> bool,
        mut render: impl FnMut(&'static Command, usize, &mut Vec<u8>),
    ) -> bool {
        let first = self.sequence.wrapping_sub(self.slots.len() as u32);
        let overdue: Vec<(u32, &'static Command, u16)> = (first..=u32::MAX)
            .chain(0..)
            .zip(&self.slots)
            .take_while(|(_, slot)| !matches!(slot, Slot::Waiting { since_ms, .. } if *since_ms >= before_ms))
            .filter_map(|(sequence, slot)| match slot {
                Slot::Waiting { command, worker, .. } if !is_busy((*worker).into()) => {
                    Some((sequence, *command, *worker))
                }
                Slot::Waiting { .. } | Slot::Answered { .. } => None,
            })
            .collect();
        for (sequence, command, worker) in &overdue {
            let sent = self.fill(*sequence, |out| render(command, (*worker).into(), out));
            self.given_up.push((*sequence, sent));
        }
        !overdue.is_empty()
    }

    /// Puts these last bytes in the place of all replies that have not left. What other workers still answer is
    /// dropped: the client would take it for the answer to an earlier request.
    pub fn end_with(&mut self, render: impl FnOnce(&mut Vec<u8>)) {
        let first = self.sequence.wrapping_sub(self.slots.len() as u32);
        for (number, slot) in (0..).zip(self.slots.drain(..)) {
            if let Slot::Waiting { worker, size_bytes, .. } = slot {
                let sent = Sent { worker: worker.into(), size_bytes: size_bytes as usize };
                self.given_up.push((first.wrapping_add(number), sent));
            }
        }
        self.late.clear();
        self.discard();
        render(&mut self.out);
    }

    /// The newest request, if it waits for an answer: its number, and the worker that owes it.
    pub fn last_awaited(&self) -> Option<(u32, usize)> {
        match self.slots.back() {
            Some(Slot::Waiting { worker, .. }) => Some((self.sequence.wrapping_sub(1), usize::from(*worker))),
            Some(Slot::Answered { .. }) | None => None,
        }
    }

    /// The command of the request with this number, unless that was given up.
    pub fn awaiting(&self, sequence: u32) -> Option<&'static Command> {
        let first = self.sequence.wrapping_sub(self.slots.len() as u32);
        let is_given_up = self.given_up.iter().any(|(given_up, _)| *given_up == sequence);
        match self.slots.get(sequence.wrapping_sub(first) as usize) {
            Some(Slot::Waiting { command, .. }) if !is_given_up => Some(command),
            _ => None,
        }
    }

    /// The number that [`Replies::later`] returns next.
    pub fn next_sequence(&self) -> u32 {
        self.sequence
    }

    /// Answers the request with this number, unless that was given up.
    pub fn fill(&mut self, sequence: u32, render: impl FnOnce(&mut Vec<u8>)) -> Sent {
        if let Some(at) = self.given_up.iter().position(|(given_up, _)| *given_up == sequence) {
            return self.given_up.swap_remove(at).1;
        }
        let first = self.sequence.wrapping_sub(self.slots.len() as u32);
        let index = sequence.wrapping_sub(first) as usize;
        let Some(&Slot::Waiting { worker, size_bytes, .. }) = self.slots.get(index) else {
            unreachable!("a request is answered once, and its client stays until then");
        };
        if index == 0 {
            let before = self.out.len();
            render(&mut self.out);
            self.note_size(self.out.len() - before);
            self.slots.pop_front();
            while let Some(&Slot::Answered { start, end }) = self.slots.front() {
                self.out.extend_from_slice(&self.late[start..end]);
                self.slots.pop_front();
            }
            if self.slots.is_empty() {
                self.late.clear();
                self.late.shrink_to(BUFFER_KEPT_BYTES);
            }
        } else {
            let start = self.late.len();
            render(&mut self.late);
            self.note_size(self.late.len() - start);
            self.slots[index] = Slot::Answered { start, end: self.late.len() };
        }
        Sent { worker: worker.into(), size_bytes: size_bytes as usize }
    }

    /// As [`Replies::fill`], with a value between two pieces of text; it is not copied if the request is the first
    /// that waits.
    pub fn fill_value(
        &mut self,
        sequence: u32,
        before: impl FnOnce(&mut Vec<u8>),
        value: Bytes,
        behind: &[u8],
    ) -> Sent {
        let first = self.sequence.wrapping_sub(self.slots.len() as u32);
        let was_given_up = self.given_up.iter().any(|(given_up, _)| *given_up == sequence);
        if was_given_up || sequence != first || self.is_muted {
            return self.fill(sequence, |out| {
                before(out);
                out.extend_from_slice(&value);
                out.extend_from_slice(behind);
            });
        }
        before(&mut self.out);
        self.seal([value]);
        self.fill(sequence, |out| out.extend_from_slice(behind))
    }

    fn note_size(&mut self, reply_bytes: usize) {
        self.usual_bytes = reply_bytes.max(self.usual_bytes - self.usual_bytes / 8);
    }

    /// Whether one more request may be sent to another shard: replies as large as the last ones must not fill the
    /// memory when they come all together.
    pub(super) fn may_wait_for_more(&self) -> bool {
        self.slots.len() + self.given_up.len() < WAITING_MAX
            && self.slots.len() * self.usual_bytes < LATE_REPLY_BYTES_MAX
    }

    /// Whether no worker owes an answer any more that was given up.
    pub fn is_owed_nothing(&self) -> bool {
        self.given_up.is_empty()
    }

    /// Whether every request was answered.
    pub fn all_in(&self) -> bool {
        self.slots.is_empty()
    }

    /// Whether some bytes are ready to leave.
    pub fn is_ready(&self) -> bool {
        !self.out.is_empty() && !self.is_muted || !self.sealed.is_empty()
    }

    /// Whether the ready bytes are few, and more of them are on their way from other shards.
    pub fn should_gather(&self) -> bool {
        !self.slots.is_empty() && self.sealed.is_empty() && self.out.len() < GATHERED_REPLY_BYTES_MAX
    }

    /// Takes the next bytes to leave; `spare` is the buffer for those that follow.
    pub fn take(&mut self, spare: impl FnOnce() -> Vec<u8>) -> Outbound {
        match self.sealed.pop_front() {
            Some(buffer) => {
                self.sealed_bytes -= buffer.len();
                buffer
            }
            None => std::mem::replace(&mut self.out, spare()).into(),
        }
    }

    /// How many buffers wait besides the one that is being filled, and how much that one holds and may hold, in bytes.
    pub fn buffers(&self) -> (usize, usize, usize) {
        (self.sealed.len(), self.out.len(), self.out.capacity())
    }

    /// Drops what will not be read.
    pub fn discard(&mut self) {
        self.sealed.clear();
        self.sealed_bytes = 0;
        self.out.clear();
        self.held = None;
    }

    /// Bytes that wait, answered out of order or ready.
    pub fn size_bytes(&self) -> usize {
        let held_bytes = self.held.as_ref().map_or(0, |held| held.size_bytes);
        self.out.len() + self.late.len() + self.sealed_bytes + held_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reserves the place of a `GET`.
    fn later(replies: &mut Replies, worker: usize, size_bytes: usize, now_ms: u64) -> u32 {
        replies.later(shard::command::find(b"GET").unwrap(), worker, size_bytes, now_ms)
    }

    fn drain(replies: &mut Replies) -> String {
        let mut all = Vec::new();
        while replies.is_ready() {
            all.extend_from_slice(&replies.take(Vec::new));
        }
        String::from_utf8(all).unwrap()
    }

    #[test]
    fn replies_leave_in_the_order_of_the_requests() {
        let mut replies = Replies::default();
        replies.now(|out| out.push(b'0'));
        let one = later(&mut replies, 7, 10, 0);
        let two = later(&mut replies, 8, 20, 0);
        replies.now(|out| out.push(b'3'));
        let four = later(&mut replies, 9, 30, 0);
        assert_eq!(drain(&mut replies), "0");
        assert_eq!(replies.fill(four, |out| out.push(b'4')).worker, 9);
        assert_eq!(replies.fill(two, |out| out.push(b'2')).size_bytes, 20);
        assert_eq!(drain(&mut replies), "");
        assert!(!replies.all_in());
        replies.fill(one, |out| out.push(b'1'));
        assert_eq!(drain(&mut replies), "1234");
        assert!(replies.all_in());
        assert_eq!(replies.size_bytes(), 0);
    }

    #[test]
    fn few_ready_replies_gather_while_others_are_awaited() {
        let mut replies = Replies::default();
        replies.now(|out| out.push(b'0'));
        assert!(!replies.should_gather(), "nothing is awaited");
        let one = later(&mut replies, 7, 10, 0);
        let two = later(&mut replies, 7, 10, 0);
        assert!(replies.should_gather());
        replies.fill(one, |out| out.resize(GATHERED_REPLY_BYTES_MAX, b'1'));
        assert!(!replies.should_gather(), "they are many");
        replies.take(Vec::new);
        assert!(replies.should_gather());
        replies.fill(two, |out| out.push(b'2'));
        assert!(!replies.should_gather(), "all have come");
    }

    #[test]
    fn messages_that_wait_for_a_reply_leave_behind_it_however_many_they_are() {
        let mut replies = Replies::default();
        for message in [b"1", b"2", b"3"] {
            replies.hold_messages();
            replies.push_in_order(&Bytes::from_static(message));
        }
        replies.now(|out| out.push(b'r'));
        replies.release_all_messages();
        assert_eq!(drain(&mut replies), "r123");
    }

    #[test]
    fn numbers_wrap_around() {
        let mut replies = Replies { sequence: u32::MAX, ..Replies::default() };
        let last = later(&mut replies, 0, 0, 0);
        let first = later(&mut replies, 0, 0, 0);
        assert_eq!((last, first), (u32::MAX, 0));
        replies.fill(first, |out| out.push(b'b'));
        replies.fill(last, |out| out.push(b'a'));
        assert_eq!(drain(&mut replies), "ab");
    }

    #[test]
    fn what_is_given_up_is_answered_once() {
        let mut replies = Replies { sequence: u32::MAX, ..Replies::default() };
        let old = later(&mut replies, 3, 10, 100);
        let answered = later(&mut replies, 4, 20, 150);
        let new = later(&mut replies, 5, 30, 200);
        replies.fill(answered, |out| out.push(b'1'));
        let give_up = |replies: &mut Replies, before_ms, busy| {
            let render =
                |_, worker, out: &mut Vec<u8>| out.extend_from_slice(format!("-{worker}").as_bytes());
            replies.give_up(before_ms, |worker| worker == busy, render)
        };
        assert!(!give_up(&mut replies, 100, 0));
        assert!(!give_up(&mut replies, 200, 3), "what a busy worker owes still comes");
        assert!(give_up(&mut replies, 200, 5));
        assert_eq!(drain(&mut replies), "-31");
        assert_eq!(replies.fill(old, |out| out.push(b'0')).size_bytes, 10);
        assert!(replies.given_up.is_empty());
        replies.fill(new, |out| out.push(b'2'));
        assert_eq!(drain(&mut replies), "2");
        assert!(replies.all_in());
    }

    #[test]
    fn nothing_leaves_behind_the_last_bytes() {
        let mut replies = Replies { sequence: u32::MAX, ..Replies::default() };
        replies.now(|out| out.push(b'0'));
        let one = later(&mut replies, 7, 10, 0);
        replies.now(|out| out.push(b'2'));
        let three = later(&mut replies, 8, 30, 0);
        replies.end_with(|out| out.push(b'!'));
        assert_eq!(drain(&mut replies), "!");
        assert_eq!(replies.fill(three, |out| out.push(b'3')).size_bytes, 30);
        assert_eq!(replies.fill_value(one, |out| out.push(b'1'), Bytes::from("1"), b"1").worker, 7);
        assert!(!replies.is_ready() && replies.all_in() && replies.given_up.is_empty());
    }

    #[test]
    fn what_is_muted_does_not_leave_and_what_stood_before_does() {
        let mut replies = Replies::default();
        replies.now(|out| out.push(b'0'));
        replies.mute();
        replies.now(|out| out.push(b'1'));
        replies.now_sealed([b"2".to_vec()]);
        let three = later(&mut replies, 7, 10, 0);
        replies.now(|out| out.push(b'4'));
        replies.fill_value(three, |out| out.push(b'3'), Bytes::from("3"), b"3");
        assert_eq!(drain(&mut replies), "0");
        assert!(replies.all_in());
        replies.unmute();
        replies.now(|out| out.push(b'5'));
        assert_eq!(drain(&mut replies), "5");
    }

    #[test]
    fn whole_buffers_keep_their_place() {
        let mut replies = Replies::default();
        replies.now(|out| out.push(b'0'));
        replies.now_sealed([b"12".to_vec(), Vec::new(), b"3".to_vec()]);
        replies.now(|out| out.push(b'4'));
        assert_eq!(replies.size_bytes(), 5);
        assert_eq!(drain(&mut replies), "01234");
    }
}
