//! Sealing: only what was sealed for a place by the cluster opens in it.

use proptest::prelude::*;
use zeroize::Zeroizing;

use crate::cluster::seal::{Label, MAX_OVERHEAD, NONCE_LEN, Refused, Sealer};
use crate::cluster::secrets::Secrets;

const OLD: &str = "the secret that the cluster starts with";
const NEW: &str = "the secret that the cluster ends up with";
const REALM: &str = "production";
const ID: [u8; 24] = [7; 24];
const NONCE: [u8; NONCE_LEN] = [9; NONCE_LEN];

fn sealer_in(realm: &str, lines: &[&str]) -> Sealer {
    Sealer::new(&Secrets::parse(lines.join("\n").as_bytes(), "f").unwrap(), realm)
}

fn sealer(lines: &[&str]) -> Sealer {
    sealer_in(REALM, lines)
}

/// Sealed by `from` and opened by `to`, with the outcome for each label.
fn opens(from: &Sealer, to: &Sealer) -> Result<(), Refused> {
    Label::ALL.into_iter().try_for_each(|label| {
        let sealed = from.seal(label, &ID, b"plain", NONCE);
        to.open(label, &ID, &sealed).map(|plain| assert_eq!(*plain, b"plain"))
    })
}

#[test]
fn the_form_is_what_it_was_and_what_another_implementation_makes() {
    let sealer = sealer(&["an example secret of forty-two characters."]);
    let id: Vec<u8> = (0..24).collect();
    let nonce: Vec<u8> = (100..124).collect();
    let sealed = "010b86fb766465666768696a6b6c6d6e6f707172737475767778797a7b\
                  0d73fac0140733c01a90722923c3229073daf8299bfacc94ae";
    assert_eq!(
        hex::encode(sealer.seal(Label::Session, &id, b"a session", nonce.try_into().unwrap())),
        sealed
    );
    let plain = sealer.open(Label::Session, &id, &hex::decode(sealed).unwrap()).unwrap();
    assert_eq!(*plain, b"a session");
}

#[test]
fn a_bit_flipped_anywhere_is_refused() {
    let sealer = sealer(&[OLD, NEW]);
    let sealed = sealer.seal(Label::Ring, &ID, b"plain", NONCE);
    for bit in 0..sealed.len() * 8 {
        let mut changed = sealed.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        let expected = match bit / 8 {
            0 => Refused::Format,
            1..5 => Refused::Secret,
            _ => Refused::Forged,
        };
        assert_eq!(sealer.open(Label::Ring, &ID, &changed), Err(expected), "bit {bit}");
    }
}

#[test]
fn a_message_cut_short_or_with_more_behind_it_is_refused() {
    let sealer = sealer(&[OLD]);
    let sealed = sealer.seal(Label::Ring, &ID, b"plain", NONCE);
    for len in 0..sealed.len() {
        let expected = if len < MAX_OVERHEAD { Refused::Format } else { Refused::Forged };
        assert_eq!(sealer.open(Label::Ring, &ID, &sealed[..len]), Err(expected), "{len} bytes");
    }
    assert_eq!(sealer.open(Label::Ring, &ID, &[&sealed[..], b"!"].concat()), Err(Refused::Forged));
}

#[test]
fn a_message_moved_to_another_id_label_or_realm_is_forged() {
    let here = sealer(&[OLD]);
    for label in Label::ALL {
        let sealed = here.seal(label, &ID, b"plain", NONCE);
        for id in [&ID[..23], &[7; 25], &[8; 24], b""] {
            assert_eq!(here.open(label, id, &sealed), Err(Refused::Forged), "{label:?} {id:?}");
        }
        for other in Label::ALL.into_iter().filter(|other| *other != label) {
            assert_eq!(here.open(other, &ID, &sealed), Err(Refused::Forged), "{label:?} {other:?}");
        }
        for realm in ["", "productio", "production2", "Production"] {
            let there = sealer_in(realm, &[OLD]);
            assert_eq!(there.open(label, &ID, &sealed), Err(Refused::Forged), "{label:?} {realm}");
        }
    }
}

