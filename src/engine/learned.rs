//! Which policy serves a name. When a client asks to resume, the server has not yet chosen the virtual host; what served
//! the same name on the same context before tells what it will choose.

use std::collections::HashMap;

use parking_lot::RwLock;

use super::binding::Policy;

/// The context that accepted a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Accepting {
    /// A number that no other context of the process ever has.
    pub context: u64,
    /// The context's verify mode: when the application changes it, what served before says nothing any more.
    pub verify_mode: i32,
}

/// What is known about a name on an accepting context.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Learned {
    /// This policy served it, and no other one did.
    Policy(Policy),
    /// Several did: which one will serve it next cannot be told.
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

    /// Remembers which policy served.
    pub(super) fn learn(&self, accepting: Accepting, name: &[u8], policy: Policy) {
        let before = self.recall(accepting, name);
        let now = match before {
            Learned::Nothing => Learned::Policy(policy),
            Learned::Policy(other) if other == policy => before,
            Learned::Policy(_) | Learned::Ambiguous => Learned::Ambiguous,
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

    /// Forgets what a context served that is gone.
    pub(super) fn forget(&self, context: u64) {
        if let Some(mut contexts) = self.0.try_write() {
            contexts.retain(|accepting, _| accepting.context != context);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepting(context: u64) -> Accepting {
        Accepting { context, verify_mode: 0 }
    }

    const MUTUAL: Policy = Policy::Verifying([1; 32]);

    #[test]
    fn what_served_a_name_is_known_for_its_accepting_context_alone() {
        let policies = Policies::new();
        assert_eq!(policies.recall(accepting(3), b"a"), Learned::Nothing);
        policies.learn(accepting(3), b"a", MUTUAL);
        policies.learn(accepting(3), b"a", MUTUAL);
        assert_eq!(policies.recall(accepting(3), b"a"), Learned::Policy(MUTUAL));
        assert_eq!(policies.recall(accepting(4), b"a"), Learned::Nothing);
        let verifying = Accepting { verify_mode: 1, ..accepting(3) };
        assert_eq!(policies.recall(verifying, b"a"), Learned::Nothing, "its mode was changed");
        policies.forget(3);
        assert_eq!(policies.recall(accepting(3), b"a"), Learned::Nothing);
    }

    #[test]
    fn two_policies_for_a_name_are_ambiguous_for_good() {
        let policies = Policies::new();
        policies.learn(accepting(3), b"a", Policy::NoVerification);
        policies.learn(accepting(3), b"a", MUTUAL);
        policies.learn(accepting(3), b"a", MUTUAL);
        assert_eq!(policies.recall(accepting(3), b"a"), Learned::Ambiguous);
    }

    #[test]
    fn invented_names_do_not_grow_it_beyond_its_capacity() {
        let policies = Policies::new();
        for name in 0..CAPACITY + 100 {
            policies.learn(accepting(1), format!("{name}").as_bytes(), MUTUAL);
        }
        assert_eq!(policies.0.read()[&accepting(1)].len(), CAPACITY);
    }
}
