//! The preload library in programs that know nothing of it. The programs of `c-tests/preload` print what holds, claim
//! by claim, or what they see; here they run with `LD_PRELOAD`, and without it to show that it is the library which
//! does it.

#[path = "preload/building.rs"]
mod building;
#[path = "preload/faults.rs"]
mod faults;
#[path = "preload/logs.rs"]
mod logs;
#[path = "preload/privileges.rs"]
mod privileges;
mod support;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use building::{Build, libraries, plain, preload, preloaded, program, programs_in_the_folder};
use support::{output_of, repository};

/// How `serves` says that sessions are shared, for each of three kinds, and that they are not.
const SHARED: &str = "resumed\nresumed\nresumed\n";
const NOT_SHARED: &str = "full\nfull\nfull\n";

/// The modes of the library, and what clients must not notice.
const MODES: [&str; 3] = ["stateless", "stateful", "off"];

/// Programs whose claims hold in these modes, with the words that choose among the claims.
const CLAIMS: &[(&str, &str, &[&str])] = &[
    ("setters", "stateless", &[]),
    ("setters", "stateful", &["aside", "respected", "read", "limit", "change", "options", "by_id"]),
    ("clients", "stateless", &[]),
    ("clients", "stateful", &[]),
    ("clients", "off", &[]),
    ("early", "stateless", &[]),
    ("early", "stateful", &[]),
    ("vhosts", "stateless", &[]),
    ("vhosts", "stateful", &[]),
    ("late", "stateless", &[]),
    ("late", "stateful", &[]),
    ("threads", "stateless", &[]),
    ("threads", "stateful", &[]),
    ("several", "stateless", &[]),
];

fn claims_hold(build: Build, name: &str) {
    // Under valgrind one mode has to do.
    let modes = if build == Build::UnderValgrind { 1 } else { MODES.len() };
    for (_, mode, words) in CLAIMS.iter().filter(|(other, ..)| *other == name).take(modes) {
        let mut command = preloaded(build, name);
        output_of(command.args(*words).env("TLSRESUME_RESUMPTION_MODE", mode));
    }
}

macro_rules! programs {
    ($($program:ident: $claim:ident,)+) => {
        mod at_full_speed {
            $(
                #[test]
                fn $claim() {
                    super::claims_hold(super::Build::Plain, stringify!($program));
                }
            )+
        }

        mod sanitized {
            $(
                #[test]
                fn $claim() {
                    super::claims_hold(super::Build::Sanitized, stringify!($program));
                }
            )+
        }

        mod under_valgrind {
            $(
                #[test]
                fn $claim() {
                    super::claims_hold(super::Build::UnderValgrind, stringify!($program));
                }
            )+
        }
    };
}

programs! {
    setters: what_a_program_sets_is_read_back_and_sessions_are_shared,
    clients: a_client_gets_what_it_asks_for,
    early: early_data_is_accepted_at_most_once_and_never_behind_the_program,
    vhosts: virtual_hosts_are_known_before_they_serve,
    late: verification_is_heard_however_late,
    threads: threads_and_children_meet_a_library_that_is_ready,
    several: objects_of_two_libraries_are_kept_apart,
}

#[test]
fn every_program_is_run() {
    let named: BTreeSet<_> = CLAIMS.iter().map(|(name, ..)| (*name).to_owned()).collect();
    let others = ["another", "bystander", "client_only", "optout", "plugged", "plugin", "serves"];
    let others = others.into_iter().chain(["trace"]).map(ToOwned::to_owned);
    assert_eq!(programs_in_the_folder(), named.into_iter().chain(others).collect());
}

#[test]
fn without_the_preload_nothing_is_shared() {
    assert_eq!(output_of(&mut plain("serves")), NOT_SHARED);
    for name in ["setters", "vhosts"] {
        let output = plain(name).output().expect("runs");
        assert!(!output.status.success(), "{name} shows nothing");
    }
}

