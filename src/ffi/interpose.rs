//! The entry points for libtlsresume_preload.so. No part of the C API: the header does not have it.

use std::ffi::{CStr, c_char};
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;
use std::sync::{Arc, Once};

use parking_lot::Mutex;

use super::instance::default_instance;
use crate::config::{CONFIG_VARIABLE, Config, ENVIRONMENT, KeySource};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::tls::{self, Functions};

/// Makes the instance before the program gives up root: later, it may not find the configuration, and the files that
/// this names. Starts no thread and says nothing: what there is to say is said by tlsresume_interpose().
///
/// @param environment  As for tlsresume_interpose().
///
/// Called at most once in a process, before tlsresume_interpose().
///
/// # Safety
/// environment is NULL or a list of C strings that ends with NULL, valid during the call.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tlsresume_prepare(environment: *const *const c_char) {
    // SAFETY: as the caller promises.
    let environment = unsafe { variables(environment) };
    begin_log(&environment);
    crate::log::deferring(|| {
        let made = catch_unwind(AssertUnwindSafe(|| instance(&environment, executed_worker())));
        if let Err(error) = made.unwrap_or(Err(PANIC)) {
            *MISTAKE.lock() = Some(error);
        }
    });
}

/// Why there is no instance, although one was to be made before root was given up. A second try may fail for another
/// reason, which says nothing.
static MISTAKE: Mutex<Option<Error>> = Mutex::new(None);

/// Gives the preload the functions to call in place of libssl's.
///
/// @param size         Bytes of the table as the preload knows it: another release's is refused.
/// @param libssl       The functions of the libssl that the program uses.
/// @param environment  The TLSRESUME_* variables as they were when the process began: "NAME=VALUE" each.
/// @return NULL, after one line of log, when the library stands aside.
///
/// Called once in a process, before it forks.
///
/// # Safety
/// libssl is NULL or, if it is as large as size says, valid for ever; environment is NULL or a list of C strings that
/// ends with NULL, valid during the call.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tlsresume_interpose(
    size: usize,
    libssl: *const Functions,
    environment: *const *const c_char,
) -> *const Functions {
    // SAFETY: as the caller promises.
    let environment = unsafe { variables(environment) };
    begin_log(&environment);
    let worker = executed_worker();
    let replaced = || {
        if size != size_of::<Functions>() {
            return Err(OTHER_RELEASE);
        }
        // SAFETY: as the caller promises, which is of this build.
        let libssl = unsafe { libssl.as_ref() };
        let libssl = libssl.ok_or(Error::Argument("libssl is NULL"))?;
        tls::check_is_linked(libssl)?;
        let engine = match MISTAKE.lock().take() {
            Some(mistake) => return Err(mistake),
            None => instance(&environment, worker)?,
        };
        crate::log::deliver();
        for name in unknown(&environment) {
            log::warn!(
                "preload: {name} is no setting of this release; docs/configuration.md has them all"
            );
        }
        Ok(tls::interpose(engine, libssl))
    };
    // What a panic leaves half done is the engine's, which is valid in every state.
    match catch_unwind(AssertUnwindSafe(replaced)).unwrap_or(Err(PANIC)) {
        Ok(functions) => functions,
        Err(error) => {
            // The first one of a server's workers says it for all.
            if worker.is_none_or(|worker| worker.is_first) {
                log::error!("preload: {error}; the program runs without the library");
            }
            ptr::null()
        }
    }
}

/// Has lines of log go where the configuration says, whatever mistakes it has. Asked again it may be out of reach.
fn begin_log(environment: &[String]) {
    static BEGUN: Once = Once::new();
    BEGUN.call_once(|| {
        let log = Config::log_of(None, &|name| lookup(environment, name));
        crate::log::enable(log.level.filter(), &log.target);
    });
}

/// The instance of this process; none for a worker that would share nothing.
fn instance(environment: &[String], worker: Option<tls::Worker>) -> Result<Arc<Engine>> {
    default_instance(|| match configured(environment)? {
        config if worker.is_some() && shares_nothing(&config) => Err(EXECUTED),
        config => Ok(config),
    })
}

const OTHER_RELEASE: Error = Error::Argument(
    "libtlsresume_preload.so and libtlsresume.so are of different releases; install both from one",
);
const PANIC: Error = Error::Argument("internal error: a panic was caught; please report it");

const EXECUTED: Error = Error::Argument(
    "workers of Node's cluster are executed, and share sessions with the library by memory.path alone; set it",
);

/// What this process is, if its server executed it as a worker.
fn executed_worker() -> Option<tls::Worker> {
    tls::executed_worker(&fs::read("/proc/self/environ").unwrap_or_default())
}

/// Whether keys are this process's and its children's alone.
fn shares_nothing(config: &Config) -> bool {
    config.memory.path.is_none()
        && !config.has_transport()
        && config.keys.source == KeySource::Random
}

/// The configuration for this process: one that serves nobody keeps away from the memory of those that do, which it
/// would make, or replace by one of another size.
fn configured(environment: &[String]) -> Result<Config> {
    let mut config = Config::load(None, &|name| lookup(environment, name))?;
    // A command line that cannot be read, or is overwritten by a title, is one of a server.
    let command_line = fs::read("/proc/self/cmdline").unwrap_or_default();
    if config.memory.path.is_some() && tls::is_dry_run(&command_line) {
        config.memory.path = None;
    }
    Ok(config)
}

/// # Safety
/// `environment` is NULL or a list of C strings that ends with NULL.
unsafe fn variables(environment: *const *const c_char) -> Vec<String> {
    let mut variables = Vec::new();
    let mut next = environment;
    // SAFETY: as the caller promises.
    unsafe {
        while !next.is_null() && !(*next).is_null() {
            #[allow(clippy::disallowed_methods, reason = "checked not to be null")]
            variables.push(CStr::from_ptr(*next).to_string_lossy().into_owned());
            next = next.add(1);
        }
    }
    variables
}

fn lookup(variables: &[String], name: &str) -> Option<String> {
    let mut named = variables.iter().filter_map(|variable| variable.split_once('='));
    named.find(|(other, _)| *other == name).map(|(_, value)| value.to_owned())
}

/// Variables that look like settings and are none: with the preload, variables are the usual way to set anything.
fn unknown(variables: &[String]) -> impl Iterator<Item = &str> {
    let names = variables.iter().filter_map(|variable| Some(variable.split_once('=')?.0));
    names.filter(|name| {
        *name != CONFIG_VARIABLE && !ENVIRONMENT.iter().any(|setting| setting.name == *name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistyped_variable_is_told() {
        let variables = ["TLSRESUME_MEMORY_PATHS=a", "TLSRESUME_REALM=b", "TLSRESUME_CONFIG=c"]
            .map(str::to_owned);
        assert_eq!(unknown(&variables).collect::<Vec<_>>(), ["TLSRESUME_MEMORY_PATHS"]);
    }

    #[test]
    fn a_variable_is_found_by_its_whole_name() {
        let variables = ["TLSRESUME_REALM=a=b".to_owned(), "TLSRESUME_REALM2=c".to_owned()];
        assert_eq!(lookup(&variables, "TLSRESUME_REALM").as_deref(), Some("a=b"));
        assert_eq!(lookup(&variables, "TLSRESUME_REAL"), None);
    }
}
