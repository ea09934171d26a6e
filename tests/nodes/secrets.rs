//! What is in Redis, and on the way there, tells nothing, and nothing is believed that no node wrote there.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use tlsresume::config::Config;
use tlsresume::engine::Lookup;
use tlsresume::ring::{Material, wire};
use tlsresume::stats::Counter;
use tlsresume::store::Store;
use tlsresume_testkit::Random;
use tlsresume_testkit::middleman::Middleman;
use tlsresume_testkit::redis::{RedisServer, Reply};

use crate::support::*;

const OTHER_SECRET: &str = "fedcba9876543210fedcba9876543210fedcba9876543210fedcba9876543210";

/// Where the key and the sealed bytes of an entry begin; before are version, kind and origin.
const ENTRY_KEY: usize = 10;
const ENTRY_SEALED: usize = 34;

fn rejected(node: &Node) -> [u64; 3] {
    [
        Counter::TransportRejectedFormat,
        Counter::TransportRejectedSecret,
        Counter::TransportRejectedForged,
    ]
    .map(|counter| node.count(counter))
}

fn session_name(realm: &str, id: &[u8; 32]) -> String {
    format!("tlsresume:{realm}:session:{}", hex::encode(&id[..24]))
}

fn hash(redis: &RedisServer, name: &str) -> Vec<(Vec<u8>, Vec<u8>)> {
    let all = redis.ask(&["HGETALL", name]).expect("answered");
    let pair = |it: &[Reply]| Some((it[0].bytes()?.to_vec(), it[1].bytes()?.to_vec()));
    all.list().chunks(2).filter_map(pair).collect()
}

fn set(redis: &RedisServer, name: &str, field: &[u8], value: &[u8]) {
    redis.ask(&[b"HSET", name.as_bytes(), field, value]).expect("set");
}

/// Has the nodes look at the ring's copy, by a token and a notice as any node writes them.
fn touch(redis: &RedisServer) {
    let token = tlsresume::clock::since_boot().as_nanos();
    set(redis, RING, b"token", &token.to_le_bytes());
    let notice = [&[1, 3][..], &[0xff; 8], &[0; 24]].concat();
    add(redis, &notice);
    redis.command(&["PUBLISH", "tlsresume:{default}:notices", ""]).expect("told");
}

fn entry(redis: &RedisServer, nth: usize) -> Vec<u8> {
    let all = redis.ask(&["XRANGE", STREAM, "-", "+"]).expect("answered");
    let entry = |it: &Reply| Some(it.list().get(1)?.list().get(1)?.bytes()?.to_vec());
    let sessions = all.list().iter().filter_map(entry).filter(|it| it[1] == 1);
    sessions.into_iter().nth(nth).expect("an entry")
}

fn add(redis: &RedisServer, entry: &[u8]) {
    redis.ask(&[b"XADD", STREAM.as_bytes(), b"*", b"e", entry]).expect("added");
}

/// As it is, as hexadecimal digits, and in base64 wherever it may begin.
fn forms(secret: &[u8]) -> Vec<Vec<u8>> {
    let shifted = |skip: usize| {
        let rest = &secret[skip..];
        STANDARD_NO_PAD.encode(&rest[..rest.len() / 3 * 3]).into_bytes()
    };
    let hex = hex::encode(secret);
    let upper = hex.to_uppercase();
    let mut forms = vec![secret.to_vec(), hex.into_bytes(), upper.into_bytes()];
    forms.extend((0..3).map(shifted));
    forms
}

/// All keys that are in a node's memory.
fn secrets_in(config: &Config) -> Vec<Vec<u8>> {
    let path = config.memory.path.as_ref().expect("a path");
    let store =
        Store::open(path, usize::try_from(config.memory.size).expect("it fits")).expect("opened");
    let ring = store.read_ring().1.and_then(|bytes| wire::decode(&bytes)).expect("a ring");
    let secrets = ring.records().flat_map(|record| match &record.material {
        Material::Ticket(key) => vec![key.aes().expose().to_vec(), key.mac().expose().to_vec()],
        Material::SessionId(key) => vec![key.secret().to_vec()],
    });
    secrets.collect()
}

