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

/// The least room for a name, in columns.
const NAME_COLUMNS_MIN: u16 = 6;

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
            let (mut line, mut x) = (String::new(), 0);
            while x < width {
                let symbol = buffer[(x, y)].symbol();
                line.push_str(symbol);
                // A wide character has the next cell, too.
                x += shown::columns(symbol).max(1) as u16;
            }
            line.trim_end().to_owned()
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
            &["ops/s", "keys", "memory", "restart reads"],
            &self.rows_of_shards(shown_shards),
            of_shards,
            buffer,
        );
        let columns =
            |area| Layout::horizontal([Constraint::Fill(1), Constraint::Fill(1)]).spacing(2).areas(area);
        let [left, right] = columns(upper);
        match &self.known.uses {
            Ok(uses) if uses.is_even => {
                nothing("Hottest keys", "no key stands out", left, buffer);
            }
            Ok(uses) => {
                list("Hottest keys", &["recent", "reads"], &rows_of_keys(&uses.hot), left, buffer);
            }
            Err(why) => nothing("Use of keys", why, left, buffer),
        }
        list("Commands", &["calls/s", "p50", "p99"], &self.rows_of_commands(), right, buffer);
        let [left, right] = columns(lower);
        if let Ok(uses) = &self.known.uses {
            list("Classes of keys", &["size", "hits", "TTL"], &rows_of_classes(&self.classes), left, buffer);
            match &uses.anomalies[..] {
                [] => nothing("Anomalies", "all is as usual", right, buffer),
                anomalies => sentences("Anomalies", anomalies, right, buffer),
            }
        }
        Line::styled("q quits", SOFT).render(foot, buffer);
    }

    /// The lines at the top. Figures for which there is no room are left out, those first that matter least.
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
        let snapshot = match (disk.compacting, disk.snapshot_error.is_empty()) {
            (true, _) => "runs",
            (false, true) => "none",
            (false, false) => "failed",
        };
        let mut heads = vec![
            Line::from(vec![
                Span::styled(format!("kvlite {version}"), TITLE),
                format!("  {io_backend}, {} shards, up for {uptime}  ", shards.len()).into(),
                Span::styled(word, style.add_modifier(Modifier::BOLD)),
            ]),
            figures(
                width,
                [
                    ("requests/s", shown::count(counters.requests_per_second)),
                    ("keys", shown::count(memory.keys)),
                    ("hits", self.known.figures.hit_ratio().map_or("–".to_owned(), shown::percent)),
                    (
                        "clients",
                        format!("{} of {}", shown::count(clients.connected), shown::count(clients.limit)),
                    ),
                    ("errors", shown::count(counters.errors)),
                ],
            ),
            figures(
                width,
                [
                    ("memory", shown::size(memory.keys_bytes)),
                    ("process", shown::size(memory.resident_bytes)),
                    ("log", format!("{:.0} % of its limit", disk.log_fill * 100.0)),
                    ("snapshot", snapshot.to_owned()),
                    ("restart reads", shown::size(disk.log_bytes)),
                ],
            ),
        ];
        let told = [&disk.log_error, &disk.snapshot_error].into_iter().filter(|error| !error.is_empty());
        let told = self.trouble.iter().chain(told);
        heads.extend(told.flat_map(|error| wrapped(&shown::text(error.as_bytes()), width, BAD)));
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
        // What is looked for in vain has no reads of its own: the recent ones are misses.
        let (style, reads) = match it.is_missing {
            true => (BAD, "missing".to_owned()),
            false => (Style::new(), shown::count(it.reads)),
        };
        (Span::styled(shown::name(&it.key), style), vec![shown::count(it.recent), reads])
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

