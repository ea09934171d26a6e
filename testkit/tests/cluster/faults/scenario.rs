//! One fault, and what clients of all kinds see of it.

use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

use tlsresume_testkit::client::{OpenSsl, OpenSslVisitor};
use tlsresume_testkit::load::{LoadReport, TrafficSettings};
use tlsresume_testkit::matrix::Kind;
use tlsresume_testkit::{DEADLINE, Result, Server, Stats, Steal, Traffic, alone, wait_until};

use super::table::{self, Outcome, Pair};
use super::{Fault, Sign, is_deep};
use crate::nodes::{Cluster, Sharing, addresses, assert_all_served};

const NODES: usize = 3;

/// Full service is back so soon after a fault, not counting what others took of the machine since.
const SERVICE: Duration = Duration::from_secs(5);

/// How long clients of a cluster that pushes insist, while Redis is well.
const INSISTS: Duration = Duration::from_millis(250);

/// How often healthy and faulty nodes take turns while that is measured, and with how many connections that do not
/// resume while Redis is away: fewer have no 99th percentile to speak of.
const PAIRS: usize = 6;
const FULL: u32 = 200;
const FULL_QUICKLY: u32 = 48;

/// Two first visits to every node, and as many returns.
const ROUND: u32 = 12;

/// Connections in which look-ups find out that Redis does not answer: three of each node.
const OPENING: u32 = 24;

/// One for each fleet.
pub(crate) const REALMS: [&str; 5] =
    ["push-stateless", "push-stateful", "pull-stateless", "pull-stateful", "single-use"];

/// How nodes share sessions and keep them, and whom they serve.
#[derive(Clone, Copy)]
struct Manner {
    sharing: Sharing,
    single_use: bool,
    kinds: &'static [Kind],
}

/// Three nodes of one manner.
struct Fleet {
    manner: Manner,
    nodes: Vec<Server>,
}

/// One kind of client of a fleet.
struct Cell<'a> {
    fleet: &'a Fleet,
    kind: Kind,
}

const STATELESS: &[Kind] = &[Kind::Tls12Id, Kind::Tls12Ticket, Kind::Tls13Stateless];
const STATEFUL: &[Kind] = &[Kind::Tls13Stateful];

impl Manner {
    /// With single use, push and pull are one: every ticket is looked up. Its times are those of pull, and not
    /// measured: each agent more that tries to reach Redis costs all others time, where they share a host.
    fn all() -> Vec<Manner> {
        let manner = |sharing, kinds| Manner { sharing, single_use: false, kinds };
        let mut all = vec![
            manner(Sharing::Push, STATELESS),
            manner(Sharing::Push, STATEFUL),
            manner(Sharing::Pull, STATELESS),
            manner(Sharing::Pull, STATEFUL),
        ];
        if !is_deep() {
            all.push(Manner { single_use: true, ..manner(Sharing::Push, STATEFUL) });
        }
        all
    }
}

impl Fleet {
    fn all(fault: &impl Fault, rotates: Option<Duration>) -> Result<Vec<Fleet>> {
        let start = |(manner, realm): (Manner, &&str)| {
            let Manner { sharing, single_use, kinds } = manner;
            let cluster = Cluster::at(fault.url(), sharing, kinds[0])?.workers(1);
            let cluster = cluster
                .env("TLSRESUME_REALM", *realm)
                .env("TLSRESUME_RESUMPTION_SINGLE_USE", single_use.to_string());
            let cluster = match rotates {
                Some(period) => cluster.rotating(period),
                None => cluster,
            };
            let mut nodes = vec![cluster.node_at(&fault.url_of_the_first())?];
            nodes.extend(cluster.nodes(NODES - 1)?);
            Ok(Fleet { manner, nodes })
        };
        Manner::all().into_iter().zip(&REALMS).map(start).collect()
    }

    fn cells(&self) -> impl Iterator<Item = Cell<'_>> {
        self.manner.kinds.iter().map(|kind| Cell { fleet: self, kind: *kind })
    }
}

