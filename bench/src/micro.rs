//! The cost in this process, without HTTP and TLS: [`Engine::review`], beside the least that JSON allows.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use sidecar_engine::definition::Compiled;
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

/// What many definitions cost.
#[derive(Debug, Serialize)]
pub(crate) struct Definitions {
    pub(crate) count: usize,
    /// Reading, checking and compiling all of them, from YAML.
    pub(crate) load_ms: f64,
    /// A review of 4.1 KB that one of them selects.
    pub(crate) review: f64,
}

/// One definition of a native sidecar with everything: a parameter, two expressions, a volume, and patches.
fn definition(number: usize) -> String {
    // The reviews' pods are those of the shop.
    let app = if number == 0 { "shop".to_owned() } else { format!("app-{number}") };
    format!(
        "apiVersion: sidecar.me/v1alpha1
kind: ClusterSidecarDefinition
metadata: {{name: sidecar-{number}}}
spec:
  selector: {{podSelector: {{matchLabels: {{app.kubernetes.io/name: {app}}}}}}}
  parameters: [{{name: level, default: info, allowed: [debug, info]}}]
  inject:
    spec:
      initContainers:
        - name: sidecar-{number}
          restartPolicy: Always
          image: example.com/sidecar:1
          args: ['--level=${{params.level}}', '--app=${{pod.metadata.labels[''app.kubernetes.io/name'']}}']
          volumeMounts: [{{name: logs-{number}, mountPath: /logs}}]
      volumes: [{{name: logs-{number}, emptyDir: {{}}}}]
  patchContainers:
    - env: [{{name: LOG_DIR, value: /logs}}]
      volumeMounts: [{{name: logs-{number}, mountPath: /logs}}]
  placement: {{initContainers: First}}
"
    )
}

pub(crate) fn definitions() -> Result<Vec<Definitions>> {
    let body = Case::ALL.first().context("no case")?.body()?;
    let mut rows = Vec::new();
    for count in [1, 10, 100, 1_000] {
        let texts: Vec<_> = (0..count).map(definition).collect();
        let started = processor_time();
        let mut compiled = Vec::with_capacity(count);
        for text in &texts {
            let definition = Compiled::from_yaml(text);
            compiled.push(Arc::new(definition.map_err(|problems| anyhow::anyhow!("{problems:?}"))?));
        }
        let engine = Engine::new(compiled);
        let load_ms = processor_time().saturating_sub(started).as_secs_f64() * 1e3;
        let reviewed = engine.review(&body, &NoNamespaces)?;
        ensure!(reviewed.decisions.len() == 1 && reviewed.operations > 0, "{:?}", reviewed.decisions);
        let review = best(|| {
            engine.review(black_box(&body), &NoNamespaces).map(|reviewed| reviewed.response.len()).ok()
        });
        rows.push(Definitions { count, load_ms, review });
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
