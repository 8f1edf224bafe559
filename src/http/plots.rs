//! The plots of the page, as SVG. Colours are those of the light page; its style sheet knows them and gives them others
//! in the dark. Each plot is drawn twice, for wide windows and for narrow ones, since text does not shrink well.

use std::error::Error;

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::history::Rates;
use crate::insight::keys::{AdviceRow, Anomaly};
use crate::insight::shown;

/// Letters and axes.
const INK: RGBColor = RGBColor(0x5b, 0x64, 0x72);
/// Lines behind the figures.
const GRID: RGBColor = RGBColor(0xe3, 0xe7, 0xec);
/// Lines of figures: shards, one after the other.
const SERIES: [RGBColor; 8] = [
    RGBColor(0x25, 0x63, 0xeb),
    RGBColor(0xd9, 0x77, 0x06),
    RGBColor(0x05, 0x96, 0x69),
    RGBColor(0xc0, 0x26, 0xd3),
    RGBColor(0x0e, 0x74, 0x90),
    RGBColor(0xdc, 0x26, 0x26),
    RGBColor(0x65, 0xa3, 0x0d),
    RGBColor(0x7c, 0x3a, 0xed),
];
/// What is over.
const OVER: RGBColor = RGBColor(0x9a, 0xa3, 0xb0);
/// What goes on.
const ON: RGBColor = RGBColor(0xe0, 0x7b, 0x06);

/// How many lines a plot has at most.
pub(super) const LINES_MAX: usize = SERIES.len();

/// Widths and heights, in pixels: over the whole page, in one of its columns, and in a narrow window.
const WHOLE: (u32, u32) = (1080, 230);
const COLUMN: (u32, u32) = (520, 210);
const NARROW: (u32, u32) = (320, 190);

const FONT: (&str, u32) = ("sans-serif", 14);

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn = Result<(), Box<dyn Error>>;

/// A plot: for wide windows and for narrow ones.
pub(super) struct Plot {
    pub wide: String,
    pub narrow: String,
}

