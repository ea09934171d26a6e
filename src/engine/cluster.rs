//! This node's part in the cluster: what it was configured with, read once.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use super::small_file::read_file;
use crate::cluster::lookup::Lookups;
use crate::cluster::redis::{Credentials, Remote};
use crate::cluster::seal::Sealer;
use crate::cluster::secrets::Secrets;
use crate::config::{Agent, Config, Replication};
use crate::error::{Error, Result};
use crate::secret::Secret;

/// What joins this node to others.
pub(super) struct Cluster {
    pub(super) remote: Arc<Remote>,
    pub(super) sealer: Sealer,
    /// Where sessions are looked up one by one.
    pub(super) lookups: Option<Lookups>,
    pub(super) exchange: Exchange,
    /// The secret is being replaced: what others wrote is sealed with another one than what we write.
    pub(super) has_older_secrets: bool,
}

/// How sessions reach the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Exchange {
    /// Not at all: keys only.
    None,
    /// As entries of a stream that every node takes into its store.
    Stream,
    /// Under a key each, to be looked up.
    Keyed,
}

impl Cluster {
    /// The cluster that the configuration names, if it names one.
    pub(super) fn of(config: &Config) -> Result<Option<Self>> {
        if config.redis.url.is_empty() {
            return Ok(None);
        }
        let exchange = exchange(config);
        let threads = config.cluster.agent == Agent::Thread;
        let remote = Remote::new(&config.redis.url, &credentials(config)?, &config.realm)?;
        let remote = Arc::new(match exchange {
            Exchange::Keyed if !threads => remote.without_host_names()?,
            _ => remote,
        });
        let secrets = read_secrets(config)?;
        let lookups = (exchange == Exchange::Keyed)
            .then(|| Lookups::new(Arc::clone(&remote), config.cluster.lookup_budget, threads));
        Ok(Some(Cluster {
            remote,
            sealer: Sealer::new(&secrets, &config.realm),
            lookups,
            exchange,
            has_older_secrets: secrets.iter().count() > 1,
        }))
    }
}

fn exchange(config: &Config) -> Exchange {
    match config.cluster.sessions {
        Replication::Off => Exchange::None,
        Replication::Pull => Exchange::Keyed,
        // Of all nodes that have a copy, one only may use it: Redis says which.
        Replication::Push if config.resumption.single_use => Exchange::Keyed,
        Replication::Push => Exchange::Stream,
    }
}

/// The cluster's secrets.
pub(super) fn read_secrets(config: &Config) -> Result<Secrets> {
    let Some(path) = &config.cluster.secret_file else {
        return Err(Error::Config("cluster.secret_file: is needed, and is not set".into()));
    };
    let (data, _) = read_file(path)?;
    warn_if_public(path);
    Secrets::parse(&data, &path.display().to_string())
}

fn warn_if_public(path: &Path) {
    const OTHERS_READ: u32 = 0o004;
    let mode = std::fs::metadata(path).map(|meta| meta.permissions().mode());
    if mode.is_ok_and(|mode| mode & OTHERS_READ != 0) {
        log::warn!(
            "{}: can be read by every user of this host, and holds the cluster's secrets; chmod 600 it",
            path.display()
        );
    }
}

fn credentials(config: &Config) -> Result<Credentials> {
    let redis = &config.redis;
    let read = |path: &Option<_>| path.as_deref().map(read_file).transpose();
    let text = |path| Ok(read(path)?.map(|(data, _)| data.to_vec()));
    let first_line = |data: &[u8]| {
        Secret::new(data.split(|byte| *byte == b'\n').next().unwrap_or_default().trim_ascii())
    };
    let client = match (text(&redis.cert_file)?, read(&redis.key_file)?) {
        (Some(certificate), Some((key, _))) => Some((certificate, Secret::new(&key))),
        _ => None,
    };
    Ok(Credentials {
        password: read(&redis.password_file)?.map(|(data, _)| first_line(&data)),
        ca: text(&redis.ca_file)?,
        client,
    })
}
