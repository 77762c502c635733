//! What can happen to certificates while pods are being created.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use e2e::load::Load;
use e2e::{INSTALL_INJECTOR, Installation, wait_for};
use serde_json::{Value, json};
use sidecar_testkit::{Cluster, Options, Tier};

use crate::replicas::every_missed_pod_is_named;
use crate::{UPGRADE, record, settled, short_or_long};

const SECRET: &str = "kubernetes-sidecar-injector-certificates";
/// Where the chart has cert-manager put its certificate.
const ISSUED_SECRET: &str = "kubernetes-sidecar-injector-cert-manager";

/// The name of every webhook, of pods and of definitions, with the CA certificates that it trusts.
async fn bundles(at: &Installation) -> Result<Vec<Vec<String>>> {
    let kinds = "mutatingwebhookconfiguration,validatingwebhookconfiguration";
    let list = at.get(&[kinds, "kubernetes-sidecar-injector"]).await?;
    let items = list["items"].as_array().context("no list")?;
    let webhooks = items.iter().flat_map(|item| item["webhooks"].as_array().into_iter().flatten());
    let bundles = webhooks.map(|webhook| {
        let bundle = webhook["clientConfig"]["caBundle"].as_str().unwrap_or_default();
        let pem = String::from_utf8(STANDARD.decode(bundle)?)?;
        let certificates = pem.split_inclusive("-----END CERTIFICATE-----").map(str::trim);
        Ok(certificates.filter(|pem| !pem.is_empty()).map(ToOwned::to_owned).collect())
    });
    bundles.collect()
}

/// What the Secret holds under a key.
async fn stored(at: &Installation, key: &str) -> Result<String> {
    let secret = at.get(&["secret", SECRET, "-n", "default"]).await?;
    let value = secret["data"][key].as_str().unwrap_or_default();
    Ok(String::from_utf8(STANDARD.decode(value)?)?)
}

/// How often each replica has said this.
fn said(at: &Installation, event: &str) -> Result<Vec<usize>> {
    let running = at.cluster.fake_node()?.running();
    let count = |log: &std::path::Path| {
        std::fs::read_to_string(log).unwrap_or_default().matches(&format!("\"{event}\"")).count()
    };
    Ok(running.iter().map(|container| count(&container.log)).collect())
}

/// Asks for a new leaf or a new CA, and waits until every replica serves it.
async fn rotate(at: &Installation, what: &str) -> Result<()> {
    let before = said(at, "certificate_reloaded")?;
    let certificate = stored(at, "tls-cert-file").await?;
    let annotation = format!("sidecar.me/rotate={what}");
    at.kubectl(&["annotate", "secret", SECRET, "-n", "default", "--overwrite", &annotation]).await?;
    wait_for("another certificate in every replica", async || {
        let now = said(at, "certificate_reloaded")?;
        let is_served = now.len() == before.len() && now.iter().zip(&before).all(|(now, then)| now > then);
        Ok(is_served && stored(at, "tls-cert-file").await? != certificate)
    })
    .await
}

/// How many reviews the replicas have answered, and how many requests they have not.
fn reviews(at: &Installation) -> Result<(f64, f64)> {
    let (mut answered, mut failed) = (0.0, 0.0);
    for (series, count) in at.scrape()? {
        let is_review = series.starts_with("sidecar_injector_admission_requests_total{");
        if series.starts_with("sidecar_injector_requests_refused_total{")
            || is_review && series.contains("\"error\"")
        {
            failed += count;
        } else if is_review {
            answered += count;
        }
    }
    Ok((answered, failed))
}

/// Twenty in a row, every other one with a new CA, and not one of ten thousand reviews fails.
pub(crate) async fn twenty_rotations(at: &Installation) -> Result<()> {
    at.shell(&format!(
        "{UPGRADE} --set certificates.selfManaged.caPropagation=2s --set certificates.selfManaged.caOverlap=20s"
    ))
    .await?;
    settled(at, 2).await?;
    let authority = stored(at, "ca.crt").await?;
    let before = reviews(at)?;
    let load = Load::start(at).await?;
    let rounds = short_or_long(10, 30);
    for _ in 0..rounds {
        rotate(at, "leaf").await?;
        rotate(at, "ca").await?;
    }
    // Every pod is reviewed twice, and some are under way.
    load.until_created(5100).await;
    let after = reviews(at)?;
    let report = record(load.finish("Certificate rotated again and again (leaf and CA by turns)").await?);
    report.expect_nothing_lost()?;
    let answered = after.0 - before.0;
    ensure!(answered >= 10_000.0, "{answered} reviews: {report}");
    ensure!(after.1 <= before.1, "some were answered with an error: {before:?}, {after:?}");
    eprintln!("{answered} reviews were answered");
    let now = stored(at, "ca.crt").await?;
    ensure!(now != authority);
    wait_for("an end of the old CA", async || {
        Ok(bundles(at).await?.iter().all(|bundle| bundle.len() == 1 && now.contains(&bundle[0])))
    })
    .await?;
    at.shell(UPGRADE).await?;
    settled(at, 2).await
}

