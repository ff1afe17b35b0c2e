//! How metrics are written: Prometheus text (exposition format 0.0.4) and OpenMetrics text (1.0.0), which differ in how a
//! counter is named and in little else.

use std::fmt::{self, Display, Write};

use http::HeaderValue;

use crate::proxy::metrics::BOUNDS;

/// A format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Prometheus,
    OpenMetrics,
}

impl Format {
    /// The one that is wanted most; Prometheus text if nobody says.
    pub(super) fn wanted(accept: Option<&HeaderValue>) -> Format {
        let accept = accept.and_then(|it| it.to_str().ok()).unwrap_or_default();
        let (mut text, mut open) = (0.0, 0.0);
        for range in accept.split(',') {
            let mut parts = range.split(';').map(str::trim);
            let kind = parts.next().unwrap_or_default().to_ascii_lowercase();
            let (mut quality, mut known) = (1.0, true);
            for (name, value) in parts.filter_map(|it| it.split_once('=')) {
                match name.trim() {
                    "q" => quality = value.trim().parse().unwrap_or(0.0),
                    "version" => known = ["0.0.1", "1.0.0"].contains(&value.trim_matches('"')),
                    _ => {}
                }
            }
            let best = match kind.as_str() {
                "application/openmetrics-text" if known => &mut open,
                "text/plain" | "text/*" | "*/*" => &mut text,
                _ => continue,
            };
            *best = f64::max(*best, quality);
        }
        if open > 0.0 && open >= text { Format::OpenMetrics } else { Format::Prometheus }
    }

    /// What such a text is.
    pub(super) fn content_type(self) -> &'static str {
        match self {
            Format::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Format::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// What a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Only grows; its name ends with `_total`, which is added here.
    Counter,
    Gauge,
    Histogram,
    /// Without quantiles: a sum and a count.
    Summary,
    /// Always 1, for its labels; its name ends with `_info`, which is added here.
    Info,
}

/// A text on its way.
pub(super) struct Exposition {
    out: String,
    format: Format,
    name: String,
    suffix: &'static str,
}

/// A label.
pub(super) type Label<'a> = (&'a str, &'a str);

impl Exposition {
    pub(super) fn new(format: Format) -> Exposition {
        Exposition { out: String::with_capacity(64 << 10), format, name: String::new(), suffix: "" }
    }

    /// Begins a family of metrics. Seconds and bytes are the last word of a name, as the conventions want it.
    pub(super) fn family(&mut self, name: &str, kind: Kind, help: &str) {
        self.name.clear();
        self.name.push_str(name);
        let (word, suffix) = match (kind, self.format) {
            (Kind::Counter, _) => ("counter", "_total"),
            (Kind::Gauge, _) => ("gauge", ""),
            (Kind::Histogram, _) => ("histogram", ""),
            (Kind::Summary, _) => ("summary", ""),
            (Kind::Info, Format::OpenMetrics) => ("info", "_info"),
            (Kind::Info, Format::Prometheus) => ("gauge", "_info"),
        };
        self.suffix = suffix;
        let suffix = if self.format == Format::Prometheus { suffix } else { "" };
        // Writing to a string does not fail.
        let _ = writeln!(self.out, "# TYPE {name}{suffix} {word}");
        if let (Format::OpenMetrics, Some((_, unit @ ("seconds" | "bytes")))) = (self.format, name.rsplit_once('_')) {
            let _ = writeln!(self.out, "# UNIT {name} {unit}");
        }
        let _ = writeln!(self.out, "# HELP {name}{suffix} {}", Escaped(help));
    }

