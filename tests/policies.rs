//! Who gets in where: a session that was made under one policy is never in force under another, and clients that stay
//! where they are resume. `c-tests/policies` counts both, through the API and under the preload: every way in which a
//! server comes to a policy, every kind of session, from process to process, and every part of a policy. What goes from
//! node to node is in `testkit/tests/cluster`. `make test-policies` takes more histories of server and client.

use tlsresume_testkit::{Policies, Result};

fn attackers_are_kept_out(library: Policies) -> Result<()> {
    library.hold(&["attackers"], [])
}

fn honest_clients_resume(library: Policies) -> Result<()> {
    library.hold(&["honest"], [])
}

mod through_the_api {
    use super::*;

    #[test]
    fn no_session_is_in_force_under_another_policy() -> Result<()> {
        attackers_are_kept_out(Policies::ThroughTheApi)
    }

    #[test]
    fn honest_clients_resume_under_their_own_policy() -> Result<()> {
        honest_clients_resume(Policies::ThroughTheApi)
    }
}

mod preloaded {
    use super::*;

    #[test]
    fn no_session_is_in_force_under_another_policy() -> Result<()> {
        attackers_are_kept_out(Policies::Preloaded)
    }

    #[test]
    fn honest_clients_resume_under_their_own_policy() -> Result<()> {
        honest_clients_resume(Policies::Preloaded)
    }
}
