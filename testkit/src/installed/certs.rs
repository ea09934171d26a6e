//! Certificates for servers, and authorities with clients and servers of theirs: ECDSA on P-256,
//! made by `openssl req`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};

use crate::error::Doing;
use crate::{DEADLINE, Folder, Process, Result};

/// A certificate and its key, as PEM.
#[derive(Debug, Clone)]
pub struct Certificate {
    certificate: String,
    key: String,
}

/// A [`Certificate`] in files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// The certificate.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// Certificate and key in one file.
    pub pem: PathBuf,
}

/// An authority that signs certificates of others.
#[derive(Debug, Clone)]
pub struct Authority(Certificate);

/// What a server and a client need to verify each other, in files that live as long as the value
/// and its copies.
#[derive(Debug, Clone)]
pub struct Mutual {
    /// The certificate of the authority of both.
    pub authority: PathBuf,
    /// The server's, for 127.0.0.1 and `localhost`.
    pub server: Files,
    /// The client's.
    pub client: Files,
    _folder: Arc<Folder>,
}

impl Mutual {
    /// New ones.
    pub fn new() -> Result<Mutual> {
        let (folder, authority) = (Folder::new()?, Authority::new("authority")?);
        let write = |certificate: &Certificate, name| certificate.write_to(&folder, name);
        Ok(Mutual {
            authority: write(authority.certificate(), "authority")?.certificate,
            server: write(&authority.issue_to_server("server")?, "server")?,
            client: write(&authority.issue("client")?, "client")?,
            _folder: Arc::new(folder),
        })
    }
}

/// The certificate of all servers that are given no other: `localhost`, signed by itself, made once
/// for each process.
pub fn localhost() -> Result<Certificate> {
    static MADE: Mutex<Option<Certificate>> = Mutex::new(None);
    let mut made = MADE.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(certificate) = &*made {
        return Ok(certificate.clone());
    }
    Ok(made.insert(Certificate::self_signed("localhost")?).clone())
}

impl Certificate {
    /// A new one that signs itself.
    pub fn self_signed(common_name: &str) -> Result<Certificate> {
        request(common_name, &Folder::new()?, &[])
    }

    /// The certificate alone.
    pub fn pem(&self) -> &str {
        &self.certificate
    }

    /// Writes it to `NAME.crt`, `NAME.key` and `NAME.pem`.
    pub fn write_to(&self, folder: &Folder, name: &str) -> Result<Files> {
        let write = |ending: &str, text: &str| {
            let path = folder.file(format!("{name}.{ending}"));
            fs::write(&path, text).doing("writing a certificate")?;
            fs::set_permissions(&path, PermissionsExt::from_mode(0o600))
                .doing("protecting a key")?;
            Ok(path)
        };
        Ok(Files {
            certificate: write("crt", &self.certificate)?,
            key: write("key", &self.key)?,
            pem: write("pem", &format!("{}{}", self.certificate, self.key))?,
        })
    }
}

impl Authority {
    /// A new one.
    pub fn new(common_name: &str) -> Result<Authority> {
        Certificate::self_signed(common_name).map(Authority)
    }

    /// Its own certificate: what servers verify clients with.
    pub fn certificate(&self) -> &Certificate {
        &self.0
    }

    /// Signs a new certificate of a client.
    pub fn issue(&self, common_name: &str) -> Result<Certificate> {
        self.sign(common_name, &[])
    }

    /// Signs a new certificate of a server at the loopback address.
    pub fn issue_to_server(&self, common_name: &str) -> Result<Certificate> {
        self.sign(common_name, &["-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"])
    }

    fn sign(&self, common_name: &str, options: &[&str]) -> Result<Certificate> {
        let folder = Folder::new()?;
        let files = self.0.write_to(&folder, "authority")?;
        let (certificate, key) = (text(&files.certificate), text(&files.key));
        let signed = ["-CA", &certificate, "-CAkey", &key, "-addext", "basicConstraints=CA:FALSE"];
        request(common_name, &folder, &[&signed, options].concat())
    }
}

fn request(common_name: &str, folder: &Folder, options: &[&str]) -> Result<Certificate> {
    let (certificate, key) = (folder.file("new.crt"), folder.file("new.key"));
    let mut command = Command::new("openssl");
    command.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]);
    command.args(["-nodes", "-days", "30", "-subj", &format!("/CN={common_name}")]);
    command.args(["-out", &text(&certificate), "-keyout", &text(&key)]).args(options);
    let mut process = Process::start(command, "openssl")?;
    if !process.wait_end(DEADLINE)?.success() {
        return Err(process.unexpected("makes no certificate"));
    }
    let read = |path: &Path| fs::read_to_string(path).doing("reading a certificate");
    Ok(Certificate { certificate: read(&certificate)?, key: read(&key)? })
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_verified_by_its_own_authority_only() -> Result<()> {
        let (one, other) = (Authority::new("one")?, Authority::new("other")?);
        let folder = Folder::new()?;
        let client = one.issue("client")?.write_to(&folder, "client")?;
        let verified_by = |authority: &Authority, name| {
            let authority = authority.certificate().write_to(&folder, name)?.certificate;
            let mut command = Command::new("openssl");
            command.arg("verify").arg("-CAfile").arg(authority).arg(&client.certificate);
            Ok(Process::start(command, "openssl")?.wait_end(DEADLINE)?.success())
        };
        assert!(verified_by(&one, "one")?);
        assert!(!verified_by(&other, "other")?);
        Ok(())
    }

    #[test]
    fn a_server_is_verified_at_the_loopback_address_only() -> Result<()> {
        let mutual = Mutual::new()?;
        let verified_at = |address| {
            let mut command = Command::new("openssl");
            command.args(["verify", "-verify_ip", address, "-CAfile"]);
            command.arg(&mutual.authority).arg(&mutual.server.certificate);
            Ok(Process::start(command, "openssl")?.wait_end(DEADLINE)?.success())
        };
        assert!(verified_at("127.0.0.1")?);
        assert!(!verified_at("127.0.0.2")?);
        Ok(())
    }
}
