//! Latencies, and their percentiles.

use std::time::Duration;

use hdrhistogram::Histogram;

/// Many durations, to three digits.
pub(crate) struct Latencies(Histogram<u64>);

impl Latencies {
    pub(crate) fn new() -> Self {
        // Up to ten seconds.
        Self(Histogram::new_with_max(10_000_000_000, 3).expect("the bounds are in order"))
    }

    pub(crate) fn record(&mut self, time: Duration) {
        self.0.saturating_record(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    }

    /// The percentile for this part, in microseconds.
    #[expect(clippy::cast_precision_loss, reason = "figures of a bench have few digits")]
    pub(crate) fn us_at(&self, part: f64) -> f64 {
        self.0.value_at_quantile(part) as f64 / 1e3
    }

    /// All parts that are reported.
    pub(crate) fn figures(&self) -> impl Iterator<Item = (&'static str, f64)> {
        PARTS.into_iter().map(|(name, part)| (name, self.us_at(part)))
    }
}

/// The reported percentiles: their names and parts.
pub(crate) const PARTS: [(&str, f64); 7] = [
    ("p10 [µs]", 0.1),
    ("p25 [µs]", 0.25),
    ("p50 [µs]", 0.5),
    ("p75 [µs]", 0.75),
    ("p90 [µs]", 0.9),
    ("p99 [µs]", 0.99),
    ("p99.9 [µs]", 0.999),
];

/// The [`PARTS`] that add little to the others.
pub(crate) const MINOR: [&str; 3] = ["p10 [µs]", "p25 [µs]", "p75 [µs]"];