#[test]
fn with_the_preload_everything_is_shared() {
    assert_eq!(output_of(&mut preloaded(Build::Plain, "serves")), SHARED);
}

#[test]
fn processes_that_know_nothing_of_each_other_share_a_path() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    for mode in ["stateless", "stateful"] {
        let visit = |what| {
            let mut command = preloaded(Build::Plain, "serves");
            command.arg(what).arg(folder.path()).env("TLSRESUME_RESUMPTION_MODE", mode);
            output_of(command.env("TLSRESUME_MEMORY_PATH", folder.path().join(mode)))
        };
        assert_eq!(visit("leave"), "");
        assert_eq!(visit("return"), SHARED, "{mode}");
        fs::remove_file(folder.path().join(mode)).expect("a memory");
        assert_eq!(visit("return"), NOT_SHARED, "{mode}, without the memory");
    }
}

macro_rules! traces {
    ($($claim:ident: $trace:literal,)+) => {
        $(
            #[test]
            fn $claim() {
                same_trace($trace);
            }
        )+
    };
}

traces! {
    a_client_is_told_of_its_sessions: "told",
    a_client_that_asks_late_is_told_of_its_sessions: "told late",
    a_client_is_told_of_removals_alone: "told of removals only",
    a_client_without_a_cache_is_told_nothing: "cache off",
    the_timeout_of_a_clients_sessions_is_its_own: "a minute",
    a_clients_internal_cache_works: "internal cache",
    a_client_may_use_a_session_on_another_context: "exchange",
}

/// What a client sees is the same with and without the library.
fn same_trace(trace: &str) {
    let without = output_of(plain("trace").arg(trace));
    assert!(without.contains("full"), "a trace of nothing: {without}");
    for mode in MODES {
        let mut command = preloaded(Build::Plain, "trace");
        let with = output_of(command.arg(trace).env("TLSRESUME_RESUMPTION_MODE", mode));
        assert_eq!(with, without, "left: with the library in mode {mode}; right: without");
    }
}

#[test]
fn a_program_that_only_connects_does_not_load_the_library() {
    let loaded = output_of(&mut preloaded(Build::Plain, "client_only"));
    assert!(loaded.contains("libtlsresume_preload.so") && loaded.contains("libssl"), "{loaded}");
    assert!(!loaded.contains("libtlsresume.so"), "{loaded}");
}

#[test]
fn a_program_without_libssl_loads_the_preload_and_nothing_else() {
    let names = |mut command: Command| -> BTreeSet<String> {
        output_of(&mut command).lines().map(ToOwned::to_owned).collect()
    };
    let mut with = names(preloaded(Build::Plain, "bystander"));
    assert!(with.remove("libtlsresume_preload.so"), "{with:?}");
    assert_eq!(with, names(plain("bystander")));
}

/// Counted by valgrind: the time that the dynamic linker takes, and what the preload does when it is loaded.
#[test]
fn a_program_without_libssl_starts_as_fast_as_before() {
    let instructions = |preload: Option<&Path>| {
        let mut command = Command::new("valgrind");
        command.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]);
        command.arg(program(Build::Plain, "bystander"));
        preload.into_iter().for_each(|path| {
            command.env("LD_PRELOAD", path).env("TLSRESUME_MEMORY_PATH", "/nowhere/memory");
        });
        let output = command.output().expect("valgrind");
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        let count =
            text.split("Collected : ").nth(1).and_then(|rest| rest.split_whitespace().next());
        count.and_then(|count| count.parse::<u64>().ok()).unwrap_or_else(|| panic!("{text}"))
    };
    let (without, with) = (instructions(None), instructions(Some(&preload())));
    // About 20 microseconds.
    assert!(with < without + 60_000, "{without} instructions without, {with} with");
}

