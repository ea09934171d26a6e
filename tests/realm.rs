//! The Rust API, as far as it needs no client.

#![cfg(feature = "openssl")]

use openssl::ssl::{SslContext, SslMethod};
use tlsresume::Realm;

#[test]
fn a_context_is_attached_once() {
    let realm = Realm::from_toml("").expect("the defaults");
    let mut builder = SslContext::builder(SslMethod::tls()).expect("a context");
    realm.attach(&mut builder).expect("attached");
    let error = realm.clone().attach(&mut builder).expect_err("it is attached").to_string();
    assert!(error.contains("attached already"), "{error}");
}

#[test]
fn a_context_outlives_its_realm_and_a_realm_its_contexts() {
    let realm = Realm::from_toml("").expect("the defaults");
    let mut builder = SslContext::builder(SslMethod::tls()).expect("a context");
    realm.attach(&mut builder).expect("attached");
    let context = builder.build();
    drop(realm.clone());
    drop(context);
    realm.start();
    drop(realm);
}

#[test]
fn a_mistake_names_the_key() {
    let error = Realm::from_toml("[keys]\nrotate = \"soon\"").expect_err("no duration").to_string();
    assert!(error.contains("keys.rotate"), "{error}");
    let missing = std::path::Path::new("/nowhere/tlsresume.toml");
    let error = Realm::from_file(missing).expect_err("no file").to_string();
    assert!(error.contains("/nowhere/tlsresume.toml"), "{error}");
}
