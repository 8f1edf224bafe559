//! Questions that only workers can answer, asked while a browser shows it, and never more often than they are worth. An
//! answer that does not come in time is waited for no longer than a page may take: what was known before counts.

use std::cell::{Cell, RefCell};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::insight::ask::{Asker, Unanswered};

/// How long an answer counts as new, and how soon a question that failed is asked again.
const INTERVAL: Duration = Duration::from_secs(2);

/// What took long is asked again after so many times as long: that bounds the share of the workers' time.
const REST: u32 = 20;

/// But no later than this: the shards may have been stopped meanwhile, and one slow answer says little of the next.
const REST_MAX: Duration = Duration::from_secs(30);

/// How an answer is asked for, up to a deadline.
type Ask<T> = fn(&mut Asker, Instant) -> Result<T, Unanswered>;

/// One question, and its last answer.
pub(super) struct Observed<T> {
    asker: Arc<Mutex<Asker>>,
    ask: Ask<T>,
    /// How long an answer may take.
    limit: Duration,
    last: RefCell<Option<Rc<Told<T>>>>,
    is_asking: Cell<bool>,
    /// The last question that came to its end has no answer.
    has_failed: Cell<bool>,
    /// Not before then it is asked again.
    next: Cell<Option<Instant>>,
    answered: Notify,
}

/// The last answer.
pub(super) struct Told<T> {
    /// When it came.
    pub at: Instant,
    pub answer: T,
}

impl<T: Send + 'static> Observed<T> {
    /// A question that is asked by this connection.
    pub fn new(socket: OwnedFd, limit: Duration, ask: Ask<T>) -> Rc<Observed<T>> {
        Rc::new(Observed {
            asker: Arc::new(Mutex::new(Asker::new(socket))),
            ask,
            limit,
            last: RefCell::default(),
            is_asking: Cell::new(false),
            has_failed: Cell::new(false),
            next: Cell::new(None),
            answered: Notify::new(),
        })
    }

    /// Asks, if that is due and not under way.
    pub fn begin(self: &Rc<Self>) {
        let is_due = self.next.get().is_none_or(|next| next <= Instant::now());
        if is_due && !self.is_asking.replace(true) {
            tokio::task::spawn_local(self.clone().learn());
        }
    }

    /// The last answer; that which is under way is waited for up to the deadline.
    pub async fn last(&self, deadline: Instant) -> Option<Rc<Told<T>>> {
        if self.is_asking.get() {
            let _ = tokio::time::timeout_at(deadline.into(), self.answered.notified()).await;
        }
        self.last.borrow().clone()
    }

    /// Whether the last question has no answer, yet or for good.
    pub fn is_unanswered(&self) -> bool {
        self.is_asking.get() || self.has_failed.get()
    }

    async fn learn(self: Rc<Self>) {
        let (asker, ask, began) = (self.asker.clone(), self.ask, Instant::now());
        let deadline = began + self.limit;
        let asked = tokio::task::spawn_blocking(move || {
            ask(&mut asker.lock().unwrap_or_else(PoisonError::into_inner), deadline)
        });
        let answer = asked.await.ok().and_then(Result::ok);
        self.has_failed.set(answer.is_none());
        self.next.set(Some(Instant::now() + rest(began.elapsed(), answer.is_some())));
        if let Some(answer) = answer {
            *self.last.borrow_mut() = Some(Rc::new(Told { at: Instant::now(), answer }));
        }
        self.is_asking.set(false);
        self.answered.notify_waiters();
    }
}

/// How long nothing is asked after a question that took so long.
fn rest(took: Duration, is_answered: bool) -> Duration {
    if is_answered { (took * REST).clamp(INTERVAL, REST_MAX) } else { INTERVAL }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn a_slow_answer_is_asked_again_within_half_a_minute_and_one_that_failed_at_once() {
        assert_eq!(rest(Duration::from_millis(1), true), INTERVAL);
        assert_eq!(rest(Duration::from_secs(1), true), Duration::from_secs(20));
        assert_eq!(rest(Duration::from_secs(100), true), REST_MAX);
        assert_eq!(rest(Duration::from_secs(100), false), INTERVAL);
    }

    #[test]
    fn a_question_that_failed_is_unanswered_until_the_next_is_answered() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        // The limit says how the question ends.
        let ask: Ask<u8> = |_, deadline| match deadline <= Instant::now() {
            true => Err(Unanswered::Error("too late".to_owned())),
            false => Ok(7),
        };
        let mut observed = Observed::new(ours.into(), Duration::ZERO, ask);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(observed.clone().learn());
        assert!(observed.is_unanswered() && observed.last.borrow().is_none());
        Rc::get_mut(&mut observed).expect("it has one owner").limit = Duration::from_secs(60);
        runtime.block_on(observed.clone().learn());
        assert!(!observed.is_unanswered());
        assert_eq!(observed.last.borrow().as_ref().map(|told| told.answer), Some(7));
    }
}
