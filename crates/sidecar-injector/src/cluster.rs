//! The cluster that the server works for: a client of its API.

use std::error::Error;
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

/// What went wrong, with its causes: the first often says only that something failed.
pub(crate) fn problem(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = Some(error);
    while let Some(cause) = next {
        let more = cause.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        // All that is in it, as Rust shows it, after the sentence that says it.
        if let Some(kube::Error::Api(status)) = cause.downcast_ref() {
            text = text.replace(&format!(" ({status:?})"), "");
        }
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use kube::core::Status;
    use kube::runtime::watcher;

    use super::*;

    #[test]
    fn a_problem_is_a_sentence() {
        let status = || {
            Box::new(Status::failure("pods is forbidden: User \"a\" cannot list", "Forbidden").with_code(403))
        };
        let sentence = "ApiError: pods is forbidden: User \"a\" cannot list: Forbidden";
        assert_eq!(problem(&kube::Error::Api(status())), sentence);
        let error = watcher::Error::InitialListFailed(kube::Error::Api(status()));
        assert_eq!(problem(&error), format!("failed to perform initial object list: {sentence}"));
        let error = kube::Error::Service(Box::new(std::io::Error::other(std::fmt::Error)));
        assert!(problem(&error).ends_with(&std::fmt::Error.to_string()), "{}", problem(&error));
    }
}
