//! Messages as bytes.

use proptest::prelude::*;
use zeroize::Zeroizing;

use crate::cluster::message::*;
use crate::cluster::seal::MAX_OVERHEAD;

fn session(value: Vec<u8>) -> SessionMessage {
    let value = Zeroizing::new(value);
    SessionMessage { binding: 1, expires: 2, authenticated: 3, note: 4, value }
}

fn heartbeat(host: &str, version: &str) -> Heartbeat {
    Heartbeat {
        time_ms: 1,
        sequence: 2,
        ring_digest: [3; 16],
        started_ms: 4,
        host: host.into(),
        version: version.into(),
    }
}

fn entry(kind: Kind, sealed_len: usize) -> Entry {
    Entry { origin: NodeId([1; 8]), kind, key: [2; 24], sealed: vec![3; sealed_len] }
}

/// That nothing but all of `bytes` decodes, nor any other version of it.
fn check_exact<T>(bytes: &[u8], decode: impl Fn(&[u8]) -> Option<T>) {
    assert!(decode(bytes).is_some());
    for len in 0..bytes.len() {
        assert!(decode(&bytes[..len]).is_none(), "cut to {len} of {} bytes", bytes.len());
    }
    assert!(decode(&[bytes, b"!"].concat()).is_none(), "with a byte behind it");
    for version in (0..=u8::MAX).filter(|version| *version != bytes[0]) {
        assert!(decode(&[&[version], &bytes[1..]].concat()).is_none(), "version {version}");
    }
}

#[test]
fn the_forms_are_what_they_were() {
    assert_eq!(
        hex::encode(session(b"abc".to_vec()).encode().unwrap()),
        "0101000000000000000200000003000000040300616263"
    );
    assert_eq!(hex::encode(Removal { until: 0x1020_3040 }.encode()), "0140302010");
    assert_eq!(
        hex::encode(heartbeat("h", "1.2").encode().unwrap()),
        "0101000000000000000200000000000000030303030303030303030303030303030400000000000000016803312e32"
    );
    let removal = entry(Kind::Removal, MAX_OVERHEAD).encode().unwrap();
    let [origin, key, sealed] = ["01".repeat(8), "02".repeat(24), "03".repeat(MAX_OVERHEAD)];
    assert_eq!(hex::encode(removal), format!("0102{origin}{key}{sealed}"));
    let notice = Entry::ring_changed(NodeId([1; 8])).encode().unwrap();
    assert_eq!(hex::encode(notice), format!("01030101010101010101{}", "00".repeat(24)));
}

#[test]
fn what_is_cut_short_longer_or_of_another_version_is_refused() {
    check_exact(&session(b"value".to_vec()).encode().unwrap(), SessionMessage::decode);
    check_exact(&session(Vec::new()).encode().unwrap(), SessionMessage::decode);
    check_exact(&Removal { until: 5 }.encode(), Removal::decode);
    check_exact(&heartbeat("host", "1.2.3").encode().unwrap(), Heartbeat::decode);
    check_exact(&Entry::ring_changed(NodeId([1; 8])).encode().unwrap(), Entry::decode);
}

#[test]
fn values_and_names_have_a_longest_length() {
    let longest = session(vec![5; MAX_VALUE]);
    assert_eq!(SessionMessage::decode(&longest.encode().unwrap()), Some(longest));
    for len in [MAX_VALUE + 1, 0xffff, 0x1_0000, 0x1_0005] {
        assert_eq!(session(vec![5; len]).encode(), None, "{len}");
    }
    let longest = heartbeat(&"h".repeat(MAX_HOST), &"v".repeat(MAX_VERSION));
    assert_eq!(Heartbeat::decode(&longest.encode().unwrap()), Some(longest));
    for (host, version) in [(MAX_HOST + 1, 0), (0, MAX_VERSION + 1), (256, 0), (0, 256)] {
        let long = heartbeat(&"h".repeat(host), &"v".repeat(version));
        assert_eq!(long.encode(), None, "{host} {version}");
    }
}

#[test]
fn a_length_beyond_the_longest_is_refused_although_the_bytes_are_there() {
    let mut bytes = session(vec![5; MAX_VALUE]).encode().unwrap();
    bytes[18..20].copy_from_slice(&0xff01u16.to_le_bytes());
    bytes.push(5);
    assert_eq!(SessionMessage::decode(&bytes), None);
    let mut bytes = heartbeat(&"h".repeat(MAX_HOST), "").encode().unwrap();
    bytes[41] += 1;
    bytes.insert(42, b'h');
    assert_eq!(Heartbeat::decode(&bytes), None);
}

#[test]
fn a_name_that_is_not_utf_8_is_refused() {
    let mut bytes = heartbeat("host", "").encode().unwrap();
    bytes[42] = 0xff;
    assert_eq!(Heartbeat::decode(&bytes), None);
}

