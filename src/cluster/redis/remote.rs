//! Where Redis is and how to get in: a server, a Unix socket, a master that sentinels name, or a cluster.

use std::cell::OnceCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use redis::io::tcp::TcpSettings;
use redis::{
    Client, ClientTlsConfig, ConnectionAddr, ConnectionInfo, IntoConnectionInfo, ProtocolVersion,
    TlsCertificates,
};

use super::authorities;
use super::cluster::{Cluster, Seeds, at_host};
use super::dial::{Dialer, exchange, is_numeric, left, set_limit};
use super::link::{Link, Wire};
use super::{Names, Trouble, fit_for_log};
use crate::clock;
use crate::error::{Error, Result};
use crate::secret::Secret;

const SENTINEL_PORT: u16 = 26379;

/// What the files of the `[redis]` section hold.
#[derive(Clone, Debug, Default)]
pub struct Credentials {
    /// First line of `password_file`.
    pub password: Option<Secret>,
    /// PEM: who may have signed the server's certificate; none: the system's authorities.
    pub ca: Option<Vec<u8>>,
    /// PEM: our certificate and its key.
    pub client: Option<(Vec<u8>, Secret)>,
}

/// A Redis that can be connected to.
pub struct Remote {
    target: Target,
    names: Names,
    dialer: Arc<Dialer>,
}

enum Target {
    Server(ConnectionInfo),
    Sentinels(Sentinels),
    Cluster(Arc<Seeds>),
}

struct Sentinels {
    sentinels: Vec<ConnectionInfo>,
    /// The one that answered last.
    first: AtomicUsize,
    master: String,
    /// How to connect to the master; of its address the kind counts.
    server: ConnectionInfo,
}

impl Remote {
    /// Reads the addresses. No name is looked up and nothing is connected to yet.
    ///
    /// # Errors
    /// [`Error::Config`] for an address, certificate or key that cannot be used. No text holds a password.
    pub fn new(urls: &[String], credentials: &Credentials, realm: &str) -> Result<Self> {
        let login = Login { credentials, pattern: OnceCell::new() };
        let target = match urls {
            [url] => match url.strip_prefix("redis+sentinel://") {
                Some(rest) => sentinels(rest, &login)?,
                None => Target::Server(login.server(url)?),
            },
            nodes => cluster(nodes, &login)?,
        };
        Ok(Remote { target, names: Names::new(realm), dialer: Arc::default() })
    }

    /// From now on no host name is looked up when it is connected to, which can take much longer than any limit.
    ///
    /// # Errors
    /// [`Error::Config`] when an address has one.
    pub fn without_host_names(self) -> Result<Self> {
        let is_numeric = match &self.target {
            Target::Server(info) => is_numeric(info.addr()),
            Target::Sentinels(group) => group.sentinels.iter().all(|it| is_numeric(it.addr())),
            Target::Cluster(seeds) => seeds.addresses().all(is_numeric),
        };
        if is_numeric {
            return Ok(Remote { dialer: Arc::new(Dialer::numeric()), ..self });
        }
        Err(Error::Config(
            "redis.url: with cluster.agent = \"external\" handshakes connect to Redis themselves, where a host name could \
             take too long to look up; write numeric addresses or a Unix socket, or set cluster.agent = \"thread\""
                .into(),
        ))
    }

    /// Connects and logs in; every later answer is waited for as long. All sentinels together get half of it,
    /// all nodes of a cluster that are asked where the others are all of it. Looking up names of hosts comes on top.
    ///
    /// # Errors
    /// [`Trouble`].
    pub fn connect(&self, limit: Duration) -> std::result::Result<Link, Trouble> {
        let wire = match &self.target {
            Target::Server(info) => self.server(info, limit)?,
            Target::Sentinels(group) => {
                let half = limit / 2;
                let (info, took) = group.master(&self.dialer, half)?;
                self.server(&info, limit - took.min(half))?
            }
            Target::Cluster(seeds) => {
                Wire::Cluster(Box::new(Cluster::connect(seeds, &self.dialer, limit)?))
            }
        };
        let mut link = Link::new(wire, self.names.clone(), limit);
        link.limit(limit)?;
        Ok(link)
    }

    fn server(&self, info: &ConnectionInfo, limit: Duration) -> std::result::Result<Wire, Trouble> {
        Ok(Wire::Server(Box::new(self.dialer.find(info)?.connect(limit)?)))
    }
}

