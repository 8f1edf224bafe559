//! Bars, as SVG.

use std::path::Path;

use plotters::coord::ranged1d::{AsRangedCoord, Ranged, ValueFormatter};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::Outcome;

const SIZE: (u32, u32) = (960, 420);

/// How far apart groups begin, in widths of a bar.
const GAP: f64 = 1.0;

/// Draws groups of bars, one bar for each series; `NAN` leaves a bar out. `unit` stands at the vertical axis.
pub fn bars(
    path: &Path,
    title: &str,
    unit: &str,
    series: &[&str],
    groups: &[(String, Vec<f64>)],
) -> Outcome<()> {
    let room = if series.len() > 1 { 1.3 } else { 1.1 }; // For the legend.
    let top = greatest(groups) * room;
    draw(path, title, unit, series, groups, 0.0, 0.0..top.max(f64::MIN_POSITIVE))
}

/// As [`bars`], with powers of ten at equal distances, for values that are positive and far apart.
pub fn log_bars(
    path: &Path,
    title: &str,
    unit: &str,
    series: &[&str],
    groups: &[(String, Vec<f64>)],
) -> Outcome<()> {
    let least = values(groups).fold(f64::INFINITY, f64::min);
    let (bottom, top) = (10f64.powf(least.log10().floor()), greatest(groups) * 10.0);
    draw(path, title, unit, series, groups, bottom, (bottom..top).log_scale())
}

fn values(groups: &[(String, Vec<f64>)]) -> impl Iterator<Item = f64> {
    groups.iter().flat_map(|(_, values)| values).copied().filter(|value| value.is_finite())
}

fn greatest(groups: &[(String, Vec<f64>)]) -> f64 {
    values(groups).fold(0.0, f64::max)
}

fn draw<Y>(
    path: &Path,
    title: &str,
    unit: &str,
    series: &[&str],
    groups: &[(String, Vec<f64>)],
    bottom: f64,
    axis: impl AsRangedCoord<CoordDescType = Y, Value = f64>,
) -> Outcome<()>
where
    Y: Ranged<ValueType = f64> + ValueFormatter<f64>,
{
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)?;
    }
    let width = series.len() as f64 + GAP;
    let area = SVGBackend::new(path, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .caption(title, ("sans-serif", 18))
        .margin(10)
        .x_label_area_size(40)
        .y_label_area_size(80)
        .build_cartesian_2d(0.0..groups.len() as f64 * width, axis)?;
    // Labels stand below the middles of the groups, so they are drawn by hand.
    chart.configure_mesh().disable_x_mesh().x_labels(0).y_desc(unit).draw()?;
    for (index, name) in series.iter().enumerate() {
        let color = Palette99::pick(index).to_rgba();
        let bars = groups.iter().enumerate().filter_map(|(group, (_, values))| {
            let left = group as f64 * width + GAP / 2.0 + index as f64;
            let value = values.get(index).copied().filter(|value| value.is_finite())?;
            Some(Rectangle::new([(left, bottom), (left + 0.9, value)], color.filled()))
        });
        let drawn = chart.draw_series(bars)?;
        drawn
            .label(*name)
            .legend(move |(x, y)| Rectangle::new([(x, y - 5), (x + 10, y + 5)], color.filled()));
    }
    let style = TextStyle::from(("sans-serif", 13)).pos(Pos::new(HPos::Center, VPos::Top));
    for (group, (name, _)) in groups.iter().enumerate() {
        let middle = chart.backend_coord(&(group as f64 * width + width / 2.0, bottom));
        area.draw(&Text::new(name.clone(), (middle.0, middle.1 + 6), style.clone()))?;
    }
    if series.len() > 1 {
        let mut legend = chart.configure_series_labels();
        legend.position(SeriesLabelPosition::UpperRight).background_style(WHITE.mix(0.8)).border_style(BLACK);
        legend.draw()?;
    }
    area.present()?;
    Ok(())
}
