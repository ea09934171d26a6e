//! Instances and the contexts attached to them.

use std::ffi::{c_char, c_int, c_ulong};
use std::path::Path;
use std::sync::Arc;

use once_cell::sync::OnceCell;
use openssl_sys::{SSL, SSL_CTX};

use super::boundary::{required, status, string, value};
use crate::config::Config;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::{sys, tls};

/// One realm on this node: its configuration, key ring and session store. Reference counted; each attached context
/// holds a reference of its own.
pub type TLSRESUME = tlsresume_st;

/// Never dereferenced in C.
#[allow(non_camel_case_types, reason = "the tag that C programs see")]
pub struct tlsresume_st {
    _private: [u8; 0],
}

static DEFAULT: OnceCell<Arc<Engine>> = OnceCell::new();

/// Makes the TLS sessions of a server context resumable across every process and restart that shares its
/// configuration: the one line.
///
/// Attaches ctx to the process-wide default instance, which the first call makes as tlsresume_new(NULL) does.
///
/// Call it once per context, for virtual hosts for each of their contexts. Call it after the context is configured
/// (certificate, session id context, verification: trust anchors added later do not count for what sessions are tied
/// to), before the first SSL_new(3), and before fork(2) so that workers share one memory. Callbacks of the same kinds
/// that you set before are put aside until detach, those set later replace the library's. An allow-early-data callback
/// of your own is the exception: set it after this call and have it ask tlsresume_early_data_allowed(). An info callback
/// set on a connection in its servername or ALPN callback would replace the check of what a session is tied to: set it
/// on the context, or earlier.
///
/// @param ctx  Server context. Borrowed: the attachment goes with the context, or earlier with tlsresume_detach().
/// @return 1 on success. 0 on failure, with ctx as it was and the reason on the error queue: ctx is NULL or attached
///         already, or the configuration has a mistake (the text names file, line, key and what is allowed). Memory that
///         cannot be had at memory.path is not a failure: the server's own processes share anonymous memory until the
///         file can be had, and one log line says so.
///
/// Thread safety: any thread, but no other call on the same ctx meanwhile. Fork safety: children inherit the
/// attachment; no thread is started.
///
/// # Safety
/// ctx is NULL or a valid context.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tlsresume_install(ctx: *mut SSL_CTX) -> c_int {
    status(|| {
        // SAFETY: as the caller promises.
        unsafe { required(ctx, NULL_CTX) }?;
        let engine = default_instance(|| Config::load(None, &sys::secure_env))?;
        // SAFETY: not NULL, and valid as the caller promises.
        unsafe { tls::attach(engine, ctx) }
    })
}

/// As tlsresume_install(), for a caller compiled against the headers of the OpenSSL version given. The macro of that
/// name calls it, so that a program compiled for another major version is refused rather than misread.
///
/// @param ctx              See tlsresume_install().
/// @param openssl_version  OPENSSL_VERSION_NUMBER of the caller's headers.
/// @return 1 on success; 0 on failure, also when the major versions differ (the reason names both).
///
/// Thread and fork safety: as tlsresume_install().
///
/// # Safety
/// ctx is NULL or a valid context of the OpenSSL that this library uses.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tlsresume_install_checked(
    ctx: *mut SSL_CTX,
    openssl_version: c_ulong,
) -> c_int {
    match status(|| check_version(openssl_version)) {
        // SAFETY: as the caller promises.
        1 => unsafe { tlsresume_install(ctx) },
        failed => failed,
    }
}

/// Makes an instance from a configuration file.
///
/// @param config_path  TOML file (docs/configuration.md). NULL: the file that the environment variable TLSRESUME_CONFIG
///                     names, or the defaults if it is not set. TLSRESUME_<SECTION>_<KEY> variables then override single
///                     keys; the environment is not read in programs with raised privileges.
/// @return A new instance, to be released with tlsresume_free(). NULL on failure with the reason on the error queue:
///         the configuration, a key file or the secret file has a mistake, which the text names with its remedy.
///
/// Call it before privileges drop: files are read now. Thread safety: any thread. Fork safety: children inherit the
/// instance; no thread is started.
///
/// # Safety
/// config_path is NULL or a C string.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tlsresume_new(config_path: *const c_char) -> *mut TLSRESUME {
    // SAFETY: as the caller promises.
    new_instance(|| unsafe { load(config_path) })
}