/// Names and their figures, in one line: as many as it has room for.
fn figures<const N: usize>(width: u16, figures: [(&'static str, String); N]) -> Line<'static> {
    let mut line = Line::default();
    for (name, value) in figures {
        let gap = if line.spans.is_empty() { "" } else { "  " };
        let spans = [Span::raw(gap), Span::styled(format!("{name} "), SOFT), Span::styled(value, TITLE)];
        if line.width() + spans.iter().map(Span::width).sum::<usize>() > usize::from(width) {
            break;
        }
        line.extend(spans);
    }
    line
}

fn nothing(title: &'static str, why: &str, area: Rect, buffer: &mut Buffer) {
    let lines = std::iter::once(Line::styled(title, TITLE)).chain(wrapped(
        &shown::text(why.as_bytes()),
        area.width,
        SOFT,
    ));
    for (line, row) in lines.zip(area.rows()) {
        line.render(row, buffer);
    }
}

/// A list: names at the left, shortened to the room that the columns of numbers leave. Where that is little, the last of
/// these are left out: a number that is cut would be another number.
fn list(title: &'static str, columns: &[&'static str], rows: &[Row], area: Rect, buffer: &mut Buffer) {
    let width_of = |at: usize| {
        let numbers = rows.iter().map(|(_, numbers)| shown::columns(&numbers[at]));
        numbers.max().unwrap_or(0).max(shown::columns(columns[at])) as u16 + 2
    };
    let mut of_numbers = 0;
    let widths: Vec<u16> = (0..columns.len())
        .map(width_of)
        .take_while(|width| {
            of_numbers += width;
            of_numbers + NAME_COLUMNS_MIN <= area.width
        })
        .collect();
    let heads: Vec<String> = columns.iter().map(ToString::to_string).collect();
    let head = (Span::styled(title, TITLE), heads);
    let room = area.rows().take(usize::from(area.height.saturating_sub(1)));
    for (at, ((name, numbers), mut row)) in std::iter::once(&head).chain(rows).zip(room).enumerate() {
        // Each number is drawn at its own place, so that no name moves it, however a terminal counts its columns.
        for (number, width) in numbers.iter().zip(&widths).rev() {
            let [rest, of_number] =
                Layout::horizontal([Constraint::Fill(1), Constraint::Length(*width)]).areas(row);
            let style = if at == 0 { SOFT } else { Style::new() };
            Line::styled(&**number, style).right_aligned().render(of_number, buffer);
            row = rest;
        }
        Span::styled(shown::shortened(&name.content, row.width.into()), name.style).render(row, buffer);
    }
}

/// A text over as many lines as it takes: between words where that is possible.
fn wrapped(text: &str, width: u16, style: Style) -> Vec<Line<'static>> {
    let width = usize::from(width);
    let (mut rest, mut lines) = (text, Vec::new());
    loop {
        // At least one character, however wide.
        let fits = shown::fitting(rest, width).len().max(rest.chars().next().map_or(0, char::len_utf8));
        if fits == rest.len() {
            lines.push(Line::styled(rest.to_owned(), style));
            return lines;
        }
        let (line, left) = rest.split_at(fits);
        let blank = if left.starts_with(' ') { Some(fits) } else { line.rfind(' ') };
        let (line, left) = match blank.filter(|at| *at > 0) {
            Some(at) => (&rest[..at], &rest[at + 1..]),
            None => (line, left),
        };
        lines.push(Line::styled(line.to_owned(), style));
        rest = left;
    }
}

/// Sentences, over as many lines as each takes.
fn sentences(title: &'static str, anomalies: &[Anomaly], area: Rect, buffer: &mut Buffer) {
    let mut lines = vec![Line::styled(title, TITLE)];
    for it in anomalies {
        let style = if it.until_s.is_some() { SOFT } else { Style::new() };
        lines.extend(wrapped(&it.sentence(), area.width, style));
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
        let hot = HotKey {
            key: b"user:\x1b[31m1".to_vec(),
            reads: 12,
            writes: 1,
            recent: 9,
            error: 0,
            is_missing: false,
        };
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
        assert!(text.lines().all(|line| shown::columns(line) <= 80), "{text}");
        assert!(text.chars().all(|char| char == '\n' || !char.is_control()), "{text}");
    }

    /// The screen with these hottest keys.
    fn screen_of(hot: Vec<HotKey>) -> Screen {
        let uses = crate::insight::keys::Uses { hot, ..Default::default() };
        Screen::new(Known { figures: Figures::default(), uses: Ok(uses) })
    }

    #[test]
    fn a_name_of_wide_characters_cuts_no_number() {
        let hot = ["日本語".repeat(10), "🚀".repeat(20), "👍🏽".repeat(9), "لا".repeat(20), "x".repeat(50)];
        let hot = hot.map(|key| HotKey {
            key: key.into_bytes(),
            reads: 2613,
            writes: 0,
            recent: 1561,
            error: 0,
            is_missing: false,
        });
        let text = screen_of(hot.to_vec()).text();
        let rows: Vec<&str> = text.lines().filter(|line| line.contains("1,561")).collect();
        assert_eq!(rows.len(), 5, "{text}");
        assert!(rows.iter().all(|row| row.ends_with("  1,561  2,613")), "{text}");
        assert!(rows[0].starts_with("日本語日本語"), "{text}");
        assert!(rows[1].starts_with("🚀🚀") && rows[1].contains("…🚀"), "{text}");
        assert!(rows[0..2].iter().all(|row| shown::columns(row) == 39), "{text}");
    }

    #[test]
    fn what_has_no_room_goes_as_a_whole() {
        let mut screen = screen();
        screen.known.figures.memory.keys_bytes = 1 << 29;
        screen.known.figures.memory.resident_bytes = 1 << 29;
        screen.known.figures.disk.log_bytes = 1 << 29;
        for width in 1..100 {
            let all = ["memory 512 MiB", "process 512 MiB", "log 0 % of its limit", "snapshot none"];
            let all = [&all[..], &["restart reads 512 MiB"]].concat();
            let line = screen.heads(width)[2].to_string();
            let shown = line.split("  ").filter(|part| !part.is_empty()).collect::<Vec<_>>();
            assert_eq!(shown, all[..shown.len()], "{width}");
            assert!(shown::columns(&line) <= width.into(), "{line}");
        }
        let row = |width| {
            let mut buffer = Buffer::empty(Rect::new(0, 0, width, 3));
            let rows = [(Span::raw("a long name"), vec!["1,234".to_owned(), "5,678".to_owned()])];
            list("Keys", &["one", "two"], &rows, buffer.area, &mut buffer);
            (0..width).map(|x| buffer[(x, 1)].symbol()).collect::<String>()
        };
        assert_eq!(row(20), "a l…me  1,234  5,678");
        assert_eq!(row(19), "a long name   1,234");
        assert_eq!([row(13), row(12), row(5)], ["a l…me  1,234", "a long name ", "a l…e"]);
    }

    #[test]
    fn that_no_key_stands_out_and_that_one_is_missing_is_said() {
        let mut even = screen_of(Vec::new());
        if let Ok(uses) = &mut even.known.uses {
            uses.is_even = true;
        }
        assert!(even.text().contains("no key stands out"));
        let gone = HotKey { key: Vec::new(), reads: 0, writes: 0, recent: 9, error: 0, is_missing: true };
        let text = screen_of(vec![gone]).text();
        let row = text.lines().find(|line| line.starts_with("(empty)"));
        assert!(row.is_some_and(|row| row.ends_with("9  missing")), "{text}");
    }

    #[test]
    fn why_there_are_no_uses_is_said_once() {
        let mut screen = screen();
        screen.known.uses = Err("analytics are off".into());
        let text = screen.text();
        assert_eq!(text.matches("analytics are off").count(), 1, "{text}");
        assert!(!text.contains("Anomalies") && !text.contains("Classes"), "{text}");
    }

    #[test]
    fn a_long_text_goes_on_in_the_next_line() {
        let lines = |text| wrapped(text, 8, Style::new()).iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(lines("one two three"), ["one two", "three"]);
        assert_eq!(lines("onetwothree four"), ["onetwoth", "ree four"]);
        assert_eq!(lines(" 1234567 "), [" 1234567", ""]);
        assert_eq!(lines("日本語日本語"), ["日本語日", "本語"]);
        assert_eq!(wrapped("日本", 1, Style::new()).len(), 2);
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
