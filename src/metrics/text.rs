//! The text format 0.0.4 of Prometheus.

use std::fmt::Write;

use super::cells::DurationHistogram;

/// Type of the text for an HTTP answer.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// A metric with its name, kind and description.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MetricFamily {
    /// Name.
    pub name: &'static str,
    /// Kind.
    pub kind: FamilyKind,
    /// One sentence for people.
    pub help: &'static str,
}

/// Kind of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FamilyKind {
    /// Only rises, and begins at 0 with the daemon.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts values by their size.
    Histogram,
}

impl FamilyKind {
    fn word(self) -> &'static str {
        match self {
            FamilyKind::Counter => "counter",
            FamilyKind::Gauge => "gauge",
            FamilyKind::Histogram => "histogram",
        }
    }
}

/// Names and values of labels.
type SampleLabels<'a> = &'a [(&'a str, &'a str)];

/// Text under construction. Writing to a `String` cannot fail.
#[derive(Debug, Default)]
pub struct Exposition {
    out: String,
}

impl Exposition {
    /// Begins a metric; its samples follow.
    pub fn family(&mut self, family: &MetricFamily) -> FamilyWriter<'_> {
        let MetricFamily { name, kind, help } = *family;
        let help = help.replace('\\', "\\\\").replace('\n', "\\n");
        let _ = writeln!(self.out, "# HELP {name} {help}");
        let _ = writeln!(self.out, "# TYPE {name} {}", kind.word());
        FamilyWriter {
            out: &mut self.out,
            name,
        }
    }

    /// The text.
    pub fn finish(self) -> String {
        self.out
    }
}

/// Writes the samples of one metric.
#[derive(Debug)]
pub struct FamilyWriter<'a> {
    out: &'a mut String,
    name: &'static str,
}

impl FamilyWriter<'_> {
    /// Writes a sample.
    pub fn sample(&mut self, labels: SampleLabels<'_>, value: u64) -> &mut Self {
        self.line("", labels, &[], &value.to_string());
        self
    }

    /// Writes the samples of a histogram.
    pub fn histogram(
        &mut self,
        labels: SampleLabels<'_>,
        histogram: &DurationHistogram,
    ) -> &mut Self {
        let (buckets, all, sum) = histogram.read();
        for (bound, count) in buckets {
            let bound = bound.to_string();
            self.line("_bucket", labels, &[("le", &bound)], &count.to_string());
        }

        self.line("_bucket", labels, &[("le", "+Inf")], &all.to_string());
        self.line("_sum", labels, &[], &sum.to_string());
        self.line("_count", labels, &[], &all.to_string());
        self
    }

    fn line(
        &mut self,
        suffix: &str,
        labels: SampleLabels<'_>,
        more: SampleLabels<'_>,
        value: &str,
    ) {
        self.out.push_str(self.name);
        self.out.push_str(suffix);
        let mut open = '{';
        for (name, value) in labels.iter().chain(more) {
            let _ = write!(self.out, "{open}{name}=\"{}\"", escaped(value));
            open = ',';
        }
        if open == ',' {
            self.out.push('}');
        }
        let _ = writeln!(self.out, " {value}");
    }
}

fn escaped(value: &str) -> String {
    value
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn samples_follow_their_description() {
        let family = |name, kind| MetricFamily {
            name,
            kind,
            help: "Two\nlines.",
        };
        let mut text = Exposition::default();
        text.family(&family("a", FamilyKind::Gauge))
            .sample(&[("tree", "a\"b\\c\nd"), ("state", "idle")], 1)
            .sample(&[], 2);
        let histogram = DurationHistogram::default();
        histogram.observe(Duration::from_millis(250));
        text.family(&family("b", FamilyKind::Histogram))
            .histogram(&[("role", "x")], &histogram);

        insta::assert_snapshot!(text.finish(), @r#"
        # HELP a Two\nlines.
        # TYPE a gauge
        a{tree="a\"b\\c\nd",state="idle"} 1
        a 2
        # HELP b Two\nlines.
        # TYPE b histogram
        b_bucket{role="x",le="0.1"} 0
        b_bucket{role="x",le="0.5"} 1
        b_bucket{role="x",le="1"} 1
        b_bucket{role="x",le="5"} 1
        b_bucket{role="x",le="15"} 1
        b_bucket{role="x",le="60"} 1
        b_bucket{role="x",le="300"} 1
        b_bucket{role="x",le="1800"} 1
        b_bucket{role="x",le="+Inf"} 1
        b_sum{role="x"} 0.25
        b_count{role="x"} 1
        "#);
    }
}