fn at_random(random: &mut Random, bytes: &[u8]) -> usize {
    usize::try_from(random.below(bytes.len() as u64)).expect("a place in it")
}

fn holds(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}

#[test]
fn nothing_secret_is_readable_in_redis_or_on_the_way() {
    for settings in
        ["[resumption]\nbind = false".to_owned(), format!("[resumption]\nbind = false\n{PULL}")]
    {
        let redis = RedisServer::settings().append_only().start().expect("redis");
        let middleman = Middleman::start(redis.address()).expect("a middleman");
        middleman.record();
        let realm = Realm::at(&middleman.url(&redis.url()), &settings);
        let nodes = [realm.node_in(Some("memory")), realm.node()];
        agree(&nodes);
        let value: Vec<u8> = (b'A'..b'z').collect();
        let id = nodes[0].keep(&value);
        nodes[1].finds_soon(&id);
        nodes[0].0.forget_session(&id, now()).expect("the store is free");
        soon("the removal", || nodes[1].find(&id, Lookup::Keep).is_none());

        let seen = [
            redis.dump().expect("a dump"),
            redis.append_only_file().expect("a file"),
            middleman.captured(),
        ];
        assert!(
            seen.iter().all(|bytes| holds(bytes, b"tlsresume:")),
            "the search finds what is there"
        );
        let mut secrets = secrets_in(&realm.config(Some("memory")));
        assert!(secrets.len() > 10);
        secrets.extend([value, SECRET.into()]);
        for secret in secrets.iter().flat_map(|secret| forms(secret)) {
            assert!(seen.iter().all(|bytes| !holds(bytes, &secret)));
        }
    }
}

#[test]
fn what_is_moved_is_refused_and_counted() {
    let redis = RedisServer::start().expect("redis");
    let realm = Realm::pulling(&redis.url(), "");
    let nodes: [Node; 2] = realm.nodes();

    // Within the ring, and within the heartbeats.
    let fields = hash(&redis, RING);
    let keys: Vec<_> = fields.iter().filter(|(name, _)| name[0] == b'k').collect();
    let forged = || nodes.iter().map(|node| rejected(node)[2]).sum::<u64>();
    let before = forged();
    set(&redis, RING, &keys[0].0, &keys[1].1);
    touch(&redis);
    soon("a moved key", || forged() > before);
    let beats = hash(&redis, NODES);
    let before = forged();
    set(&redis, NODES, b"0123456789abcdef", &beats[0].1);
    soon("a moved heartbeat", || forged() > before);
    agree(&nodes);

    // Sessions.
    let ids = [nodes[0].keep(b"one"), nodes[0].keep(b"two")];
    let names = ids.map(|id| session_name("default", &id));
    soon("both written", || {
        redis.command(&["EXISTS", &names[0], &names[1]]).is_ok_and(|n| n == "2")
    });
    redis.command(&["COPY", &names[0], &names[1], "REPLACE"]).expect("copied");
    let before = rejected(&nodes[1])[2];
    assert!(nodes[1].find(&ids[1], Lookup::Keep).is_none());
    assert_eq!(rejected(&nodes[1])[2], before + 1);
    assert!(nodes[1].find(&ids[0], Lookup::Keep).is_some(), "goes on");
}

#[test]
fn what_is_moved_from_the_stream_under_a_key_or_back_is_refused_and_counted() {
    let redis = RedisServer::start().expect("redis");
    let (pushing, pulling) = (Realm::on(&redis, ""), Realm::pulling(&redis.url(), ""));
    let nodes = [pushing.node(), pushing.node(), pulling.node(), pulling.node()];
    agree(&nodes);

    // From the stream, where a node that pulls would look.
    let id = nodes[0].keep(b"a session");
    nodes[1].finds_soon(&id);
    let sealed = entry(&redis, 0)[ENTRY_SEALED..].to_vec();
    redis.command(&["DEL", STREAM]).expect("deleted");
    let joined = pulling.node();
    let name = session_name("default", &id);
    redis.ask(&[b"SET", name.as_bytes(), &sealed]).expect("set");
    let before = rejected(&joined)[2];
    assert!(joined.find(&id, Lookup::Keep).is_none());
    assert_eq!(rejected(&joined)[2], before + 1);

    // And into the stream, where every node that pushes would find it.
    let id = nodes[2].keep(b"another");
    nodes[3].finds_soon(&id);
    let sealed = redis.ask(&["GET", &session_name("default", &id)]).expect("answered");
    let sealed = sealed.bytes().expect("a value");
    let before = rejected(&nodes[1])[2];
    add(&redis, &[&[1, 1][..], &[0xee; 8], &id[..24], sealed].concat());
    soon("a refusal", || rejected(&nodes[1])[2] > before);
    assert!(nodes[1].find(&id, Lookup::Keep).is_none());
}