/// Makes an instance from configuration text.
///
/// @param toml  What the file would hold; the environment overrides as in tlsresume_new(). Copied.
/// @return As tlsresume_new(); toml being NULL is a failure.
///
/// Thread and fork safety: as tlsresume_new().
///
/// # Safety
/// toml is NULL or a C string.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tlsresume_new_from_string(toml: *const c_char) -> *mut TLSRESUME {
    new_instance(|| {
        // SAFETY: as the caller promises.
        let text = unsafe { string(toml, "toml is not UTF-8") }?;
        let text = text.ok_or(Error::Argument("toml is NULL"))?;
        Config::from_toml(text, "configuration string", &sys::secure_env)
    })
}

/// Checks a configuration, for servers that can test theirs without starting: what tlsresume_new() would say of it and of
/// the key, secret and certificate files that it names. Makes no instance, and creates, replaces or changes no file:
/// memory.path is not opened.
///
/// @param config_path  As for tlsresume_new(). Borrowed.
/// @return 1 if tlsresume_new() would accept it; 0 if not, with the reason on the error queue.
///
/// Thread safety: any thread. Fork safety: keeps nothing; no thread is started.
///
/// # Safety
/// config_path is NULL or a C string.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tlsresume_check(config_path: *const c_char) -> c_int {
    status(|| {
        // SAFETY: as the caller promises.
        unsafe { load(config_path) }.and_then(|config| Engine::check(&config))
    })
}

/// Attaches a context to an instance: tlsresume_install() for programs with an instance of their own.
///
/// Sets on ctx the ticket-key callback, the new, get and remove session callbacks, the session id generator, the
/// allow-early-data callback, the cache mode, the timeout, the number of tickets, and the options SSL_OP_NO_ANTI_REPLAY
/// and (stateful) SSL_OP_NO_TICKET. Connections that ask to resume get an info callback, which calls yours first. It
/// stays until the ServerHello, or for the whole handshake where clients are verified or otherwise restricted; then
/// yours is put back.
///
/// @param tr   Instance; ctx keeps a reference to it.
/// @param ctx  See tlsresume_install().
/// @return 1 on success; 0 on failure, with ctx as it was: an argument is NULL, or ctx is attached already.
///
/// Thread and fork safety: as tlsresume_install().
///
/// # Safety
/// tr is NULL or an instance that was not released; ctx is NULL or a valid context.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tlsresume_attach(tr: *mut TLSRESUME, ctx: *mut SSL_CTX) -> c_int {
    status(|| {
        // SAFETY: as the caller promises.
        unsafe {
            let engine = shared(tr)?;
            required(ctx, NULL_CTX)?;
            tls::attach(engine, ctx)
        }
    })
}

/// As tlsresume_attach(), for a caller compiled against the headers of the OpenSSL version given; the macro of that
/// name calls it.
///
/// @param tr               See tlsresume_attach().
/// @param ctx              See tlsresume_attach().
/// @param openssl_version  OPENSSL_VERSION_NUMBER of the caller's headers.
/// @return 1 on success; 0 on failure, also when the major versions differ (the reason names both).
///
/// Thread and fork safety: as tlsresume_install().
///
/// # Safety
/// As tlsresume_attach().
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tlsresume_attach_checked(
    tr: *mut TLSRESUME,
    ctx: *mut SSL_CTX,
    openssl_version: c_ulong,
) -> c_int {
    match status(|| check_version(openssl_version)) {
        // SAFETY: as the caller promises.
        1 => unsafe { tlsresume_attach(tr, ctx) },
        failed => failed,
    }
}

/// Detaches a context: puts back the options, cache mode, timeout, number of tickets and session callbacks that it had,
/// and clears the callbacks that OpenSSL has no getter for.
///
/// @param ctx  An attached context. Not while handshakes of its connections go on; connections made before keep the
///             options that were copied into them.
/// @return 1 on success; 0 on failure: ctx is NULL or not attached.
///
/// Thread safety: no other use of ctx meanwhile. Fork safety: concerns this process alone.
///
/// # Safety
/// ctx is NULL or a valid context.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tlsresume_detach(ctx: *mut SSL_CTX) -> c_int {
    status(|| {
        // SAFETY: as the caller promises.
        unsafe {
            required(ctx, NULL_CTX)?;
            tls::detach(ctx)
        }
    })
}

/// Starts the agent now, e.g. in a worker's init hook, instead of at the first handshake that finds none. Without a
/// transport, with cluster.agent = "external", or where the node has an agent already, it does nothing.
///
/// @param tr  Instance.
/// @return 1 on success, also when the system refused a thread (one log line says so, and the next try is after 60 s);
///         0 on failure: tr is NULL.
///
/// Thread safety: any thread. Fork safety: call it after the last fork; a child has no agent of its own until it
/// calls this, or makes a handshake while the node has none.
///
/// # Safety
/// tr is NULL or an instance that was not released.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tlsresume_start(tr: *mut TLSRESUME) -> c_int {
    // SAFETY: as the caller promises.
    status(|| unsafe { engine(tr) }.map(Engine::start_agent_now))
}

