//! A small TLS server in Rust, on the `openssl` crate, with a thread for each connection. Its sessions resume in every
//! other server of the realm, C or Rust: the integration is the line marked TLSRESUME below.
//!
//! ```sh
//! cargo run --features openssl --example rust_server -- --listen 127.0.0.1:8443
//! ```
//!
//! Settings come from the `TLSRESUME_*` environment variables or the file that `$TLSRESUME_CONFIG` names.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "a program, not the library: it writes where it is told, and starts threads as it likes"
)]

use std::error::Error;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;
use std::{env, process, thread};

use openssl::asn1::Asn1Time;
use openssl::bn::BigNum;
use openssl::ec::{EcGroup, EcKey};
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::ssl::{NameType, SslAcceptor, SslMethod, SslRef};
use openssl::x509::{X509, X509Name};
use tlsresume::Realm;

/// How long a client may be silent.
const PATIENCE: Duration = Duration::from_secs(10);

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> Result<()> {
    let mut builder = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls())?;
    let (certificate, key) = self_signed_certificate()?;
    builder.set_certificate(&certificate)?;
    builder.set_private_key(&key)?;
    Realm::from_env()?.attach(&mut builder)?; // TLSRESUME
    let acceptor = Arc::new(builder.build());

    let listener = TcpListener::bind(listen_address()?)?;
    println!("ready {}", listener.local_addr()?);
    for stream in listener.incoming() {
        let (stream, acceptor) = (stream?, Arc::clone(&acceptor));
        thread::spawn(move || {
            if let Err(error) = serve(&acceptor, stream) {
                eprintln!("rust_server: {error}");
            }
        });
    }
    Ok(())
}

/// The argument of `--listen`, or any free port.
fn listen_address() -> Result<String> {
    let arguments: Vec<_> = env::args().skip(1).collect();
    match arguments.as_slice() {
        [] => Ok("127.0.0.1:0".into()),
        [option, address] if option == "--listen" => Ok(address.clone()),
        _ => Err("usage: rust_server [--listen ADDR:PORT]".into()),
    }
}

fn serve(acceptor: &SslAcceptor, stream: TcpStream) -> Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut stream = acceptor.accept(stream)?;
    let mut request = [0; 4096];
    if stream.read(&mut request)? > 0 {
        let answer = answer(stream.ssl());
        write!(stream, "HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n{answer}\n")?;
    }
    // The client may be gone.
    let _ = stream.shutdown();
    Ok(())
}

/// What the other examples answer too.
fn answer(ssl: &SslRef) -> String {
    format!(
        "{{\"server\":\"rust_server\",\"worker\":0,\"thread\":0,\"pid\":{},\"version\":\"{}\",\"resumed\":{},\
         \"name\":\"{}\",\"client_cert\":false,\"early_data\":\"not sent\",\"cpu_us\":0}}",
        process::id(),
        ssl.version_str(),
        ssl.session_reused(),
        ssl.servername(NameType::HOST_NAME).unwrap_or_default().escape_default(),
    )
}

fn self_signed_certificate() -> Result<(X509, PKey<Private>)> {
    let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1)?;
    let key = PKey::from_ec_key(EcKey::generate(&group)?)?;
    let mut name = X509Name::builder()?;
    name.append_entry_by_text("CN", "tlsresume example")?;
    let name = name.build();

    let mut certificate = X509::builder()?;
    certificate.set_version(2)?;
    certificate.set_serial_number(BigNum::from_u32(1)?.to_asn1_integer()?.as_ref())?;
    certificate.set_not_before(Asn1Time::days_from_now(0)?.as_ref())?;
    certificate.set_not_after(Asn1Time::days_from_now(365)?.as_ref())?;
    certificate.set_subject_name(&name)?;
    certificate.set_issuer_name(&name)?;
    certificate.set_pubkey(&key)?;
    certificate.sign(&key, MessageDigest::sha256())?;
    Ok((certificate.build(), key))
}
