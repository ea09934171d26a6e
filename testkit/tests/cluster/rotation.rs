//! Keys that change under load on all nodes lose no session; a node that joins knows them all.

use std::time::Duration;

use tlsresume_testkit::client::{OpenSsl, OpenSslVisitor};
use tlsresume_testkit::matrix::Kind;
use tlsresume_testkit::{
    DEADLINE, RedisServer, Result, Server, Stats, Traffic, Visitor, alone, say, wait_until,
};

use crate::nodes::{Cluster, Sharing, addresses, assert_all_served};

const ROTATIONS: u64 = 20;
const PERIOD: Duration = Duration::from_secs(1);

/// How long clients of a cluster that pushes insist.
const INSISTS: Duration = Duration::from_secs(5);

/// The kinds that one server serves.
const STATELESS: &[Kind] = &[Kind::Tls12Id, Kind::Tls12Ticket, Kind::Tls13Stateless];
const STATEFUL: &[Kind] = &[Kind::Tls13Stateful];

/// Three nodes and a client of each kind that they serve, who came before the first rotation.
struct Fleet {
    kinds: &'static [Kind],
    nodes: Vec<Server>,
    visitors: Vec<OpenSslVisitor>,
}

impl Fleet {
    fn start(redis: &RedisServer, sharing: Sharing, kinds: &'static [Kind]) -> Result<Fleet> {
        let nodes = Cluster::at(redis.url(), sharing, kinds[0])?
            .env("TLSRESUME_REALM", kinds[0].server_mode())
            .patient()
            .rotating(PERIOD)
            .nodes(3)?;
        let client = OpenSsl::new();
        let visit = |kind: &Kind| client.first_visit(nodes[0].address(), kind.client_mode());
        let visitors = kinds.iter().map(visit).collect::<Result<_>>()?;
        Ok(Fleet { kinds, nodes, visitors })
    }

    fn traffic(&self, sharing: Sharing) -> Result<Vec<(Kind, Traffic)>> {
        let start = |kind: &Kind| {
            let traffic = Traffic::to(addresses(&self.nodes), kind.client_mode()).threads(1);
            let must_wait = sharing == Sharing::Push && kind.is_stored();
            let traffic = if must_wait { traffic.insist(INSISTS) } else { traffic };
            Ok((*kind, traffic.start()?))
        };
        self.kinds.iter().map(start).collect()
    }
}

fn twenty_rotations_lose_nothing(sharing: Sharing) -> Result<()> {
    let _alone = alone();
    let redis = RedisServer::start()?;
    let start = |kinds| Fleet::start(&redis, sharing, kinds);
    let fleets = [STATELESS, STATEFUL].map(start).into_iter().collect::<Result<Vec<_>>>()?;
    let traffic = fleets.iter().map(|it| it.traffic(sharing)).collect::<Result<Vec<_>>>()?;
    let nodes = fleets.iter().flat_map(|fleet| &fleet.nodes);
    wait_until("twenty rotations", DEADLINE, || nodes.clone().all(has_rotated))?;

    for (kind, traffic) in traffic.into_iter().flatten() {
        let report = traffic.stop()?;
        say(&format!("{kind}, {sharing}: {report:?}"));
        assert_all_served(&kind.to_string(), &report);
        assert_eq!(report.not_resumed_after_first, 0, "{kind}: {report:?}");
        assert!(report.resumed > ROTATIONS, "{kind}: {report:?}");
    }
    for Fleet { kinds, nodes, visitors } in &fleets {
        for (kind, visitor) in kinds.iter().zip(visitors) {
            let back = visitor.come_back_as(&OpenSsl::new(), nodes[2].address())?;
            assert!(back.resumed(), "{kind}: a session from before the first rotation: {back:?}");
        }
    }
    Ok(())
}

/// Of twenty keys it has accepted tickets, or would.
fn has_rotated(node: &Server) -> bool {
    let keys = Stats::of(node.address()).map(|stats| stats.get("keys{state=\"accepting\"}"));
    keys.is_ok_and(|count| count >= ROTATIONS)
}

#[test]
fn twenty_rotations_under_load_lose_no_session_in_push() -> Result<()> {
    twenty_rotations_lose_nothing(Sharing::Push)
}

#[test]
fn twenty_rotations_under_load_lose_no_session_in_pull() -> Result<()> {
    twenty_rotations_lose_nothing(Sharing::Pull)
}

/// Sessions of three nodes that have been serving for a while, each resumed by a node whose first
/// connection that is.
fn resumes_on_a_new_node(sharing: Sharing, kind: Kind) -> Result<()> {
    let _alone = alone();
    let redis = RedisServer::start()?;
    let cluster = Cluster::at(redis.url(), sharing, kind)?.patient().rotating(PERIOD);
    let nodes = cluster.nodes(3)?;
    let traffic = Traffic::to(addresses(&nodes), kind.client_mode()).start()?;

    for node in &nodes {
        let client = OpenSsl::new();
        let visitor = client.first_visit(node.address(), kind.client_mode())?;
        assert!(!visitor.first().reused);
        let joins = cluster.node()?;
        let back = visitor.come_back_as(&client, joins.address())?;
        assert!(back.resumed(), "{kind}, {sharing}: {back:?}");
    }
    let report = traffic.stop()?;
    let what = format!("{kind}, {sharing}, at the others meanwhile");
    assert_all_served(&what, &report);
    assert_eq!(report.not_resumed_after_first, 0, "{what}: {report:?}");
    Ok(())
}

#[test]
fn a_node_that_joins_resumes_tls12_tickets_from_its_first_handshake_on() -> Result<()> {
    resumes_on_a_new_node(Sharing::Push, Kind::Tls12Ticket)
}

#[test]
fn a_node_that_joins_resumes_stateless_tickets_from_its_first_handshake_on() -> Result<()> {
    resumes_on_a_new_node(Sharing::Push, Kind::Tls13Stateless)
}

#[test]
fn a_node_that_joins_resumes_tls12_ids_from_its_first_handshake_on_in_pull() -> Result<()> {
    resumes_on_a_new_node(Sharing::Pull, Kind::Tls12Id)
}

#[test]
fn a_node_that_joins_resumes_stateful_tickets_from_its_first_handshake_on_in_pull() -> Result<()> {
    resumes_on_a_new_node(Sharing::Pull, Kind::Tls13Stateful)
}
