//! The ways to read a value that names a place on the network. No name is looked up.

#![forbid(unsafe_code)]

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use super::input::{Input, Reading};

impl Input<'_> {
    /// A host name or address with a port. The name is not looked up.
    pub(super) fn endpoint(&self) -> Reading<String> {
        let text = self.text()?;
        let is_endpoint = text.rsplit_once(':').is_some_and(|(host, port)| {
            is_host(host) && port.parse::<u16>().is_ok_and(|port| port > 0)
        });
        if is_endpoint { Ok(text.to_owned()) } else { self.problem("is not a host and port") }
    }

    /// A numeric address with a port.
    pub(super) fn socket_address(&self) -> Reading<SocketAddr> {
        match self.text()?.parse::<SocketAddr>() {
            Ok(address) if address.port() > 0 => Ok(address),
            _ => self.problem("is not an address and port"),
        }
    }

    /// A multicast group with a port.
    pub(super) fn multicast_group(&self) -> Reading<SocketAddr> {
        let address = self.socket_address()?;
        if address.ip().is_multicast() {
            Ok(address)
        } else {
            self.problem("is not a multicast address")
        }
    }

    /// A network interface, by name (at most 15 bytes on Linux) or by address.
    pub(super) fn interface(&self) -> Reading<String> {
        let text = self.text()?;
        let is_name = text.len() <= 15 && text.chars().all(|c| c.is_ascii_graphic() && c != '/');
        if is_name || text.parse::<IpAddr>().is_ok() {
            Ok(text.to_owned())
        } else {
            self.problem("is not an interface")
        }
    }

    /// The addresses of Redis. They are never quoted: they may hold a password.
    pub(super) fn redis_urls(&self) -> Reading<Vec<String>> {
        let text = self.text().map_err(|_| "the address is not a string".to_owned())?;
        let urls = split_urls(text);
        if !urls.iter().all(|url| is_redis_url(url)) {
            return Err("the address is not one of Redis".to_owned());
        }
        if urls.len() > 1 && !urls.iter().all(|url| is_cluster_node(url)) {
            return Err("only nodes of one Redis Cluster can be listed".to_owned());
        }
        Ok(urls)
    }
}

/// Whether `host` can stand before a port: with brackets if it is an IPv6 address.
fn is_host(host: &str) -> bool {
    match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(address) => address.parse::<Ipv6Addr>().is_ok(),
        None => {
            let allowed = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
            !host.is_empty() && host.chars().all(allowed)
        }
    }
}

/// Splits at the commas that another address follows. The others separate sentinels, or belong to a password.
fn split_urls(text: &str) -> Vec<String> {
    let mut urls: Vec<String> = Vec::new();
    for part in text.split(',') {
        match urls.last_mut() {
            Some(url) if !part.contains("://") => {
                url.push(',');
                url.push_str(part);
            }
            _ => urls.push(part.trim().to_owned()),
        }
    }
    urls
}

fn is_redis_url(url: &str) -> bool {
    const SCHEMES: [&str; 5] =
        ["redis", "rediss", "redis+unix", "redis+sentinel", "rediss+sentinel"];
    url.split_once("://").is_some_and(|(scheme, rest)| {
        SCHEMES.contains(&scheme) && !rest.is_empty() && rest.chars().all(|c| c.is_ascii_graphic())
    })
}

fn is_cluster_node(url: &str) -> bool {
    url.starts_with("redis://") || url.starts_with("rediss://")
}
