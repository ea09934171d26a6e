//! This node's part in the cluster: what it was configured with, read once.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use super::small_file::read_file;
use super::transports;
use crate::cluster::lookup::Lookups;
use crate::cluster::seal::Sealer;
use crate::cluster::secrets::Secrets;
use crate::cluster::transport::{Delivery, Transport};
use crate::config::{Agent, Config, Replication};
use crate::error::{Error, Result};

/// What joins this node to others.
pub(super) struct Cluster {
    pub(super) transport: Arc<dyn Transport>,
    pub(super) sealer: Sealer,
    /// Where sessions are looked up one by one.
    pub(super) lookups: Option<Lookups>,
    pub(super) delivery: Delivery,
    /// The secret is being replaced: what others wrote is sealed with another one than what we write.
    pub(super) has_older_secrets: bool,
}

impl Cluster {
    /// The cluster that the configuration names, if it names one.
    pub(super) fn of(config: &Config) -> Result<Option<Self>> {
        let delivery = delivery(config);
        let Some(transport) = transports::of(config, delivery)? else { return Ok(None) };
        Cluster::over(transport, config).map(Some)
    }

    /// The cluster that is joined by this transport.
    pub(super) fn over(transport: Arc<dyn Transport>, config: &Config) -> Result<Self> {
        let delivery = delivery(config);
        transports::check(&*transport, delivery)?;
        let threads = config.cluster.agent == Agent::Thread;
        let secrets = read_secrets(config)?;
        let lookups = (delivery == Delivery::Vault)
            .then(|| Lookups::new(Arc::clone(&transport), config.cluster.lookup_budget, threads));
        Ok(Cluster {
            transport,
            sealer: Sealer::new(&secrets, &config.realm),
            lookups,
            delivery,
            has_older_secrets: secrets.iter().count() > 1,
        })
    }
}

fn delivery(config: &Config) -> Delivery {
    match config.cluster.sessions {
        Replication::Off => Delivery::None,
        Replication::Pull => Delivery::Vault,
        // Of all nodes that have a copy, one only may use it: the vault says which.
        Replication::Push if config.resumption.single_use => Delivery::Vault,
        Replication::Push => Delivery::Feed,
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
