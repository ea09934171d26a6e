//! The library as Rust servers use it that are built on the `openssl` crate (cargo feature `openssl`).
//!
//! Owns: [`Realm`], a handle to an instance. Called by: servers, before they serve. Threads and forks: a realm may be
//! shared between threads and is inherited by children; no function here starts a thread but [`Realm::start`]. Failure:
//! what is wrong with the configuration is an error with its remedy; once a context is attached, nothing fails any more.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use openssl::ssl::SslContextBuilder;

use crate::config::Config;
use crate::engine::Engine;
use crate::error::Result;
use crate::{sys, tls};

/// One realm on this node: its configuration, key ring and session store. Servers make one, and attach each of their
/// contexts to it. A clone is another handle to the same realm.
///
/// ```no_run
/// use openssl::ssl::{SslAcceptor, SslFiletype, SslMethod};
/// use tlsresume::Realm;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let mut builder = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls())?;
/// builder.set_certificate_chain_file("server.crt")?;
/// builder.set_private_key_file("server.key", SslFiletype::PEM)?;
/// Realm::from_env()?.attach(&mut builder)?;
/// let acceptor = builder.build();
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Realm(Arc<Engine>);

impl Realm {
    /// Makes a realm from the file that the environment variable `TLSRESUME_CONFIG` names, or from the defaults if it is
    /// not set. `TLSRESUME_<SECTION>_<KEY>` variables then override single keys; a program with raised privileges does
    /// not read the environment.
    ///
    /// Files are read now: call it before privileges drop, and before `fork()`, so that children share its memory.
    ///
    /// # Errors
    /// The configuration, a key file or the secret file has a mistake, which the text names with its remedy. Memory that
    /// cannot be had at `memory.path` is no error: the processes of this server then share memory of their own, and one
    /// log line says so.
    pub fn from_env() -> Result<Realm> {
        Realm::new(Config::load(None, &sys::secure_env)?)
    }

    /// As [`Realm::from_env`], from the file at this path (`docs/configuration.md` has its keys).
    ///
    /// # Errors
    /// As [`Realm::from_env`]; also when the file cannot be read.
    pub fn from_file(path: &Path) -> Result<Realm> {
        Realm::new(Config::load(Some(path), &sys::secure_env)?)
    }

    /// As [`Realm::from_env`], from what the file would hold.
    ///
    /// # Errors
    /// As [`Realm::from_env`].
    pub fn from_toml(text: &str) -> Result<Realm> {
        Realm::new(Config::from_toml(text, "configuration string", &sys::secure_env)?)
    }

    fn new(config: Config) -> Result<Realm> {
        Engine::shared(config).map(Realm)
    }

    /// Makes the sessions of a server's context resumable in every process and on every host of the realm.
    ///
    /// Call it when the context is configured (certificate, session id context, verification), before it is built. A
    /// server with virtual hosts attaches each of their contexts. It sets what `tlsresume_attach()` of `tlsresume.h`
    /// sets; callbacks of the same kinds that were set before are put aside, those set later replace the library's. The
    /// context keeps what it needs of the realm.
    ///
    /// # Errors
    /// The context is attached already, or OpenSSL has no room for a mark on it.
    pub fn attach(&self, context: &mut SslContextBuilder) -> Result<()> {
        tls::attach_builder(Arc::clone(&self.0), context)
    }

    /// Starts the agent of this node now, in place of at the first handshake that finds none. Call it after the last
    /// `fork()`. Without a transport, with `cluster.agent = "external"`, or where the node has an agent, it does nothing.
    pub fn start(&self) {
        self.0.start_agent_now();
    }
}

impl fmt::Debug for Realm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Realm").finish_non_exhaustive()
    }
}
