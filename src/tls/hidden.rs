//! Members of OpenSSL's structures that decide who gets in and have no getter: a context's cert-verify, PSK and SRP
//! callbacks, and the purpose of verification parameters.
//!
//! The structures are private and differ between versions, so where a member lies is found out once in a process, with
//! the libssl that runs: a context of our own is given functions of our own, and the words that then hold their
//! addresses are the members ([ADR 14](../../docs/adr/0014-members-without-getters.md)). Reading such a word is a load
//! at a place that every object of the type has. Where that does not succeed nothing is read: rules that cannot be
//! known are those of one context alone.
//!
//! Owns: the places. Called by: [`super::rules`] and [`super::policy`]; attaching has them found. Threads and forks:
//! found out once, and inherited; the place of the purpose is found at the first digest, also by each child that was
//! forked before. Failure: `None`.

use std::ffi::{c_char, c_int, c_uchar, c_uint, c_void};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicI32, Ordering};

use once_cell::race::OnceBox;
use openssl_sys::{SSL, SSL_CTX, SSL_SESSION, X509_STORE_CTX, X509_VERIFY_PARAM};

use super::real::libssl;
use super::session_data;
use super::sys::{self, SSL_CTRL_SET_TLS_EXT_SRP_USERNAME_CB};

/// How many words at the start of a context are looked at: fewer than the smallest of any version has.
const CONTEXT_WORDS: usize = 112;

/// Likewise of verification parameters, in units of an integer.
const PARAMETER_UNITS: usize = 12;

/// Likewise of connections.
const CONNECTION_UNITS: usize = 16;

/// A context's members without a getter.
pub(super) struct Hidden {
    cert_verify: *const c_void,
    pub(super) cert_verify_argument: *const c_void,
    psk_server: *const c_void,
    psk_find_session: *const c_void,
    srp_user: *const c_void,
}

impl Hidden {
    /// Reads them; `None` where it is not known where they lie.
    ///
    /// # Safety
    /// `ctx` is a valid context.
    pub(super) unsafe fn of(ctx: *mut SSL_CTX) -> Option<Self> {
        let members = members()?;
        // SAFETY: the context is valid (caller) and of the type that the places were found out on.
        let read = |at: usize| unsafe { word_at(ctx, at) };
        Some(Hidden {
            cert_verify: read(members.cert_verify),
            cert_verify_argument: read(members.cert_verify_argument),
            psk_server: read(members.psk_server),
            psk_find_session: read(members.psk_find_session),
            srp_user: members.srp_user.map_or(ptr::null(), read),
        })
    }

    /// Whether clients may authenticate by a shared key or a password.
    pub(super) fn accepts_secrets(&self) -> bool {
        [self.psk_server, self.psk_find_session, self.srp_user].iter().any(|it| !it.is_null())
    }

    /// The callbacks; NULL for those that are not set.
    pub(super) fn functions(&self) -> [*const c_void; 4] {
        [self.cert_verify, self.psk_server, self.psk_find_session, self.srp_user]
    }
}

/// Finds out where members of contexts, connections and sessions lie, for which it makes a context. To be called before the process forks, so
/// that its children inherit the answer.
pub(super) fn find_out() {
    members();
    REFERENCES.get_or_init(|| Box::new(find_references()));
    session_data::find_out();
}

fn members() -> Option<&'static Members> {
    static MEMBERS: OnceBox<Option<Members>> = OnceBox::new();
    MEMBERS.get_or_init(|| Box::new(find_members())).as_ref()
}

/// Whether a security callback is the one that OpenSSL has for all contexts.
pub(super) fn is_default_security_callback(callback: *const c_void) -> bool {
    members().is_some_and(|members| members.default_security_callback == callback.addr())
}

/// The library context of a context (OSSL_LIB_CTX(3)); NULL for OpenSSL's default one, and where it cannot be known. Finding
/// out makes a library context, once in a process.
///
/// # Safety
/// `ctx` is a valid context.
#[cfg(ossl300)]
pub(super) unsafe fn library_context(ctx: *mut SSL_CTX) -> *mut openssl_sys::OSSL_LIB_CTX {
    static PLACE: OnceBox<Option<usize>> = OnceBox::new();
    let find = || {
        let (sample, own) = Sample::in_own_library_context()?;
        let words = sample.words();
        only((0..CONTEXT_WORDS).filter(|at| words[*at] == own))
    };
    let place = PLACE.get_or_init(|| Box::new(find()));
    // SAFETY: the context is valid (caller) and of the type that the place was found out on.
    place.map_or(ptr::null_mut(), |at| unsafe { word_at(ctx, at).cast_mut().cast() })
}

/// A library context that no application has.
#[cfg(ossl300)]
fn own_library_context() -> Option<NonNull<c_void>> {
    // SAFETY: no precondition.
    NonNull::new(unsafe { openssl_sys::OSSL_LIB_CTX_new() }.cast())
}

