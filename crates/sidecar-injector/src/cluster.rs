//! The cluster that the server works for: a client of its API.

use kube::Client;

use crate::failure::Failure;

/// A client of the cluster that this runs in, or of `KUBECONFIG`.
pub(crate) async fn client() -> Result<Client, Failure> {
    let failed = |problem: String| Failure::Cluster(format!("no cluster to watch: {problem}"));
    let config = kube::Config::infer().await.map_err(|error| failed(error.to_string()))?;
    Client::try_from(config).map_err(|error| failed(error.to_string()))
}