#[test]
fn what_is_replayed_under_another_realm_is_refused_and_counted() {
    let redis = RedisServer::start().expect("redis");
    let realm = Realm::on(&redis, "realm = \"a\"");
    let nodes: [Node; 1] = realm.nodes();
    let name = nodes[0].issue().expect("a key");
    nodes[0].keep(b"a session");
    soon("the entry", || redis.command(&["XLEN", "tlsresume:{a}:stream"]).is_ok_and(|n| n != "0"));
    for what in ["ring", "nodes", "stream"] {
        let (from, to) = (format!("tlsresume:{{a}}:{what}"), format!("tlsresume:{{b}}:{what}"));
        redis.command(&["COPY", &from, &to]).expect("copied");
    }
    let other = Realm::on(&redis, "realm = \"b\"");
    let nodes: [Node; 2] = other.nodes();
    assert!(!nodes[0].opens(name));
    soon("the session", || {
        rejected(&nodes[0])[2] > 5 && nodes[0].count(Counter::TransportReceived) > 0
    });
    let [format, secret, _] = rejected(&nodes[0]);
    assert_eq!([format, secret], [0, 0]);
}

#[test]
fn what_another_secret_sealed_is_refused_and_counted() {
    let redis = RedisServer::start().expect("redis");
    let (ours, theirs) = (Realm::on(&redis, ""), Realm::on(&redis, ""));
    theirs.write_secrets(&[OTHER_SECRET]);
    let nodes: [Node; 2] = ours.nodes();
    let stranger = theirs.node();
    let id = stranger.keep(b"a session");
    soon("refusals", || rejected(&nodes[0])[1] > 5 && rejected(&stranger)[1] > 5);
    let [format, _, forged] = rejected(&nodes[0]);
    assert_eq!([format, forged], [0, 0]);
    assert!(nodes[0].find(&id, Lookup::Keep).is_none());
    let id = nodes[0].keep(b"a session");
    nodes[1].finds_soon(&id);
    agree(&nodes);
}

#[test]
fn no_flipped_bit_passes() {
    let mut random = Random::new();
    let redis = RedisServer::start().expect("redis");
    let realm = Realm::on(&redis, "");
    let node = realm.node();
    soon("a heartbeat", || node.is_up());
    let gone = hash(&redis, NODES).remove(0);
    end(node);
    let nodes: [Node; 2] = realm.nodes();
    let mut flip = |bytes: &[u8]| {
        let mut bytes = bytes.to_vec();
        let at = at_random(&mut random, &bytes);
        bytes[at] ^= 1 << random.below(8);
        bytes
    };
    let total = |node: &Node| rejected(node).iter().sum::<u64>();

    // Entries of the stream; who wrote one is nobody's business.
    let ids: Vec<_> = (0..2).map(|_| nodes[0].keep(b"a session")).collect();
    ids.iter().for_each(|id| nodes[1].finds_soon(id));
    let whole = entry(&redis, 0);
    let before = total(&nodes[1]);
    for _ in 0..150 {
        let (outside, rest) = whole.split_at(ENTRY_KEY);
        add(&redis, &[outside, &flip(rest)].concat());
    }
    soon("150 refusals", || total(&nodes[1]) == before + 150);
    for bit in 0..16 {
        let mut bad = whole.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        add(&redis, &bad);
    }
    let truncated = [0, 1, ENTRY_SEALED, whole.len() - 1];
    truncated.iter().for_each(|len| add(&redis, &whole[..*len]));
    soon("20 refusals", || total(&nodes[1]) == before + 170);

    // Parts of the ring, under their own names, and heartbeats of nodes that are none.
    let both = || nodes.iter().map(total).sum::<u64>();
    let keys: Vec<_> = hash(&redis, RING).into_iter().filter(|(name, _)| name[0] == b'k').collect();
    for (field, value) in keys.iter().cycle().take(20) {
        let before = both();
        set(&redis, RING, field, &flip(value));
        touch(&redis);
        soon("a refusal", || both() > before);
    }
    agree(&nodes);
    for _ in 0..3 {
        let before = total(&nodes[1]);
        set(&redis, NODES, &gone.0, &flip(&gone.1));
        soon("a refusal", || total(&nodes[1]) > before);
    }
    let id = nodes[0].keep(b"a session");
    nodes[1].finds_soon(&id);
}