    /// A value of the family.
    pub(super) fn put(&mut self, labels: &[Label<'_>], value: impl Display) {
        self.line(self.suffix, labels, None, value);
    }

    /// A histogram of the family: how many were in each bucket of [`BOUNDS`], the last without a bound, and the sum in
    /// microseconds.
    pub(super) fn histogram(&mut self, labels: &[Label<'_>], buckets: &[u64], microseconds: u64) {
        let mut below = 0;
        for (at, count) in buckets.iter().enumerate() {
            below += count;
            let bound = BOUNDS.get(at).map_or_else(|| "+Inf".to_owned(), |it| format!("{:?}", *it as f64 / 1e6));
            self.line("_bucket", labels, Some(("le", &bound)), below);
        }
        self.line("_sum", labels, None, microseconds as f64 / 1e6);
        self.line("_count", labels, None, below);
    }

    /// A summary of the family.
    pub(super) fn summary(&mut self, labels: &[Label<'_>], count: u64, sum: f64) {
        self.line("_sum", labels, None, sum);
        self.line("_count", labels, None, count);
    }

    fn line(&mut self, suffix: &str, labels: &[Label<'_>], last: Option<Label<'_>>, value: impl Display) {
        let _ = write!(self.out, "{}{suffix}", self.name);
        let mut before = '{';
        for (name, value) in labels.iter().chain(&last) {
            let _ = write!(self.out, "{before}{name}=\"{}\"", Escaped(value));
            before = ',';
        }
        let end = if before == ',' { "}" } else { "" };
        let _ = writeln!(self.out, "{end} {value}");
    }

    /// The whole text.
    pub(super) fn finish(mut self) -> String {
        if self.format == Format::OpenMetrics {
            self.out.push_str("# EOF\n");
        }
        self.out
    }
}

/// A label's value or a help text, escaped.
struct Escaped<'a>(&'a str);

impl Display for Escaped<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for char in self.0.chars() {
            match char {
                '\\' => out.write_str("\\\\")?,
                '"' => out.write_str("\\\"")?,
                '\n' => out.write_str("\\n")?,
                char => out.write_char(char)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_format_is_negotiated() {
        let wanted = |accept: &str| Format::wanted(Some(&HeaderValue::from_str(accept).unwrap()));
        let prometheus = "application/openmetrics-text;version=1.0.0;q=0.6,application/openmetrics-text;version=0.0.1;\
                          q=0.5,text/plain;version=0.0.4;q=0.4,*/*;q=0.1";
        assert_eq!(wanted(prometheus), Format::OpenMetrics);
        assert_eq!(wanted("application/openmetrics-text"), Format::OpenMetrics);
        assert_eq!(wanted("text/plain, application/openmetrics-text;q=0.9"), Format::Prometheus);
        assert_eq!(wanted("application/openmetrics-text;version=2.0.0"), Format::Prometheus);
        assert_eq!(wanted("application/openmetrics-text;q=0"), Format::Prometheus);
        assert_eq!(Format::wanted(None), Format::Prometheus);
        assert_eq!(wanted("text/html"), Format::Prometheus);
    }

    #[test]
    fn the_formats_differ_where_they_should() {
        let text = |format| {
            let mut out = Exposition::new(format);
            out.family("a_seconds", Kind::Counter, "What \"it\" is.");
            out.put(&[("x", "a\"b\\\n")], 1.5);
            out.family("b", Kind::Info, "It.");
            out.put(&[], 1);
            out.finish()
        };
        let value = "a_seconds_total{x=\"a\\\"b\\\\\\n\"} 1.5\n";
        assert_eq!(
            text(Format::Prometheus),
            format!(
                "# TYPE a_seconds_total counter\n# HELP a_seconds_total What \\\"it\\\" is.\n{value}\
                 # TYPE b_info gauge\n# HELP b_info It.\nb_info 1\n"
            )
        );
        assert_eq!(
            text(Format::OpenMetrics),
            format!(
                "# TYPE a_seconds counter\n# UNIT a_seconds seconds\n# HELP a_seconds What \\\"it\\\" is.\n{value}\
                 # TYPE b info\n# HELP b It.\nb_info 1\n# EOF\n"
            )
        );
    }
}
