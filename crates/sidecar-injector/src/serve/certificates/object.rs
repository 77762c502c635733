//! One object of the cluster, watched by its name: needs no right but to get and watch that one.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use kube::api::{WatchEvent, WatchParams};
use kube::{Api, Resource, ResourceExt as _};
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tracing::{info, warn};

use crate::cluster;

/// How long to wait before a missing object, or a cluster that cannot be reached, is asked for again.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// How long to wait for an answer.
const ANSWER: Duration = Duration::from_secs(10);

/// How long the API server refuses before it counts: after its own start, and after that of a role, it does so for a while.
const REFUSES: Duration = Duration::from_secs(10);

/// How long a watch lasts before the object is read anew.
const WATCH_SECONDS: u32 = 280;

/// What is known of an object.
#[derive(Debug, Clone)]
pub(super) enum Seen<K> {
    /// Nothing yet.
    Unknown,
    /// Nothing, and that does not change by itself: the right is missing.
    Forbidden,
    /// It is not there.
    Missing,
    /// As it was last seen.
    Present(Arc<K>),
}

/// Keeps an object in sight, as long as the runtime lives. While the cluster cannot be reached it stays as it was.
pub(super) fn watch<K>(api: Api<K>, name: String, kind: &'static str) -> watch::Receiver<Seen<K>>
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
{
    let (seen, receiver) = watch::channel(Seen::Unknown);
    tokio::spawn(async move { follow(&api, &name, kind, &seen).await });
    receiver
}

async fn follow<K>(api: &Api<K>, name: &str, kind: &'static str, seen: &watch::Sender<Seen<K>>)
where
    K: Resource + Clone + DeserializeOwned + Debug,
{
    let mut said: Option<String> = None;
    let mut refused_since: Option<Instant> = None;
    while !seen.is_closed() {
        let began = Instant::now();
        match look(api, name, seen).await {
            Ok(()) => {
                refused_since = None;
                if said.take().is_some() {
                    info!(event = "watch_recovered", kind, name, "watching again");
                }
                // One that ends at once would be asked for without end.
                if began.elapsed() > ASK_AGAIN {
                    continue;
                }
            }
            Err(error) => {
                if !matches!(&error, kube::Error::Api(status) if status.code == 403) {
                    refused_since = None;
                } else if refused_since.get_or_insert(began).elapsed() >= REFUSES {
                    seen.send_if_modified(|seen| {
                        let is_news = matches!(seen, Seen::Unknown);
                        if is_news {
                            *seen = Seen::Forbidden;
                        }
                        is_news
                    });
                }
                let problem = cluster::problem(&error);
                if said.as_ref() != Some(&problem) {
                    warn!(event = "watch_failed", kind, name, problem, "keeping what is known");
                    said = Some(problem);
                }
            }
        }
        sleep(ASK_AGAIN).await;
    }
}

/// Reads the object and watches it until it is time to read it anew.
async fn look<K>(api: &Api<K>, name: &str, seen: &watch::Sender<Seen<K>>) -> Result<(), kube::Error>
where
    K: Resource + Clone + DeserializeOwned + Debug,
{
    let answer = timeout(ANSWER, api.get_opt(name)).await;
    let Some(object) = answer.unwrap_or_else(|_| Err(kube::Error::Service("no answer in time".into())))?
    else {
        seen.send_replace(Seen::Missing);
        sleep(ASK_AGAIN).await;
        return Ok(());
    };
    let version = object.resource_version().unwrap_or_default();
    seen.send_replace(Seen::Present(Arc::new(object)));
    // Of one name, so that a role that names the object allows it.
    let only = WatchParams::default().fields(&format!("metadata.name={name}")).timeout(WATCH_SECONDS);
    let mut events = std::pin::pin!(api.watch(&only, &version).await?);
    while let Some(event) = events.next().await {
        match event? {
            WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                seen.send_replace(Seen::Present(Arc::new(object)));
            }
            WatchEvent::Deleted(_) => {
                seen.send_replace(Seen::Missing);
                return Ok(());
            }
            WatchEvent::Bookmark(_) => {}
            // Too old, mostly: it is read anew.
            WatchEvent::Error(_) => return Ok(()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU16, Ordering};

    use axum::Router;
    use axum::http::StatusCode;
    use k8s_openapi::api::core::v1::Secret;
    use kube::Client;
    use serde_json::json;

    use super::*;

    /// What an API server answers all the time.
    fn body(status: StatusCode) -> String {
        let object = match status {
            StatusCode::NOT_FOUND => json!({"kind": "Status", "code": 404, "reason": "NotFound"}),
            StatusCode::OK => json!({"metadata": {"name": "it", "resourceVersion": "1"}}),
            _ => {
                json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": status.as_u16(), "message": "no"})
            }
        };
        object.to_string()
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_counts_when_it_lasts_and_takes_nothing_back() {
        let status = Arc::new(AtomicU16::new(403));
        let answer = {
            let status = Arc::clone(&status);
            move || {
                let status = StatusCode::from_u16(status.load(Ordering::Relaxed)).unwrap();
                async move { (status, body(status)) }
            }
        };
        let client = Client::new(Router::new().fallback(answer), "default");
        let receiver = watch::<Secret>(Api::namespaced(client, "default"), "it".to_owned(), "Secret");
        let seen = async |code: u16, seconds: u64| {
            status.store(code, Ordering::Relaxed);
            sleep(Duration::from_secs(seconds)).await;
            match *receiver.borrow() {
                Seen::Unknown => "unknown",
                Seen::Forbidden => "forbidden",
                Seen::Missing => "missing",
                Seen::Present(_) => "present",
            }
        };
        for (code, seconds, expected) in [
            (403, 8, "unknown"),
            // Whatever else is wrong says nothing of rights.
            (401, 20, "unknown"),
            (500, 20, "unknown"),
            (403, 8, "unknown"),
            (403, 5, "forbidden"),
            (200, 3, "present"),
            (403, 20, "present"),
            (404, 3, "missing"),
            (403, 20, "missing"),
        ] {
            assert_eq!(seen(code, seconds).await, expected, "{code}");
        }
    }
}