#[test]
fn no_flipped_bit_of_a_session_that_is_looked_up_passes() {
    let mut random = Random::new();
    let redis = RedisServer::start().expect("redis");
    let realm = Realm::pulling(&redis.url(), "");
    let nodes: [Node; 2] = realm.nodes();
    let id = nodes[0].keep(b"a session");
    let name = session_name("default", &id);
    soon("the session", || redis.command(&["EXISTS", &name]).is_ok_and(|it| it == "1"));
    let whole = redis.ask(&["GET", &name]).expect("answered").bytes().expect("a value").to_vec();
    let before: u64 = rejected(&nodes[1]).iter().sum();
    for nth in 1..=150 {
        let mut bad = whole.clone();
        let at = at_random(&mut random, &bad);
        bad[at] ^= 1 << random.below(8);
        redis.ask(&[b"SET", name.as_bytes(), &bad]).expect("set");
        assert!(nodes[1].find(&id, Lookup::Keep).is_none());
        assert_eq!(rejected(&nodes[1]).iter().sum::<u64>(), before + nth, "byte {at}");
    }
    redis.ask(&[b"SET", name.as_bytes(), &whole]).expect("set");
    nodes[1].finds_soon(&id);
}

#[test]
fn rolling_the_secret_loses_no_key_and_no_session() {
    for settings in [String::new(), PULL.to_owned()] {
        let redis = RedisServer::start().expect("redis");
        let realm = Realm::on(&redis, &settings);
        let memories = ["memory 0", "memory 1"];
        let mut nodes: Vec<_> = memories.iter().map(|path| realm.node_in(Some(path))).collect();
        agree(&nodes);
        let mut ids = vec![nodes[0].keep(b"before")];
        let name = nodes[0].issue().expect("a key");
        for secrets in [&[SECRET, OTHER_SECRET][..], &[OTHER_SECRET, SECRET], &[OTHER_SECRET]] {
            realm.write_secrets(secrets);
            for nth in 0..2 {
                ids.push(nodes[nth].keep(b"meanwhile"));
                let old = nodes.remove(nth);
                end(old);
                nodes.insert(nth, realm.node_in(Some(memories[nth])));
                soon("up", || nodes[nth].is_up());
                let known: Vec<_> = ids
                    .iter()
                    .filter(|id| nodes[1 - nth].find(id, Lookup::Keep).is_none())
                    .collect();
                soon("all sessions", || {
                    known.iter().all(|id| nodes[1 - nth].find(id, Lookup::Keep).is_some())
                });
            }
            agree(&nodes);
            assert!(nodes.iter().all(|node| node.opens(name)));
            assert!(
                ids.iter().all(|id| nodes.iter().all(|node| node.find(id, Lookup::Keep).is_some()))
            );
        }
        // One that begins with nothing.
        let joined = realm.node();
        assert!(joined.opens(name), "{}", joined.metrics());
        let [format, secret, forged] = rejected(&joined);
        assert_eq!([format, forged], [0, 0]);
        if !settings.is_empty() {
            ids.iter().for_each(|id| joined.finds_soon(id));
            // In push the stream still has entries that the deleted secret sealed.
            assert_eq!(secret, 0);
        }
    }
}