impl Cell<'_> {
    fn name(&self) -> String {
        format!("{}, {}", self.kind(), self.fleet.manner.sharing)
    }

    fn kind(&self) -> String {
        if self.fleet.manner.single_use {
            "TLS 1.3 single use".into()
        } else {
            self.kind.to_string()
        }
    }

    /// Whether its handshakes ask Redis.
    fn looks_up(&self) -> bool {
        let Manner { sharing, single_use, .. } = self.fleet.manner;
        self.kind.is_stored() && (single_use || sharing == Sharing::Pull)
    }

    /// A client that goes from node to node.
    fn traffic(&self) -> TrafficSettings {
        Traffic::to(addresses(&self.fleet.nodes), self.kind.client_mode()).threads(1)
    }

    /// The same while Redis is well.
    fn well(&self) -> TrafficSettings {
        let must_wait = self.kind.is_stored() && !self.looks_up();
        if must_wait { self.traffic().insist(INSISTS) } else { self.traffic() }
    }

    /// So many connections, every second one a first visit.
    fn visits(&self, traffic: TrafficSettings, count: u32) -> Result<LoadReport> {
        let report = traffic.returns(1).connections(count, DEADLINE)?;
        assert_all_served(&self.name(), &report);
        self.tickets_resumed(&report);
        Ok(report)
    }

    /// The same while the fault lasts.
    fn visits_in<F: Fault>(&self, count: u32) -> Result<LoadReport> {
        let report = self.visits(self.traffic(), count)?;
        if self.fleet.manner.single_use && !F::SHARES {
            assert_eq!(
                report.resumed,
                0,
                "{}, and nobody says it is the first: {report:?}",
                self.name()
            );
        }
        Ok(report)
    }

    /// How many there must be for so many full ones: every second one resumes a ticket, whatever Redis does.
    fn connections(&self, full: u32) -> u32 {
        if self.kind.is_stored() { full } else { 2 * full }
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
        let mut steal = Steal::watch()?;
        loop {
            let round = Instant::now();
            let report = self.well().returns(1).connections(ROUND, DEADLINE)?;
            assert_all_served(&self.name(), &report);
            self.tickets_resumed(&report);
            let Some(end) = ended.get() else {
                assert!(began.elapsed() < DEADLINE, "{}: the fault does not end", self.name());
                steal = Steal::watch()?;
                continue;
            };
            let (after, stolen) = (end.elapsed(), steal.time()?);
            assert!(
                after <= SERVICE + stolen,
                "{}: full service not in {after:?}, of which others had {stolen:?}: {report:?}",
                self.name()
            );
            if round >= *end && report.not_resumed_after_first == 0 {
                return Ok(after);
            }
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
    let (least, most) = if is_deep() { (2, 6) } else { (1, 1) };
    let mut outcomes = (0..least).map(|_| run::<F>()).collect::<Result<Vec<_>>>()?;
    while outcomes.len() < most && !table::is_quick::<F>(&outcomes) {
        outcomes.push(run::<F>()?);
    }
    table::enter::<F>(&outcomes);
    Ok(())
}

/// Once, with a Redis and nodes of its own.
fn run<F: Fault>() -> Result<Vec<Outcome>> {
    let (pairs, full) = if is_deep() { (PAIRS, FULL) } else { (1, FULL_QUICKLY) };
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
    let healthy = each(&|cell| cell.visits(cell.well(), cell.connections(full)))?;
    let visitors = cells.iter().map(Cell::visitor).collect::<Result<Vec<_>>>()?;
    await_up(&fleets, DEADLINE)?;
    let counted = fault.count()?;
    if F::SIGN == Sign::Lost {
        let nodes = fleets.iter().flat_map(|fleet| &fleet.nodes);
        nodes.for_each(|node| assert!(!has_lost(node), "before the fault: {}", node.log()));
    }

    begin(&mut fault, &cells)?;
    let began = Instant::now();
    let opening = each(&|cell| cell.visits_in::<F>(OPENING))?;
    await_sign(&fault, &fleets, counted)?;
    let mut measurements = vec![Vec::new(); cells.len()];
    for round in 0..pairs {
        for (nth, cell) in cells.iter().enumerate() {
            let well = || match calm_cells.get(nth) {
                Some(calm) => calm.visits(calm.traffic(), calm.connections(full)),
                None => Ok(healthy[nth].clone()),
            };
            let ill = || cell.visits_in::<F>(cell.connections(full));
            let steal = Steal::watch()?;
            // Who comes second finds the machine as the first one leaves it.
            let (healthy, faulty) = if round % 2 == 0 {
                let healthy = well()?;
                (healthy, ill()?)
            } else {
                let faulty = ill()?;
                (well()?, faulty)
            };
            measurements[nth].push(Pair { healthy, faulty, stolen: steal.share()? });
        }
    }
    while began.elapsed() < F::LASTS {
        each(&|cell| cell.visits_in::<F>(OPENING))?;
    }
    await_sign(&fault, &fleets, counted)?;
    for (cell, visitor) in cells.iter().zip(&visitors).filter(|(cell, _)| !cell.kind.is_stored()) {
        cell.resumes_everywhere(visitor)?;
    }

    let services = end(&mut fault, &fleets, &cells)?;
    let outcomes = cells.iter().zip(services).enumerate().map(|(nth, (cell, service))| Outcome {
        sharing: cell.fleet.manner.sharing,
        kind: cell.kind(),
        looks_up: cell.looks_up(),
        opening: opening[nth].clone(),
        pairs: std::mem::take(&mut measurements[nth]),
        service,
    });
    Ok(outcomes.collect())
}

/// Until all nodes say that Redis does what it is asked.
fn await_up(fleets: &[Fleet], limit: Duration) -> Result<()> {
    let nodes = fleets.iter().flat_map(|fleet| &fleet.nodes);
    wait_until("all nodes to reach Redis", limit, || nodes.clone().all(is_up))
}

/// Until there is what the fault is seen by; what the metrics say of it they say as long as it lasts.
fn await_sign<F: Fault>(fault: &F, fleets: &[Fleet], counted: u64) -> Result<()> {
    let is_seen = |nodes: &[Server]| match F::SIGN {
        Sign::Down => !nodes.iter().any(is_up),
        Sign::FirstDown => !is_up(&nodes[0]) && nodes[1..].iter().all(is_up),
        Sign::Lost => nodes.iter().all(has_lost),
        Sign::Counted => fault.count().is_ok_and(|count| count > counted),
    };
    wait_until(format!("a sign of: {}", F::NAME), DEADLINE, || {
        fleets.iter().all(|fleet| is_seen(&fleet.nodes))
    })
}

fn has_lost(node: &Server) -> bool {
    node.log().contains("redis: not reached")
}

fn is_up(node: &Server) -> bool {
    let stats = Stats::of(node.address());
    stats.is_ok_and(|stats| stats.get("transport_up{transport=\"redis\"}") == 1)
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
fn end(fault: &mut impl Fault, fleets: &[Fleet], cells: &[Cell<'_>]) -> Result<Vec<Duration>> {
    let ended = OnceLock::new();
    let services = thread::scope(|scope| {
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
    });
    // Whoever was late with the last visit may look once more.
    let left = SERVICE.saturating_sub(ended.get_or_init(Instant::now).elapsed());
    await_up(fleets, left.max(Duration::from_secs(1)))?;
    services
}
