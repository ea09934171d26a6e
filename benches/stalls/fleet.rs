//! The servers: two nodes of each kind, as the distribution has them.

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use tlsresume_testkit::installed::{Program as Server, Settings, preload_library};
use tlsresume_testkit::{Folder, Installed, net};

use crate::Phase;
use crate::cache::Program as Cache;
use crate::support::Outcome;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Push,
    Pull,
    ApacheRedis,
    ApacheMemcache,
    H2oMemcached,
    /// One node with nginx's own cache: what there is without a network.
    Alone,
}

/// All nodes of one kind, stopped when dropped.
pub(crate) struct Fleet {
    nodes: Vec<Installed>,
    addresses: Vec<SocketAddr>,
    /// Has the secret.
    _folder: Folder,
}

impl Kind {
    pub(crate) const ALL: [Kind; 6] = [
        Kind::Push,
        Kind::Pull,
        Kind::ApacheRedis,
        Kind::ApacheMemcache,
        Kind::H2oMemcached,
        Kind::Alone,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Push => "nginx with libtlsresume, push",
            Kind::Pull => "nginx with libtlsresume, pull",
            Kind::ApacheRedis => "Apache, `SSLSessionCache redis`",
            Kind::ApacheMemcache => "Apache, `SSLSessionCache memcache`",
            Kind::H2oMemcached => "H2O, `cache-store: memcached`",
            Kind::Alone => "nginx alone, `ssl_session_cache shared`",
        }
    }

    pub(crate) fn cache(self) -> Option<Cache> {
        match self {
            Kind::Push | Kind::Pull | Kind::ApacheRedis => Some(Cache::Redis),
            Kind::ApacheMemcache | Kind::H2oMemcached => Some(Cache::Memcached),
            Kind::Alone => None,
        }
    }

    pub(crate) fn phases(self) -> &'static [Phase] {
        if self.cache().is_some() { &Phase::ALL } else { &[Phase::Healthy] }
    }

    /// The longest that a handshake of ours may wait for Redis: `cluster.lookup_budget` as it is by default.
    pub(crate) fn budget(self) -> Option<Duration> {
        match self {
            Kind::Push => Some(Duration::ZERO),
            Kind::Pull => Some(Duration::from_millis(5)),
            _ => None,
        }
    }

    fn nodes(self) -> usize {
        if self.cache().is_some() { 2 } else { 1 }
    }

    fn settings(self, cache: SocketAddr, folder: &Folder) -> Outcome<Settings> {
        let (host, port) = (cache.ip(), cache.port());
        Ok(match self {
            Kind::Push => ours("push", cache, folder)?,
            Kind::Pull => ours("pull", cache, folder)?,
            Kind::ApacheRedis => apache("redis", cache),
            Kind::ApacheMemcache => apache("memcache", cache),
            Kind::H2oMemcached => Server::H2o.settings().top(&format!(
                "ssl-session-resumption:\n  mode: cache\n  cache-store: memcached\n  memcached:\n    \
                 host: \"{host}\"\n    port: {port}\n",
            )),
            Kind::Alone => Server::Nginx.settings().http("ssl_session_cache shared:SSL:16m;"),
        })
    }
}

fn ours(sessions: &str, cache: SocketAddr, folder: &Folder) -> Outcome<Settings> {
    Ok(Server::Nginx
        .settings()
        .preload(preload_library()?)
        .env("TLSRESUME_CLUSTER_SESSIONS", sessions)
        .env("TLSRESUME_CLUSTER_SECRET_FILE", folder.file("secret"))
        .env("TLSRESUME_REDIS_URL", format!("redis://{cache}")))
}

fn apache(provider: &str, cache: SocketAddr) -> Settings {
    Server::Apache.settings().top(&format!(
        "LoadModule socache_{provider}_module /usr/lib/apache2/modules/mod_socache_{provider}.so\n\
         SSLSessionCache {provider}:{cache}",
    ))
}

impl Fleet {
    pub(crate) fn start(kind: Kind, cache: SocketAddr) -> Outcome<Fleet> {
        let folder = Folder::new()?;
        folder.write_private("secret", "of this benchmark alone, 32 bytes or more\n")?;
        let settings = kind.settings(cache, &folder)?;
        let mut nodes = Vec::new();
        // Apache ties sessions to its port.
        for address in net::one_port_of_two_addresses()?.into_iter().take(kind.nodes()) {
            nodes.push(settings.clone().at(address).start()?);
        }
        let addresses = nodes.iter().map(Installed::address).collect();
        Ok(Fleet { nodes, addresses, _folder: folder })
    }

    pub(crate) fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    pub(crate) fn log(&self) -> String {
        self.nodes.iter().map(Installed::log).collect()
    }
}

/// What all the programs say they are.
pub(crate) fn versions() -> Outcome<Vec<String>> {
    let programs = [
        ("/usr/sbin/nginx", "-v", "nginx"),
        ("/usr/sbin/apache2", "-v", "apache2"),
        ("h2o", "--version", "h2o"),
        ("redis-server", "--version", "redis-server"),
        ("memcached", "--version", "memcached"),
    ];
    programs
        .into_iter()
        .map(|(program, option, package)| version(program, option, package))
        .collect()
}

fn version(program: &str, option: &str, package: &str) -> Outcome<String> {
    let missing = |error| format!("{program}: {error}: apt-get install {package}");
    let output = Command::new(program).arg(option).output().map_err(missing)?;
    // nginx says it on standard error.
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    let is_number =
        |word: &&str| word.contains('.') && word.contains(|it: char| it.is_ascii_digit());
    let number = text.split_whitespace().find(is_number).unwrap_or("unknown");
    let number = number.trim_start_matches(|it: char| !it.is_ascii_digit());
    Ok(format!("{package} {number}"))
}