/// A certificate that lives for seconds is renewed all the time, without anybody asking.
pub(crate) async fn certificates_that_live_for_seconds(at: &Installation) -> Result<()> {
    at.shell(&format!(
        "{UPGRADE} --set certificates.selfManaged.caLifetime=75s --set certificates.selfManaged.certificateLifetime=24s \
         --set certificates.selfManaged.caPropagation=1s --set certificates.selfManaged.caOverlap=20s"
    ))
    .await?;
    settled(at, 2).await?;
    let folder = tempfile::tempdir()?;
    let load = Load::start(at).await?;
    let before = (stored(at, "ca.crt").await?, stored(at, "tls-cert-file").await?);
    tokio::time::sleep(short_or_long(Duration::from_mins(1), Duration::from_mins(5))).await;
    let report = record(load.finish("Certificates that live for 24 s, CAs that live for 75 s").await?);
    ensure!(before.0 != stored(at, "ca.crt").await?, "the CA was not renewed");
    at.shell(UPGRADE).await?;
    settled(at, 2).await?;
    wait_for("certificates that live for longer, and no successor", async || {
        let secret = at.get(&["secret", SECRET, "-n", "default"]).await?;
        for key in ["ca.crt", "tls-cert-file"] {
            std::fs::write(folder.path().join("pem"), stored(at, key).await?)?;
            let arguments = ["x509", "-checkend", "86400", "-noout", "-in", "pem"];
            if !Command::new("openssl").args(arguments).current_dir(folder.path()).output()?.status.success()
            {
                return Ok(false);
            }
        }
        Ok(secret["data"].get("next-ca.crt").is_none())
    })
    .await?;
    report.expect_nothing_lost()
}

/// The replicas serve on with what they have, and share it again when there is a Secret.
pub(crate) async fn the_secret_is_deleted(at: &Installation) -> Result<()> {
    let authority = stored(at, "ca.crt").await?;
    let before = said(at, "certificates_not_shared")?;
    let load = Load::start(at).await?;
    at.kubectl(&["delete", "secret", SECRET, "-n", "default"]).await?;
    wait_for("a word about it", async || {
        let now = said(at, "certificates_not_shared")?;
        Ok(before.iter().zip(&now).all(|(before, now)| now > before))
    })
    .await?;
    // One that starts now makes its own, and the webhooks trust it beside the others.
    let pods = at.pods("default", "app.kubernetes.io/name=kubernetes-sidecar-injector", 2).await?;
    let name = pods[0]["metadata"]["name"].as_str().context("no name")?;
    // Until it is gone: while it leaves, there are two without the new one.
    at.kubectl(&["delete", "pod", name, "-n", "default"]).await?;
    settled(at, 2).await?;
    ensure!(bundles(at).await?.iter().all(|bundle| bundle.len() >= 2), "{:?}", bundles(at).await?);
    tokio::time::sleep(Duration::from_secs(2)).await;
    at.kubectl(&["create", "secret", "generic", SECRET, "-n", "default"]).await?;
    wait_for("certificates in the Secret", async || Ok(!stored(at, "tls-cert-file").await?.is_empty()))
        .await?;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let report = record(load.finish("The Secret is deleted, and made again later").await?);
    report.expect_nothing_lost()?;
    let now = stored(at, "ca.crt").await?;
    let trusted = bundles(at).await?;
    ensure!(
        trusted.iter().all(|bundle| bundle.iter().any(|pem| authority.contains(pem))),
        "the old CA goes later"
    );
    ensure!(trusted.iter().all(|bundle| bundle.iter().any(|pem| now.contains(pem))));
    // The release gets back what it knows of the Secret.
    at.kubectl(&["delete", "secret", SECRET, "-n", "default"]).await?;
    at.shell(UPGRADE).await?;
    settled(at, 2).await?;
    wait_for("the same certificates in the Secret again", async || Ok(stored(at, "ca.crt").await? == now))
        .await
}

