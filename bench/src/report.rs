//! What was measured, as a table or as JSON.

use std::fmt;

use serde::Serialize;

use crate::micro;

/// The median of the rounds, between the least and the most.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    min: f64,
    max: f64,
}

impl FromIterator<f64> for Spread {
    fn from_iter<I: IntoIterator<Item = f64>>(rounds: I) -> Self {
        let mut rounds: Vec<f64> = rounds.into_iter().collect();
        rounds.sort_by(f64::total_cmp);
        let at = |index: usize| rounds.get(index).copied().unwrap_or_default();
        let last = rounds.len().saturating_sub(1);
        Spread { median: f64::midpoint(at(last / 2), at(last.div_ceil(2))), min: at(0), max: at(last) }
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = match self.median {
            ..10.0 => 2,
            ..100.0 => 1,
            _ => 0,
        };
        write!(formatter, "{:.digits$} ({:.digits$}-{:.digits$})", self.median, self.min, self.max)
    }
}

/// One round of one server.
#[derive(Debug, Default)]
pub(crate) struct Round {
    pub(crate) reviews_per_second: f64,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) cpu_us: f64,
    pub(crate) log_bytes: f64,
}

/// All rounds of one server with one kind of review.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    load: String,
    server: String,
    reviews_per_second: Spread,
    p50_ms: Spread,
    p99_ms: Spread,
    cpu_us: Spread,
    /// Processor time beside the null webhook's, round by round.
    ratio: Spread,
    resident_mb: f64,
    log_bytes: f64,
}

impl Row {
    pub(crate) fn new(load: &str, server: &str, rounds: &[Round], null: &[Round], resident: u64) -> Self {
        let spread = |value: fn(&Round) -> f64| rounds.iter().map(value).collect::<Spread>();
        Row {
            load: load.to_owned(),
            server: server.to_owned(),
            reviews_per_second: spread(|round| round.reviews_per_second),
            p50_ms: spread(|round| round.p50_ms),
            p99_ms: spread(|round| round.p99_ms),
            cpu_us: spread(|round| round.cpu_us),
            ratio: rounds.iter().zip(null).map(|(round, null)| round.cpu_us / null.cpu_us).collect(),
            resident_mb: f64::from(u32::try_from(resident / 1024).unwrap_or(u32::MAX)) * 1.024e-3,
            log_bytes: spread(|round| round.log_bytes).median,
        }
    }
}

/// Everything.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Report {
    pub(crate) served: Vec<Row>,
    pub(crate) in_process_us: Vec<micro::Row>,
    pub(crate) definitions: Vec<micro::Definitions>,
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.served.is_empty() {
            writeln!(
                formatter,
                "| load | server | reviews/s | p50 ms | p99 ms | CPU µs/review | x null | RSS MB | log B |"
            )?;
            writeln!(formatter, "|---|---|---|---|---|---|---|---|---|")?;
        }
        for row in &self.served {
            let Row {
                load,
                server,
                reviews_per_second,
                p50_ms,
                p99_ms,
                cpu_us,
                ratio,
                resident_mb,
                log_bytes,
            } = row;
            writeln!(
                formatter,
                "| {load} | {server} | {reviews_per_second} | {p50_ms} | {p99_ms} | {cpu_us} | {ratio} | {resident_mb:.1} | {log_bytes:.0} |"
            )?;
        }
        if !self.in_process_us.is_empty() {
            writeln!(formatter, "\n| in process | Engine::review µs | uid alone µs |\n|---|---|---|")?;
        }
        for micro::Row { case, review, uid_only } in &self.in_process_us {
            writeln!(formatter, "| {case} | {review:.2} | {uid_only:.2} |")?;
        }
        if !self.definitions.is_empty() {
            writeln!(formatter, "\n| definitions | load ms | Engine::review µs |\n|---|---|---|")?;
        }
        for micro::Definitions { count, load_ms, review } in &self.definitions {
            writeln!(formatter, "| {count} | {load_ms:.1} | {review:.2} |")?;
        }
        Ok(())
    }
}
