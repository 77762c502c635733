//! Which replica does what only one may do: it holds a Lease, and renews it while it lives.
//!
//! The Lease is made by whoever installs the injector, empty, so that nothing that is rendered is rewritten. Where there
//! is none, nobody leads, and everything else goes on.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::time::{Duration, SystemTime};

use kube::api::{ApiResource, DynamicObject, PostParams};
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::{info, warn};

use super::connection::Phase;
use crate::cluster;

/// Whose the fields are that are written here.
const FIELD_MANAGER: &str = "sidecar-injector-lease";

/// For how long a Lease is held that is not renewed. By the others' own clocks: they wait so long without a change.
const DURATION: Duration = Duration::from_secs(15);

/// Who could not renew it for so long stops leading, well before another one begins.
const GIVE_UP: Duration = Duration::from_secs(10);

/// How often it is renewed, or asked for, and how long that may take.
const INTERVAL: Duration = Duration::from_secs(4);
const PATIENCE: Duration = Duration::from_secs(3);

/// One that wants to lead.
pub(crate) struct Candidate {
    api: Api<DynamicObject>,
    name: String,
    identity: String,
    leads: watch::Sender<bool>,
    renewed: Option<Instant>,
    /// What others wrote last, and when that was seen first.
    observed: Option<(Value, Instant)>,
    said: Option<String>,
}

impl Candidate {
    /// For the Lease `NAMESPACE/NAME`; and where to see whether it leads.
    pub(crate) fn new(client: Client, namespace: &str, name: &str) -> (Self, watch::Receiver<bool>) {
        let resource = ApiResource {
            group: "coordination.k8s.io".to_owned(),
            version: "v1".to_owned(),
            api_version: "coordination.k8s.io/v1".to_owned(),
            kind: "Lease".to_owned(),
            plural: "leases".to_owned(),
        };
        let host = std::env::var("HOSTNAME").unwrap_or_default();
        // Another process of the same name is another candidate: the one before it may still be at work.
        let identity = format!("{host}_{:016x}", RandomState::new().build_hasher().finish());
        let (leads, leading) = watch::channel(false);
        let candidate = Candidate {
            api: Api::namespaced_with(client, namespace, &resource),
            name: name.to_owned(),
            identity,
            leads,
            renewed: None,
            observed: None,
            said: None,
        };
        (candidate, leading)
    }

    /// Leads whenever it can, until the server leaves; then lets others.
    pub(crate) async fn stand(mut self, mut phase: watch::Receiver<Phase>) {
        loop {
            let end = self.end();
            tokio::select! {
                result = timeout(PATIENCE, self.attempt()) => match result {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => self.say(cluster::problem(&error)),
                    Err(_) => self.say("the API server does not answer".to_owned()),
                },
                () = end => self.set(false),
            }
            tokio::select! {
                () = sleep(INTERVAL) => {}
                () = self.end() => self.set(false),
                _ = phase.wait_for(|phase| *phase != Phase::Up) => break,
            }
        }
        if self.renewed.is_some() {
            self.set(false);
            // Nobody has to wait until it runs out; and if not, it does.
            let _ = timeout(PATIENCE, self.release()).await;
        }
    }

    /// Until it has to give up, whatever is under way then: the others do not wait for it.
    fn end(&self) -> impl Future<Output = ()> + use<> {
        let end = self.renewed.map(|renewed| renewed + GIVE_UP);
        async move {
            match end {
                Some(end) => sleep_until(end).await,
                None => std::future::pending().await,
            }
        }
    }

