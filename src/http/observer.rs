//! Questions that only workers can answer, asked while somebody looks, and never more often than they are worth. An
//! answer that does not come in time is waited for no longer than a page may take: what was known before counts.

use std::cell::{Cell, RefCell};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::insight::ask::{Asker, Unanswered};

/// How long an answer counts as new.
const INTERVAL: Duration = Duration::from_secs(2);

/// What took long is asked again after so many times as long: that bounds the share of the workers' time.
const REST: u32 = 20;

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

    async fn learn(self: Rc<Self>) {
        let (asker, ask, began) = (self.asker.clone(), self.ask, Instant::now());
        let deadline = began + self.limit;
        let asked = tokio::task::spawn_blocking(move || {
            ask(&mut asker.lock().unwrap_or_else(PoisonError::into_inner), deadline)
        });
        if let Ok(Ok(answer)) = asked.await {
            *self.last.borrow_mut() = Some(Rc::new(Told { at: Instant::now(), answer }));
        }
        self.next.set(Some(Instant::now() + INTERVAL.max(began.elapsed() * REST)));
        self.is_asking.set(false);
        self.answered.notify_waiters();
    }
}