impl Sentinels {
    /// Asks one sentinel after the other where the master is, the one first that answered last: one that hangs costs
    /// time once. Each gets its share of the time, so that all are asked. Also how long that took.
    fn master(
        &self,
        dialer: &Dialer,
        limit: Duration,
    ) -> std::result::Result<(ConnectionInfo, Duration), Trouble> {
        let mut last = Trouble::Lost("no sentinel is configured".into());
        let mut took = Duration::ZERO;
        let count = self.sentinels.len();
        let share = limit / u32::try_from(count).unwrap_or(u32::MAX).max(1);
        let begin = self.first.load(Ordering::Relaxed);
        for (nth, sentinel) in self.sentinels.iter().enumerate().cycle().skip(begin).take(count) {
            let asked = dialer.find(sentinel).and_then(|route| {
                let begin = clock::since_boot();
                let mut connection = route.connect(share)?;
                let answer = ask_for_master(&mut connection, &self.master, begin + share);
                took += clock::since_boot().saturating_sub(begin);
                answer
            });
            match asked {
                Ok((host, port)) => {
                    self.first.store(nth, Ordering::Relaxed);
                    let address = at_host(self.server.addr(), host, port);
                    return Ok((self.server.clone().set_addr(address), took));
                }
                Err(trouble) => last = trouble,
            }
        }
        Err(last)
    }
}

fn ask_for_master(
    connection: &mut redis::Connection,
    master: &str,
    deadline: Duration,
) -> std::result::Result<(String, u16), Trouble> {
    set_limit(connection, left(deadline)?)?;
    let mut question = redis::cmd("SENTINEL");
    question.arg("GET-MASTER-ADDR-BY-NAME").arg(master);
    let answer = exchange(connection, [&question], deadline)?.pop().unwrap_or(redis::Value::Nil);
    if let redis::Value::ServerError(error) = &answer {
        let why = fit_for_log(error.details().unwrap_or_default());
        return Err(Trouble::Lost(format!(
            "a sentinel answers {} {why}",
            fit_for_log(error.code())
        )));
    }
    let answer: Option<(String, u16)> = redis::FromRedisValue::from_redis_value(answer)
        .map_err(|_| Trouble::garbage("SENTINEL"))?;
    answer.ok_or_else(|| Trouble::Lost(format!("the sentinels know no master \"{master}\"")))
}

/// `[user:password@]host[:port],host[:port]/master[/database]`; user and password are the server's.
fn sentinels(rest: &str, login: &Login<'_>) -> Result<Target> {
    let bad = |problem: &str| Error::Config(format!("redis.url: {problem}"));
    let (user, places) = rest.rsplit_once('@').map_or(("", rest), |(user, rest)| (user, rest));
    let (hosts, path) = places
        .split_once('/')
        .filter(|(hosts, path)| !hosts.is_empty() && !path.is_empty())
        .ok_or_else(|| bad("sentinels are written redis+sentinel://HOST,HOST/MASTER"))?;
    let (master, database) = path.split_once('/').unwrap_or((path, "0"));
    let user = if user.is_empty() { String::new() } else { format!("{user}@") };
    // Without an authority of its own, a group of sentinels is not asked over TLS.
    let is_secure = login.credentials.ca.is_some();
    // What one server's address says of user, password and database, they mean for the master.
    let scheme = if is_secure { "rediss" } else { "redis" };
    let server = login.server(&format!("{scheme}://{user}localhost/{database}"))?;
    let sentinel = |host: &str| {
        let has_port = host.rsplit_once(':').is_some_and(|(_, port)| !port.ends_with(']'));
        let url = if has_port {
            format!("{scheme}://{host}")
        } else {
            format!("{scheme}://{host}:{SENTINEL_PORT}")
        };
        login.secured(url.into_connection_info().map_err(|error| bad(error.category()))?)
    };
    Ok(Target::Sentinels(Sentinels {
        sentinels: hosts.split(',').map(sentinel).collect::<Result<_>>()?,
        first: AtomicUsize::new(0),
        master: master.to_owned(),
        server,
    }))
}

fn cluster(urls: &[String], login: &Login<'_>) -> Result<Target> {
    let nodes: Vec<_> = urls.iter().map(|url| login.server(url)).collect::<Result<_>>()?;
    if nodes.iter().any(|node| node.redis_settings().db() != 0) {
        return Err(Error::Config("redis.url: a Redis Cluster has database 0 only".into()));
    }
    let Some(first) = nodes.first() else {
        return Err(Error::Config("redis.url: is empty".into()));
    };
    let settings = first.redis_settings().clone();
    // One that speaks TLS means that all do: never less than was asked for.
    let is_secure = |node: &&ConnectionInfo| matches!(node.addr(), ConnectionAddr::TcpTls { .. });
    let pattern = nodes.iter().find(is_secure).unwrap_or(first).clone();
    let alike = |node: ConnectionInfo| {
        let address = match node.addr() {
            ConnectionAddr::Tcp(host, port) => at_host(pattern.addr(), host.clone(), *port),
            other => other.clone(),
        };
        node.set_addr(address).set_redis_settings(settings.clone())
    };
    let seeds = nodes.iter().cloned().map(alike).collect();
    let pattern = pattern.clone().set_redis_settings(settings.clone());
    Ok(Target::Cluster(Arc::new(Seeds::new(seeds, pattern))))
}

/// How to get in.
struct Login<'a> {
    credentials: &'a Credentials,
    /// An address with the certificates, which are read when the first address needs them.
    pattern: OnceCell<ConnectionAddr>,
}