    async fn attempt(&mut self) -> kube::Result<()> {
        let started = Instant::now();
        let Some(mut lease) = self.api.get_opt(&self.name).await? else {
            self.set(false);
            self.say("it does not exist; whoever installs the injector makes it".to_owned());
            return Ok(());
        };
        let spec = lease.data.get("spec").cloned().unwrap_or_default();
        let holder = spec.get("holderIdentity").and_then(Value::as_str).unwrap_or_default().to_owned();
        let is_mine = holder == self.identity;
        if !is_mine && !holder.is_empty() && self.is_held(&spec) {
            self.set(false);
            self.said = None;
            return Ok(());
        }
        let now = humantime::format_rfc3339_micros(SystemTime::now()).to_string();
        let transitions = spec.get("leaseTransitions").and_then(Value::as_i64).unwrap_or_default();
        let acquired = spec.get("acquireTime").filter(|_| is_mine).cloned().unwrap_or_else(|| json!(now));
        let spec = json!({
            "holderIdentity": self.identity,
            "leaseDurationSeconds": DURATION.as_secs(),
            "acquireTime": acquired,
            "renewTime": now,
            "leaseTransitions": transitions + i64::from(!is_mine),
        });
        if self.write(&mut lease, spec).await? {
            self.renewed = Some(started);
            self.said = None;
            self.set(true);
        }
        Ok(())
    }

    /// Whether what another one wrote has changed lately.
    fn is_held(&mut self, spec: &Value) -> bool {
        let now = Instant::now();
        let since = match &self.observed {
            Some((observed, since)) if observed == spec => *since,
            _ => self.observed.insert((spec.clone(), now)).1,
        };
        let seconds = spec.get("leaseDurationSeconds").and_then(Value::as_u64);
        now < since + seconds.map_or(DURATION, Duration::from_secs)
    }

    async fn release(&self) -> kube::Result<()> {
        let Some(mut lease) = self.api.get_opt(&self.name).await? else { return Ok(()) };
        let Some(mut spec) = lease.data.get("spec").cloned() else { return Ok(()) };
        if spec.get("holderIdentity") == Some(&json!(self.identity))
            && let Some(holder) = spec.get_mut("holderIdentity")
        {
            *holder = json!("");
            self.write(&mut lease, spec).await?;
        }
        Ok(())
    }

    /// Whether nobody else has written since it was read.
    async fn write(&self, lease: &mut DynamicObject, spec: Value) -> kube::Result<bool> {
        if let Some(fields) = lease.data.as_object_mut() {
            fields.insert("spec".to_owned(), spec);
        }
        lease.metadata.managed_fields = None;
        let parameters =
            PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
        match self.api.replace(&self.name, &parameters, lease).await {
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
            result => result.map(|_| true),
        }
    }

    fn set(&mut self, leads: bool) {
        if !leads {
            self.renewed = None;
        }
        if self.leads.send_if_modified(|before| std::mem::replace(before, leads) != leads) {
            let event = if leads { "leading" } else { "not_leading" };
            info!(event, lease = self.name, identity = self.identity);
        }
    }

    fn say(&mut self, problem: String) {
        if self.said.as_ref() != Some(&problem) {
            warn!(event = "lease_failed", lease = self.name, problem);
            self.said = Some(problem);
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    /// One that leads since this moment, and an API server that takes every call and answers none.
    async fn leader() -> (Candidate, watch::Receiver<bool>, TcpListener) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let client = Client::try_from(kube::Config::new(url.parse().unwrap())).unwrap();
        let (mut candidate, leading) = Candidate::new(client, "default", "lease");
        candidate.renewed = Some(Instant::now());
        candidate.set(true);
        (candidate, leading, listener)
    }

    // The clock of this test moves by itself whenever nothing else is to be done.
    #[tokio::test(start_paused = true)]
    async fn who_cannot_renew_the_lease_gives_up_in_time() {
        for age in [0, 1, 2, 3, 4, 5, 6, 7, 8, 9] {
            let (mut candidate, mut leading, _listener) = leader().await;
            // Whether that falls into a try or between two.
            let start = Instant::now() - Duration::from_secs(age);
            candidate.renewed = Some(start);
            let (_phase, watched) = watch::channel(Phase::Up);
            let standing = tokio::spawn(candidate.stand(watched));
            leading.wait_for(|leads| !*leads).await.unwrap();
            let off = start.elapsed().abs_diff(GIVE_UP);
            assert!(off < Duration::from_millis(10), "{off:?} off, renewed {age} s before");
            standing.abort();
        }
    }
}
