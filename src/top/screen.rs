//! How it looks: the same for a terminal of any size and for a page of text.

use std::time::Instant;

use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::Widget;

use super::Known;
use crate::insight::figures::{Command, Figures};
use crate::insight::keys::{Anomaly, Class, HotKey};
use crate::insight::shown;

/// How large the page of text is: it has room for all lists, and lines that are not used are left out.
const TEXT_SIZE: (u16, u16) = (80, 60);

/// A shard whose thread has begun no turn for so long is said to stand still.
const STANDS_STILL_MS: u64 = 3000;

const TITLE: Style = Style::new().add_modifier(Modifier::BOLD);
const SOFT: Style = Style::new().fg(Color::DarkGray);
const GOOD: Style = Style::new().fg(Color::Green);
const BAD: Style = Style::new().fg(Color::Red);

/// What is shown.
pub(super) struct Screen {
    pub known: Known,
    pub classes: Vec<Class>,
    /// Why there is nothing newer.
    pub trouble: Option<String>,
    /// What was known before, from which the rates follow.
    before: Option<(Instant, Figures)>,
    told: Instant,
    is_text: bool,
}

/// A row of a list: its name, and its numbers.
type Row = (Span<'static>, Vec<String>);

impl Screen {
    pub fn new(known: Known) -> Screen {
        Screen {
            known,
            classes: Vec::new(),
            trouble: None,
            before: None,
            told: Instant::now(),
            is_text: false,
        }
    }

    /// Takes newer figures.
    pub fn tell(&mut self, known: Known) {
        let before = std::mem::replace(&mut self.known, known);
        self.before = Some((std::mem::replace(&mut self.told, Instant::now()), before.figures));
        self.trouble = None;
    }

    /// How often a second something happened that is counted, where that is known.
    fn rate(&self, count: impl Fn(&Figures) -> u64) -> Option<u64> {
        let (at, before) = self.before.as_ref()?;
        let happened = count(&self.known.figures).saturating_sub(count(before)) as f64;
        Some((happened / self.told.duration_since(*at).as_secs_f64().max(0.001)).round() as u64)
    }

    /// All of it as a page of text.
    pub fn text(&mut self) -> String {
        self.is_text = true;
        let (width, height) = TEXT_SIZE;
        let mut buffer = Buffer::empty(Rect::new(0, 0, width, height));
        self.draw(buffer.area, &mut buffer);
        let line = |y: u16| {
            let cells = (0..width).map(|x| buffer[(x, y)].symbol());
            cells.collect::<String>().trim_end().to_owned()
        };
        let lines: Vec<String> = (0..height).map(line).collect();
        let mut text = String::new();
        for (at, line) in lines.iter().enumerate() {
            let is_second_blank = line.is_empty() && lines.get(at + 1).is_none_or(String::is_empty);
            if !is_second_blank {
                text.push_str(line);
                text.push('\n');
            }
        }
        text
    }

    /// Draws it.
    pub fn draw(&self, area: Rect, buffer: &mut Buffer) {
        let heads = self.heads(area.width);
        let shards = &self.known.figures.shards;
        let shown_shards = shards.len().min(usize::from(area.height / 6).clamp(2, 16));
        let [head, of_shards, upper, lower, foot] = Layout::vertical([
            Constraint::Length(heads.len() as u16 + 1),
            Constraint::Length(shown_shards as u16 + 2),
            Constraint::Fill(3),
            Constraint::Fill(2),
            Constraint::Length(u16::from(!self.is_text)),
        ])
        .areas(area);
        for (line, row) in heads.into_iter().zip(head.rows()) {
            line.render(row, buffer);
        }
        list(
            "Shards",
            &["ops/s", "keys", "memory", "log"],
            &self.rows_of_shards(shown_shards),
            of_shards,
            buffer,
        );
        let columns =
            |area| Layout::horizontal([Constraint::Fill(1), Constraint::Fill(1)]).spacing(2).areas(area);
        let [left, right] = columns(upper);
        match &self.known.uses {
            Ok(uses) => list("Hottest keys", &["of late", "reads"], &rows_of_keys(&uses.hot), left, buffer),
            Err(why) => nothing("Hottest keys", why, left, buffer),
        }
        list("Commands", &["calls/s", "p50", "p99"], &self.rows_of_commands(), right, buffer);
        let [left, right] = columns(lower);
        list("Classes of keys", &["size", "hits", "TTL"], &rows_of_classes(&self.classes), left, buffer);
        match &self.known.uses {
            Ok(uses) if uses.anomalies.is_empty() => nothing("Anomalies", "all is as usual", right, buffer),
            Ok(uses) => sentences("Anomalies", &uses.anomalies, right, buffer),
            Err(why) => nothing("Anomalies", why, right, buffer),
        }
        Line::styled("q quits", SOFT).render(foot, buffer);
    }

    /// The lines at the top.
    fn heads(&self, width: u16) -> Vec<Line<'static>> {
        let Figures { version, io_backend, uptime_s, clients, memory, disk, counters, shards, .. } =
            &self.known.figures;
        let (word, style) =
            match (disk.loading_percent, disk.log_error.is_empty(), disk.snapshot_error.is_empty()) {
                (Some(percent), ..) => (format!("loading, {percent} %"), BAD),
                (None, true, true) => ("healthy".to_owned(), GOOD),
                _ => ("degraded".to_owned(), BAD),
            };
        let uptime = shown::span(*uptime_s);
        let mut heads = vec![
            Line::from(vec![
                Span::styled(format!("kvlite {version}"), TITLE),
                format!("  {io_backend}, {} shards, up for {uptime}  ", shards.len()).into(),
                Span::styled(word, style.add_modifier(Modifier::BOLD)),
            ]),
            figures([
                ("requests/s", shown::count(counters.requests_per_second)),
                ("keys", shown::count(memory.keys)),
                ("hits", self.known.figures.hit_ratio().map_or("–".to_owned(), shown::percent)),
                (
                    "clients",
                    format!("{} of {}", shown::count(clients.connected), shown::count(clients.limit)),
                ),
                ("errors", shown::count(counters.errors)),
            ]),
            figures([
                ("memory", shown::size(memory.keys_bytes)),
                ("process", shown::size(memory.resident_bytes)),
                ("log", shown::size(disk.log_bytes)),
                ("of its limit", format!("{:.0} %", disk.log_fill * 100.0)),
                ("snapshot", if disk.compacting { "runs" } else { "none" }.to_owned()),
            ]),
        ];
        let told = [&disk.log_error, &disk.snapshot_error].into_iter().filter(|error| !error.is_empty());
        let told = self.trouble.iter().chain(told);
        heads.extend(told.flat_map(|error| wrapped(&shown::name(error.as_bytes()), width, BAD)));
        heads
    }

    /// The shards, by their numbers; the busiest where they are more than there is room for.
    fn rows_of_shards(&self, room: usize) -> Vec<Row> {
        let rate = |shard: usize| self.rate(|all| all.shards.get(shard).map_or(0, |it| it.operations));
        let mut shards: Vec<_> = self.known.figures.shards.iter().enumerate().collect();
        if shards.len() > room {
            shards.sort_by_key(|(shard, it)| {
                (it.turn_age_ms <= STANDS_STILL_MS, std::cmp::Reverse(rate(*shard)))
            });
        }
        let rows = shards.into_iter().map(|(shard, it)| {
            let name = match it.turn_age_ms {
                age_ms if age_ms > STANDS_STILL_MS => {
                    Span::styled(format!("{shard} stands still for {}", shown::span(age_ms / 1000)), BAD)
                }
                _ => Span::raw(shard.to_string()),
            };
            let numbers = vec![
                rate(shard).map_or("–".to_owned(), shown::count),
                shown::count(it.keys),
                shown::size(it.memory_bytes),
                shown::size(it.log_bytes),
            ];
            (name, numbers)
        });
        rows.collect()
    }

    fn rows_of_commands(&self) -> Vec<Row> {
        let mut commands: Vec<(&Command, Option<u64>)> = self
            .known
            .figures
            .commands
            .iter()
            .map(|it| {
                let calls = |all: &Figures| {
                    all.commands.iter().find(|other| other.name == it.name).map_or(0, |it| it.calls)
                };
                (it, self.rate(calls))
            })
            .collect();
        commands.sort_by_key(|(it, calls)| std::cmp::Reverse((calls.unwrap_or(0), it.took_us)));
        let rows = commands.into_iter().map(|(it, calls)| {
            let [p50, p99, _] = it.quantiles_us.map(shown::micros);
            let name = it.name.to_uppercase().replace('|', " ");
            (Span::raw(name), vec![calls.map_or("–".to_owned(), shown::count), p50, p99])
        });
        rows.collect()
    }
}