/// OpenSSL 1.1.1 has none.
#[cfg(not(ossl300))]
fn own_library_context() -> Option<NonNull<c_void>> {
    None
}

/// The purpose that a certificate must serve; 0 where none was set, and where it cannot be known.
///
/// # Safety
/// `parameters` is valid.
pub(super) unsafe fn purpose(parameters: *mut X509_VERIFY_PARAM) -> c_int {
    static PLACE: OnceBox<Option<usize>> = OnceBox::new();
    let place = PLACE.get_or_init(|| Box::new(find_purpose()));
    // SAFETY: the parameters are valid (caller) and of the type that the place was found out on.
    place.map_or(0, |at| unsafe { integer_at(parameters, at) })
}

/// How many references a connection has, where OpenSSL keeps that at the start of it: since version 3.2.
///
/// # Safety
/// `ssl` is a connection whose memory is there.
pub(super) unsafe fn references(ssl: *mut SSL) -> Option<c_int> {
    let place = *REFERENCES.get()?;
    // SAFETY: the connection is there (caller) and of the type that the place was found out on. Other threads count there
    // at the same time, with atomic operations.
    place.map(|at| unsafe { &*ssl.cast::<AtomicI32>().add(at) }.load(Ordering::Acquire))
}

static REFERENCES: OnceBox<Option<usize>> = OnceBox::new();

fn find_references() -> Option<usize> {
    let sample = Sample::new()?;
    // SAFETY: the sample is valid; the connection is ours, has more units than are looked at, and loses both references.
    unsafe {
        let ssl = (libssl().new)(sample.0);
        if ssl.is_null() {
            return None;
        }
        let units = || {
            let unit = |at| ssl.cast::<c_int>().add(at).read_volatile();
            std::array::from_fn::<c_int, CONNECTION_UNITS, _>(unit)
        };
        let one = units();
        let is_counted = sys::SSL_up_ref(ssl) == 1;
        let two = units();
        openssl_sys::SSL_free(ssl);
        if is_counted {
            openssl_sys::SSL_free(ssl);
        }
        only((0..CONNECTION_UNITS).filter(|at| one[*at] == 1 && two[*at] == 2))
    }
}

/// Which words of a context are what.
struct Members {
    cert_verify: usize,
    cert_verify_argument: usize,
    psk_server: usize,
    psk_find_session: usize,
    /// An OpenSSL may be built without SRP.
    srp_user: Option<usize>,
    /// This one has a getter: it is what a new context has.
    default_security_callback: usize,
}

fn find_members() -> Option<Members> {
    let sample = Sample::new()?;
    let cert_verify = |argument: *mut c_void| {
        // SAFETY: the sample's context is valid and nobody else's; the function has the signature that OpenSSL
        // documents, and is never called.
        move || unsafe {
            sys::SSL_CTX_set_cert_verify_callback(sample.0, Some(never_verifies), argument);
        }
    };
    let argument = ptr::dangling_mut::<Sample>().cast::<c_void>();
    // SAFETY: as above.
    let (psk_server, psk_find_session, srp_user) = unsafe {
        (
            sample.place_of(never_psk as *const c_void, || {
                sys::SSL_CTX_set_psk_server_callback(sample.0, Some(never_psk));
            })?,
            sample.place_of(never_finds as *const c_void, || {
                sys::SSL_CTX_set_psk_find_session_callback(sample.0, Some(never_finds));
            })?,
            sample.place_of(never_srp as *const c_void, || {
                let callback =
                    std::mem::transmute::<sys::SrpUserCallback, sys::AnyCallback>(never_srp);
                (libssl().ctx_callback_ctrl)(
                    sample.0,
                    SSL_CTRL_SET_TLS_EXT_SRP_USERNAME_CB,
                    Some(callback),
                );
            }),
        )
    };
    let cert_verify_at =
        sample.place_of(never_verifies as *const c_void, cert_verify(ptr::null_mut()))?;
    let cert_verify_argument = sample.place_of(argument.cast_const(), cert_verify(argument))?;
    Some(Members {
        cert_verify: cert_verify_at,
        cert_verify_argument,
        psk_server,
        psk_find_session,
        srp_user,
        // SAFETY: as above.
        default_security_callback: unsafe { sys::SSL_CTX_get_security_callback(sample.0) }.addr(),
    })
}

/// A context to find places out on.
struct Sample(*mut SSL_CTX);

impl Sample {
    /// In OpenSSL's default library context, or, where that has no provider, in one of its own.
    fn new() -> Option<Self> {
        // SAFETY: no precondition; the method is a constant.
        let ctx = unsafe { (libssl().ctx_new)(openssl_sys::TLS_server_method()) };
        NonNull::new(ctx)
            .map(|ctx| Sample(ctx.as_ptr()))
            .or_else(|| Some(Sample::in_own_library_context()?.0))
    }

