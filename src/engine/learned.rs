//! Which policy serves a name. When a client asks to resume, the server has not yet chosen the virtual host; what served
//! the same name on the same context before tells what it will choose.

use std::collections::HashMap;

use parking_lot::RwLock;

use super::binding::Policy;

/// The context that accepted a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Accepting {
    /// One that has a number in this process.
    Numbered(u8),
    /// One beyond those, by a number that no other context ever has: the context that the connection had when the
    /// client asked to resume. That may be another than the one that accepted it, if the application chose so early.
    Beyond(u64),
}

impl Accepting {
    fn is_certain(self) -> bool {
        matches!(self, Accepting::Numbered(_))
    }
}

/// What is known about a name on an accepting context.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Learned {
    /// This policy served it last.
    Policy(Policy),
    /// Several did, and it is not certain which context accepts.
    Ambiguous,
    /// None has yet.
    Nothing,
}

/// Most names that are remembered. Beyond, an arbitrary one goes, at the price of one full handshake.
const CAPACITY: usize = 4096;

/// (Accepting context, name) to policy, for one process. Never waits: while another thread writes, nothing is known,
/// which costs a full handshake and no more.
pub(super) struct Policies(RwLock<HashMap<Accepting, Names>>);

type Names = HashMap<Box<[u8]>, Learned>;

impl Policies {
    pub(super) fn new() -> Self {
        Policies(RwLock::new(HashMap::new()))
    }

    pub(super) fn recall(&self, accepting: Accepting, name: &[u8]) -> Learned {
        let Some(contexts) = self.0.try_read() else {
            return Learned::Nothing;
        };
        let known = contexts.get(&accepting).and_then(|names| names.get(name));
        known.copied().unwrap_or(Learned::Nothing)
    }

    /// Remembers which policy served; the last one counts, except where the context is not certain.
    pub(super) fn learn(&self, accepting: Accepting, name: &[u8], policy: Policy) {
        let before = self.recall(accepting, name);
        let now = match before {
            Learned::Ambiguous => Learned::Ambiguous,
            Learned::Policy(other) if other != policy && !accepting.is_certain() => {
                Learned::Ambiguous
            }
            Learned::Policy(_) | Learned::Nothing => Learned::Policy(policy),
        };
        if now == before {
            return;
        }
        let Some(mut contexts) = self.0.try_write() else {
            return;
        };
        let names = contexts.entry(accepting).or_default();
        if names.len() >= CAPACITY {
            let arbitrary = names.keys().next().cloned();
            arbitrary.and_then(|name| names.remove(&name));
        }
        names.insert(name.into(), now);
    }

    /// Forgets what a context served: its number goes to another one.
    pub(super) fn forget(&self, accepting: Accepting) {
        if let Some(mut contexts) = self.0.try_write() {
            contexts.remove(&accepting);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MUTUAL: Policy = Policy::Verifying([1; 32]);

    #[test]
    fn the_last_policy_counts_where_the_accepting_context_is_known() {
        let policies = Policies::new();
        let (three, four) = (Accepting::Numbered(3), Accepting::Numbered(4));
        assert_eq!(policies.recall(three, b"a"), Learned::Nothing);
        policies.learn(three, b"a", Policy::NoVerification);
        policies.learn(three, b"a", MUTUAL);
        assert_eq!(policies.recall(three, b"a"), Learned::Policy(MUTUAL));
        assert_eq!(policies.recall(four, b"a"), Learned::Nothing);
        policies.forget(three);
        assert_eq!(policies.recall(three, b"a"), Learned::Nothing);
    }

    #[test]
    fn two_policies_for_a_name_on_an_uncertain_context_are_ambiguous_for_good() {
        let policies = Policies::new();
        let (one, other) = (Accepting::Beyond(1), Accepting::Beyond(2));
        policies.learn(one, b"a", Policy::NoVerification);
        assert_eq!(policies.recall(other, b"a"), Learned::Nothing);
        policies.learn(one, b"a", MUTUAL);
        policies.learn(one, b"a", MUTUAL);
        assert_eq!(policies.recall(one, b"a"), Learned::Ambiguous);
    }

    #[test]
    fn invented_names_do_not_grow_it_beyond_its_capacity() {
        let policies = Policies::new();
        for name in 0..CAPACITY + 100 {
            policies.learn(Accepting::Beyond(1), format!("{name}").as_bytes(), MUTUAL);
        }
        assert_eq!(policies.0.read()[&Accepting::Beyond(1)].len(), CAPACITY);
    }
}