/// Somebody writes nonsense into it.
pub(crate) async fn the_secret_is_damaged(at: &Installation) -> Result<()> {
    let load = Load::start(at).await?;
    for key in ["ca.key", "tls-cert-file", "tls-private-key-file", "ca.crt"] {
        let patch = json!({"data": {key: STANDARD.encode("nonsense")}}).to_string();
        at.kubectl(&["patch", "secret", SECRET, "-n", "default", "--patch", &patch]).await?;
        wait_for("something usable in the Secret", async || Ok(stored(at, key).await? != "nonsense")).await?;
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    ensure!(said(at, "certificates_not_shared")?.iter().all(|count| *count > 0));
    record(load.finish("The Secret is damaged, key by key").await?).expect_nothing_lost()
}

/// Until it is put back nothing is injected, which is the one thing that no injector can prevent; it is a moment.
pub(crate) async fn the_bundle_is_cleared(at: &Installation) -> Result<()> {
    let authority = stored(at, "ca.crt").await?;
    let load = Load::start_keeping(at).await?;
    for _ in 0..3 {
        for (kind, count) in [("mutatingwebhookconfiguration", 4), ("validatingwebhookconfiguration", 1)] {
            let clear = (0..count)
                .map(|n| json!({"op": "remove", "path": format!("/webhooks/{n}/clientConfig/caBundle")}));
            let clear = clear.collect::<Value>().to_string();
            at.kubectl(&["patch", kind, "kubernetes-sidecar-injector", "--type=json", "-p", &clear]).await?;
        }
        wait_for("our CA in every bundle", async || {
            Ok(bundles(at).await?.iter().all(|bundle| bundle.iter().any(|pem| authority.contains(pem))))
        })
        .await?;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let left = bundles(at).await?;
    ensure!(left.iter().all(|bundle| bundle.len() == 1), "a CA that nobody uses came back: {left:?}");
    let (report, places) = load.finish_keeping("`caBundle` cleared, three times").await?;
    let report = record(report);
    ensure!(report.gap < Duration::from_secs(5) && report.injected > report.attempts / 2, "{report}");
    every_missed_pod_is_named(at, &report, &places).await?;
    crate::recovered(at).await
}

/// By the upgrades of docs/certificates.md: old pods are trusted as long as they serve, and new ones before they do.
pub(crate) async fn certificate_modes_are_switched(at: &Installation) -> Result<()> {
    let page = Page::open()?;
    let (ours, others) = (issued()?, issued()?);
    let ([first, _], [stranger, _]) = (&ours[..], &others[..]) else {
        anyhow::bail!("two certificates each")
    };
    for (name, text) in [
        ("tls.crt", &first.certificate),
        ("tls.key", &first.key),
        ("ca.crt", &first.authority),
        ("wrong.crt", &stranger.authority),
    ] {
        std::fs::write(page.folder.path().join(name), text)?;
    }
    page.run(at, "kubectl create secret generic kubernetes-sidecar-injector-certs --namespace default --from-file=tls-cert-file=tls.crt \
                  --from-file=tls-private-key-file=tls.key").await?;
    let to_provided = "--force-conflicts --set certificates.mode=provided --set certificates.provided.secretName=kubernetes-sidecar-injector-certs";
    let to_own_alone = "--reset-then-reuse-values --set-file certificates.provided.caBundle=ca.crt";
    let to_helm = page.commands("--force-conflicts --set certificates.mode=helm")?;
    let to_self_managed = page.commands("--set certificates=null")?;
    for (name, commands) in [
        (MISTAKEN, page.commands(to_provided)?),
        (OWN_ALONE, page.commands(to_own_alone)?),
        (
            "a `caBundle` of somebody else's",
            page.commands("--set certificates.provided.externalCaBundle=true")?,
        ),
        ("`provided` → `selfManaged`", to_self_managed),
        (FORGOTTEN, to_helm),
        ("`helm` → `selfManaged`", to_self_managed),
        ("`selfManaged`, once more", UPGRADE),
    ] {
        let load = Load::start(at).await?;
        if name == FORGOTTEN {
            // Helm 4 applies everything but the webhooks then.
            let refused = page.run(at, &commands.replace("--force-conflicts", "")).await;
            let refused = refused.err().context("the upgrade should have been refused")?;
            ensure!(format!("{refused:#}").contains("with \"sidecar-injector\""), "{refused:#}");
            old_replicas_serve_on(at).await?;
        }
        if name == MISTAKEN {
            let upgrade = commands.split("kubectl").next().unwrap_or_default();
            page.run(at, &upgrade.replace("ca.crt", "wrong.crt")).await?;
            old_replicas_serve_on(at).await?;
        }
        page.run(at, commands).await?;
        settled(at, 2).await?;
        record(load.finish(name).await?).expect_nothing_lost()?;
        if name == OWN_ALONE {
            let left = bundles(at).await?;
            ensure!(left.iter().all(|bundle| bundle.len() == 1), "more than our own CA: {left:?}");
        }
    }
    at.kubectl(&["delete", "secret", "kubernetes-sidecar-injector-certs", "-n", "default"]).await.map(drop)
}

const FORGOTTEN: &str = "`selfManaged` → `helm`, at first without `--force-conflicts`";

const MISTAKEN: &str = "Certificate mode: `selfManaged` → `provided`, at first with the wrong CA";

const OWN_ALONE: &str = "one's own CA alone";

/// The new replica sees that nobody trusts it, and goes on waiting.
async fn old_replicas_serve_on(at: &Installation) -> Result<()> {
    let unready = || anyhow::Ok(at.cluster.fake_node()?.running().into_iter().filter(|it| !it.ready));
    let distrust = |log: &std::path::Path| {
        std::fs::read_to_string(log).unwrap_or_default().contains("does not verify it")
    };
    wait_for("a new replica that sees that it is not trusted", async || {
        Ok(unready()?.any(|it| distrust(&it.log)))
    })
    .await?;
    // Longer than one needs to become ready.
    tokio::time::sleep(Duration::from_secs(15)).await;
    let ready = at.cluster.fake_node()?.running().into_iter().filter(|it| it.ready);
    ensure!(unready()?.count() == 1 && ready.count() == 2, "the new replica does not wait");
    Ok(())
}

/// docs/certificates.md, and a folder to follow it in.
struct Page {
    text: String,
    folder: tempfile::TempDir,
}

impl Page {
    fn open() -> Result<Self> {
        let (root, folder) = (sidecar_testkit::repository_root(), tempfile::tempdir()?);
        std::os::unix::fs::symlink(root.join("charts"), folder.path().join("charts"))?;
        Ok(Page { text: std::fs::read_to_string(root.join("docs/certificates.md"))?, folder })
    }

    /// Those with these words in them, of which there is one block.
    fn commands(&self, words: &str) -> Result<&str> {
        // Odd ones are between fences. Their first line is a language.
        let blocks = self.text.split("```").skip(1).step_by(2).filter_map(|block| block.split_once('\n'));
        let in_one_line = |commands: &str| {
            let words: Vec<_> = commands.split_whitespace().filter(|word| *word != "\\").collect();
            words.join(" ")
        };
        let blocks = blocks.map(|(_, commands)| commands);
        let found: Vec<_> = blocks.filter(|commands| in_one_line(commands).contains(words)).collect();
        let [commands] = found[..] else {
            anyhow::bail!("{words:?} is in {} blocks of the page", found.len())
        };
        Ok(commands)
    }

    async fn run(&self, at: &Installation, commands: &str) -> Result<()> {
        let script = format!("set -eu -o pipefail; cd {}\n{commands}", self.folder.path().display());
        at.shell(&script).await.with_context(|| commands.to_owned()).map(drop)
    }
}

/// A CA that is not the injector's, and a certificate that it signed.
struct Issued {
    authority: String,
    certificate: String,
    key: String,
}

fn issued() -> Result<Vec<Issued>> {
    let authority = rcgen::KeyPair::generate()?;
    let mut params = rcgen::CertificateParams::new(Vec::new())?;
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let own = params.self_signed(&authority)?.pem();
    let issuer = rcgen::Issuer::new(params, authority);
    let name = "kubernetes-sidecar-injector.default.svc".to_owned();
    let issue = |()| {
        let key = rcgen::KeyPair::generate()?;
        let certificate = rcgen::CertificateParams::new(vec![name.clone()])?.signed_by(&key, &issuer)?.pem();
        Ok(Issued { authority: own.clone(), certificate, key: key.serialize_pem() })
    };
    [(), ()].map(issue).into_iter().collect()
}

/// What cert-manager does about a Certificate, of which there is none on this cluster: the Secret, and that it says so.
async fn cert_manager_answers(at: &Installation, issued: &Issued) -> Result<()> {
    let certificate = ["certificate", "kubernetes-sidecar-injector", "-n", "default"];
    wait_for("the Certificate", async || {
        Ok(at.kubectl(&[&["get"], &certificate[..]].concat()).await.is_ok())
    })
    .await?;
    issue_secret(at, issued).await?;
    let ready = r#"{"status": {"conditions": [{"type": "Ready", "status": "True"}]}}"#;
    at.kubectl(&[&["patch"], &certificate[..], &["--type=merge", "-p", ready]].concat()).await.map(drop)
}

async fn issue_secret(at: &Installation, issued: &Issued) -> Result<()> {
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
        "metadata": {"name": ISSUED_SECRET, "namespace": "default"},
        "stringData": {"tls.crt": issued.certificate, "tls.key": issued.key, "ca.crt": issued.authority},
    });
    at.cluster.kubectl_with_input(&["apply", "-f", "-"], &secret.to_string()).await?.checked().map(drop)
}

