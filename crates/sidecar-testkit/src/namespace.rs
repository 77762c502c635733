//! Namespaces that exist for one test.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, bail};
use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use kube::{
    Api, Client, Config,
    api::{DeleteParams, PostParams},
};
use tokio::{runtime::Handle, task::JoinHandle};

const LIMIT: Duration = Duration::from_mins(2);

/// Deletions in the background that the end of the cluster waits for.
pub(crate) type Deletions = Arc<Mutex<Vec<JoinHandle<()>>>>;

/// A namespace that is deleted when this is dropped.
#[derive(Debug)]
pub struct TemporaryNamespace {
    name: String,
    config: Config,
    runtime: Handle,
    deletions: Deletions,
    deleted: bool,
}

impl TemporaryNamespace {
    pub(crate) async fn create(
        config: Config,
        runtime: Handle,
        deletions: Deletions,
        prefix: &str,
        has_controllers: bool,
    ) -> Result<Self> {
        let name = unique(prefix);
        let client = Client::try_from(config.clone())?;
        let namespace: Namespace = serde_json::from_value(serde_json::json!({"metadata": {"name": name}}))?;
        Api::<Namespace>::all(client.clone())
            .create(&PostParams::default(), &namespace)
            .await
            .with_context(|| format!("cannot create namespace {name}"))?;
        let created = Self { name, config, runtime, deletions, deleted: false };
        if has_controllers {
            created.wait_for_service_account(client).await?;
        }
        Ok(created)
    }

    /// The name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Deletes the namespace and waits until it is gone.
    pub async fn delete(mut self) -> Result<()> {
        self.deleted = true;
        let api: Api<Namespace> = Api::all(Client::try_from(self.config.clone())?);
        api.delete(&self.name, &DeleteParams::background()).await?;
        let deadline = Instant::now() + LIMIT;
        while api.get_opt(&self.name).await?.is_some() {
            if Instant::now() > deadline {
                bail!("namespace {} is still there after {} s", self.name, LIMIT.as_secs());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Ok(())
    }

    /// Without it pods are refused.
    async fn wait_for_service_account(&self, client: Client) -> Result<()> {
        let api: Api<ServiceAccount> = Api::namespaced(client, &self.name);
        let deadline = Instant::now() + LIMIT;
        while api.get_opt("default").await?.is_none() {
            if Instant::now() > deadline {
                bail!("namespace {} got no service account `default`", self.name);
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        Ok(())
    }
}

impl Drop for TemporaryNamespace {
    fn drop(&mut self) {
        if self.deleted {
            return;
        }
        let (name, config) = (self.name.clone(), self.config.clone());
        let deletion = self.runtime.spawn(async move {
            if let Ok(client) = Client::try_from(config) {
                // A cluster that is gone has no namespaces.
                let _ = Api::<Namespace>::all(client).delete(&name, &DeleteParams::background()).await;
            }
        });
        self.deletions.lock().unwrap_or_else(PoisonError::into_inner).push(deletion);
    }
}

/// Several runs may share an external cluster, so a counter is not enough.
fn unique(prefix: &str) -> String {
    static COUNTER: AtomicU32 = AtomicU32::new(0);
    let number = COUNTER.fetch_add(1, Ordering::Relaxed);
    let nanoseconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.subsec_nanos());
    format!("{prefix}-{:x}-{:x}{number:x}", std::process::id() & 0xffff, nanoseconds & 0xf_ffff)
}
