//! The page at `/`: what is known, as HTML. It asks no worker; all that comes from clients is escaped by `maud`, and shown
//! so that each character of it can be seen.

use std::time::{Duration, Instant};

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::history::Rates;
use super::observer::Told;
use super::plots::{self, Plot};
use super::status::Status;
use crate::insight::figures::{Command, Figures};
use crate::insight::keys::{Advice, Class, HotKey, Uses};
use crate::insight::shown;
use crate::metrics::Report;

/// How much of a name is shown, and how much can be read when one points at it, in columns of a terminal.
const NAME_COLUMNS: usize = 40;
const TITLE_COLUMNS: usize = 1000;

/// How many rows a table has.
const COMMANDS: usize = 12;
const ANOMALIES: usize = 8;
const SHARDS: usize = 64;

/// An answer this old is told to be.
const OLD: Duration = Duration::from_secs(10);

/// What the page shows.
pub(super) struct View<'a> {
    pub status: Status,
    pub figures: Figures,
    /// What the figures do not tell of the log: its own size, and where it takes no changes.
    pub report: &'a Report,
    /// Of each shard.
    pub load: Vec<Rates>,
    pub uptime_ms: u64,
    pub now_s: u64,
    pub has_analytics: bool,
    /// As far as a worker has answered.
    pub uses: Option<&'a Told<Uses>>,
    pub classes: Option<&'a Told<Vec<Class>>>,
    /// A worker was asked for the uses, and has not answered in time.
    pub is_unanswered: bool,
}

/// The whole page around what changes.
pub(super) fn page(main: &Markup) -> String {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { "kvlite" }
                link rel="icon" href="icon.svg" type="image/svg+xml";
                link rel="stylesheet" href="dashboard.css";
                noscript { meta http-equiv="refresh" content="5"; }
                script src="dashboard.js" defer {}
            }
            body {
                p #lost .banner .bad role="status" hidden {}
                main { (main) }
            }
        }
    };
    page.into_string()
}

/// All that changes.
pub(super) fn main(view: &View<'_>) -> Markup {
    let figures = &view.figures;
    let is_empty = figures.memory.keys == 0 && figures.counters.hits + figures.counters.misses == 0;
    html! {
        (header(view))
        (banner(view))
        @if view.status != Status::Loading {
            (tiles(view))
            @if is_empty { (welcome()) }
            div .cards {
                (load(view))
                @if view.has_analytics {
                    (hot_keys(view))
                    (classes(view))
                    (advice(view))
                    (anomalies(view))
                } @else {
                    (analytics_are_off())
                }
                (commands(&figures.commands))
                (state(view))
            }
        }
    }
}

fn header(view: &View<'_>) -> Markup {
    let figures = &view.figures;
    let (word, class) = match view.status {
        Status::Healthy => ("healthy", "good"),
        Status::Loading => ("loading", "busy"),
        Status::Unsaved | Status::Degraded => ("degraded", "bad"),
        Status::Stopping => ("stopping", "busy"),
        Status::Stuck => ("stuck", "bad"),
    };
    let rate = shown::count(figures.counters.requests_per_second);
    html! {
        header data-title={ "kvlite · " (word) " · " (rate) "/s" } {
            h1 { "kvlite" }
            span .pill .(class) { (word) }
            p {
                "version " (figures.version) " · " (figures.io_backend) " · "
                (counted(figures.shards.len() as u64, "shard")) " · up for " (shown::span(figures.uptime_s))
            }
        }
    }
}

