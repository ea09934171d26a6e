//! One fault, and what clients of all kinds see of it.

use std::time::{Duration, Instant};

use tlsresume_testkit::client::{OpenSsl, OpenSslVisitor};
use tlsresume_testkit::load::{LoadReport, TrafficSettings};
use tlsresume_testkit::matrix::Kind;
use tlsresume_testkit::{Result, Server, Traffic, alone, wait_until};

use super::table::{self, Outcome};
use super::{Fault, is_deep};
use crate::nodes::{Cluster, LIMIT, Sharing, addresses, assert_all_served};

const NODES: usize = 3;

/// Full service is back so soon after a fault.
const SERVICE: Duration = Duration::from_secs(5);

/// How long clients of a cluster that pushes insist, while Redis is well.
const INSISTS: Duration = Duration::from_secs(1);

/// Connections in which look-ups find out that Redis does not answer: three of each node.
const OPENING: u32 = 24;

/// What is made during a fault and is there when it ends.
pub(crate) const REALMS: [&str; 4] =
    ["push-stateless", "push-stateful", "pull-stateless", "pull-stateful"];

/// Three nodes that share sessions in one way and keep them in one way.
struct Fleet {
    sharing: Sharing,
    kinds: &'static [Kind],
    nodes: Vec<Server>,
}

/// One kind of client of a fleet.
struct Cell<'a> {
    fleet: &'a Fleet,
    kind: Kind,
}

impl Fleet {
    fn all(fault: &impl Fault, rotates: bool) -> Result<Vec<Fleet>> {
        let kinds: [&[Kind]; 2] =
            [&[Kind::Tls12Id, Kind::Tls12Ticket, Kind::Tls13Stateless], &[Kind::Tls13Stateful]];
        let settings = Sharing::ALL.into_iter().flat_map(|it| kinds.map(|kinds| (it, kinds)));
        let start = |((sharing, kinds), realm): ((Sharing, &'static [Kind]), &&str)| {
            let cluster = Cluster::at(fault.url(), sharing, kinds[0])?.workers(1);
            let cluster = cluster.env("TLSRESUME_REALM", *realm);
            let cluster = if rotates { cluster.rotating() } else { cluster };
            let mut nodes = vec![cluster.node_at(&fault.url_of_the_first())?];
            nodes.extend(cluster.nodes(NODES - 1)?);
            Ok(Fleet { sharing, kinds, nodes })
        };
        settings.zip(&REALMS).map(start).collect()
    }

    fn cells(&self) -> impl Iterator<Item = Cell<'_>> {
        self.kinds.iter().map(|kind| Cell { fleet: self, kind: *kind })
    }
}

impl Cell<'_> {
    fn name(&self) -> String {
        format!("{}, {}", self.kind, self.fleet.sharing)
    }

    /// A client that goes from node to node.
    fn traffic(&self) -> TrafficSettings {
        Traffic::to(addresses(&self.fleet.nodes), self.kind.client_mode()).threads(1)
    }

    /// The same while Redis is well.
    fn well(&self) -> TrafficSettings {
        let must_wait = self.fleet.sharing == Sharing::Push && self.kind.is_stored();
        if must_wait { self.traffic().insist(INSISTS) } else { self.traffic() }
    }

    /// So many connections, every second one a first visit.
    fn visits(&self, traffic: TrafficSettings, count: u32) -> Result<LoadReport> {
        let report = traffic.returns(1).connections(count, LIMIT)?;
        assert_all_served(&self.name(), &report);
        if !self.kind.is_stored() {
            assert_eq!(report.not_resumed_after_first, 0, "{}: {report:?}", self.name());
        }
        Ok(report)
    }

    /// A client that has been there before the fault.
    fn visitor(&self) -> Result<OpenSslVisitor> {
        OpenSsl::new().first_visit(self.fleet.nodes[0].address(), self.kind.client_mode())
    }

    fn resumes_everywhere(&self, visitor: &OpenSslVisitor) -> Result<()> {
        for node in &self.fleet.nodes {
            let back = visitor.come_back_as(&OpenSsl::new(), node.address())?;
            assert!(back.resumed(), "{}, with a ticket of before: {back:?}", self.name());
        }
        Ok(())
    }

    /// Waits until every return resumes, each on another node.
    fn await_service(&self, ended: Instant) -> Result<()> {
        let left = SERVICE.saturating_sub(ended.elapsed());
        wait_until(format!("{}: full service", self.name()), left, || {
            let report = self.well().connections(2 * NODES as u32 + 1, LIMIT);
            report.is_ok_and(|it| {
                assert_all_served(&self.name(), &it);
                it.not_resumed_after_first == 0
            })
        })
    }
}