fn rows_of_keys(keys: &[HotKey]) -> Vec<Row> {
    let rows = keys.iter().map(|it| {
        let style = if it.is_missing { BAD } else { Style::new() };
        (Span::styled(shown::name(&it.key), style), vec![shown::count(it.recent), shown::count(it.reads)])
    });
    rows.collect()
}

fn rows_of_classes(classes: &[Class]) -> Vec<Row> {
    let rows = classes.iter().map(|it| {
        let numbers = vec![
            shown::size(it.bytes),
            it.hit_ratio.map_or("–".to_owned(), shown::percent),
            it.suggested_ttl_s.map_or("–".to_owned(), shown::span),
        ];
        (Span::raw(shown::name(&it.name)), numbers)
    });
    rows.collect()
}

/// Names and their figures, in one line.
fn figures<const N: usize>(figures: [(&'static str, String); N]) -> Line<'static> {
    let spans = figures.into_iter().flat_map(|(name, value)| {
        [Span::styled(format!("{name} "), SOFT), Span::styled(value, TITLE), Span::raw("  ")]
    });
    Line::from_iter(spans)
}

fn nothing(title: &'static str, why: &str, area: Rect, buffer: &mut Buffer) {
    let lines = std::iter::once(Line::styled(title, TITLE)).chain(wrapped(
        &shown::name(why.as_bytes()),
        area.width,
        SOFT,
    ));
    for (line, row) in lines.zip(area.rows()) {
        line.render(row, buffer);
    }
}

/// A list: names at the left, shortened to the room that the columns of numbers leave.
fn list(title: &'static str, columns: &[&'static str], rows: &[Row], area: Rect, buffer: &mut Buffer) {
    let widths = |at: usize| rows.iter().map(move |(_, numbers)| numbers[at].chars().count());
    let widths: Vec<usize> = columns
        .iter()
        .enumerate()
        .map(|(at, column)| widths(at).max().unwrap_or(0).max(column.chars().count()))
        .collect();
    let of_numbers: usize = widths.iter().map(|width| width + 2).sum();
    let of_name = usize::from(area.width).saturating_sub(of_numbers);
    let numbers = |numbers: &[String]| -> String {
        numbers.iter().zip(&widths).map(|(number, width)| format!("  {number:>width$}")).collect()
    };
    let names: Vec<String> = columns.iter().map(ToString::to_string).collect();
    let head = Line::from(vec![
        Span::styled(format!("{title:<of_name$.of_name$}"), TITLE),
        Span::styled(numbers(&names), SOFT),
    ]);
    let rows = rows.iter().map(|(name, of_row)| {
        let short = shown::shortened(&name.content, of_name.max(1));
        Line::from(vec![Span::styled(format!("{short:<of_name$}"), name.style), Span::raw(numbers(of_row))])
    });
    let room = area.rows().take(usize::from(area.height.saturating_sub(1)));
    for (line, row) in std::iter::once(head).chain(rows).zip(room) {
        line.render(row, buffer);
    }
}

/// A text over as many lines as it takes: between words where that is possible.
fn wrapped(text: &str, width: u16, style: Style) -> Vec<Line<'static>> {
    let width = usize::from(width).max(1);
    let (mut chars, mut lines): (Vec<char>, _) = (text.chars().collect(), Vec::new());
    while chars.len() > width {
        let blank = chars[..=width].iter().rposition(|char| *char == ' ').filter(|at| *at > 0);
        let rest = chars.split_off(blank.unwrap_or(width));
        lines.push(Line::styled(chars.into_iter().collect::<String>(), style));
        chars = rest[usize::from(blank.is_some())..].to_vec();
    }
    lines.push(Line::styled(chars.into_iter().collect::<String>(), style));
    lines
}

/// Sentences, over as many lines as each takes.
fn sentences(title: &'static str, anomalies: &[Anomaly], area: Rect, buffer: &mut Buffer) {
    let mut lines = vec![Line::styled(title, TITLE)];
    for it in anomalies {
        let style = if it.until_s.is_some() { SOFT } else { Style::new() };
        lines.extend(wrapped(&shown::name(&it.text), area.width, style));
    }
    for (line, row) in lines.into_iter().zip(area.rows()) {
        line.render(row, buffer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::insight::figures::Shard;

    fn screen() -> Screen {
        let hot =
            HotKey { key: b"user:\x1b[31m1".to_vec(), reads: 12, writes: 1, recent: 9, is_missing: false };
        let get =
            Command { name: "get".into(), calls: 7, quantiles_us: [15.0, 90.0, 99.0], ..Command::default() };
        let figures = Figures {
            version: "1.2.3".into(),
            io_backend: "epoll".into(),
            shards: vec![Shard::default(), Shard { turn_age_ms: 9000, ..Shard::default() }],
            commands: vec![get],
            ..Figures::default()
        };
        let uses = crate::insight::keys::Uses { hot: vec![hot], ..Default::default() };
        Screen::new(Known { figures, uses: Ok(uses) })
    }

    #[test]
    fn a_page_of_text_has_all_of_it_without_control_characters() {
        let text = screen().text();
        for part in [
            "kvlite 1.2.3",
            "epoll",
            "user:\\u{1b}[31m1",
            "GET",
            "15.0 µs",
            "1 stands still for 9 s",
            "healthy",
        ] {
            assert!(text.contains(part), "{part} is missing:\n{text}");
        }
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        assert!(text.chars().all(|char| char == '\n' || !char.is_control()), "{text}");
    }

    #[test]
    fn a_long_text_goes_on_in_the_next_line() {
        let lines = |text| wrapped(text, 8, Style::new()).iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(lines("one two three"), ["one two", "three"]);
        assert_eq!(lines("onetwothree four"), ["onetwoth", "ree four"]);
        assert_eq!(lines(" 1234567 "), [" 1234567", ""]);
    }

    #[test]
    fn it_is_drawn_in_a_terminal_of_any_size() {
        let mut screen = screen();
        screen.tell(Known { figures: Figures::default(), uses: Err("ERR it is loading".into()) });
        for (width, height) in [(0, 0), (1, 1), (5, 3), (20, 8), (80, 24), (300, 100)] {
            let mut buffer = Buffer::empty(Rect::new(0, 0, width, height));
            screen.draw(buffer.area, &mut buffer);
        }
    }
}
