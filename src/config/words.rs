//! The settings that are one word out of a few.

#![forbid(unsafe_code)]

use std::fmt;
use std::str::FromStr;

use crate::error::Error;

/// Defines an enum together with its words, so that reading, printing and documentation cannot disagree.
macro_rules! words {
    (
        $(#[$about:meta])*
        $name:ident { $($(#[$about_variant:meta])* $variant:ident = $word:literal,)+ }
    ) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub enum $name {
            $($(#[$about_variant])* $variant,)+
        }

        impl $name {
            /// Every value, in the order of the documentation.
            pub const ALL: &'static [$name] = &[$($name::$variant),+];

            /// Every word, separated by commas.
            pub const ALLOWED: &'static str = without_last_comma(concat!($($word, ", "),+));
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(match self {
                    $($name::$variant => $word,)+
                })
            }
        }

        impl FromStr for $name {
            type Err = Error;

            fn from_str(word: &str) -> Result<Self, Error> {
                match word {
                    $($word => Ok($name::$variant),)+
                    _ => Err(Error::Config(format!("{word:?} is unknown; allowed: {}", Self::ALLOWED))),
                }
            }
        }
    };
}

const fn without_last_comma(words: &str) -> &str {
    words.split_at(words.len() - ", ".len()).0
}

/// What sessions are tied to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Bind {
    /// To server name and client-verification policy: `true`.
    #[default]
    On,
    /// To nothing: `false`.
    Off,
    /// To these and to the server's certificate: `"certificate"`.
    Certificate,
}

impl fmt::Display for Bind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Bind::On => "true",
            Bind::Off => "false",
            Bind::Certificate => "certificate",
        })
    }
}

words! {
    /// What a client is given to come back with.
    Mode {
        /// Tickets that hold the session, and session ids.
        #[default]
        Stateless = "stateless",
        /// Tickets that are handles into the store.
        Stateful = "stateful",
        /// Nothing sent, nothing kept.
        Off = "off",
    }
}

words! {
    /// What OpenSSL's remove callback, which fires on every unclean close, does to the shared session.
    OnRemove {
        /// The session stays.
        #[default]
        Keep = "keep",
        /// The session goes.
        Forget = "forget",
    }
}

words! {
    /// Where ticket keys come from.
    KeySource {
        /// Generated, rotated and synchronised.
        #[default]
        Random = "random",
        /// Computed by every node from the cluster's secret and the clock.
        Derived = "derived",
        /// Read from files that something else writes.
        Files = "files",
    }
}

words! {
    /// Whose layout the key files have.
    KeyFormat {
        /// `ssl_session_ticket_key` of nginx.
        #[default]
        Nginx = "nginx",
        /// `tls-ticket-keys` of HAProxy.
        Haproxy = "haproxy",
        /// `SSLSessionTicketKeyFile` of Apache httpd.
        Apache = "apache",
        /// The ticket key file of Apache Traffic Server.
        Ats = "ats",
        /// `tls-ticket-key-file` of nghttpx.
        Nghttpx = "nghttpx",
        /// The file of `ticket-store: file` of H2O.
        H2o = "h2o",
        /// What `SSL_CTX_set_tlsext_ticket_keys` takes.
        Openssl = "openssl",
        /// `loadTicketsKeys` of dnsdist.
        Dnsdist = "dnsdist",
    }
}

words! {
    /// Who talks to the transports.
    Agent {
        /// A thread in one of the server's processes.
        #[default]
        Thread = "thread",
        /// `tlsresumectl agent`; the library starts no thread.
        External = "external",
    }
}

words! {
    /// How sessions reach the other nodes.
    Replication {
        /// New sessions are copied into every node's store.
        #[default]
        Push = "push",
        /// A node that misses a session asks for it.
        Pull = "pull",
        /// Only keys are shared.
        Off = "off",
    }
}

words! {
    /// The least important message that is logged; the names of the `log` crate.
    Level {
        /// Nothing.
        Off = "off",
        /// What needs an operator.
        Error = "error",
        /// What an operator should know.
        #[default]
        Warn = "warn",
        /// One line per attached context, as proof of life.
        Info = "info",
        /// Decisions.
        Debug = "debug",
        /// Everything.
        Trace = "trace",
    }
}

impl Level {
    /// The same for the `log` crate.
    pub(crate) fn filter(self) -> log::LevelFilter {
        match self {
            Level::Off => log::LevelFilter::Off,
            Level::Error => log::LevelFilter::Error,
            Level::Warn => log::LevelFilter::Warn,
            Level::Info => log::LevelFilter::Info,
            Level::Debug => log::LevelFilter::Debug,
            Level::Trace => log::LevelFilter::Trace,
        }
    }
}
