//! Whom Redis must be vouched for by, and who we say we are: read once, so that a change of the root directory
//! afterwards does not matter, and no connection waits for a disk.

use std::sync::Arc;

use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use rustls_native_certs::load_native_certs;

use super::Credentials;
use crate::error::{Error, Result};

/// How to speak TLS with any server.
///
/// # Errors
/// [`Error::Config`], which names the setting.
pub(super) fn client(credentials: &Credentials) -> Result<Arc<ClientConfig>> {
    let authorities = credentials.ca.as_deref().map_or_else(of_system, authorities)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::Config(format!("redis.url: {error}")))?
        .with_root_certificates(authorities);
    let mut config = match &credentials.client {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let chain = certificates("redis.cert_file", certificate)?;
            let key = PrivateKeyDer::from_pem_slice(key.expose())
                .map_err(|error| Error::Config(format!("redis.key_file: {error}")))?;
            builder
                .with_client_auth_cert(chain, key)
                .map_err(|error| Error::Config(format!("redis.key_file: {error}")))?
        }
    };
    // What is kept of sessions has a lock, which a thread that is not in the child may have at a fork.
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

fn authorities(pem: &[u8]) -> Result<RootCertStore> {
    let mut store = RootCertStore::empty();
    for certificate in certificates("redis.ca_file", pem)? {
        store.add(certificate).map_err(|error| Error::Config(format!("redis.ca_file: {error}")))?;
    }
    Ok(store)
}

fn certificates(key: &str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>> {
    let all: std::result::Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match all {
        Ok(all) if !all.is_empty() => Ok(all),
        Ok(_) => Err(Error::Config(format!("{key}: has no certificate (PEM)"))),
        Err(error) => Err(Error::Config(format!("{key}: {error}"))),
    }
}

/// The system's authorities; what cannot be used of them is left out.
fn of_system() -> Result<RootCertStore> {
    let found = load_native_certs();
    let mut store = RootCertStore::empty();
    let (usable, _) = store.add_parsable_certificates(found.certs);
    if usable > 0 {
        return Ok(store);
    }
    let why = found.errors.first().map(ToString::to_string).unwrap_or_default();
    Err(Error::Config(format!(
        "redis.ca_file: is not set, and the system has no authorities that could be used instead; {why}"
    )))
}
