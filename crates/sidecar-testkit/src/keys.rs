//! Certificates and keys of a throwaway cluster, made anew for each.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};

/// The folder with all keys of one cluster.
#[derive(Clone, Debug)]
pub(crate) struct Keys {
    folder: PathBuf,
}

/// What a certificate is good for.
#[derive(Clone, Copy)]
enum Usage {
    Server,
    Client,
}

struct Authority {
    issuer: Issuer<'static, KeyPair>,
}

impl Keys {
    /// Makes all keys. `addresses` are those that the API server is reached at, `node` the real node's, if there is one.
    pub(crate) fn create(
        folder: &Path,
        addresses: &[Ipv4Addr],
        node: Option<(&str, Ipv4Addr)>,
    ) -> Result<Self> {
        let keys = Self { folder: folder.to_path_buf() };
        fs::create_dir_all(folder)?;
        let ca = keys.authority("ca", "testbed-ca")?;
        let front_proxy_ca = keys.authority("front-proxy-ca", "testbed-front-proxy-ca")?;
        let mut names = vec![SanType::IpAddress(IpAddr::V4(Ipv4Addr::LOCALHOST))];
        names.extend(addresses.iter().map(|&address| SanType::IpAddress(IpAddr::V4(address))));
        for name in [
            "localhost",
            "kubernetes",
            "kubernetes.default",
            "kubernetes.default.svc",
            "kubernetes.default.svc.cluster.local",
        ] {
            names.push(SanType::DnsName(name.try_into()?));
        }
        keys.leaf("apiserver", &ca, "kube-apiserver", None, Usage::Server, names)?;
        let masters = Some("system:masters");
        keys.leaf("admin", &ca, "testbed-admin", masters, Usage::Client, Vec::new())?;
        keys.leaf(
            "apiserver-kubelet",
            &ca,
            "kube-apiserver-kubelet-client",
            masters,
            Usage::Client,
            Vec::new(),
        )?;
        keys.leaf(
            "controller-manager",
            &ca,
            "system:kube-controller-manager",
            None,
            Usage::Client,
            Vec::new(),
        )?;
        keys.leaf("front-proxy", &front_proxy_ca, "front-proxy-client", None, Usage::Client, Vec::new())?;
        if let Some((name, address)) = node {
            let user = format!("system:node:{name}");
            keys.leaf("node", &ca, &user, Some("system:nodes"), Usage::Client, Vec::new())?;
            let names = vec![SanType::DnsName(name.try_into()?), SanType::IpAddress(IpAddr::V4(address))];
            keys.leaf("kubelet", &ca, name, None, Usage::Server, names)?;
        }
        let service_accounts = KeyPair::generate()?;
        keys.write("sa.key", &service_accounts.serialize_pem())?;
        keys.write("sa.pub", &service_accounts.public_key_pem())?;
        Ok(keys)
    }

    pub(crate) fn path(&self, file: &str) -> PathBuf {
        self.folder.join(file)
    }

    /// Writes a kubeconfig that uses one of the client certificates.
    pub(crate) fn kubeconfig(&self, client: &str, server: &str, path: &Path) -> Result<()> {
        let document = serde_json::json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "testbed", "cluster": {
                "server": server, "certificate-authority": self.path("ca.crt")}}],
            "users": [{"name": client, "user": {
                "client-certificate": self.path(&format!("{client}.crt")),
                "client-key": self.path(&format!("{client}.key"))}}],
            "contexts": [{"name": "testbed", "context": {"cluster": "testbed", "user": client}}],
            "current-context": "testbed",
        });
        // JSON is YAML, and needs no quoting rules of ours.
        write_private(path, &serde_json::to_string_pretty(&document)?)
    }

    fn authority(&self, file: &str, name: &str) -> Result<Authority> {
        let key = KeyPair::generate()?;
        let mut parameters = CertificateParams::default();
        parameters.distinguished_name = rcgen::DistinguishedName::new();
        parameters.distinguished_name.push(DnType::CommonName, name);
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        parameters.key_usages =
            vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = parameters.self_signed(&key)?;
        self.write(&format!("{file}.crt"), &certificate.pem())?;
        self.write(&format!("{file}.key"), &key.serialize_pem())?;
        Ok(Authority { issuer: Issuer::new(parameters, key) })
    }

    fn leaf(
        &self,
        file: &str,
        authority: &Authority,
        name: &str,
        organization: Option<&str>,
        usage: Usage,
        names: Vec<SanType>,
    ) -> Result<()> {
        let key = KeyPair::generate()?;
        let mut parameters = CertificateParams::default();
        parameters.distinguished_name = rcgen::DistinguishedName::new();
        parameters.distinguished_name.push(DnType::CommonName, name);
        if let Some(organization) = organization {
            parameters.distinguished_name.push(DnType::OrganizationName, organization);
        }
        parameters.subject_alt_names = names;
        parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
        parameters.extended_key_usages = vec![match usage {
            Usage::Server => ExtendedKeyUsagePurpose::ServerAuth,
            Usage::Client => ExtendedKeyUsagePurpose::ClientAuth,
        }];
        parameters.use_authority_key_identifier_extension = true;
        let certificate = parameters.signed_by(&key, &authority.issuer)?;
        self.write(&format!("{file}.crt"), &certificate.pem())?;
        self.write(&format!("{file}.key"), &key.serialize_pem())
    }

    fn write(&self, file: &str, text: &str) -> Result<()> {
        write_private(&self.path(file), text)
    }
}

fn write_private(path: &Path, text: &str) -> Result<()> {
    use std::{io::Write, os::unix::fs::OpenOptionsExt};
    fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .with_context(|| format!("cannot write {}", path.display()))
}