#[test]
fn an_entry_holds_something_sealed_and_not_too_much() {
    for kind in [Kind::Session, Kind::Removal] {
        for len in [MAX_OVERHEAD, MAX_SEALED] {
            let bytes = entry(kind, len).encode().unwrap();
            assert_eq!(Entry::decode(&bytes), Some(entry(kind, len)), "{len}");
        }
        for len in [0, MAX_OVERHEAD - 1, MAX_SEALED + 1] {
            assert_eq!(entry(kind, len).encode(), None, "{len}");
        }
        let shortest = entry(kind, MAX_OVERHEAD).encode().unwrap();
        let longest = entry(kind, MAX_SEALED).encode().unwrap();
        for len in 0..shortest.len() {
            assert_eq!(Entry::decode(&shortest[..len]), None, "cut to {len}");
        }
        assert_eq!(Entry::decode(&[&longest[..], b"!"].concat()), None);
    }
}

#[test]
fn a_notice_of_the_ring_carries_nothing() {
    let notice = Entry::ring_changed(NodeId([1; 8]));
    assert_eq!(Entry { sealed: vec![0; MAX_OVERHEAD], ..notice.clone() }.encode(), None);
    assert_eq!(Entry { key: [1; 24], ..notice.clone() }.encode(), None);
    let mut bytes = notice.encode().unwrap();
    bytes[33] = 1;
    assert_eq!(Entry::decode(&bytes), None);
}

#[test]
fn no_other_kind_of_entry_is_known() {
    let mut bytes = entry(Kind::Session, MAX_OVERHEAD).encode().unwrap();
    for kind in (0..=u8::MAX).filter(|kind| ![1, 2].contains(kind)) {
        bytes[1] = kind;
        assert_eq!(Entry::decode(&bytes), None, "{kind}");
    }
}

#[test]
fn debug_output_holds_no_byte_of_a_session() {
    let text = format!("{:?}", session(vec![0xab, 171, 171]));
    assert!(text.contains("value: 3 bytes"), "{text}");
    assert!(!text.contains("171"), "{text}");
}

#[test]
fn a_node_is_shown_as_16_hex_digits() {
    assert_eq!(NodeId([0, 1, 0xab, 3, 4, 5, 6, 0xff]).to_string(), "0001ab03040506ff");
}

fn bytes(max: usize) -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..max)
}

proptest! {
    #[test]
    fn every_session_reads_back_and_is_no_removal(
        binding in any::<u64>(),
        expires in any::<u32>(),
        authenticated in any::<u32>(),
        note in any::<u8>(),
        value in bytes(300),
    ) {
        let value = Zeroizing::new(value);
        let session = SessionMessage { binding, expires, authenticated, note, value };
        let bytes = session.encode().unwrap();
        prop_assert_eq!(Removal::decode(&bytes), None);
        prop_assert_eq!(SessionMessage::decode(&bytes), Some(session));
    }

    #[test]
    fn every_removal_reads_back_and_is_no_session(until in any::<u32>()) {
        let removal = Removal { until };
        prop_assert_eq!(Removal::decode(&removal.encode()), Some(removal));
        prop_assert_eq!(SessionMessage::decode(&removal.encode()), None);
    }

    #[test]
    fn every_heartbeat_reads_back(
        time_ms in any::<u64>(),
        sequence in any::<u64>(),
        ring_digest in any::<[u8; 16]>(),
        started_ms in any::<u64>(),
        host in ".{0,16}",
        version in ".{0,8}",
    ) {
        let heartbeat = Heartbeat { time_ms, sequence, ring_digest, started_ms, host, version };
        prop_assert_eq!(Heartbeat::decode(&heartbeat.encode().unwrap()), Some(heartbeat));
    }

    #[test]
    fn every_entry_reads_back(
        origin in any::<[u8; 8]>(),
        kind in prop::sample::select(&[Kind::Session, Kind::Removal][..]),
        key in any::<Key>(),
        sealed in prop::collection::vec(any::<u8>(), MAX_OVERHEAD..300),
    ) {
        let entry = Entry { origin: NodeId(origin), kind, key, sealed };
        prop_assert_eq!(Entry::decode(&entry.encode().unwrap()), Some(entry));
    }

    #[test]
    fn arbitrary_bytes_never_panic_and_what_decodes_is_what_encode_writes(
        our_version in any::<bool>(),
        bytes in bytes(200),
    ) {
        let bytes = [if our_version { &[1][..] } else { &[] }, &bytes].concat();
        if let Some(session) = SessionMessage::decode(&bytes) {
            prop_assert_eq!(&**session.encode().unwrap(), &bytes);
        }
        if let Some(removal) = Removal::decode(&bytes) {
            prop_assert_eq!(removal.encode(), bytes.clone());
        }
        if let Some(heartbeat) = Heartbeat::decode(&bytes) {
            prop_assert_eq!(heartbeat.encode(), Some(bytes.clone()));
        }
        if let Some(entry) = Entry::decode(&bytes) {
            prop_assert_eq!(entry.encode(), Some(bytes));
        }
    }
}
