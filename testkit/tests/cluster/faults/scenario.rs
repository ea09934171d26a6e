//! One fault, and what clients of all kinds see of it.

use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

use tlsresume_testkit::client::{OpenSsl, OpenSslVisitor};
use tlsresume_testkit::load::{LoadReport, TrafficSettings};
use tlsresume_testkit::matrix::Kind;
use tlsresume_testkit::{Result, Server, Traffic, alone};

use super::table::{self, Outcome, Pair};
use super::{Fault, is_deep};
use crate::nodes::{Cluster, LIMIT, Sharing, addresses, assert_all_served};

const NODES: usize = 3;

/// Full service is back so soon after a fault.
const SERVICE: Duration = Duration::from_secs(5);

/// How long clients of a cluster that pushes insist, while Redis is well.
const INSISTS: Duration = Duration::from_millis(250);

/// How often healthy and faulty nodes take turns while that is measured, and with how many connections.
const PAIRS: usize = 6;
const CONNECTIONS: u32 = 200;

/// Two first visits to every node, and as many returns.
const ROUND: u32 = 12;

/// Connections in which look-ups find out that Redis does not answer: three of each node.
const OPENING: u32 = 24;

/// One for each fleet.
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
    fn all(fault: &impl Fault, rotates: Option<Duration>) -> Result<Vec<Fleet>> {
        let kinds: [&[Kind]; 2] =
            [&[Kind::Tls12Id, Kind::Tls12Ticket, Kind::Tls13Stateless], &[Kind::Tls13Stateful]];
        let settings = Sharing::ALL.into_iter().flat_map(|it| kinds.map(|kinds| (it, kinds)));
        let start = |((sharing, kinds), realm): ((Sharing, &'static [Kind]), &&str)| {
            let cluster = Cluster::at(fault.url(), sharing, kinds[0])?.workers(1);
            let cluster = cluster.env("TLSRESUME_REALM", *realm);
            let cluster = match rotates {
                Some(period) => cluster.rotating(period),
                None => cluster,
            };
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
        self.tickets_resumed(&report);
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

    /// Goes on visiting until every return of a round resumes, each on another node, that began when
    /// the fault was over; says how long after its end that round had ended.
    fn await_service(&self, ended: &OnceLock<Instant>) -> Result<Duration> {
        let began = Instant::now();
        loop {
            let round = Instant::now();
            let report = self.well().returns(1).connections(ROUND, LIMIT)?;
            assert_all_served(&self.name(), &report);
            self.tickets_resumed(&report);
            let Some(end) = ended.get() else {
                assert!(began.elapsed() < LIMIT, "{}: the fault does not end", self.name());
                continue;
            };
            if round >= *end && report.not_resumed_after_first == 0 {
                return Ok(end.elapsed());
            }
            let is_late = end.elapsed() > SERVICE;
            assert!(!is_late, "{}: no full service {SERVICE:?} after: {report:?}", self.name());
        }
    }

    fn tickets_resumed(&self, report: &LoadReport) {
        if !self.kind.is_stored() {
            assert_eq!(report.not_resumed_after_first, 0, "{}: {report:?}", self.name());
        }
    }
}

/// Runs it, checks it, and enters it into the table.
pub(super) fn survives<F: Fault>() -> Result<()> {
    let _alone = alone();
    let runs = if is_deep() { 2 } else { 1 };
    let outcomes = (0..runs).map(|_| run::<F>()).collect::<Result<Vec<_>>>()?;
    table::enter::<F>(&outcomes);
    Ok(())
}

/// Once, with a Redis and nodes of its own.
fn run<F: Fault>() -> Result<Vec<Outcome>> {
    let (pairs, measured) = if is_deep() { (PAIRS, CONNECTIONS) } else { (1, 48) };
    let mut fault = F::start()?;
    let fleets = Fleet::all(&fault, F::ROTATES)?;
    let cells: Vec<_> = fleets.iter().flat_map(Fleet::cells).collect();
    // The same again, to which nothing happens.
    let calm = is_deep().then(F::start).transpose()?;
    let calm_fleets = calm.as_ref().map(|calm| Fleet::all(calm, F::ROTATES)).transpose()?;
    let calm_cells: Vec<_> = calm_fleets.iter().flatten().flat_map(Fleet::cells).collect();
    let each = |measure: &dyn Fn(&Cell<'_>) -> Result<LoadReport>| {
        cells.iter().map(measure).collect::<Result<Vec<_>>>()
    };

    // The first connections are those to nodes that wait for Redis.
    each(&|cell| cell.visits(cell.well(), OPENING))?;
    calm_cells.iter().try_for_each(|calm| calm.visits(calm.well(), OPENING).map(drop))?;
    let healthy = each(&|cell| cell.visits(cell.well(), measured))?;
    let visitors = cells.iter().map(Cell::visitor).collect::<Result<Vec<_>>>()?;

    begin(&mut fault, &cells)?;
    let began = Instant::now();
    let opening = each(&|cell| cell.visits(cell.traffic(), OPENING))?;
    let mut measurements = vec![Vec::new(); cells.len()];
    for _ in 0..pairs {
        for (nth, cell) in cells.iter().enumerate() {
            let healthy = match calm_cells.get(nth) {
                Some(calm) => calm.visits(calm.traffic(), measured)?,
                None => healthy[nth].clone(),
            };
            let faulty = cell.visits(cell.traffic(), measured)?;
            measurements[nth].push(Pair { healthy, faulty });
        }
    }
    while began.elapsed() < F::LASTS {
        each(&|cell| cell.visits(cell.traffic(), OPENING))?;
    }
    for (cell, visitor) in cells.iter().zip(&visitors).filter(|(cell, _)| !cell.kind.is_stored()) {
        cell.resumes_everywhere(visitor)?;
    }

    let services = end(&mut fault, &cells)?;
    let outcomes = cells.iter().zip(services).enumerate().map(|(nth, (cell, service))| Outcome {
        sharing: cell.fleet.sharing,
        kind: cell.kind,
        opening: opening[nth].clone(),
        pairs: std::mem::take(&mut measurements[nth]),
        service,
    });
    Ok(outcomes.collect())
}

/// Begins while clients of all kinds are under way.
fn begin(fault: &mut impl Fault, cells: &[Cell<'_>]) -> Result<()> {
    let start = |cell: &Cell<'_>| cell.traffic().start();
    let traffic = cells.iter().map(start).collect::<Result<Vec<_>>>()?;
    // By the time that this one has been served, they are.
    cells[0].visitor()?;
    fault.begin()?;
    for (cell, traffic) in cells.iter().zip(traffic) {
        let report = traffic.stop()?;
        assert_all_served(&cell.name(), &report);
        cell.tickets_resumed(&report);
    }
    Ok(())
}

/// Ends while clients of all kinds are under way, and says when each kind had full service.
fn end(fault: &mut impl Fault, cells: &[Cell<'_>]) -> Result<Vec<Duration>> {
    let ended = OnceLock::new();
    thread::scope(|scope| {
        let start = |cell| {
            let ended = &ended;
            scope.spawn(move || Cell::await_service(cell, ended))
        };
        let services: Vec<_> = cells.iter().map(start).collect();
        let end = fault.end();
        // Also where it did not: they wait for it.
        ended.get_or_init(Instant::now);
        end?;
        services.into_iter().map(|it| it.join().expect("full service")).collect()
    })
}