/// What is wrong, or under way.
fn banner(view: &View<'_>) -> Markup {
    let disk = &view.figures.disk;
    let is_unanswered = view.is_unanswered && view.uses.is_none_or(|uses| uses.at.elapsed() > OLD);
    html! {
        @match view.status {
            Status::Loading => {
                @let percent = disk.loading_percent.unwrap_or(0);
                section .banner .busy {
                    p { strong { "The data is being read back." } " Clients are served once that is done." }
                    progress max="100" value=(percent) aria-label="how much of the data is read back" {}
                    @let keys = view.figures.shards.iter().map(|it| it.keys).sum();
                    p { (percent) " % · " (counted(keys, "key")) " so far" }
                }
            }
            Status::Stopping => p .banner .busy {
                strong { "The server stops." }
                " It was told to end, brings everything to disk, and takes no new work."
            },
            Status::Stuck => p .banner .bad {
                strong { "A shard is stuck." } " " (disk.log_error)
                ". Only a restart helps; it is a defect of kvlite."
            },
            Status::Degraded => p .banner .bad {
                strong { "Not everything is served." } " " (refusal(view))
            },
            Status::Unsaved => p .banner .bad {
                strong { "No snapshot can be written." } " " (disk.snapshot_error)
                ". Everything is served, but the log grows until there is room for a snapshot."
            },
            Status::Healthy => {}
        }
        @if is_unanswered && view.status != Status::Loading {
            p .banner .busy {
                "The shards have not answered in time what they know of the use of keys"
                @if let Some(uses) = view.uses {
                    ": that is " (shown::span(uses.at.elapsed().as_secs())) " old"
                }
                ". The other figures are those that each shard told last."
            }
        }
    }
}

/// Where writes are refused, why, and what helps, in a sentence.
fn refusal(view: &View<'_>) -> String {
    let Report { refusing, wal_remedy, .. } = view.report;
    let cause = &view.figures.disk.log_error;
    let remedy = wal_remedy.unwrap_or("check the disk; writes are taken again once it answers");
    match refusing {
        0 => format!("{cause}: {remedy}."),
        refusing => {
            let shards = counted(view.figures.shards.len() as u64, "shard");
            format!("Writes are refused on {refusing} of {shards}: {cause}; {remedy}.")
        }
    }
}

fn tiles(view: &View<'_>) -> Markup {
    let Figures { counters, memory, clients, disk, .. } = &view.figures;
    let limit = match memory.limit_bytes {
        0 => memory.machine_bytes,
        limit => limit,
    };
    let of_limit = if memory.limit_bytes > 0 { "of the limit" } else { "of the machine" };
    let tile = |name: &str, value: String, more: String| {
        html! { div { dt { (name) } dd { strong { (value) } small { (more) } } } }
    };
    html! {
        dl .tiles {
            (tile("Requests per second", shown::count(counters.requests_per_second),
                format!("{} since the start", shown::count(counters.requests))))
            (tile("Keys", shown::count(memory.keys),
                format!("{} with a TTL", shown::count(memory.keys_with_ttl))))
            (tile("Memory of keys", shown::size(memory.keys_bytes),
                match (memory.resident_bytes as f64 / limit.max(1) as f64 * 100.0, limit) {
                    (_, 0) => format!("process {}", shown::size(memory.resident_bytes)),
                    (percent, _) => format!(
                        "process {}, {percent:.0} % {of_limit}", shown::size(memory.resident_bytes)),
                }))
            (tile("Hit ratio", view.figures.hit_ratio().map_or("–".to_owned(), shown::percent),
                match counters.misses {
                    1 => "1 miss".to_owned(),
                    misses => format!("{} misses", shown::count(misses)),
                }))
            (tile("Clients", shown::count(clients.connected),
                format!("of at most {}", shown::count(clients.limit))))
            (tile("Log", shown::size(view.report.log_size_bytes), match disk.compacting {
                true => "a snapshot is being written".to_owned(),
                false => format!("{:.0} % of its limit", disk.log_fill * 100.0),
            }))
        }
    }
}

fn welcome() -> Markup {
    html! {
        section .banner .hint {
            p {
                strong { "There are no keys yet." }
                " Once clients write and read some, this page shows which keys are hot, which classes of keys there
                are, what more memory would give, and what is not as usual. To see it at work:"
            }
            pre { code { "redis-cli SET user:1 hello\nredis-cli GET user:1\nkvlite bench" } }
        }
    }
}

