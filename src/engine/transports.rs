//! Which transports there are: the one place in the engine that names them.
//!
//! Owns: nothing. Called by: the engine, once for each instance. Threads and forks: nothing is connected to yet. Failure:
//! [`Error::Config`] names the key.

use std::sync::Arc;

use super::small_file::read_file;
use crate::cluster::redis::{self, Credentials, Remote};
use crate::cluster::transport::{Delivery, Transport};
use crate::config::{Agent, Config};
use crate::error::{Error, Result};
use crate::secret::Secret;

/// All of them, by name.
pub(super) const NAMES: [&str; 1] = [redis::NAME];

/// The transport that the configuration names, if it names one.
pub(super) fn of(config: &Config, delivery: Delivery) -> Result<Option<Arc<dyn Transport>>> {
    if config.redis.url.is_empty() {
        return Ok(None);
    }
    let remote = Remote::new(&config.redis.url, &credentials(config)?, &config.realm)?;
    let asks_itself = delivery == Delivery::Vault && config.cluster.agent == Agent::External;
    let remote = if asks_itself { remote.without_host_names()? } else { remote };
    Ok(Some(Arc::new(remote)))
}

/// Refuses a way for sessions that the transport does not have.
pub(super) fn check(transport: &dyn Transport, delivery: Delivery) -> Result<()> {
    let offers = transport.offers();
    let (lacks, what) = match delivery {
        Delivery::None => return Ok(()),
        Delivery::Feed => (!offers.feed, "bring sessions to every node (sessions = \"push\")"),
        Delivery::Vault => {
            (!offers.vault, "look sessions up (sessions = \"pull\", or resumption.single_use)")
        }
    };
    if lacks {
        let (name, able) = (transport.name(), redis::NAME);
        return Err(Error::Config(format!("cluster.sessions: {name} cannot {what}; use {able}")));
    }
    Ok(())
}

/// Refuses what this release cannot do, rather than run without it.
pub(super) fn refuse_missing(config: &Config) -> Result<()> {
    let peers = &config.peers;
    let key = match () {
        () if !config.memcached.servers.is_empty() => "memcached.servers",
        () if peers.listen.is_some() || !peers.members.is_empty() || peers.multicast.is_some() => {
            "peers"
        }
        () => return Ok(()),
    };
    Err(Error::Config(format!("{key}: this release has no such transport yet; use redis.url")))
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
