//! Nodes keep to policies as processes do: what was made on one node under one policy is not in force on another node
//! under another, and clients that stay under theirs resume on both. `c-tests/policies` starts the nodes.

use tlsresume_testkit::{Folder, Policies, RedisServer, Result, alone};

fn holds_between_nodes(library: Policies, table: &str) -> Result<()> {
    let _alone = alone();
    let (redis, folder) = (RedisServer::start()?, Folder::new()?);
    let secret = folder.write_private("secret", "of this test alone, 32 bytes or more\n")?;
    library.hold(
        &["nodes", table],
        [
            ("TLSRESUME_REDIS_URL", redis.url()),
            ("TLSRESUME_CLUSTER_SECRET_FILE", secret.display().to_string()),
            // What is found is what matters, not how soon.
            ("TLSRESUME_CLUSTER_SESSIONS", "pull".into()),
            ("TLSRESUME_CLUSTER_LOOKUP_BUDGET", "200ms".into()),
        ],
    )
}

#[test]
fn no_session_of_another_node_is_in_force_under_another_policy() -> Result<()> {
    holds_between_nodes(Policies::ThroughTheApi, "attackers")
}

#[test]
fn no_session_of_another_node_is_in_force_under_another_policy_with_the_preload() -> Result<()> {
    holds_between_nodes(Policies::Preloaded, "attackers")
}

#[test]
fn honest_clients_resume_on_another_node_under_their_own_policy() -> Result<()> {
    holds_between_nodes(Policies::ThroughTheApi, "honest")
}

#[test]
fn honest_clients_resume_on_another_node_under_their_own_policy_with_the_preload() -> Result<()> {
    holds_between_nodes(Policies::Preloaded, "honest")
}
