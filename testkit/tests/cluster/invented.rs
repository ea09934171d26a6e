//! Session ids that clients invent: however many there are, and however alike to real ones, Redis
//! hears of none.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::Instant;

use tlsresume_testkit::matrix::Kind;
use tlsresume_testkit::redis::Monitor;
use tlsresume_testkit::{
    DEADLINE, Error, Random, RedisServer, Result, Stats, alone, say, wait_until,
};

use crate::faults::is_deep;
use crate::nodes::{Cluster, Sharing};

const IDS: u32 = 20_000;
const CLIENTS: usize = 4;

/// ECDHE-ECDSA-AES128-GCM-SHA256, and one that no server has had for long: it refuses who knows no
/// other, but not before it has looked for the session.
const KNOWN: [u8; 2] = [0xc0, 0x2b];
const UNKNOWN: [u8; 2] = [0, 1];

/// Of an id that the library makes: random bytes, and what proves that it did.
const ID_LEN: usize = 32;
const RANDOM_LEN: usize = 24;

/// One invented id in 2^64 proves itself to each of the realm's id keys: none does, so none is not
/// few, and whatever Redis is asked about a session fails this.
#[test]
fn invented_ids_cause_not_one_command_of_redis_however_many_a_second() -> Result<()> {
    let _alone = alone();
    let redis = RedisServer::start()?;
    let node = Cluster::at(redis.url(), Sharing::Pull, Kind::Tls12Id)?.patient().node()?;
    let ours = greet(node.address(), &[])?;
    assert_eq!(ours.len(), ID_LEN);
    let ids = invent(&ours);

    let before = Stats::of(node.address())?;
    let monitor = redis.monitor()?;
    let (gets, takes) = (redis.info_commands("get")?, redis.info_commands("getdel")?);
    let rate = offer(node.address(), &ids)?;
    say(&format!("{IDS} invented ids, {rate:.0} a second"));
    // Where other tests run beside this one, nobody knows how many there can be.
    assert!(!is_deep() || rate >= 10_000.0, "{rate:.0} a second");
    let gets = redis.info_commands("get")? - gets;
    let takes = redis.info_commands("getdel")? - takes;
    let (others, look_ups) = heard(monitor, &redis)?;
    let after = Stats::of(node.address())?;

    assert_eq!(look_ups, Vec::<String>::new());
    // The agent asks who makes the keys; nobody asks for anything else.
    let own = others.iter().filter(|line| line.contains("\"GET\"")).count() as u64;
    assert!(gets <= own && takes == 0, "{gets} GET, {takes} GETDEL, of the agent: {others:?}");
    let added = |name: &str| after.get(name) - before.get(name);
    let refused = added("sessions_missed_total{reason=\"forged_id\"}");
    assert_eq!(refused, u64::from(IDS), "each was looked at");
    assert_eq!(added("lookup_seconds_count"), 0);

    wait_until("a look-up of an id that is not invented, which is heard", DEADLINE, || {
        redis.monitor().is_ok_and(|monitor| {
            let offered = greet(node.address(), &ours);
            offered.is_ok() && heard(monitor, &redis).is_ok_and(|(_, it)| !it.is_empty())
        })
    })
}

/// What anybody can think of, and an id that was overheard with another proof.
fn invent(overheard: &[u8]) -> Vec<Vec<u8>> {
    let mut random = Random::new();
    let mut bytes = |len| -> Vec<u8> {
        let mut words = std::iter::repeat_with(|| random.number().to_le_bytes());
        words.by_ref().take(ID_LEN / 8).flatten().take(len).collect()
    };
    let id = |nth: u32| match nth % 3 {
        0 => bytes(ID_LEN),
        1 => [&overheard[..RANDOM_LEN], &bytes(ID_LEN - RANDOM_LEN)].concat(),
        _ => bytes(1 + nth as usize % ID_LEN),
    };
    (0..IDS).map(id).collect()
}

/// As fast as the machine allows, with as little work for the server as can be; says how many a second
/// that is.
fn offer(node: SocketAddr, ids: &[Vec<u8>]) -> Result<f64> {
    let began = Instant::now();
    thread::scope(|scope| {
        let clients: Vec<_> = ids
            .chunks(ids.len().div_ceil(CLIENTS))
            .map(|ids| {
                scope.spawn(|| ids.iter().try_for_each(|id| begin(node, id, UNKNOWN).map(drop)))
            })
            .collect();
        clients.into_iter().try_for_each(|it| it.join().expect("it does not panic"))
    })?;
    Ok(f64::from(IDS) / began.elapsed().as_secs_f64())
}

/// The id that the server names for a session, which is not made, instead of the one that it is asked
/// for.
fn greet(node: SocketAddr, id: &[u8]) -> Result<Vec<u8>> {
    let hello = begin(node, id, KNOWN)?;
    // Type, length and version of the handshake message, and the server's random bytes, come first.
    let named = hello.get(38).and_then(|len| hello[39..].get(..usize::from(*len)));
    Ok(named.unwrap_or_else(|| panic!("no ServerHello: {hello:02x?}")).to_vec())
}

/// What the server says first to a client that has gone then.
fn begin(node: SocketAddr, id: &[u8], cipher: [u8; 2]) -> Result<Vec<u8>> {
    let answer = TcpStream::connect(node).and_then(|mut stream| {
        stream.write_all(&client_hello(id, cipher))?;
        read_record(&mut stream)
    });
    answer.map_err(|source| Error::Io { doing: "greeting a server".into(), source })
}

fn read_record(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut head = [0; 5];
    stream.read_exact(&mut head)?;
    let mut record = vec![0; u16::from_be_bytes([head[3], head[4]]).into()];
    stream.read_exact(&mut record)?;
    Ok(record)
}

/// TLS 1.2, and no tickets.
fn client_hello(id: &[u8], cipher: [u8; 2]) -> Vec<u8> {
    const RANDOM: [u8; 32] = [7; 32];
    const COMPRESSION: [u8; 2] = [1, 0];
    const EXTENSIONS: [u8; 25] = [
        0, 23, // all of them
        0, 10, 0, 6, 0, 4, 0, 29, 0, 23, // the groups X25519 and, for the certificate, P-256
        0, 13, 0, 4, 0, 2, 4, 3, // signatures by ECDSA with SHA-256
        0xff, 1, 0, 1, 0, // renegotiation
    ];
    let len = u8::try_from(id.len()).expect("at most 32 bytes");
    let body =
        [&[3, 3], &RANDOM[..], &[len], id, &[0, 2], &cipher, &COMPRESSION, &EXTENSIONS].concat();
    let message = [&[1, 0, 0, u8::try_from(body.len()).expect("short")], &body[..]].concat();
    [&[22, 3, 1, 0, u8::try_from(message.len()).expect("short")], &message[..]].concat()
}

/// What Redis was told, and what of it was about sessions.
fn heard(monitor: Monitor, redis: &RedisServer) -> Result<(Vec<String>, Vec<String>)> {
    let all = monitor.heard(redis)?;
    Ok(all.into_iter().partition(|line| !line.contains(":session:")))
}
