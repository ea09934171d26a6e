//! What is where in Redis; drawn and explained in docs/redis-layout.md.

use std::fmt::Write;

/// The field of an entry.
pub(super) const ENTRY: &str = "e";

/// The names of a realm's keys. What must change together has the realm as hash tag, so that a Redis Cluster keeps it
/// on one node; sessions are spread over all of them.
#[derive(Clone, Debug)]
pub struct Names {
    /// Hash: sealed parts of the ring.
    pub(super) ring: String,
    /// Hash: a sealed heartbeat of each node.
    pub(super) nodes: String,
    /// String: the node that makes the next keys.
    pub(super) maker: String,
    /// Stream: sessions, removals, notices of change.
    pub(super) stream: String,
    /// Channel: says nothing but that the stream has news.
    pub(super) notices: String,
    session: String,
}

impl Names {
    /// The names of a realm's keys.
    pub fn new(realm: &str) -> Self {
        let shared = |what: &str| format!("tlsresume:{{{realm}}}:{what}");
        Names {
            ring: shared("ring"),
            nodes: shared("nodes"),
            maker: shared("maker"),
            stream: shared("stream"),
            notices: shared("notices"),
            session: format!("tlsresume:{realm}:session:"),
        }
    }

    /// The key of one session.
    pub fn session(&self, key: &[u8; 24]) -> String {
        let mut name = String::with_capacity(self.session.len() + 2 * key.len());
        name.push_str(&self.session);
        for byte in key {
            // Writing to a String cannot fail.
            let _ = write!(name, "{byte:02x}");
        }
        name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changes_together_has_one_hash_tag_and_sessions_have_none() {
        let names = Names::new("shop");
        for name in [&names.ring, &names.nodes, &names.maker, &names.stream, &names.notices] {
            assert!(name.starts_with("tlsresume:{shop}:"), "{name}");
        }
        assert_eq!(
            names.session(&[0xab; 24]),
            format!("tlsresume:shop:session:{}", "ab".repeat(24))
        );
    }
}