/// What cert-manager's CA injector does: its CA, and no other, in every `caBundle`.
async fn inject_authority(at: &Installation, issued: &Issued) -> Result<()> {
    for kind in ["mutatingwebhookconfiguration", "validatingwebhookconfiguration"] {
        let object = at.get(&[kind, "kubernetes-sidecar-injector"]).await?;
        let wanted = "default/kubernetes-sidecar-injector";
        ensure!(object["metadata"]["annotations"]["cert-manager.io/inject-ca-from"] == wanted, "{object}");
        let count = object["webhooks"].as_array().map_or(0, Vec::len);
        let bundle = STANDARD.encode(&issued.authority);
        let inject = (0..count).map(
            |n| json!({"op": "add", "path": format!("/webhooks/{n}/clientConfig/caBundle"), "value": bundle}),
        );
        let inject = inject.collect::<Value>().to_string();
        let arguments = ["patch", kind, "kubernetes-sidecar-injector", "--type=json", "-p", &inject];
        at.kubectl(&[&arguments[..], &["--field-manager=cert-manager-cainjector"]].concat()).await?;
    }
    Ok(())
}

/// To cert-manager, a renewal of its certificate, and back.
pub(crate) async fn cert_manager_takes_over(at: &Installation) -> Result<()> {
    for (kind, plural) in [("Certificate", "certificates"), ("Issuer", "issuers")] {
        let open = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
        let definition = json!({
            "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": format!("{plural}.cert-manager.io")},
            "spec": {
                "group": "cert-manager.io", "scope": "Namespaced", "names": {"kind": kind, "plural": plural},
                "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": open}}],
            },
        });
        at.create(&definition, &[]).await?;
        at.kubectl(&["wait", "--for=condition=Established", &format!("crd/{plural}.cert-manager.io")])
            .await?;
    }
    let issued = issued()?;
    let [first, second] = &issued[..] else { anyhow::bail!("two certificates") };

    // cert-manager writes its CA alone, so the old pods are not trusted until they are gone: what is lost meanwhile is
    // counted, and what comes after must not be.
    let page = Page::open()?;
    let load = Load::start_keeping(at).await?;
    at.shell(&format!("{UPGRADE} --set certificates.mode=certManager")).await?;
    issue_secret(at, first).await?;
    inject_authority(at, first).await?;
    settled(at, 2).await?;
    let (report, places) = load.finish_keeping("`selfManaged` → `certManager` at once").await?;
    let report = record(report);
    ensure!(report.injected > report.attempts / 2, "{report}");
    every_missed_pod_is_named(at, &report, &places).await?;

    let load = Load::start(at).await?;
    issue_secret(at, second).await?;
    inject_authority(at, second).await?;
    wait_for("the new certificate in every replica", async || {
        Ok(said(at, "certificate_reloaded")?.iter().all(|count| *count > 0))
    })
    .await?;
    record(load.finish("cert-manager renews the certificate").await?).expect_nothing_lost()?;

    let load = Load::start(at).await?;
    page.run(at, page.commands("--set certificates=null")?).await?;
    settled(at, 2).await?;
    record(load.finish("`certManager` → `selfManaged`").await?).expect_nothing_lost()?;

    at.kubectl(&["delete", "secret", ISSUED_SECRET, "-n", "default"]).await?;
    let asked = page.run(at, page.commands("--show-only templates/certmanager.yaml")?);
    let (asked, answered) = tokio::join!(asked, cert_manager_answers(at, first));
    answered.and(asked)?;
    let load = Load::start(at).await?;
    page.run(at, page.commands("certificates.provided.certificateKey=tls.crt")?).await?;
    settled(at, 2).await?;
    page.run(at, page.commands("mode=certManager --set certificates.provided=null")?).await?;
    inject_authority(at, first).await?;
    settled(at, 2).await?;
    record(load.finish("`selfManaged` → `provided` → `certManager`").await?).expect_nothing_lost()?;

    page.run(at, page.commands("--set certificates=null")?).await?;
    settled(at, 2).await?;
    at.kubectl(&["delete", "secret", ISSUED_SECRET, "-n", "default"]).await?;
    let kinds = ["crd/certificates.cert-manager.io", "crd/issuers.cert-manager.io"];
    at.kubectl(&[&["delete"], &kinds[..]].concat()).await.map(drop)
}

