//! Where Redis is and how to get in: a server, a Unix socket, a master that sentinels name, or a cluster.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use redis::cluster::ClusterClient;
use redis::io::tcp::TcpSettings;
use redis::{
    Client, ClientTlsConfig, ConnectionAddr, ConnectionInfo, IntoConnectionInfo, ProtocolVersion,
    TlsCertificates,
};

use super::link::{Link, Wire};
use super::{Names, Trouble};
use crate::clock;
use crate::error::{Error, Result};
use crate::secret::Secret;

const SENTINEL_PORT: u16 = 26379;

/// How often a cluster's node may send us on to another one before that counts as a failure.
const REDIRECTS: u32 = 4;

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
    /// Host names are not looked up, not even those that sentinels tell.
    numeric: bool,
}

enum Target {
    Server(Client),
    Sentinels { sentinels: Vec<Client>, first: AtomicUsize, master: String, server: Access },
    Cluster { nodes: Vec<ConnectionInfo>, access: Access },
}

/// What every connection to one kind of server is made with.
#[derive(Clone)]
struct Access {
    /// Database, user, password.
    settings: redis::RedisConnectionInfo,
    certificates: TlsCertificates,
}

impl Remote {
    /// Reads the addresses. No name is looked up and nothing is connected to yet.
    ///
    /// # Errors
    /// [`Error::Config`] for an address, certificate or key that cannot be used. No text holds a password.
    pub fn new(urls: &[String], credentials: &Credentials, realm: &str) -> Result<Self> {
        let target = match urls {
            [url] => match url.strip_prefix("redis+sentinel://") {
                Some(rest) => sentinels(rest, credentials)?,
                None => Target::Server(client(server_info(url, credentials)?, credentials)?),
            },
            nodes => cluster(nodes, credentials)?,
        };
        Ok(Remote { target, names: Names::new(realm), numeric: false })
    }

    /// From now on no host name is looked up when it is connected to, which can take much longer than any limit.
    ///
    /// # Errors
    /// [`Error::Config`] when an address has one.
    pub fn without_host_names(self) -> Result<Self> {
        let address = |client: &Client| is_numeric(client.get_connection_info().addr());
        let is_numeric = match &self.target {
            Target::Server(client) => address(client),
            Target::Sentinels { sentinels, .. } => sentinels.iter().all(address),
            Target::Cluster { nodes, .. } => nodes.iter().all(|node| is_numeric(node.addr())),
        };
        if is_numeric {
            return Ok(Remote { numeric: true, ..self });
        }
        Err(Error::Config(
            "redis.url: with cluster.agent = \"external\" handshakes connect to Redis themselves, where a host name could \
             take too long to look up; write numeric addresses or a Unix socket, or set cluster.agent = \"thread\""
                .into(),
        ))
    }

    /// Connects and logs in; every later answer is waited for as long. All sentinels together get half of it,
    /// all nodes of a small cluster that are asked where the others are all of it.
    ///
    /// # Errors
    /// [`Trouble`].
    pub fn connect(&self, limit: Duration) -> std::result::Result<Link, Trouble> {
        let deadline = clock::since_boot() + limit;
        let wire = match &self.target {
            Target::Server(client) => server_wire(client, limit)?,
            Target::Sentinels { sentinels, first, master, server } => {
                let client = master_of(sentinels, first, master, server, limit / 2)?;
                if self.numeric && !is_numeric(client.get_connection_info().addr()) {
                    return Err(Trouble::Lost("the sentinels name a host, not an address".into()));
                }
                server_wire(&client, left(deadline)?)?
            }
            Target::Cluster { nodes, access } => cluster_wire(nodes, access, limit)?,
        };
        let mut link = Link::new(wire, self.names.clone(), limit);
        link.limit(limit)?;
        Ok(link)
    }
}

fn server_wire(client: &Client, limit: Duration) -> std::result::Result<Wire, Trouble> {
    Ok(Wire::Server(Box::new(client.get_connection_with_timeout(limit)?)))
}

fn left(deadline: Duration) -> std::result::Result<Duration, Trouble> {
    let left = deadline.saturating_sub(clock::since_boot());
    if left.is_zero() { Err(Trouble::Lost("no time is left to connect".into())) } else { Ok(left) }
}

fn cluster_wire(
    nodes: &[ConnectionInfo],
    access: &Access,
    limit: Duration,
) -> std::result::Result<Wire, Trouble> {
    let settings = &access.settings;
    // Those that hang are tried one after the other.
    let count = u32::try_from(nodes.len()).unwrap_or(u32::MAX);
    let share = (limit / count.max(1)).max(limit / 8);
    let mut builder = ClusterClient::builder(nodes.to_vec())
        .use_protocol(ProtocolVersion::RESP3)
        .retries(REDIRECTS)
        .min_retry_wait(1)
        .max_retry_wait(50)
        .connection_timeout(share)
        .response_timeout(limit)
        .tcp_settings(tcp_settings());
    if nodes.iter().any(|node| matches!(node.addr(), ConnectionAddr::TcpTls { .. })) {
        // Said of plain connections too, it makes them TLS.
        builder = builder.certs(access.certificates.clone());
    }
    if let Some(password) = settings.password() {
        builder = builder.password(password);
    }
    if let Some(username) = settings.username() {
        builder = builder.username(username);
    }
    Ok(Wire::Cluster(Box::new(builder.build()?.get_connection()?)))
}