    /// The library context lives as long as the process.
    fn in_own_library_context() -> Option<(Self, *const c_void)> {
        let new = libssl().ctx_new_ex?;
        let own = own_library_context()?.as_ptr();
        // SAFETY: the library context is valid, the method a constant, and no properties are asked for.
        let ctx = unsafe { new(own, ptr::null(), openssl_sys::TLS_server_method()) };
        (!ctx.is_null()).then_some((Sample(ctx), own.cast_const()))
    }

    /// The one word that holds `value` after `set`, and did not before.
    fn place_of(&self, value: *const c_void, set: impl FnOnce()) -> Option<usize> {
        let before = self.words();
        set();
        let after = self.words();
        only((0..CONTEXT_WORDS).filter(|at| after[*at] == value && before[*at] != value))
    }

    fn words(&self) -> [*const c_void; CONTEXT_WORDS] {
        // SAFETY: the sample is valid, and a context has more words than are looked at.
        std::array::from_fn(|at| unsafe { word_at(self.0, at) })
    }
}

fn only(mut places: impl Iterator<Item = usize>) -> Option<usize> {
    let place = places.next()?;
    places.next().is_none().then_some(place)
}

impl Drop for Sample {
    fn drop(&mut self) {
        // SAFETY: made by `new`, and freed once.
        unsafe { openssl_sys::SSL_CTX_free(self.0) };
    }
}

fn find_purpose() -> Option<usize> {
    const CLIENT: c_int = 1;
    const SERVER: c_int = 2;
    // SAFETY: the parameters are ours and freed once; they have more units than are looked at.
    unsafe {
        let sample = openssl_sys::X509_VERIFY_PARAM_new();
        if sample.is_null() {
            return None;
        }
        let units = |purpose| {
            openssl_sys::X509_VERIFY_PARAM_set_purpose(sample, purpose);
            std::array::from_fn::<c_int, PARAMETER_UNITS, _>(|at| integer_at(sample, at))
        };
        let (one, other) = (units(CLIENT), units(SERVER));
        openssl_sys::X509_VERIFY_PARAM_free(sample);
        let place = only((0..PARAMETER_UNITS).filter(|at| one[*at] != other[*at]))?;
        (one[place] == CLIENT && other[place] == SERVER).then_some(place)
    }
}

/// # Safety
/// `ctx` points to a context, which is aligned as pointers are and has more words than `at`.
unsafe fn word_at(ctx: *mut SSL_CTX, at: usize) -> *const c_void {
    // SAFETY: as the caller promises. Volatile: OpenSSL writes there without our compiler's knowledge.
    unsafe { ctx.cast::<*const c_void>().add(at).read_volatile() }
}

/// # Safety
/// `parameters` points to verification parameters, which are aligned as integers are and have more units than `at`.
unsafe fn integer_at(parameters: *mut X509_VERIFY_PARAM, at: usize) -> c_int {
    // SAFETY: as the caller promises.
    unsafe { parameters.cast::<c_int>().add(at).read_volatile() }
}

unsafe extern "C" fn never_verifies(_store: *mut X509_STORE_CTX, _arg: *mut c_void) -> c_int {
    0
}

unsafe extern "C" fn never_psk(
    _ssl: *mut SSL,
    _identity: *const c_char,
    _psk: *mut c_uchar,
    _most: c_uint,
) -> c_uint {
    0
}

unsafe extern "C" fn never_finds(
    _ssl: *mut SSL,
    _identity: *const c_uchar,
    _len: usize,
    _session: *mut *mut SSL_SESSION,
) -> c_int {
    0
}

unsafe extern "C" fn never_srp(_ssl: *mut SSL, _alert: *mut c_int, _arg: *mut c_void) -> c_int {
    -1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_callback_without_a_getter_is_found_in_a_context() {
        let sample = Sample::new().expect("a context");
        // SAFETY: the sample is valid.
        let before = unsafe { Hidden::of(sample.0) }.expect("this OpenSSL's members are found");
        assert!(before.functions().iter().all(|function| function.is_null()));
        // SAFETY: as in `find_members`.
        unsafe {
            sys::SSL_CTX_set_cert_verify_callback(sample.0, Some(never_verifies), sample.0.cast());
            sys::SSL_CTX_set_psk_server_callback(sample.0, Some(never_psk));
        }
        // SAFETY: as above.
        let after = unsafe { Hidden::of(sample.0) }.expect("found");
        assert_eq!(after.cert_verify, never_verifies as *const c_void);
        assert_eq!(after.cert_verify_argument, sample.0.cast_const().cast());
        assert_eq!(after.psk_server, never_psk as *const c_void);
        assert!(after.psk_find_session.is_null() && after.srp_user.is_null());
    }

    #[test]
    fn the_purpose_of_parameters_is_read() {
        // SAFETY: the parameters are ours.
        unsafe {
            let parameters = openssl_sys::X509_VERIFY_PARAM_new();
            assert_eq!(purpose(parameters), 0);
            openssl_sys::X509_VERIFY_PARAM_set_purpose(parameters, 7);
            assert_eq!(purpose(parameters), 7);
            openssl_sys::X509_VERIFY_PARAM_free(parameters);
        }
    }
}