/// Runs it, checks it, and enters it into the table.
pub(super) fn survives<F: Fault>() -> Result<()> {
    let _alone = alone();
    let runs = if is_deep() { 3 } else { 1 };
    let outcomes = (0..runs).map(|_| run::<F>()).collect::<Result<Vec<_>>>()?;
    table::enter::<F>(&outcomes);
    Ok(())
}

/// Once, with a Redis and nodes of its own.
fn run<F: Fault>() -> Result<Vec<Outcome>> {
    let measured = if is_deep() { 600 } else { 48 };
    let mut fault = F::start()?;
    let fleets = Fleet::all(&fault, F::ROTATES)?;
    let cells: Vec<_> = fleets.iter().flat_map(Fleet::cells).collect();
    let each = |measure: &dyn Fn(&Cell<'_>) -> Result<LoadReport>| {
        cells.iter().map(measure).collect::<Result<Vec<_>>>()
    };

    // The first connections are those to nodes that wait for Redis.
    each(&|cell| cell.visits(cell.well(), OPENING))?;
    let healthy = each(&|cell| cell.visits(cell.well(), measured))?;
    let visitors = cells.iter().map(Cell::visitor).collect::<Result<Vec<_>>>()?;

    under_way(&cells, || fault.begin())?;
    let began = Instant::now();
    let opening = each(&|cell| cell.visits(cell.traffic(), OPENING))?;
    let mut faulty = each(&|cell| cell.visits(cell.traffic(), measured))?;
    while began.elapsed() < F::LASTS {
        let more = each(&|cell| cell.visits(cell.traffic(), OPENING))?;
        faulty.iter_mut().zip(&more).for_each(|(all, more)| {
            // Few handshakes have no percentile worth the name.
            let (latency, full) = (all.latency_us.clone(), all.full_us.clone());
            all.add(more);
            (all.latency_us, all.full_us) = (latency, full);
        });
    }
    for (cell, visitor) in cells.iter().zip(&visitors).filter(|(cell, _)| !cell.kind.is_stored()) {
        cell.resumes_everywhere(visitor)?;
    }

    let ended = under_way(&cells, || fault.end())?;
    let mut outcomes = Vec::new();
    for (nth, cell) in cells.iter().enumerate() {
        cell.await_service(ended)?;
        outcomes.push(Outcome {
            sharing: cell.fleet.sharing,
            kind: cell.kind,
            healthy: healthy[nth].clone(),
            opening: opening[nth].clone(),
            faulty: faulty[nth].clone(),
            service: ended.elapsed(),
        });
    }
    Ok(outcomes)
}

/// Has something change while clients of all kinds are under way, and says when it had.
fn under_way(cells: &[Cell<'_>], change: impl FnOnce() -> Result<()>) -> Result<Instant> {
    let start = |cell: &Cell<'_>| cell.traffic().start();
    let traffic = cells.iter().map(start).collect::<Result<Vec<_>>>()?;
    change()?;
    let changed = Instant::now();
    for (cell, traffic) in cells.iter().zip(traffic) {
        let report = traffic.stop()?;
        assert_all_served(&cell.name(), &report);
        if !cell.kind.is_stored() {
            assert_eq!(report.not_resumed_after_first, 0, "{}: {report:?}", cell.name());
        }
    }
    Ok(changed)
}
