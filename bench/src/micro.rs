//! The cost in this process, without HTTP and TLS: [`Engine::review`], beside the least that JSON allows.

use std::hint::black_box;
use std::time::Duration;

use anyhow::{Context as _, Result};
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use sidecar_engine::{Engine, NoNamespaces};

use crate::reviews::Case;

/// Best of so many batches: whatever else the machine does can only make one dearer.
const BATCHES: usize = 9;
const BATCH: Duration = Duration::from_millis(150);

/// Everything but the uid is skipped.
#[derive(Deserialize)]
struct Review<'a> {
    #[serde(borrow)]
    request: Request<'a>,
}

#[derive(Deserialize)]
struct Request<'a> {
    uid: &'a str,
}

/// Microseconds for one kind of review.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) case: &'static str,
    pub(crate) review: f64,
    pub(crate) uid_only: f64,
}

pub(crate) fn run() -> Result<Vec<Row>> {
    let engine = Engine::builtin();
    let mut rows = Vec::new();
    for case in Case::ALL {
        let body = case.body()?;
        engine.review(&body, &NoNamespaces).with_context(|| case.name)?;
        serde_json::from_slice::<Review<'_>>(&body)?;
        rows.push(Row {
            case: case.name,
            review: best(|| {
                engine.review(black_box(&body), &NoNamespaces).map(|reviewed| reviewed.response.len()).ok()
            }),
            uid_only: best(|| {
                serde_json::from_slice::<Review<'_>>(black_box(&body))
                    .map(|review| review.request.uid.len())
                    .ok()
            }),
        });
    }
    Ok(rows)
}

/// Microseconds of this thread's processor time, which another program's turn does not lengthen.
fn best<T>(mut work: impl FnMut() -> T) -> f64 {
    let batch = |_| {
        let started = processor_time();
        let mut count = 0_u32;
        loop {
            for _ in 0..16 {
                black_box(work());
            }
            count += 16;
            let took = processor_time().saturating_sub(started);
            if took >= BATCH {
                return took.as_secs_f64() * 1e6 / f64::from(count);
            }
        }
    };
    (0..BATCHES).map(batch).fold(f64::INFINITY, f64::min)
}

fn processor_time() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap_or_default()
}
