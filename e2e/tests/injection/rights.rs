//! What an API server lets the injector do is what `docs/security.md` says.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use e2e::Installation;
use e2e::rights::{EVERYWHERE, OWN_NAMESPACE, documented, expected};
use serde_json::Value;
use sidecar_testkit::repository_root;

pub(crate) async fn the_injector_may_do_what_the_table_says_and_nothing_else(
    at: &Installation,
) -> Result<()> {
    let values = repository_root().join("charts/kubernetes-sidecar-injector/values.yaml");
    let values: Value = serde_saphyr::from_str(&std::fs::read_to_string(values)?)?;
    let table = expected(&documented()?, |value| {
        let setting = values.pointer(&format!("/{}", value.replace('.', "/"))).cloned().unwrap_or_default();
        setting.as_str().map_or_else(|| setting.to_string(), ToOwned::to_owned)
    });
    for (namespace, places) in
        [("default", [EVERYWHERE, OWN_NAMESPACE].as_slice()), ("kube-public", &[EVERYWHERE])]
    {
        let allowed = allowed(at, namespace, "kubernetes-sidecar-injector").await?;
        let anybody = self::allowed(at, namespace, "nobody").await?;
        ensure!(!anybody.is_empty(), "every account may ask what it may do");
        let found: BTreeSet<_> = allowed.difference(&anybody).cloned().collect();
        let wanted: BTreeSet<_> = table
            .iter()
            .filter(|right| places.contains(&right.place.as_str()))
            .map(|right| format!("{} {} {}", right.verb, right.objects, right.name))
            .collect();
        let excess: Vec<_> = found.difference(&wanted).collect();
        let missing: Vec<_> = wanted.difference(&found).collect();
        ensure!(
            excess.is_empty() && missing.is_empty(),
            "in {namespace}, not in the table: {excess:?}; only in the table: {missing:?}"
        );
    }
    Ok(())
}

/// What kubectl lists for a service account of `default`, a line for each verb.
async fn allowed(at: &Installation, namespace: &str, account: &str) -> Result<BTreeSet<String>> {
    let account = format!("--as=system:serviceaccount:default:{account}");
    let list = at.kubectl(&["auth", "can-i", "--list", "-n", namespace, &account]).await?;
    let mut lines = list.lines();
    let head = lines.next().context("no head")?;
    let starts = ["Resources", "Non-Resource URLs", "Resource Names", "Verbs"].map(|title| head.find(title));
    let [Some(_), Some(urls), Some(names), Some(verbs)] = starts else {
        anyhow::bail!("another head: {head}")
    };
    let mut all = BTreeSet::new();
    for line in lines {
        let cell =
            |from: usize, to: usize| line.get(from..to).unwrap_or_default().trim().trim_matches(['[', ']']);
        let (objects, name) = match cell(0, urls) {
            "" => (cell(urls, names), ""),
            objects => (objects, cell(names, verbs)),
        };
        for name in name.split(' ') {
            for verb in cell(verbs, line.len()).split(' ') {
                let name = if name.is_empty() { "any" } else { name };
                all.insert(format!("{verb} {objects} {name}"));
            }
        }
    }
    Ok(all)
}
