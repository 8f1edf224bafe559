//! One answer from every worker, gathered into one.

use std::sync::Arc;

use shard::analytics::query::QueryResult;
use shard::command::{Merge, Run};
use shard::{OwnedRequest, Reply, Request};

use super::merge::merge_parts;
use crate::mesh::{Answer, Batch, Call, Mesh, RequestId};
use crate::metrics::Report;
use crate::scripting::libraries::Libraries;

/// One answer from every worker, gathered.
pub struct Gather {
    /// The command that asked, with its arguments.
    pub request: OwnedRequest,
    /// The sum of the reports, where reports were asked for.
    pub report: Box<Report>,
    /// What each shard has found, where that was asked for.
    pub results: Vec<QueryResult>,
    /// What the client is answered once all is done, where that is known.
    pub then: Option<Reply<'static>>,
    /// The libraries of functions after a change.
    pub libraries: Option<Arc<Libraries>>,
    /// Until when the client waits, in milliseconds from the start of the server; none for no end.
    pub deadline_ms: Option<u64>,
    parts: Vec<Reply<'static>>,
    asks_for_reports: bool,
    /// The workers that have not answered.
    unanswered: Vec<usize>,
}

impl Gather {
    /// Puts one call to each of these workers.
    pub fn begin(
        workers: Vec<usize>,
        request: &Request<'_>,
        request_id: RequestId,
        mesh: &mut Mesh,
        call: impl Fn(&mut Batch) -> Call,
    ) -> Gather {
        let mut asks_for_reports = false;
        for worker in &workers {
            let batch = mesh.to(*worker);
            let call = call(batch);
            asks_for_reports = matches!(call, Call::Report);
            batch.call(request_id, call);
        }
        Gather {
            request: OwnedRequest::new(request),
            report: Box::default(),
            results: Vec::new(),
            then: None,
            libraries: None,
            deadline_ms: None,
            parts: Vec::new(),
            asks_for_reports,
            unanswered: workers,
        }
    }

    /// Takes a worker's answer. Returns whether it was the last.
    pub fn answer(&mut self, from: usize, answer: Answer) -> bool {
        match answer {
            Answer::Part(reply) => self.parts.push(reply),
            Answer::Report(report) => self.report.add(&report),
            Answer::Libraries(libraries) => self.libraries = Some(libraries),
            Answer::QueryResult(result) => self.results.push(*result),
            _ => unreachable!("no other answer is gathered"),
        }
        self.unanswered.retain(|worker| *worker != from);
        self.unanswered.is_empty()
    }

    /// Whether it was asked how the keys are used: nothing but the reply comes of it, and it may take long.
    pub fn is_of_results(&self) -> bool {
        matches!(self.request.command.run, Run::Server(shard::command::Server::Question(_)))
            && self.then.is_none()
    }

    /// Whether a client waits for its writes to be on disk, and may stop to.
    pub fn is_of_waitaof(&self) -> bool {
        matches!(self.request.command.run, Run::Server(shard::command::Server::Waitaof))
    }

    /// Whether reports were asked for, of which some are better than none.
    pub fn is_of_reports(&self) -> bool {
        self.asks_for_reports
    }

    /// The workers that have not answered.
    pub fn unanswered(&self) -> &[usize] {
        &self.unanswered
    }

    /// The lines of all workers, in the order of the numbers with which they begin behind `id=`.
    pub fn lines(&mut self) -> Reply<'static> {
        let Reply::Text(text) = self.text() else { unreachable!("it is one") };
        let id = |line: &&str| line.split(['=', ' ']).nth(1).and_then(|id| id.parse::<u64>().ok());
        let mut lines: Vec<&str> = text.split_inclusive('\n').collect();
        lines.sort_by_key(id);
        Reply::Text(lines.concat())
    }

    /// The lists of all workers.
    pub fn take_lists(&mut self) -> Vec<Vec<Reply<'static>>> {
        let lists = self.parts.drain(..).map(|part| match part {
            Reply::Array(items) => items,
            other => unreachable!("{other:?} is no list"),
        });
        lists.collect()
    }

    /// The texts of all workers as one.
    fn text(&mut self) -> Reply<'static> {
        let texts = self.parts.drain(..).map(|part| match part {
            Reply::Text(text) => text,
            other => unreachable!("{other:?} is no text"),
        });
        Reply::Text(texts.collect())
    }

    /// The replies of the workers.
    pub fn take_parts(&mut self) -> Vec<Reply<'static>> {
        std::mem::take(&mut self.parts)
    }

    /// The merged reply.
    pub fn merge(&mut self, merge: Merge) -> Reply<'static> {
        merge_parts(merge, 0, self.parts.drain(..).map(|reply| (Vec::new(), reply)))
    }
}