/// A node's clock jumps by years, forward and back, while pods are created. What counts is the API server's, so nothing is
/// renewed, and nobody notices but the log. On a cluster of its own: what sets the clock does not reach into the static
/// binary.
pub(crate) async fn a_clock_jumps(_: &Installation) -> Result<()> {
    let library = format!("/usr/lib/{}-linux-gnu/faketime/libfaketimeMT.so.1", std::env::consts::ARCH);
    if !std::path::Path::new(&library).exists() {
        ensure!(std::env::var_os("SIDECAR_REQUIRE_FAKETIME").is_none(), "{library} is missing");
        e2e::leave_out(&format!("the jump of the clock: {library} is missing (Debian's package faketime)"));
        return Ok(());
    }
    let binary = e2e::target_folder().join("debug/sidecar-injector");
    ensure!(binary.exists(), "there is no {}: cargo build", binary.display());
    let folder = tempfile::tempdir()?;
    let clock = folder.path().join("clock");
    std::fs::write(&clock, "+0")?;
    let options = Options { injector: Some(binary), ..Options::default() };
    let at = Installation { cluster: Cluster::start(Tier::Charts, options).await? };
    let environment = [
        ("LD_PRELOAD", library.as_str()),
        ("FAKETIME_TIMESTAMP_FILE", &clock.display().to_string()),
        ("FAKETIME_NO_CACHE", "1"),
        // Nobody can set that one.
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
    ];
    let values = environment.iter().enumerate().map(|(n, (name, value))| {
        format!(" --set-string extraEnv[{n}].name={name} --set-string extraEnv[{n}].value={value}")
    });
    at.shell(&format!("{INSTALL_INJECTOR}{}", values.collect::<String>())).await?;
    at.wait_until_injecting().await?;
    let before = (stored(&at, "ca.crt").await?, stored(&at, "tls-cert-file").await?);
    let load = Load::start(&at).await?;
    let this_year: i32 = k8s_openapi::jiff::Timestamp::now().strftime("%Y").to_string().parse()?;
    for jump in ["+3650d", "-3650d", "+0"] {
        std::fs::write(&clock, jump)?;
        let years =
            |line: &str| serde_json::from_str::<Value>(line).ok()?["timestamp"].as_str()?[..4].parse().ok();
        if jump != "+0" {
            wait_for("a log of another time", async || {
                let running = at.cluster.fake_node()?.running();
                let newest = running.iter().filter_map(|it| std::fs::read_to_string(&it.log).ok());
                let newest: Vec<i32> = newest.filter_map(|log| years(log.lines().last()?)).collect();
                Ok(newest.len() == 2 && newest.iter().all(|year| (this_year - year).abs() > 5))
            })
            .await?;
        }
        tokio::time::sleep(Duration::from_secs(4)).await;
    }
    let report =
        record(load.finish("Clock of the injector's nodes jumps by ten years, forward and back").await?);
    ensure!(
        before == (stored(&at, "ca.crt").await?, stored(&at, "tls-cert-file").await?),
        "something was renewed"
    );
    at.cluster.stop().await?;
    report.expect_nothing_lost()
}
