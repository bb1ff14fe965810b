//! Authorities and the certificates they sign, made for a test.

use std::path::{Path, PathBuf};

use api::grpc::TlsFiles;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

/// Who signs certificates.
pub(crate) struct Authority {
    name: String,
    certificate: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let key = KeyPair::generate().expect("a key can be made");
        let mut parameters = CertificateParams::new(Vec::new()).expect("it has no names");
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        parameters.distinguished_name.push(DnType::CommonName, name);
        let certificate = parameters.self_signed(&key).expect("it can be signed").pem();
        Self { name: name.to_owned(), certificate, issuer: Issuer::new(parameters, key) }
    }

    /// The files of a service on this machine.
    pub(crate) fn signs(&self, folder: &Path, service: &str) -> TlsFiles {
        let key = KeyPair::generate().expect("a key can be made");
        let mut parameters =
            CertificateParams::new(vec!["127.0.0.1".to_owned()]).expect("the address is right");
        parameters.distinguished_name.push(DnType::CommonName, service);
        let certificate = parameters.signed_by(&key, &self.issuer).expect("it can be signed");
        let write = |name: &str, content: &str| -> PathBuf {
            let path = folder.join(name);
            std::fs::write(&path, content).expect("it can be written");
            path
        };
        TlsFiles {
            certificate: write(&format!("{service}.pem"), &certificate.pem()),
            key: write(&format!("{service}.key"), &key.serialize_pem()),
            authority: write(&format!("{}.pem", self.name), &self.certificate),
        }
    }
}