/// Draws in a wide size and in the narrow one. What cannot be drawn is left out: the figures stand beside it in words.
fn plot(wide: (u32, u32), height: Option<u32>, draw: impl Fn(&Area<'_>, u32) -> Drawn) -> Plot {
    let at = |(width, usual): (u32, u32)| {
        let mut svg = String::new();
        let area = SVGBackend::with_string(&mut svg, (width, height.unwrap_or(usual))).into_drawing_area();
        let drawn = draw(&area, width).is_ok() && area.present().is_ok();
        drop(area);
        if drawn { svg } else { String::new() }
    };
    Plot { wide: at(wide), narrow: at(NARROW) }
}

/// Reads and writes per second over the last hour: some lines, each with points of when (in milliseconds from the start of the
/// server) and how many.
pub(super) fn load(lines: &[Rates], now_ms: u64) -> Plot {
    let first_ms = lines.iter().filter_map(|line| line.first()).map(|point| point.0).min().unwrap_or(now_ms);
    let minutes = |ms: u64| -(now_ms.saturating_sub(ms) as f64 / 60_000.0);
    let from = minutes(first_ms).clamp(-60.0, -2.0);
    let most = lines.iter().flatten().map(|point| point.1).fold(10.0, f64::max);
    plot(WHOLE, None, |area, width| {
        let mut chart = ChartBuilder::on(area)
            .margin(6)
            .margin_right(18)
            .x_label_area_size(24)
            .y_label_area_size(46)
            .build_cartesian_2d(from..0.0, 0.0..most * 1.08)?;
        chart
            .configure_mesh()
            .disable_x_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(GRID)
            .axis_style(GRID)
            .label_style(FONT.into_font().color(&INK))
            .x_labels(if width > 400 { 7 } else { 5 })
            .y_labels(5)
            .x_label_formatter(&|minute| match minute.round() {
                0.0 => "now".to_owned(),
                minutes if (minutes - minute).abs() > 0.01 => format!("−{:.0} s", -minute * 60.0),
                minutes => format!("−{} min", -minutes),
            })
            .y_label_formatter(&|rate| shown::count(rate.round() as u64))
            .draw()?;
        for (line, color) in lines.iter().zip(SERIES) {
            let points = line.iter().map(|(ms, rate)| (minutes(*ms).max(from), *rate));
            if let [only] = lines {
                debug_assert_eq!(only.len(), line.len());
                chart.draw_series(AreaSeries::new(points.clone(), 0.0, color.mix(0.12)))?;
            }
            chart.draw_series(LineSeries::new(points, color.stroke_width(2)))?;
        }
        Ok(())
    })
}

/// The hit ratio by memory, from a quarter of today's to four times as much.
pub(super) fn hit_ratio(rows: &[AdviceRow]) -> Plot {
    let today = rows.iter().find(|row| row.memory == "1").map_or(1, |row| row.bytes.max(1)) as f64;
    let points: Vec<(f64, f64)> = rows
        .iter()
        .filter_map(|row| Some(((row.bytes as f64 / today).max(0.01).log2(), row.hit_ratio?)))
        .collect();
    let least = points.iter().map(|point| point.1).fold(1.0, f64::min);
    let room = (1.0 - least).max(0.02) * 0.25;
    let bottom = (least - room).max(0.0);
    plot(COLUMN, None, |area, _| {
        let mut chart = ChartBuilder::on(area)
            .margin(6)
            .margin_right(18)
            .margin_top(12)
            .x_label_area_size(24)
            .y_label_area_size(54)
            .build_cartesian_2d(-2.15..2.15, bottom..(1.0 + room * 0.2))?;
        let decimals = if 1.0 - bottom < 0.05 { 1 } else { 0 };
        chart
            .configure_mesh()
            .disable_x_mesh()
            .x_labels(0)
            .y_labels(5)
            .light_line_style(TRANSPARENT)
            .bold_line_style(GRID)
            .axis_style(GRID)
            .label_style(FONT.into_font().color(&INK))
            .y_label_formatter(&|share| {
                if *share > 1.0001 { String::new() } else { format!("{:.decimals$} %", share * 100.0) }
            })
            .draw()?;
        let style = TextStyle::from(FONT.into_font()).color(&INK).pos(Pos::new(HPos::Center, VPos::Top));
        for (x, label) in [(-2.0, "¼"), (-1.0, "½"), (0.0, "today"), (1.0, "2×"), (2.0, "4×")] {
            let (x, y) = chart.backend_coord(&(x, bottom));
            area.draw(&Text::new(label, (x, y + 8), style.clone()))?;
        }
        chart.draw_series(DashedLineSeries::new([(0.0, bottom), (0.0, 1.0)], 4, 4, INK.into()))?;
        chart.draw_series(LineSeries::new(points.iter().copied(), SERIES[0].stroke_width(2)))?;
        let circle = |point: &(f64, f64)| {
            let radius = if point.0 == 0.0 { 5 } else { 3 };
            Circle::new(*point, radius, SERIES[0].filled())
        };
        chart.draw_series(points.iter().map(circle))?;
        Ok(())
    })
}

/// When anomalies began and ended, in the last hour, one below the other with their numbers.
pub(super) fn timeline(anomalies: &[Anomaly], now_s: u64) -> Plot {
    let rows = anomalies.len() as u32;
    let minutes = |at_s: u64| -(now_s.saturating_sub(at_s) as f64 / 60.0);
    let first_s = anomalies.iter().map(|it| it.since_s).min().unwrap_or(now_s);
    let from = (minutes(first_s) * 1.05).clamp(-60.0, -5.0);
    plot(COLUMN, Some(rows * 20 + 42), |area, width| {
        let mut chart = ChartBuilder::on(area)
            .margin(6)
            .margin_right(18)
            .x_label_area_size(24)
            .y_label_area_size(26)
            .build_cartesian_2d(from..0.0, 0.0..f64::from(rows))?;
        chart
            .configure_mesh()
            .disable_y_mesh()
            .y_labels(0)
            .light_line_style(TRANSPARENT)
            .bold_line_style(GRID)
            .axis_style(GRID)
            .label_style(FONT.into_font().color(&INK))
            .x_labels(if width > 400 { 7 } else { 5 })
            .x_label_formatter(&|minute| match minute.round() {
                0.0 => "now".to_owned(),
                minutes => format!("−{} min", -minutes),
            })
            .draw()?;
        let style = TextStyle::from(FONT.into_font()).color(&INK).pos(Pos::new(HPos::Right, VPos::Center));
        for (index, anomaly) in (0..rows).zip(anomalies) {
            let middle = f64::from(rows - index) - 0.5;
            let until = anomaly.until_s.map_or(0.0, minutes);
            let since = minutes(anomaly.since_s).max(from);
            let color = if anomaly.until_s.is_some() { OVER } else { ON };
            let least = (until - since).max(-from / 120.0);
            let bar = [(until - least, middle - 0.2), (until, middle + 0.2)];
            chart.draw_series([Rectangle::new(bar, color.filled())])?;
            let (x, y) = chart.backend_coord(&(from, middle));
            area.draw(&Text::new(format!("{}", index + 1), (x - 8, y), style.clone()))?;
        }
        Ok(())
    })
}
