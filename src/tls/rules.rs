//! The rules by which a server admits clients, as a digest: everything that decides who gets in, as far as OpenSSL has
//! a getter or its structures can be read. What cannot be known makes the rules those of one context alone.
//!
//! Owns: nothing. Called by: [`super::policy`]. Threads and forks: as for every callback; what is remembered of stores
//! is [`super::trust`]'s. Failure: what cannot be read counts as what cannot be known.

use std::ffi::{c_int, c_long, c_uint, c_ulong, c_void};
use std::ptr;

use openssl_sys::{SSL, SSL_CIPHER, SSL_CTX, X509_STORE, X509_VERIFY_PARAM};
use sha2::{Digest, Sha256};

use super::attachment::Attachment;
use super::hidden::{self, Hidden};
use super::random::random;
use super::sys::{self, stack_st_X509_NAME};
use super::trust::{self, Stores, Trust};
use super::{code, real};

const SHA256_LEN: usize = 32;

/// Where rules are read: a connection with its current context, or a context alone.
pub(super) struct Place {
    pub(super) ssl: Option<*mut SSL>,
    pub(super) ctx: *mut SSL_CTX,
    pub(super) verify_mode: c_int,
    pub(super) ciphers: *mut c_void,
}

impl Place {
    /// # Safety
    /// `ssl` is the connection whose callback is running.
    pub(super) unsafe fn of_connection(ssl: *mut SSL) -> Self {
        // SAFETY: as the caller promises.
        unsafe {
            Place {
                ssl: Some(ssl),
                ctx: openssl_sys::SSL_get_SSL_CTX(ssl),
                verify_mode: openssl_sys::SSL_get_verify_mode(ssl),
                ciphers: sys::SSL_get_ciphers(ssl),
            }
        }
    }

    /// # Safety
    /// `ctx` is a valid context.
    pub(super) unsafe fn of_context(ctx: *mut SSL_CTX) -> Self {
        // SAFETY: as the caller promises.
        unsafe {
            Place {
                ssl: None,
                ctx,
                verify_mode: openssl_sys::SSL_CTX_get_verify_mode(ctx),
                ciphers: sys::SSL_CTX_get_ciphers(ctx),
            }
        }
    }
}

/// The digest of the rules at a place. What is read costs a few hundred nanoseconds, but for what the attachment of the
/// context keeps: the digest of what stores hold.
///
/// # Safety
/// What `place` points to is valid, and so is the attachment, which is that of the context in it.
pub(super) unsafe fn digest(place: &Place, attachment: Option<&Attachment>) -> [u8; SHA256_LEN] {
    let mut rules = Rules(Sha256::new_with_prefix(b"tlsresume rules 1\0"));
    rules.number(i64::from(place.verify_mode));
    // SAFETY: as the caller promises.
    unsafe {
        let source = Source::of(place);
        rules.number(i64::from(source.security_level));
        rules.number(source.certificate_flags);
        rules.security_callback(&source, attachment);
        rules.code(source.verify_callback, attachment);
        rules.parameters(source.parameters);
        rules.bytes(&trust::names_digest(source.client_authorities));
        for store in source.stores {
            rules.store(store, attachment);
        }
        let unknown = Trust::default();
        rules.bytes(&attachment.map_or(&unknown, |known| &known.trust).digest(source.stores));
        rules.hidden(place.ctx, attachment);
        rules.number(i64::from(has_certificate(place.ctx)));
        rules.authentications(place.ciphers);
    }
    rules.0.finalize().into()
}

/// A context is being attached. Under the preload its program has configured it by then: a store that is still empty
/// where clients are verified looks certificates up in a hashed directory.
///
/// # Safety
/// `ctx` is a valid context.
pub(super) unsafe fn note_trust(ctx: *mut SSL_CTX, trust: &Trust) {
    // SAFETY: as the caller promises; the stores of a valid context are valid.
    unsafe {
        let place = Place::of_context(ctx);
        if !real::is_interposed() || place.verify_mode & sys::SSL_VERIFY_PEER == 0 {
            return;
        }
        let only_empty =
            |store| if trust::object_count(store) == 0 { store } else { ptr::null_mut() };
        trust.look_up(Source::of(&place).stores.map(only_empty));
    }
}

/// As [`digest`], with the certificate of the context.
///
/// # Safety
/// As for [`digest`].
pub(super) unsafe fn digest_with_certificate(
    place: &Place,
    attachment: Option<&Attachment>,
) -> [u8; SHA256_LEN] {
    let mut rules = Rules(Sha256::new_with_prefix(b"tlsresume rules with certificate 1\0"));
    // SAFETY: as the caller promises.
    unsafe {
        rules.bytes(&digest(place, attachment));
        let certificate = openssl_sys::SSL_CTX_get0_certificate(place.ctx);
        rules.bytes(trust::certificate_digest(certificate).as_ref().map_or(&[], |it| &it[..]));
    }
    rules.0.finalize().into()
}

