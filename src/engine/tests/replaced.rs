//! Servers whose memory another release has replaced.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{FileExt, PermissionsExt};

use siphasher::sip::SipHasher13;

use super::support::*;
use crate::engine::{Engine, Lookup};

/// Gives the file the layout version after ours, with a header that is whole.
fn forge(place: &Place) {
    let file = File::options().read(true).write(true).open(place.path("memory")).unwrap();
    let mut fixed = [0; 64];
    file.read_exact_at(&mut fixed, 0).unwrap();
    fixed[8] += 1;
    file.write_all_at(&fixed, 0).unwrap();
    file.write_all_at(&SipHasher13::new().hash(&fixed).to_le_bytes(), 64).unwrap();
}

fn replaced(place: &Place) -> Engine {
    forge(place);
    place.engine()
}

#[test]
fn tickets_go_on_both_ways_and_stored_sessions_and_early_data_do_not() {
    let (place, now) = (Place::new(), now());
    let old = place.engine();
    let ticket = issue(&old, now);
    let id = old.new_session_id(old.new_family(now), now).unwrap();
    let session = session(&id, b"session", now);
    old.keep_session(&session, now, PATIENT);
    assert!(old.find_session(&id, &SHOP, Lookup::Keep, now).is_some());
    let later = now + HOUR;
    assert!(old.early_data_allowed(&[1; 32], true, later));

    let new = replaced(&place);
    assert!(opens(&new, &ticket, now) && opens(&old, &ticket, now));
    assert!(opens(&new, &issue(&old, now), now) && opens(&old, &issue(&new, now), now));
    assert!(old.find_session(&id, &SHOP, Lookup::Keep, now).is_none());
    old.keep_session(&session, now, PATIENT);
    assert!(old.find_session(&id, &SHOP, Lookup::Keep, now).is_none());
    assert!(!old.early_data_allowed(&[2; 32], true, later));
}

#[test]
fn a_revocation_reaches_those_who_have_the_old_file_and_theirs_the_new() {
    let (place, now) = (Place::new(), now());
    let old = place.engine();
    let new = replaced(&place);
    let ticket = issue(&old, now);
    new.revoke_keys(Some(ticket.name())).unwrap();
    assert!(opening(&old, &ticket, now).is_none());
    let ticket = issue(&new, now);
    old.revoke_keys(Some(ticket.name())).unwrap();
    assert!(opening(&new, &ticket, now).is_none());
    old.rotate_keys().unwrap();
    assert_eq!(old.keys(now), new.keys(now));
}

#[test]
fn without_the_new_ring_no_ticket_is_accepted_and_requests_say_why() {
    let (place, now) = (Place::new(), now());
    let old = place.engine();
    let ticket = issue(&old, now);
    let new = replaced(&place);
    fs::set_permissions(place.path("memory"), Permissions::from_mode(0o644)).unwrap();
    assert!(opening(&old, &ticket, now).is_none());
    assert!(
        issue_under(&old, SHOP.name, SHOP.accepting, now).is_none(),
        "no key to make tickets with"
    );
    assert!(old.new_session_id(old.new_family(now), now).is_none());
    let error = old.revoke_keys(None).expect_err("cannot").to_string();
    assert!(error.contains("restart this server"), "{error}");
    assert!(opens(&new, &ticket, now), "who has the new file goes on");
}

#[test]
fn a_server_with_another_size_shares_the_memory_and_what_is_revoked() {
    let (place, now) = (Place::new(), now());
    let old = place.engine();
    let mut config = place.config();
    config.memory.size *= 4;
    let other = Engine::new(config).unwrap();
    let ticket = issue(&old, now);
    assert!(opens(&other, &ticket, now));
    other.revoke_keys(Some(ticket.name())).unwrap();
    assert!(opening(&old, &ticket, now).is_none());
}

#[test]
fn a_revocation_in_a_file_that_was_made_anew_reaches_those_who_have_the_removed_one() {
    let (place, now) = (Place::new(), now());
    let old = place.engine();
    let ticket = issue(&old, now);
    fs::remove_file(place.path("memory")).unwrap();
    let later = now + seconds(2);
    assert!(opens(&old, &ticket, later), "a path without a file changes nothing");
    let new = place.engine();
    new.revoke_keys(None).unwrap();
    let later = later + seconds(2);
    assert!(opening(&old, &ticket, later).is_none());
    assert_eq!(old.keys(later), new.keys(later));
    let fresh = issue(&new, later);
    assert!(opens(&old, &fresh, later), "and goes on with the keys there");
}