#[test]
fn what_ends_the_realm_does_not_begin_the_id() {
    let one = sealer_in("realm", &[OLD]);
    let other = sealer_in("realmid", &[OLD]);
    let sealed = one.seal(Label::Ring, b"idid", b"plain", NONCE);
    assert_eq!(other.open(Label::Ring, b"id", &sealed), Err(Refused::Forged));
}

#[test]
fn every_label_has_a_key_of_its_own() {
    let sealer = sealer(&[OLD]);
    // The same bytes in the same place but for the label: equal ciphertexts would show equal keys.
    let bodies = Label::ALL.map(|label| sealer.seal(label, &ID, &[0; 32], NONCE)[29..61].to_vec());
    for (index, body) in bodies.iter().enumerate() {
        assert!(!bodies[..index].contains(body), "label {index} repeats an earlier key");
    }
}

#[test]
fn what_another_secret_sealed_is_told_from_what_was_forged() {
    assert_eq!(opens(&sealer(&[NEW]), &sealer(&[OLD])), Err(Refused::Secret));
    assert_eq!(opens(&sealer(&[NEW, OLD]), &sealer(&[OLD])), Err(Refused::Secret));
}

#[test]
fn both_of_two_secrets_with_the_same_hint_are_tried() {
    let (one, other) =
        ("secret of a known hint, number 064150", "secret of a known hint, number 093560");
    let hint = |secret| sealer(&[secret]).seal(Label::Ring, &ID, b"plain", NONCE)[1..5].to_vec();
    assert_eq!(hint(one), hint(other));
    for secret in [one, other] {
        assert_eq!(opens(&sealer(&[secret]), &sealer(&[one, other])), Ok(()));
        assert_eq!(opens(&sealer(&[secret]), &sealer(&[other, one])), Ok(()));
    }
    assert_eq!(opens(&sealer(&[one]), &sealer(&[other])), Err(Refused::Forged));
}

#[test]
fn nodes_read_each_other_at_every_step_of_replacing_the_secret() {
    let steps = [&[OLD][..], &[OLD, NEW], &[NEW, OLD], &[NEW]].map(sealer);
    for (index, pair) in steps.windows(2).enumerate() {
        for from in pair {
            for to in pair {
                assert_eq!(opens(from, to), Ok(()), "between steps {index} and {}", index + 1);
            }
        }
    }
    assert_eq!(opens(&steps[2], &steps[0]), Err(Refused::Secret), "a step left out is noticed");
    assert_eq!(opens(&steps[1], &steps[3]), Err(Refused::Secret), "a step left out is noticed");
}

#[test]
fn debug_output_holds_no_secret() {
    assert_eq!(format!("{:?}", sealer(&[OLD, NEW])), "Sealer(\"production\", 2 secrets)");
}

fn bytes(max: usize) -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..max)
}

fn label() -> impl Strategy<Value = Label> {
    prop::sample::select(&Label::ALL[..])
}

proptest! {
    #[test]
    fn what_was_sealed_opens_in_its_place(
        realm in ".{0,20}",
        label in label(),
        id in bytes(40),
        plain in bytes(300),
        nonce in any::<[u8; NONCE_LEN]>(),
    ) {
        let sealer = sealer_in(&realm, &[OLD]);
        let sealed = sealer.seal(label, &id, &plain, nonce);
        prop_assert!(sealed.len() <= plain.len() + MAX_OVERHEAD);
        prop_assert_eq!(sealer.open(label, &id, &sealed), Ok(Zeroizing::new(plain)));
    }

    #[test]
    fn arbitrary_bytes_never_panic_and_never_open(
        label in label(),
        known_header in any::<bool>(),
        id in bytes(40),
        invented in bytes(200),
    ) {
        let sealer = sealer(&[OLD, NEW]);
        let header = sealer.seal(label, &id, b"", NONCE);
        let sealed = [if known_header { &header[..5] } else { &[] }, &invented].concat();
        prop_assert!(sealer.open(label, &id, &sealed).is_err());
    }
}
