//! What the page at `/` is made of: the load that is noted always, and what workers are asked while a browser shows it.

use std::cell::RefCell;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::history::{self, History, Sample};
use super::observer::Observed;
use super::page::{self, View};
use super::status;
use crate::admin::info::info_text;
use crate::clock::wall_clock_us;
use crate::insight::figures::Figures;
use crate::insight::keys::{self, Class, Uses};
use crate::shared::Shared;

/// How long a page waits for the workers' answers.
const PATIENCE: Duration = Duration::from_secs(1);

/// How long an answer may take that no page waits for any more.
const USES_MAX: Duration = Duration::from_secs(10);
const CLASSES_MAX: Duration = Duration::from_mins(2);

/// So many of the hottest keys are shown.
const HOT_KEYS: usize = 10;

/// Threads that wait for answers: one for each question.
pub(super) const ASKING: usize = 2;

/// The connections by which questions are asked: one for what takes a worker no time, and one for walks over all keys,
/// for which the other does not wait.
pub(super) struct Links {
    uses: OwnedFd,
    classes: OwnedFd,
}

impl Links {
    /// Connections, and their ends for a worker.
    pub fn new() -> io::Result<(Links, Vec<OwnedFd>)> {
        let (uses, of_uses) = UnixStream::pair()?;
        let (classes, of_classes) = UnixStream::pair()?;
        let links = Links { uses: uses.into(), classes: classes.into() };
        Ok((links, vec![of_uses.into(), of_classes.into()]))
    }
}

/// What the page shows.
pub(super) struct Dashboard {
    shared: Arc<Shared>,
    history: RefCell<History>,
    uses: Rc<Observed<Uses>>,
    classes: Rc<Observed<Vec<Class>>>,
}

impl Dashboard {
    pub fn new(shared: Arc<Shared>, links: Links) -> Dashboard {
        Dashboard {
            shared,
            history: RefCell::default(),
            uses: Observed::new(links.uses, USES_MAX, |asker, deadline| Uses::ask(asker, HOT_KEYS, deadline)),
            classes: Observed::new(links.classes, CLASSES_MAX, keys::classes),
        }
    }

    /// Takes note of the load for ever.
    pub async fn note_load(&self) {
        let mut times = tokio::time::interval(history::INTERVAL);
        loop {
            times.tick().await;
            self.history.borrow_mut().note(Sample::take(&self.shared));
        }
    }

    /// What changes on the page, and the page around it where that is asked for.
    pub async fn show(&self, is_whole: bool) -> String {
        let has_analytics = self.shared.config.enable_analytics;
        let deadline = Instant::now() + PATIENCE;
        let (mut uses, mut classes, mut is_unanswered) = (None, None, false);
        if has_analytics && self.shared.loading.is_over() && !self.shared.stopping() {
            self.uses.begin();
            self.classes.begin();
            uses = self.uses.last(deadline).await;
            is_unanswered = self.uses.is_unanswered();
            classes = self.classes.last(deadline).await;
        }
        let mut report = status::sum(&self.shared);
        let status = status::judge(&self.shared, &mut report);
        let clock = self.shared.clock.resumed();
        let info = info_text(&self.shared, clock.as_ref(), &report, |_, _| true);
        let main = page::main(&View {
            status,
            figures: Figures::read(&info).expect("it is of kvlite"),
            report: &report,
            load: self.history.borrow().rates(&Sample::take(&self.shared)),
            uptime_ms: self.shared.started.elapsed().as_millis() as u64,
            now_s: wall_clock_us() / 1_000_000,
            has_analytics,
            uses: uses.as_deref(),
            classes: classes.as_deref(),
            is_unanswered,
        });
        if is_whole { page::page(&main) } else { main.into_string() }
    }
}