fn load(view: &View<'_>) -> Markup {
    let shards = &view.figures.shards;
    let now = |shard: usize| view.load.get(shard).and_then(|line| line.last()).map(|point| point.1);
    let points = view.load.iter().map(Vec::len).max().unwrap_or(0);
    let (lines, names) = lines_of(&view.load);
    let peak =
        (0..points).map(|at| view.load.iter().filter_map(|line| line.get(at)).map(|it| it.1).sum::<f64>());
    let total: f64 = (0..view.load.len()).filter_map(now).sum();
    let words = format!(
        "Reads and writes per second over the last hour, by the shard that has the keys: {} now, at most \
         {}.",
        shown::count(total as u64),
        shown::count(peak.fold(0.0, f64::max) as u64)
    );
    html! {
        section .wide {
            h2 { "Load" }
            @if points < 2 {
                p .empty { "It is drawn once the server has run for a quarter of a minute." }
            } @else {
                p .lead { (words) }
                (figure(&plots::load(&lines, view.uptime_ms), &words))
                @if names.len() > 1 {
                    ul .legend {
                        @for (index, name) in names.iter().enumerate() { li .{ "s" (index) } { (name) } }
                    }
                }
            }
            details #shards {
                summary #shards-shown { "Each shard" }
                table {
                    caption { "Shards" }
                    thead { tr {
                        th scope="col" { "Shard" }
                        th scope="col" .n { "Operations/s" }
                        th scope="col" .n { "Keys" }
                        th scope="col" .n { "Memory" }
                        th scope="col" .n .w { "A restart reads" }
                        th scope="col" .n .w { "Busy since the start" }
                    } }
                    tbody {
                        @for (index, shard) in shards.iter().enumerate().take(SHARDS) {
                            tr {
                                th scope="row" {
                                    (index)
                                    @if shard.turn_age_ms > 3000 {
                                        @let since = shown::span(shard.turn_age_ms / 1000);
                                        " " span .warn { "stands still for " (since) }
                                    }
                                }
                                @let rate = now(index).map_or("–".to_owned(), |rate| shown::count(rate as u64));
                                td .n { (rate) }
                                td .n { (shown::count(shard.keys)) }
                                td .n { (shown::size(shard.memory_bytes)) }
                                td .n .w { (shown::size(shard.log_bytes)) }
                                td .n .w { (shown::percent(busy(shard.busy_us, view.uptime_ms))) }
                            }
                        }
                    }
                }
                @if shards.len() > SHARDS { p .note { "The first " (SHARDS) " of " (shards.len()) "." } }
            }
        }
    }
}

fn busy(busy_us: u64, uptime_ms: u64) -> f64 {
    (busy_us as f64 / (uptime_ms.max(1) as f64 * 1000.0)).min(1.0)
}

/// The lines of the plot, and their names: each shard where they are few, else the busiest, the middle and the idlest.
fn lines_of(load: &[Rates]) -> (Vec<Rates>, Vec<String>) {
    if load.len() <= plots::LINES_MAX {
        return (load.to_vec(), (0..load.len()).map(|shard| format!("shard {shard}")).collect());
    }
    let points = load.iter().map(Vec::len).min().unwrap_or(0);
    let sorted = |at: usize| {
        let mut rates: Vec<f64> = load.iter().map(|line| line[at].1).collect();
        rates.sort_by(|a, b| b.total_cmp(a));
        (load[0][at].0, rates)
    };
    let sorted: Vec<_> = (0..points).map(sorted).collect();
    let line = |place: usize| sorted.iter().map(|(ms, rates)| (*ms, rates[place])).collect();
    let names = ["the busiest shard", "the middle one", "the idlest"];
    (vec![line(0), line(load.len() / 2), line(load.len() - 1)], names.map(str::to_owned).to_vec())
}

