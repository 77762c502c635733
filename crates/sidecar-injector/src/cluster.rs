//! The cluster that the server works for: a client of its API.

use std::time::Duration;

use kube::Client;

use crate::failure::Failure;

/// For how long nothing at all may arrive: longer than any watch lasts.
const READ_TIMEOUT: Duration = Duration::from_secs(310);

/// A client of the cluster that this runs in, or of `KUBECONFIG`.
pub(crate) async fn client() -> Result<Client, Failure> {
    connect(true).await
}

/// The same, but one that hears at once when the API server asks it to come back later: a disruption budget says so, and
/// may say so for days.
pub(crate) async fn client_that_asks_once() -> Result<Client, Failure> {
    connect(false).await
}

async fn connect(retries: bool) -> Result<Client, Failure> {
    let failed = |problem: String| Failure::Cluster(format!("no cluster to watch: {problem}"));
    let mut config = kube::Config::infer().await.map_err(|error| failed(error.to_string()))?;
    config.default_retry = retries;
    // A connection that has died without a word must not look like a watch with nothing to tell. API servers end watches by
    // themselves, kube's after 290 s.
    config.read_timeout = Some(READ_TIMEOUT);
    Client::try_from(config).map_err(|error| failed(error.to_string()))
}
