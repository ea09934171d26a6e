//! Who may vouch for Redis: read once, so that a change of the root directory afterwards does not matter, and no
//! connection waits for a disk.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls::RootCertStore;
use rustls_native_certs::load_native_certs;

use crate::error::{Error, Result};

/// The system's authorities, as PEM. What cannot be used of them is left out.
///
/// # Errors
/// [`Error::Config`] when there is none.
pub(super) fn of_system() -> Result<Vec<u8>> {
    let found = load_native_certs();
    let usable = found.certs.iter().filter(|it| RootCertStore::empty().add((*it).clone()).is_ok());
    let pem: String = usable.map(|certificate| pem(certificate)).collect();
    if pem.is_empty() {
        let why = found.errors.first().map(ToString::to_string).unwrap_or_default();
        return Err(Error::Config(format!(
            "redis.ca_file: is not set, and the system has no authorities that could be used instead; {why}"
        )));
    }
    Ok(pem.into_bytes())
}

fn pem(der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n")
}