fn hot_keys(view: &View<'_>) -> Markup {
    let hot: &[HotKey] = view.uses.map_or(&[], |uses| &uses.answer.hot);
    let most = hot.iter().map(|it| it.recent).max().unwrap_or(0).max(1);
    html! {
        section {
            h2 { "Hottest keys" }
            p .lead { "By recent use, misses included: an access counts half after a minute." }
            @if hot.is_empty() {
                @let is_even = view.uses.is_some_and(|uses| uses.answer.is_even);
                @let none = if is_even { "No key stands out." } else { "No key is used at the moment." };
                p .empty { (unless_asked(view.uses, none)) }
            } @else {
                table {
                    caption { "Hottest keys" }
                    thead { tr {
                        th scope="col" { "Key" }
                        th scope="col" .n { "Recent" }
                        th scope="col" .n { "Reads" }
                        th scope="col" .n .w { "Writes" }
                    } }
                    tbody {
                        @for it in hot {
                            tr {
                                th scope="row" {
                                    (name(&it.key))
                                    @if it.is_missing { " " span .warn { "does not exist" } }
                                    (bar(it.recent as f64 / most as f64))
                                }
                                td .n { (shown::count(it.recent)) }
                                @if it.is_missing {
                                    td .n { "–" }
                                    td .n .w { "–" }
                                } @else {
                                    td .n { (shown::count(it.reads)) }
                                    td .n .w { (shown::count(it.writes)) }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn classes(view: &View<'_>) -> Markup {
    let classes: &[Class] = view.classes.map_or(&[], |classes| &classes.answer);
    let most = classes.iter().map(|it| it.bytes).max().unwrap_or(0).max(1);
    html! {
        section {
            h2 { "Classes of keys" }
            p .lead { "By size. A suggested TTL keeps 99 of 100 reads that would hit." }
            @if classes.is_empty() {
                p .empty { (unless_asked(view.classes, "No class of keys is known yet.")) }
            } @else {
                table {
                    caption { "Classes of keys" }
                    thead { tr {
                        th scope="col" { "Class" }
                        th scope="col" .n { "Size" }
                        th scope="col" .n .w { "Keys" }
                        th scope="col" .n { "Hits" }
                        th scope="col" .n .w { "TTL now" }
                        th scope="col" .n { "Suggested" }
                    } }
                    tbody {
                        @for it in classes {
                            tr {
                                th scope="row" { (name(&it.name)) (bar(it.bytes as f64 / most as f64)) }
                                td .n { (shown::size(it.bytes)) }
                                td .n .w { (shown::count(it.keys)) }
                                td .n { (it.hit_ratio.map_or("–".to_owned(), shown::percent)) }
                                td .n .w { (it.ttl_s.map_or("none".to_owned(), shown::about)) }
                                td .n { (it.suggested_ttl_s.map_or("–".to_owned(), shown::span)) }
                            }
                        }
                    }
                }
                p .note { "–: too little was seen to tell. " (age(view.classes)) }
            }
        }
    }
}

fn advice(view: &View<'_>) -> Markup {
    let none = Advice::default();
    let advice = view.uses.map_or(&none, |uses| &uses.answer.advice);
    let at = |memory: &str| advice.rows.iter().find(|row| row.memory == memory).and_then(|row| row.hit_ratio);
    let bytes = advice.rows.iter().find(|row| row.memory == "1").map_or(0, |row| row.bytes);
    html! {
        section {
            h2 { "What more memory would give" }
            @match (at("1/2"), at("1"), at("2")) {
                (Some(half), Some(today), Some(twice)) => {
                    @let words = format!(
                        "With {} as today, {} of reads would hit; with half of it {}, with twice as much {}.",
                        shown::size(bytes),
                        shown::percent(today),
                        shown::percent(half),
                        shown::percent(twice)
                    );
                    p .lead { (words) }
                    (figure(&plots::hit_ratio(&advice.rows), &words))
                    p .note {
                        "If the keys that were not used for longest went when the memory is full."
                        @if let Some(now) = advice.hit_ratio_now {
                            " Measured since the start: " (shown::percent(now)) "."
                        }
                    }
                }
                _ => p .empty {
                    (unless_asked(view.uses,
                        "A curve is drawn once a thousand reads of the keys that it follows were seen."))
                }
            }
        }
    }
}

fn anomalies(view: &View<'_>) -> Markup {
    let all = view.uses.map_or(&[][..], |uses| &uses.answer.anomalies);
    let shown_ones = &all[..all.len().min(ANOMALIES)];
    let open = all.iter().filter(|it| it.until_s.is_none()).count();
    let words = format!("{} not as usual now, {} over of late.", open, all.len() - open);
    html! {
        section {
            h2 { "Anomalies" }
            @if all.is_empty() {
                p .empty { (unless_asked(view.uses, "All is as usual.")) }
            } @else {
                p .lead { (words) }
                (figure(&plots::timeline(shown_ones, view.now_s), &words))
                ol .sentences {
                    @for it in shown_ones {
                        @let (short, whole) = spelled(&it.sentence(), 160);
                        li .over[it.until_s.is_some()] title=[whole] { (short) }
                    }
                }
                @if all.len() > ANOMALIES { p .note { "and " (all.len() - ANOMALIES) " more" } }
            }
        }
    }
}

fn analytics_are_off() -> Markup {
    html! {
        section .wide {
            h2 { "Use of keys" }
            p .empty {
                "Analytics are off. Start the server with " code { "--enable-analytics" } " (or "
                code { "KVLITE_ENABLE_ANALYTICS=true" } ")
                and this page shows the hottest keys, the classes of keys with the TTL that would suit them, what more
                memory would give, and what is not as usual."
            }
        }
    }
}

fn commands(commands: &[Command]) -> Markup {
    let mut slow: Vec<&Command> = commands.iter().collect();
    slow.sort_by_key(|it| std::cmp::Reverse(it.took_us));
    let all_us = slow.iter().map(|it| it.took_us).sum::<u64>().max(1);
    html! {
        section .wide {
            h2 { "Commands" }
            p .lead {
                "By the time that their answers have taken since the start, those to the questions of this page \
                 included; the shaded part of a row is its share."
            }
            @if slow.is_empty() {
                p .empty { "No command was called yet." }
            } @else {
                table {
                    caption { "Commands" }
                    thead { tr {
                        th scope="col" { "Command" }
                        th scope="col" .n { "Calls" }
                        th scope="col" .n .w { "Errors" }
                        th scope="col" .n .w { "Mean" }
                        th scope="col" .n { "Half within" }
                        th scope="col" .n { "99 % within" }
                        th scope="col" .n .w { "99.9 % within" }
                    } }
                    tbody {
                        @for it in slow.iter().take(COMMANDS) {
                            tr {
                                th scope="row" {
                                    code { (it.name.to_uppercase().replace('|', " ")) }
                                    (bar(it.took_us as f64 / all_us as f64))
                                }
                                td .n { (shown::count(it.calls)) }
                                td .n .w { (shown::count(it.errors)) }
                                td .n .w { (shown::micros(it.mean_us)) }
                                td .n { (shown::micros(it.quantiles_us[0])) }
                                td .n { (shown::micros(it.quantiles_us[1])) }
                                td .n .w { (shown::micros(it.quantiles_us[2])) }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Memory, log, snapshots and clients.
fn state(view: &View<'_>) -> Markup {
    let Figures { memory, disk, clients, counters, .. } = &view.figures;
    let row = |name: &str, value: String| html! { div { dt { (name) } dd { (value) } } };
    html! {
        section {
            h2 { "Log and snapshots" }
            dl .rows {
                (row("A restart reads", shown::size(disk.log_bytes)))
                (row("Changes behind the snapshot", shown::count(disk.log_entries)))
                (row("Length of the log", format!("{:.0} % of its limit", disk.log_fill * 100.0)))
                @if !disk.snapshot_error.is_empty() {
                    (row("Last snapshot", format!("failed, {}", disk.snapshot_error)))
                }
                (row("Last written snapshot, or start", match disk.saved_s {
                    0 => "–".to_owned(),
                    saved => format!("{} ago", shown::span(view.now_s.saturating_sub(saved))),
                }))
                (row("Snapshot now", if disk.compacting { "is being written" } else { "none" }.to_owned()))
                (row("Writes", if disk.log_error.is_empty() { "taken" } else { "refused" }.to_owned()))
            }
        }
        section {
            h2 { "Memory and clients" }
            dl .rows {
                (row("Keys and values", shown::size(memory.keys_bytes)))
                (row("A key with its value", match memory.keys {
                    0 => "–".to_owned(),
                    keys => shown::size(memory.keys_bytes / keys),
                }))
                (row("The process, resident", shown::size(memory.resident_bytes)))
                (row("Clients that do not read", shown::count(clients.paused)))
                (row("Clients refused", format!(
                    "{} of {}", shown::count(clients.refused), shown::count(clients.accepted))))
                (row("Received, sent", format!(
                    "{}, {}", shown::size(counters.received_bytes), shown::size(counters.sent_bytes))))
                (row("Keys expired", shown::count(counters.expired)))
                (row("Errors answered", shown::count(counters.errors)))
            }
        }
    }
}

/// A plot, with what it shows in words for those who do not see it.
fn figure(plot: &Plot, words: &str) -> Markup {
    html! {
        div .plot role="img" aria-label=(words) {
            div .wide-only aria-hidden="true" { (PreEscaped(&plot.wide)) }
            div .narrow-only aria-hidden="true" { (PreEscaped(&plot.narrow)) }
        }
    }
}

/// The share of something, as a bar behind a name.
fn bar(share: f64) -> Markup {
    let width = (share.clamp(0.0, 1.0) * 100.0).round();
    html! {
        svg .bar viewBox="0 0 100 1" preserveAspectRatio="none" aria-hidden="true" {
            rect width=(width) height="1" {}
        }
    }
}

/// A name that clients have made up.
fn name(bytes: &[u8]) -> Markup {
    let (short, whole) = spelled(&shown::name(bytes), NAME_COLUMNS);
    html! { code title=[whole] { (short) } }
}

/// A text that can be seen whole, shortened; and more of it where that is more.
fn spelled(shown: &str, columns_max: usize) -> (String, Option<String>) {
    let short = shown::shortened(shown, columns_max);
    let title = (short != shown).then(|| shown::shortened(shown, TITLE_COLUMNS));
    (short, title)
}

/// What to say where there is nothing to show, if the workers have answered at all.
fn unless_asked<T>(told: Option<&Told<T>>, nothing: &'static str) -> &'static str {
    if told.is_some() { nothing } else { "The shards have not answered yet." }
}

/// How old an answer is.
fn age<T>(told: Option<&Told<T>>) -> String {
    let age_s = told.map_or(0, |told| Instant::now().duration_since(told.at).as_secs());
    if age_s < OLD.as_secs() { String::new() } else { format!("As of {} ago.", shown::span(age_s)) }
}

fn counted(count: u64, what: &str) -> String {
    format!("{} {what}{}", shown::count(count), if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::insight::figures::Shard;

    /// The page of a server of two shards, with these figures of its disk and this answer.
    fn shown_with(report: &Report, disk: impl FnOnce(&mut Figures), uses: Uses) -> String {
        let mut figures = Figures { shards: vec![Shard::default(); 2], ..Figures::default() };
        disk(&mut figures);
        let uses = Told { at: Instant::now(), answer: uses };
        let status = if figures.disk.log_error.is_empty() { Status::Healthy } else { Status::Degraded };
        let view = View {
            is_unanswered: false,
            status,
            figures,
            report,
            load: Vec::new(),
            uptime_ms: 1000,
            now_s: 1000,
            has_analytics: true,
            uses: Some(&uses),
            classes: None,
        };
        main(&view).into_string()
    }

    #[test]
    fn a_full_disk_is_told_with_its_shards_its_remedy_and_the_snapshot_that_failed() {
        let report = Report {
            refusing: 2,
            wal_remedy: Some("free space on the disk, and they are taken again"),
            log_size_bytes: 3 << 20,
            ..Report::default()
        };
        let page = shown_with(
            &report,
            |it| {
                it.disk.log_error = "shard 0: no space".into();
                it.disk.snapshot_error = "shard 1: no room".into();
                it.disk.log_bytes = 512 << 20;
                it.counters.misses = 1;
            },
            Uses::default(),
        );
        for part in [
            "Writes are refused on 2 of 2 shards: shard 0: no space; free space on the disk, and they are taken again.",
            "<dt>Last snapshot</dt><dd>failed, shard 1: no room</dd>",
            "<dt>Log</dt><dd><strong>3.00 MiB</strong><small>0 % of its limit</small>",
            "<dt>A restart reads</dt><dd>512 MiB</dd>",
            "<small>1 miss</small>",
        ] {
            assert!(page.contains(part), "{part} is missing:\n{page}");
        }
        let page = shown_with(&Report::default(), |_| (), Uses::default());
        assert!(!page.contains("failed, ") && !page.contains("refused on"), "{page}");
    }

    #[test]
    fn the_hottest_keys_have_names_and_are_left_out_where_none_stands_out() {
        let key = |key: &[u8], is_missing| HotKey {
            key: key.to_vec(),
            reads: 7,
            writes: 0,
            recent: 1561,
            error: 0,
            is_missing,
        };
        let hot = vec![key(b"", false), key(b" ", true)];
        let page = shown_with(&Report::default(), |_| (), Uses { hot, ..Uses::default() });
        assert!(
            page.contains("<code>(empty)</code>") && page.contains("<code>&quot; &quot;</code>"),
            "{page}"
        );
        assert!(page.contains("<td class=\"n\">1,561</td><td class=\"n\">–</td>"), "{page}");
        assert!(page.contains("misses included"), "{page}");
        let page = shown_with(&Report::default(), |_| (), Uses { is_even: true, ..Uses::default() });
        assert!(page.contains("No key stands out."), "{page}");
    }
}