#[test]
fn contexts_that_serve_say_so_once_each_and_others_never() {
    let attached = |name: &str, word: &str| {
        let mut command = preloaded(Build::Plain, name);
        let output = command.arg(word).env("TLSRESUME_LOG_LEVEL", "info").output().expect("runs");
        assert!(output.status.success(), "{output:?}");
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        stderr.lines().filter(|line| line.contains("attached a context")).count()
    };
    assert_eq!(attached("client_only", ""), 0);
    // One context that all visit at last, and twenty whose first connections many threads make at once.
    assert_eq!(attached("threads", "threads_that_make_the_first_connections_all_share"), 21);
}

#[test]
fn a_context_with_resumption_disabled_is_left_unchanged_unless_forced() {
    const LINE: &str =
        "context has resumption disabled; left unchanged (resumption.force overrides)";
    for mode in ["stateless", "stateful"] {
        let optout = |word: &str, force: &str| {
            let mut command = preloaded(Build::Plain, "optout");
            command.arg(word).env("TLSRESUME_RESUMPTION_MODE", mode);
            command.env("TLSRESUME_LOG_LEVEL", "info").env("TLSRESUME_RESUMPTION_FORCE", force);
            let output = command.output().expect("runs");
            assert!(output.status.success(), "{output:?}");
            String::from_utf8_lossy(&output.stderr).contains(LINE)
        };
        assert!(optout("left_alone", "false"));
        assert!(!optout("overruled", "true"));
    }
}

#[test]
fn a_libssl_that_a_module_brings_is_found() {
    let serve = |command: &mut Command| output_of(command.arg(program(Build::Plain, "plugin.so")));
    assert_eq!(serve(&mut plain("plugged")), NOT_SHARED);
    assert_eq!(serve(&mut preloaded(Build::Plain, "plugged")), SHARED);
}

#[test]
fn variables_count_that_the_program_clears() {
    let mut command = preloaded(Build::Plain, "plugged");
    command.arg(program(Build::Plain, "plugin.so")).env("TLSRESUME_RESUMPTION_MODE", "off");
    assert_eq!(output_of(&mut command), NOT_SHARED);
}

#[test]
fn of_several_libssl_the_one_that_the_library_is_made_for_is_served() {
    let (ours, other) = (program(Build::Plain, "plugin.so"), building::plugin_of_another_libssl());
    let serve = |plugins: [&Path; 3]| output_of(preloaded(Build::Plain, "plugged").args(plugins));
    let expected = [SHARED, NOT_SHARED, SHARED].concat();
    assert_eq!(serve([&ours, &other, &ours]), expected);
    let expected = [NOT_SHARED, SHARED, NOT_SHARED].concat();
    assert_eq!(serve([&other, &ours, &other]), expected);
}

#[test]
fn the_preload_needs_the_c_library_alone() {
    let dynamic = output_of(Command::new("readelf").args(["--dynamic", "--wide"]).arg(preload()));
    let needed: Vec<_> = dynamic.lines().filter(|line| line.contains("(NEEDED)")).collect();
    assert!(needed.len() == 1 && needed[0].contains("[libc.so."), "{needed:?}");
}

#[test]
fn the_preload_exports_and_takes_exactly_what_was_reviewed() {
    let symbols = output_of(Command::new("nm").arg("--dynamic").arg(preload()));
    let mut found: Vec<_> = symbols
        .lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace().rev();
            let (name, kind) = (words.next()?, words.next()?);
            let name = name.split('@').next()?;
            match kind {
                "T" => Some(format!("exports {name}")),
                "U" => Some(format!("takes {name}")),
                // Weak: what every shared library has.
                "w" => None,
                _ => Some(format!("{kind} {name}")),
            }
        })
        .collect();
    found.sort_unstable();
    let reviewed = fs::read_to_string(repository().join("abi/preload-symbols.txt")).expect("read");
    assert_eq!(found, reviewed.lines().collect::<Vec<_>>(), "left: found; right: reviewed");
}

#[test]
fn the_libraries_lie_side_by_side() {
    for name in ["libtlsresume.so.0", "libtlsresume_preload.so", "with-tlsresume"] {
        assert!(libraries().join(name).exists(), "{name} is missing: run make all first");
    }
}