/// The ciphers of a list.
///
/// # Safety
/// `list` is NULL or a list of ciphers that stays valid while the result is used.
pub(super) unsafe fn ciphers(list: *mut c_void) -> impl Iterator<Item = *const SSL_CIPHER> {
    let list = list.cast();
    // SAFETY: as the caller promises. A missing list counts -1 entries.
    unsafe {
        (0..openssl_sys::OPENSSL_sk_num(list)).map(move |at| {
            openssl_sys::OPENSSL_sk_value(list, at).cast::<SSL_CIPHER>().cast_const()
        })
    }
}

/// What a connection has of its own, from the context that accepted it or set for it alone; or what a context has.
struct Source {
    security_level: c_int,
    /// Suite B among them (SSL_CTX_set_cert_flags(3)).
    certificate_flags: c_long,
    security_callback: *const c_void,
    security_data: *mut c_void,
    verify_callback: *const c_void,
    parameters: *mut X509_VERIFY_PARAM,
    client_authorities: *mut stack_st_X509_NAME,
    stores: Stores,
}

impl Source {
    /// # Safety
    /// What `place` points to is valid.
    unsafe fn of(place: &Place) -> Self {
        let mut verify_store: *mut X509_STORE = ptr::null_mut();
        let out = (&raw mut verify_store).cast();
        let (command, flags) = (sys::SSL_CTRL_GET_VERIFY_CERT_STORE, sys::SSL_CTRL_CERT_FLAGS);
        // SAFETY: as the caller promises; OpenSSL without this request leaves the pointer as it is, NULL.
        unsafe {
            let cert_store = openssl_sys::SSL_CTX_get_cert_store(place.ctx);
            match place.ssl {
                Some(ssl) => {
                    openssl_sys::SSL_ctrl(ssl, command, 0, out);
                    Source {
                        security_level: openssl_sys::SSL_get_security_level(ssl),
                        certificate_flags: openssl_sys::SSL_ctrl(ssl, flags, 0, ptr::null_mut()),
                        security_callback: sys::SSL_get_security_callback(ssl),
                        security_data: sys::SSL_get0_security_ex_data(ssl),
                        verify_callback: sys::SSL_get_verify_callback(ssl),
                        parameters: openssl_sys::SSL_get0_param(ssl),
                        client_authorities: sys::SSL_get_client_CA_list(ssl),
                        stores: [verify_store, cert_store],
                    }
                }
                None => {
                    (real::libssl().ctx_ctrl)(place.ctx, command, 0, out);
                    Source {
                        security_level: openssl_sys::SSL_CTX_get_security_level(place.ctx),
                        certificate_flags: (real::libssl().ctx_ctrl)(
                            place.ctx,
                            flags,
                            0,
                            ptr::null_mut(),
                        ),
                        security_callback: sys::SSL_CTX_get_security_callback(place.ctx),
                        security_data: sys::SSL_CTX_get0_security_ex_data(place.ctx),
                        verify_callback: sys::SSL_CTX_get_verify_callback(place.ctx),
                        parameters: openssl_sys::SSL_CTX_get0_param(place.ctx),
                        client_authorities: sys::SSL_CTX_get_client_CA_list(place.ctx),
                        stores: [verify_store, cert_store],
                    }
                }
            }
        }
    }
}

/// The functions of a store, each with a getter. NULL where OpenSSL's own is called.
const STORE_CALLBACKS: [unsafe extern "C" fn(*const X509_STORE) -> *const c_void; 12] = [
    sys::X509_STORE_get_verify,
    sys::X509_STORE_get_verify_cb,
    sys::X509_STORE_get_get_issuer,
    sys::X509_STORE_get_check_issued,
    sys::X509_STORE_get_check_revocation,
    sys::X509_STORE_get_get_crl,
    sys::X509_STORE_get_check_crl,
    sys::X509_STORE_get_cert_crl,
    sys::X509_STORE_get_check_policy,
    sys::X509_STORE_get_lookup_certs,
    sys::X509_STORE_get_lookup_crls,
    sys::X509_STORE_get_cleanup,
];

/// Takes in one rule after the other, each with its length.
struct Rules(Sha256);