/// Releases an instance. Contexts that are attached to it go on working: each has a reference of its own.
///
/// @param tr  Instance, or NULL, which does nothing.
///
/// Thread safety: any thread, once. Fork safety: concerns this process alone.
///
/// # Safety
/// tr is NULL or an instance that was not released; it is not used afterwards.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tlsresume_free(tr: *mut TLSRESUME) {
    if !tr.is_null() {
        // SAFETY: every instance is an Arc that `new_instance` gave away, and the caller gives it back.
        let engine = unsafe { Arc::from_raw(tr.cast::<Engine>()) };
        status(|| {
            drop(engine);
            Ok(())
        });
    }
}

/// Asks the strike register about a connection's early data, for applications with an allow-early-data callback of
/// their own: call it there, and accept only if both agree.
///
/// @param ssl  The connection that the callback got (SSL_CTX_set_allow_early_data_cb(3)).
/// @return 1 when this ticket was not used for early data before; 0 when it was, when that cannot be told for certain,
///         or when ssl is NULL or its context not attached. On 0 the client falls back to a handshake without early data
///         (RFC 8446 section 8).
///
/// Thread safety: on the thread of the handshake. Fork safety: any process.
///
/// # Safety
/// ssl is NULL or a valid connection.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tlsresume_early_data_allowed(ssl: *mut SSL) -> c_int {
    c_int::from(!ssl.is_null() && tls::early_data_allowed(ssl))
}

/// The configuration in that file, or the one that the environment names.
///
/// # Safety
/// config_path is NULL or a C string.
unsafe fn load(config_path: *const c_char) -> Result<Config> {
    // SAFETY: as the caller promises.
    let path = unsafe { string(config_path, "config_path is not UTF-8") }?;
    Config::load(path.map(Path::new), &sys::secure_env)
}

/// The process-wide default instance, which the first call makes.
pub(super) fn default_instance(config: impl FnOnce() -> Result<Config>) -> Result<Arc<Engine>> {
    DEFAULT.get_or_try_init(|| new_engine(config)).cloned()
}

/// The instance behind a handle.
///
/// # Safety
/// tr is NULL or an instance that is not released during the call.
pub(super) unsafe fn engine<'a>(tr: *const TLSRESUME) -> Result<&'a Engine> {
    // SAFETY: every instance is an Arc<Engine> that `new_instance` gave away.
    unsafe { required(tr.cast::<Engine>(), "tr is NULL") }
}

/// A reference of one's own to the instance behind a handle.
///
/// # Safety
/// As for `engine`.
unsafe fn shared(tr: *const TLSRESUME) -> Result<Arc<Engine>> {
    // SAFETY: as in `engine`; the count goes up before the new reference is made.
    unsafe {
        let engine: *const Engine = engine(tr)?;
        Arc::increment_strong_count(engine);
        Ok(Arc::from_raw(engine))
    }
}

fn new_instance(config: impl FnOnce() -> Result<Config>) -> *mut TLSRESUME {
    let engine = value(|| new_engine(config));
    engine.map_or(std::ptr::null_mut(), |engine| Arc::into_raw(engine).cast_mut().cast())
}

fn new_engine(config: impl FnOnce() -> Result<Config>) -> Result<Arc<Engine>> {
    Engine::shared(config()?)
}

/// OpenSSL promises one ABI for one major version (1.1.1 is its own).
fn check_version(header: c_ulong) -> Result<()> {
    // SAFETY: no precondition.
    let library = unsafe { openssl_sys::OpenSSL_version_num() };
    if major(header) == major(library) {
        return Ok(());
    }
    Err(Error::OpensslVersion { header: version_text(header), library: version_text(library) })
}

/// Major version; before 3.0, also the minor one.
fn major(version: c_ulong) -> c_ulong {
    if version >> 28 >= 3 { version >> 28 } else { version >> 20 }
}

fn version_text(version: c_ulong) -> String {
    let part = |shift: u32| (version >> shift) & 0xff;
    format!(
        "{}.{}.{}",
        version >> 28,
        part(20),
        if version >> 28 >= 3 { part(4) } else { part(12) }
    )
}

const NULL_CTX: &str = "ctx is NULL";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_one_major_number_are_alike_and_1_1_1_is_its_own() {
        assert_eq!(major(0x3000_0130), major(0x3050_0050));
        assert_ne!(major(0x3000_0130), major(0x4000_0030));
        assert_ne!(major(0x1010_1170), major(0x1000_2000));
        assert_eq!(version_text(0x3000_0130), "3.0.19");
        assert_eq!(version_text(0x1010_117f), "1.1.1");
    }
}
