//! How metrics are written: the [text format of Prometheus](https://prometheus.io/docs/instrumenting/exposition_formats/)
//! and [OpenMetrics](https://prometheus.io/docs/specs/om/open_metrics_spec/). Not which metrics there are.
//!
//! ```text
//! # HELP kvlite_hits_total Keys that reads have found.        # HELP kvlite_hits Keys that reads have found.
//! # TYPE kvlite_hits_total counter                            # TYPE kvlite_hits counter
//! kvlite_hits_total{shard="0"} 7                              kvlite_hits_total{shard="0"} 7
//!                                                             # EOF
//! ```

use std::fmt::{self, Write as _};

use crate::metrics::histogram::{BOUNDS_NS, Histogram};

const OPEN_METRICS: &str = "application/openmetrics-text";

/// How a page is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// The text format of Prometheus, version 0.0.4.
    Prometheus,
    /// OpenMetrics, version 1.0.0.
    OpenMetrics,
}

impl Format {
    pub const ALL: [Format; 2] = [Format::Prometheus, Format::OpenMetrics];

    /// The format for a client that accepts these types: OpenMetrics where it is named at all, since those who know it
    /// name it.
    pub fn accepted<'a>(mut accepted: impl Iterator<Item = &'a str>) -> Format {
        let names_it = |types: &str| types.to_ascii_lowercase().contains(OPEN_METRICS);
        if accepted.any(names_it) { Format::OpenMetrics } else { Format::Prometheus }
    }

    pub fn content_type(self) -> &'static str {
        match self {
            Format::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Format::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// What a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// A page of metrics.
pub(super) struct Page {
    format: Format,
    text: String,
}

/// The labels of one sample: names and values.
pub(super) type Labels<'a> = [(&'a str, &'a dyn fmt::Display)];

impl Page {
    pub fn new(format: Format) -> Page {
        Page { format, text: String::new() }
    }

    /// Begins a metric, whose samples follow.
    pub fn begin(&mut self, name: &'static str, kind: Kind, help: &str) -> Family<'_> {
        debug_assert_eq!(kind == Kind::Counter, name.ends_with("_total"), "{name}");
        let family = match self.format {
            Format::OpenMetrics => name.strip_suffix("_total").unwrap_or(name),
            Format::Prometheus => name,
        };
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        // Writing to a string cannot fail.
        let _ = write!(self.text, "# HELP {family} {help}\n# TYPE {family} {kind}\n");
        Family { name, text: &mut self.text }
    }

    /// The whole page.
    pub fn end(mut self) -> String {
        if self.format == Format::OpenMetrics {
            self.text.push_str("# EOF\n");
        }
        self.text
    }
}

/// A metric whose samples are being written.
pub(super) struct Family<'p> {
    name: &'static str,
    text: &'p mut String,
}

impl Family<'_> {
    /// Adds a sample.
    pub fn sample(&mut self, labels: &Labels<'_>, value: impl fmt::Display) {
        self.line("", labels, None, value);
    }

    /// Adds the samples of a histogram.
    pub fn histogram(&mut self, labels: &Labels<'_>, histogram: &Histogram) {
        let mut count = 0;
        let seconds = |ns: u64| ns as f64 / 1e9;
        for (place, in_bucket) in histogram.buckets.iter().enumerate() {
            count += in_bucket;
            let bound = BOUNDS_NS.get(place).map_or("+Inf".to_owned(), |bound| seconds(*bound).to_string());
            self.line("_bucket", labels, Some(&bound), count);
        }
        self.line("_sum", labels, None, seconds(histogram.sum_ns));
        self.line("_count", labels, None, count);
    }

    fn line(&mut self, suffix: &str, labels: &Labels<'_>, le: Option<&str>, value: impl fmt::Display) {
        self.text.push_str(self.name);
        self.text.push_str(suffix);
        let mut between = '{';
        for (name, value) in
            labels.iter().copied().chain(le.as_ref().map(|le| ("le", le as &dyn fmt::Display)))
        {
            let _ = write!(self.text, "{between}{name}=\"{}\"", Escaped(value));
            between = ',';
        }
        let end = if between == ',' { "}" } else { "" };
        let _ = writeln!(self.text, "{end} {value}");
    }
}

/// The value of a label.
struct Escaped<'a>(&'a dyn fmt::Display);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.0.to_string();
        for char in text.chars() {
            match char {
                '\\' => f.write_str("\\\\")?,
                '"' => f.write_str("\\\"")?,
                '\n' => f.write_str("\\n")?,
                char => f.write_char(char)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn page(format: Format) -> String {
        let mut page = Page::new(format);
        page.begin("a_total", Kind::Counter, "Counts.").sample(&[("shard", &0), ("name", &"a\"\\\n")], 7);
        page.begin("b_ratio", Kind::Gauge, "Measures.").sample(&[], 0.5);
        page.end()
    }

    #[test]
    fn both_formats_are_written_as_they_are_specified() {
        assert_eq!(
            page(Format::Prometheus),
            "# HELP a_total Counts.\n# TYPE a_total counter\na_total{shard=\"0\",name=\"a\\\"\\\\\\n\"} 7\n\
             # HELP b_ratio Measures.\n# TYPE b_ratio gauge\nb_ratio 0.5\n"
        );
        assert_eq!(
            page(Format::OpenMetrics),
            "# HELP a Counts.\n# TYPE a counter\na_total{shard=\"0\",name=\"a\\\"\\\\\\n\"} 7\n\
             # HELP b_ratio Measures.\n# TYPE b_ratio gauge\nb_ratio 0.5\n# EOF\n"
        );
    }

    #[test]
    fn the_buckets_of_a_histogram_add_up() {
        let mut histogram = Histogram::default();
        histogram.record(Duration::from_nanos(500));
        histogram.record_many(Duration::from_millis(2), 3);
        histogram.record(Duration::from_secs(20));
        let mut page = Page::new(Format::Prometheus);
        page.begin("d_seconds", Kind::Histogram, "Takes.").histogram(&[("shard", &1)], &histogram);
        let page = page.end();
        for line in [
            "d_seconds_bucket{shard=\"1\",le=\"0.000001\"} 1",
            "d_seconds_bucket{shard=\"1\",le=\"0.001\"} 1",
            "d_seconds_bucket{shard=\"1\",le=\"0.005\"} 4",
            "d_seconds_bucket{shard=\"1\",le=\"10\"} 4",
            "d_seconds_bucket{shard=\"1\",le=\"+Inf\"} 5",
            "d_seconds_sum{shard=\"1\"} 20.0060005",
            "d_seconds_count{shard=\"1\"} 5",
        ] {
            assert!(page.lines().any(|it| it == line), "{line} is missing: {page}");
        }
    }

    #[test]
    fn open_metrics_is_for_those_who_name_it() {
        let prometheus = "application/openmetrics-text;version=1.0.0;q=0.6,text/plain;version=0.0.4;q=0.5";
        assert_eq!(Format::accepted([prometheus].into_iter()), Format::OpenMetrics);
        assert_eq!(Format::accepted(["text/html", "*/*"].into_iter()), Format::Prometheus);
        assert_eq!(Format::accepted([].into_iter()), Format::Prometheus);
    }
}