impl Rules {
    fn number(&mut self, number: i64) {
        self.0.update(number.to_le_bytes());
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.0.update((bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
    }

    /// Which function this is. One that lies in no file is that of this process.
    fn code(&mut self, function: *const c_void, attachment: Option<&Attachment>) {
        if function.is_null() {
            return self.bytes(&[]);
        }
        match code::identity(function) {
            Some(identity) => self.bytes(&identity),
            None => self.private(attachment),
        }
    }

    /// Makes the rules those of one context: takes in the number that the context got when it was attached, which only
    /// this process and its later children know; without an attachment, a new random number.
    fn private(&mut self, attachment: Option<&Attachment>) {
        let mut number = [0; 16];
        match attachment {
            Some(attachment) => number = attachment.private_number,
            None => _ = random(&mut number),
        }
        self.bytes(&number);
    }

    /// The security callback and its data. OpenSSL's own callback counts as none: it lies at another place in each
    /// build of OpenSSL, and does not look at the data.
    fn security_callback(&mut self, source: &Source, attachment: Option<&Attachment>) {
        if hidden::is_default_security_callback(source.security_callback) {
            return self.bytes(&[]);
        }
        self.code(source.security_callback, attachment);
        if !source.security_data.is_null() {
            self.private(attachment);
        }
    }

    /// What a store adds to the parameters of its connections, and how it verifies; not what it holds.
    ///
    /// # Safety
    /// `store` is NULL or valid.
    unsafe fn store(&mut self, store: *mut X509_STORE, attachment: Option<&Attachment>) {
        if store.is_null() {
            return self.bytes(&[]);
        }
        // SAFETY: as the caller promises.
        unsafe {
            self.parameters(sys::X509_STORE_get0_param(store));
            for callback in STORE_CALLBACKS {
                self.code(callback(store), attachment);
            }
        }
    }

    /// # Safety
    /// `parameters` is valid.
    unsafe fn parameters(&mut self, parameters: *mut X509_VERIFY_PARAM) {
        // SAFETY: as the caller promises.
        unsafe {
            let flags: c_ulong = openssl_sys::X509_VERIFY_PARAM_get_flags(parameters);
            let host_flags: c_uint = sys::X509_VERIFY_PARAM_get_hostflags(parameters);
            self.bytes(&flags.to_le_bytes());
            self.number(i64::from(host_flags));
            self.number(i64::from(sys::X509_VERIFY_PARAM_get_inh_flags(parameters)));
            // Without the flag, it is the time of some earlier verification.
            let has_time = flags & openssl_sys::X509_V_FLAG_USE_CHECK_TIME != 0;
            let time = || sys::X509_VERIFY_PARAM_get_time(parameters);
            self.number(if has_time { time() } else { 0 });
            self.number(i64::from(sys::X509_VERIFY_PARAM_get_depth(parameters)));
            self.number(i64::from(sys::X509_VERIFY_PARAM_get_auth_level(parameters)));
            self.number(i64::from(hidden::purpose(parameters)));
            self.expected_names(parameters);
        }
    }

    /// The hosts, e-mail and IP address that a client's certificate must name. OpenSSL 1.1.1 does not tell them.
    ///
    /// # Safety
    /// `parameters` is valid.
    #[cfg(ossl300)]
    unsafe fn expected_names(&mut self, parameters: *mut X509_VERIFY_PARAM) {
        use std::ffi::CStr;

        #[allow(clippy::disallowed_methods, reason = "checked not to be null")]
        // SAFETY: as the caller promises; what is not NULL is a C string, of which the address is ours to free.
        unsafe {
            let text = |text: *const std::ffi::c_char| {
                if text.is_null() { None } else { Some(CStr::from_ptr(text).to_bytes()) }
            };
            let hosts =
                (0..).map_while(|at| text(sys::X509_VERIFY_PARAM_get0_host(parameters, at)));
            hosts.for_each(|host| self.bytes(host));
            self.bytes(&[]);
            self.bytes(text(sys::X509_VERIFY_PARAM_get0_email(parameters)).unwrap_or_default());
            let address = sys::X509_VERIFY_PARAM_get1_ip_asc(parameters);
            self.bytes(text(address).unwrap_or_default());
            sys::CRYPTO_free(address.cast(), c"".as_ptr(), 0);
        }
    }

    /// # Safety
    /// `parameters` is valid.
    #[cfg(not(ossl300))]
    #[allow(clippy::unused_self, reason = "see the other one")]
    unsafe fn expected_names(&mut self, _parameters: *mut X509_VERIFY_PARAM) {}

    /// The callbacks that OpenSSL has no getter for.
    ///
    /// # Safety
    /// `ctx` is a valid context.
    unsafe fn hidden(&mut self, ctx: *mut SSL_CTX, attachment: Option<&Attachment>) {
        // SAFETY: as the caller promises.
        let Some(found) = (unsafe { Hidden::of(ctx) }) else { return self.private(attachment) };
        for function in found.functions() {
            self.code(function, attachment);
        }
        // The address of the argument does not tell what it means.
        if !found.cert_verify_argument.is_null() {
            self.private(attachment);
        }
    }

    /// By which kinds of secrets clients and server may know each other.
    ///
    /// # Safety
    /// `list` is NULL or a list of ciphers.
    unsafe fn authentications(&mut self, list: *mut c_void) {
        // SAFETY: as the caller promises; ciphers are constants of OpenSSL's.
        let mut kinds: Vec<(c_int, c_int)> = unsafe {
            ciphers(list)
                .map(|cipher| {
                    (sys::SSL_CIPHER_get_kx_nid(cipher), sys::SSL_CIPHER_get_auth_nid(cipher))
                })
                .collect()
        };
        kinds.sort_unstable();
        kinds.dedup();
        self.number(kinds.len() as c_long);
        for (key, authentication) in kinds {
            self.number(key.into());
            self.number(authentication.into());
        }
    }
}

/// Whether a context has a certificate to show. What a certificate callback brings later does not count: it is not
/// called where a session is resumed.
///
/// # Safety
/// `ctx` is a valid context.
pub(super) unsafe fn has_certificate(ctx: *mut SSL_CTX) -> bool {
    // SAFETY: as the caller promises.
    unsafe { !openssl_sys::SSL_CTX_get0_certificate(ctx).is_null() }
}
