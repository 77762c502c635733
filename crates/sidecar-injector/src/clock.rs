//! The API server's clock: it is the API server that looks at the dates of certificates, and writes those of objects, so its clock is
//! the one that counts.

use std::time::{Duration, SystemTime};

use axum::http::{Request, header::DATE};
use kube::Client;
use kube::client::Body;
use tokio::time::{Instant, timeout};
use tracing::warn;

/// A difference that is worth a line in the log.
const SKEW: Duration = Duration::from_mins(2);

/// How often to ask at least.
const ASK_AGAIN: Duration = Duration::from_mins(5);

/// How long to wait for the API server.
const LIMIT: Duration = Duration::from_secs(5);

/// The time as the API server had it last, and what has passed since by a clock that nobody can set.
pub(crate) struct Clock {
    client: Client,
    read: Option<(SystemTime, Instant)>,
    asked: Option<Instant>,
    is_skewed: bool,
}

impl Clock {
    pub(crate) fn new(client: Client) -> Self {
        Clock { client, read: None, asked: None, is_skewed: false }
    }

    /// Whether the API server has said the time.
    pub(crate) fn is_set(&self) -> bool {
        self.read.is_some()
    }

    /// What time it is for the API server; by this machine's own clock until it was heard once.
    pub(crate) fn now(&self) -> SystemTime {
        match self.read {
            Some((time, at)) => time + at.elapsed(),
            None => SystemTime::now(),
        }
    }

    /// Asks the API server, if it has not said the time, or was asked long ago.
    pub(crate) async fn refresh(&mut self) {
        if !self.is_set() || self.asked.is_none_or(|asked| asked.elapsed() > ASK_AGAIN) {
            self.set().await;
        }
    }

    /// Asks the API server, which says the time in each of its responses. What is known stays if it does not answer.
    async fn set(&mut self) {
        self.asked = Some(Instant::now());
        let Ok(request) = Request::get("/version").body(Body::empty()) else { return };
        let Ok(Ok(response)) = timeout(LIMIT, self.client.send(request)).await else { return };
        let date = response.headers().get(DATE).and_then(|date| date.to_str().ok());
        // It always says it; whatever stands in between might not pass it on.
        let time = date.and_then(|date| httpdate::parse_http_date(date).ok()).unwrap_or_else(SystemTime::now);
        self.read = Some((time, Instant::now()));
        let own = SystemTime::now();
        let skew = own.duration_since(time).or_else(|_| time.duration_since(own)).unwrap_or_default();
        if skew > SKEW && !self.is_skewed {
            warn!(
                event = "clock_skew",
                seconds = skew.as_secs(),
                "this node's clock and the API server's differ; what is done by the clock is done by the API server's"
            );
        }
        self.is_skewed = skew > SKEW;
    }
}