/// Asks one sentinel after the other where the master is, the one first that answered last: one that hangs costs time
/// once. Each gets its share of the time, so that all are asked.
fn master_of(
    sentinels: &[Client],
    first: &AtomicUsize,
    master: &str,
    server: &Access,
    limit: Duration,
) -> std::result::Result<Client, Trouble> {
    let mut last = Trouble::Lost("no sentinel is configured".into());
    let count = sentinels.len();
    let begin = first.load(Ordering::Relaxed);
    for (nth, sentinel) in sentinels.iter().enumerate().cycle().skip(begin).take(count) {
        // Once to connect, once to answer.
        let share = limit / 2 / u32::try_from(count).unwrap_or(u32::MAX);
        match ask_sentinel(sentinel, master, share) {
            Ok((host, port)) => {
                first.store(nth, Ordering::Relaxed);
                let secure =
                    matches!(sentinel.get_connection_info().addr(), ConnectionAddr::TcpTls { .. });
                let address = tcp_address(host, port, secure);
                let info = address.into_connection_info()?;
                let info = info
                    .set_redis_settings(server.settings.clone())
                    .set_tcp_settings(tcp_settings());
                return Ok(with_certificates(info, &server.certificates)?);
            }
            Err(trouble) => last = trouble,
        }
    }
    Err(last)
}

fn ask_sentinel(
    sentinel: &Client,
    master: &str,
    limit: Duration,
) -> std::result::Result<(String, u16), Trouble> {
    let mut connection = sentinel.get_connection_with_timeout(limit)?;
    connection.set_read_timeout(Some(limit))?;
    connection.set_write_timeout(Some(limit))?;
    let mut question = redis::cmd("SENTINEL");
    question.arg("GET-MASTER-ADDR-BY-NAME").arg(master);
    let answer: Option<(String, u16)> = question.query(&mut connection)?;
    answer.ok_or_else(|| Trouble::Lost(format!("the sentinels know no master \"{master}\"")))
}

/// `[user:password@]host[:port],host[:port]/master[/database]`; user and password are the server's.
fn sentinels(rest: &str, credentials: &Credentials) -> Result<Target> {
    let bad = |problem: &str| Error::Config(format!("redis.url: {problem}"));
    let (login, places) = rest.rsplit_once('@').map_or(("", rest), |(login, rest)| (login, rest));
    let (hosts, path) = places
        .split_once('/')
        .filter(|(hosts, path)| !hosts.is_empty() && !path.is_empty())
        .ok_or_else(|| bad("sentinels are written redis+sentinel://HOST,HOST/MASTER"))?;
    let (master, database) = path.split_once('/').unwrap_or((path, "0"));
    let login = if login.is_empty() { String::new() } else { format!("{login}@") };
    // What one server's address says of user, password and database, they mean for the master.
    let server = server_info(&format!("redis://{login}localhost/{database}"), credentials)?;
    let sentinel = |host: &str| {
        let has_port = host.rsplit_once(':').is_some_and(|(_, port)| !port.ends_with(']'));
        let url = if has_port {
            format!("redis://{host}")
        } else {
            format!("redis://{host}:{SENTINEL_PORT}")
        };
        let info = url.into_connection_info().map_err(|error| bad(error.category()))?;
        let address = match (info.addr(), &credentials.ca) {
            (ConnectionAddr::Tcp(host, port), Some(_)) => tcp_address(host.clone(), *port, true),
            (address, _) => address.clone(),
        };
        client(info.set_addr(address), credentials)
    };
    Ok(Target::Sentinels {
        sentinels: hosts.split(',').map(sentinel).collect::<Result<_>>()?,
        first: AtomicUsize::new(0),
        master: master.to_owned(),
        server: Access {
            settings: server.redis_settings().clone(),
            certificates: certificates(credentials),
        },
    })
}

fn cluster(urls: &[String], credentials: &Credentials) -> Result<Target> {
    let nodes: Vec<_> =
        urls.iter().map(|url| server_info(url, credentials)).collect::<Result<_>>()?;
    let settings = nodes.first().map(|node| node.redis_settings().clone()).unwrap_or_default();
    if nodes.iter().any(|node| node.redis_settings().db() != 0) {
        return Err(Error::Config("redis.url: a Redis Cluster has database 0 only".into()));
    }
    Ok(Target::Cluster {
        nodes,
        access: Access { settings, certificates: certificates(credentials) },
    })
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

fn client(info: ConnectionInfo, credentials: &Credentials) -> Result<Client> {
    with_certificates(info, &certificates(credentials)).map_err(|error| {
        Error::Config(format!("redis: {error}; see redis.ca_file, redis.cert_file, redis.key_file"))
    })
}

fn with_certificates(
    info: ConnectionInfo,
    certificates: &TlsCertificates,
) -> redis::RedisResult<Client> {
    match info.addr() {
        ConnectionAddr::TcpTls { .. } => Client::build_with_tls(info, certificates.clone()),
        _ => Client::open(info),
    }
}

fn certificates(credentials: &Credentials) -> TlsCertificates {
    let client_tls = credentials.client.as_ref().map(|(certificate, key)| ClientTlsConfig {
        client_cert: certificate.clone(),
        client_key: key.expose().to_vec(),
    });
    TlsCertificates { client_tls, root_cert: credentials.ca.clone() }
}

fn is_numeric(address: &ConnectionAddr) -> bool {
    match address {
        ConnectionAddr::Tcp(host, _) | ConnectionAddr::TcpTls { host, .. } => {
            host.parse::<std::net::IpAddr>().is_ok()
        }
        _ => true,
    }
}

fn tcp_address(host: String, port: u16, secure: bool) -> ConnectionAddr {
    if secure {
        ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None }
    } else {
        ConnectionAddr::Tcp(host, port)
    }
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