impl Login<'_> {
    /// One address with user, password and certificates.
    fn server(&self, url: &str) -> Result<ConnectionInfo> {
        self.secured(server_info(url, self.credentials)?)
    }

    /// Gives an address that needs certificates what it needs.
    fn secured(&self, info: ConnectionInfo) -> Result<ConnectionInfo> {
        let ConnectionAddr::TcpTls { host, port, .. } = info.addr() else { return Ok(info) };
        let (host, port) = (host.clone(), *port);
        let pattern = match self.pattern.get() {
            Some(pattern) => pattern,
            None => {
                let made = with_certificates(&info, self.credentials)?;
                self.pattern.get_or_init(|| made)
            }
        };
        Ok(info.set_addr(at_host(pattern, host, port)).set_tcp_settings(tcp_settings()))
    }
}

/// One address with the password from its file, which goes before the one in the address.
fn server_info(url: &str, credentials: &Credentials) -> Result<ConnectionInfo> {
    let bad = |problem: &str| Error::Config(format!("redis.url: {problem}"));
    if url.contains('#') {
        return Err(bad("nothing may follow a #; to accept a private authority set redis.ca_file"));
    }
    let info = url.into_connection_info().map_err(|error| bad(error.category()))?;
    let mut settings = info.redis_settings().clone().set_skip_set_lib_name();
    // Only this version of the protocol tells news on the connection that commands go over.
    settings = settings.set_protocol(ProtocolVersion::RESP3);
    if let Some(password) = &credentials.password {
        let password = std::str::from_utf8(password.expose())
            .map_err(|_| Error::Config("redis.password_file: is not UTF-8".into()))?;
        settings = settings.set_password(password);
    }
    Ok(info.set_redis_settings(settings).set_tcp_settings(tcp_settings()))
}

/// The address with certificates. The crate is always told whom to trust: left to itself it would trust authorities of
/// its own, or read the system's at every connection.
fn with_certificates(info: &ConnectionInfo, credentials: &Credentials) -> Result<ConnectionAddr> {
    let client_tls = credentials.client.as_ref().map(|(certificate, key)| ClientTlsConfig {
        client_cert: certificate.clone(),
        client_key: key.expose().to_vec(),
    });
    let trusted = credentials.ca.clone().map_or_else(authorities::of_system, Ok)?;
    let certificates = TlsCertificates { client_tls, root_cert: Some(trusted) };
    let client = Client::build_with_tls(info.clone(), certificates).map_err(|error| {
        Error::Config(format!("redis: {error}; see redis.ca_file, redis.cert_file, redis.key_file"))
    })?;
    Ok(client.get_connection_info().addr().clone())
}

/// Commands are small and waited for.
fn tcp_settings() -> TcpSettings {
    TcpSettings::default().set_nodelay(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remote(urls: &[&str]) -> Result<Remote> {
        let urls: Vec<_> = urls.iter().map(|url| (*url).to_owned()).collect();
        Remote::new(&urls, &Credentials::default(), "default")
    }

    #[test]
    fn every_documented_form_of_address_is_understood() {
        for urls in [
            &["redis://localhost"][..],
            &["redis://user:word@127.0.0.1:7000/3"],
            &["rediss://redis.example:6380"],
            &["redis+unix:///run/redis.sock"],
            &["redis+sentinel://a,b:26380/mymaster"],
            &["redis+sentinel://user:word@a,b/mymaster/2"],
            &["redis://a:7000", "redis://b:7000"],
        ] {
            assert!(remote(urls).is_ok(), "{urls:?}: {:?}", remote(urls).err());
        }
    }

    #[test]
    fn without_host_names_every_address_is_numeric_or_a_socket() {
        for (urls, is_fine) in [
            (&["redis://127.0.0.1"][..], true),
            (&["rediss://user:word@[::1]:6380/2"], true),
            (&["redis+unix:///run/redis.sock"], true),
            (&["redis+sentinel://10.0.0.1,10.0.0.2:26380/mymaster"], true),
            (&["redis://10.0.0.1:7000", "redis://[fe80::1]:7000"], true),
            (&["redis://localhost"], false),
            (&["redis+sentinel://10.0.0.1,b/mymaster"], false),
            (&["redis://10.0.0.1", "redis://b"], false),
        ] {
            let strict = remote(urls).and_then(Remote::without_host_names);
            assert_eq!(strict.is_ok(), is_fine, "{urls:?}");
            if let Err(error) = strict {
                let text = error.to_string();
                assert!(text.contains("redis.url") && text.contains("cluster.agent"), "{text}");
            }
        }
    }

    #[test]
    fn what_is_wrong_with_an_address_is_said_without_its_password() {
        for urls in [
            &["redis://user:hunter2@/0"][..],
            &["redis://user:hunter2@host/zero"],
            &["rediss://user:hunter2@host/#insecure"],
            &["redis+sentinel://user:hunter2@a,b"],
            &["redis://user:hunter2@a/1", "redis://b"],
        ] {
            let error = remote(urls).err().expect("not usable").to_string();
            assert!(error.starts_with("redis.url"), "{error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
    }
}
