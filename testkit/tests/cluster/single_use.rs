//! With `single_use` a stateful ticket resumes once in the whole cluster, whoever presents it where
//! and when.

use std::thread;

use tlsresume_testkit::client::{OpenSsl, OpenSslVisitor};
use tlsresume_testkit::matrix::Kind;
use tlsresume_testkit::{RedisServer, Result, Server, alone};

use crate::nodes::{Cluster, Sharing};

const KIND: Kind = Kind::Tls13Stateful;
const ROUNDS: usize = 15;

/// How many present one ticket at the same time; each node gets two of them.
const AT_ONCE: usize = 6;

fn nodes(redis: &RedisServer, sharing: Sharing) -> Result<Vec<Server>> {
    Cluster::at(redis.url(), sharing, KIND)?
        .patient()
        .env("TLSRESUME_RESUMPTION_SINGLE_USE", "true")
        .nodes(3)
}

fn visit(node: &Server) -> Result<OpenSslVisitor> {
    OpenSsl::new().first_visit(node.address(), KIND.client_mode())
}

/// Whether its ticket resumes there.
fn resumes(visitor: &OpenSslVisitor, node: &Server) -> Result<bool> {
    let back = visitor.come_back_as(&OpenSsl::new(), node.address())?;
    assert_ne!(back.resumed(), back.refused(), "both sides agree: {back:?}");
    Ok(back.resumed())
}

fn resumes_once_one_after_the_other(sharing: Sharing) -> Result<()> {
    let _alone = alone();
    let redis = RedisServer::start()?;
    let nodes = nodes(&redis, sharing)?;
    for (from, to) in [(0, [1, 2]), (1, [1, 2]), (2, [1, 2]), (0, [0, 0]), (1, [2, 1])] {
        let visitor = visit(&nodes[from])?;
        let resumed = to.map(|node| resumes(&visitor, &nodes[node]));
        assert!(matches!(resumed, [Ok(true), Ok(false)]), "{from} to {to:?}: {resumed:?}");
        for node in &nodes {
            assert!(!resumes(&visitor, node)?, "{from} to {to:?}: and never again");
        }
    }
    Ok(())
}

fn resumes_once_at_the_same_time(sharing: Sharing) -> Result<()> {
    let _alone = alone();
    let redis = RedisServer::start()?;
    let nodes = nodes(&redis, sharing)?;
    for round in 0..ROUNDS {
        let visitor = visit(&nodes[round % nodes.len()])?;
        let resumed = thread::scope(|scope| {
            let present = |nth: usize| {
                let (visitor, node) = (&visitor, &nodes[nth % nodes.len()]);
                scope.spawn(move || resumes(visitor, node))
            };
            let returns: Vec<_> = (0..AT_ONCE).map(present).collect();
            let ends = returns.into_iter().map(|it| it.join().expect("it does not panic"));
            ends.collect::<Result<Vec<_>>>()
        })?;
        let count = resumed.iter().filter(|it| **it).count();
        assert_eq!(count, 1, "round {round}: {resumed:?}");
    }
    Ok(())
}

#[test]
fn a_ticket_that_was_used_on_one_node_resumes_on_none_in_push() -> Result<()> {
    resumes_once_one_after_the_other(Sharing::Push)
}

#[test]
fn a_ticket_that_was_used_on_one_node_resumes_on_none_in_pull() -> Result<()> {
    resumes_once_one_after_the_other(Sharing::Pull)
}

#[test]
fn of_those_who_present_a_ticket_at_the_same_time_one_resumes_in_push() -> Result<()> {
    resumes_once_at_the_same_time(Sharing::Push)
}

#[test]
fn of_those_who_present_a_ticket_at_the_same_time_one_resumes_in_pull() -> Result<()> {
    resumes_once_at_the_same_time(Sharing::Pull)
}
