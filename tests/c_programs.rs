//! The library as C programs use it. Each program of `c-tests` prints what holds, claim by claim,
//! and ends at the first claim that does not. Here they run with the sanitizers of gcc, which see
//! what OpenSSL and the programs do to our memory and we to theirs, and under valgrind, which sees
//! inside the library as well.

mod support;

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use support::{output_of, release_library, repository, target_dir};

macro_rules! programs {
    ($($program:ident: $claim:ident,)+) => {
        const PROGRAMS: &[&str] = &[$(stringify!($program)),+];

        mod sanitized {
            $(
                #[test]
                fn $claim() {
                    super::run_sanitized(stringify!($program));
                }
            )+
        }

        mod under_valgrind {
            $(
                #[test]
                fn $claim() {
                    super::run_under_valgrind(stringify!($program));
                }
            )+
        }
    };
}

programs! {
    again: what_is_used_again_or_ended_is_judged_as_everything_else,
    api: every_function_refuses_bad_arguments_and_says_why,
    async: a_handshake_that_waits_for_another_host_is_paused,
    bios: the_bios_of_an_ended_handshake_stay_the_applications,
    dup: copies_of_connections_resume_and_keep_their_callbacks,
    early_data: early_data_is_accepted_at_most_once,
    ex_data: what_others_write_on_our_objects_breaks_nothing,
    exit: a_process_may_end_while_threads_do_handshakes,
    fork: children_share_sessions_and_never_hang,
    host: the_program_around_the_library_is_left_as_it_is,
    hostile: hostile_clients_cost_little_and_break_nothing,
    late: what_is_set_in_the_midst_of_a_handshake_counts,
    lifecycle: everything_may_be_freed_in_any_order,
    lifetime: keys_and_sessions_live_as_long_as_they_should,
    logout: logouts_count_and_what_strangers_cause_does_not,
    logout_threads: a_logout_on_another_thread_counts_and_defers_nothing,
    memory: handshakes_go_on_whatever_becomes_of_the_memory,
    names: names_are_looked_up_beside_the_program_without_a_trace,
    nomemory: without_memory_a_connection_is_lost_at_most,
    norandom: without_randomness_sessions_stay_where_they_belong,
    plugins: plug_ins_that_come_and_go_are_told_apart,
    remove: what_is_removed_or_revoked_does_not_resume,
    restart: a_server_that_starts_anew_lets_in_whom_its_rules_let_in,
    resume: every_kind_resumes_unless_somebody_says_no,
    single_use: a_single_use_ticket_resumes_once,
    sys_decls: our_declarations_are_those_of_the_openssl_headers,
    threads: threads_resume_while_keys_and_contexts_come_and_go,
    unload: contexts_outlive_the_plug_in_that_attached_them,
    vhosts: sessions_stay_with_server_name_and_policy,
}

/// Valgrind runs one thread at a time: what two do to each other shows without it.
#[test]
fn children_of_a_busy_process_never_hang() {
    output_of(&mut command(&["timeout", DEADLINE], &program("plain", "fork")));
}

/// A library that is loaded by a module gets memory for its thread-local variables when a thread first uses them.
#[test]
fn without_memory_a_module_costs_a_connection_at_most() {
    output_of(&mut command(&["timeout", DEADLINE], &program("loaded", "nomemory")));
}

#[test]
fn every_program_is_run() {
    let sources: BTreeSet<_> = fs::read_dir(c_tests())
        .expect("c-tests")
        .map(|entry| entry.expect("a readable entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "c"))
        .map(|path| path.file_stem().expect("a name").to_string_lossy().into_owned())
        .filter(|name| !["check", "realm"].contains(&name.as_str()))
        .collect();
    assert_eq!(sources, PROGRAMS.iter().map(|name| (*name).to_owned()).collect());
}

#[test]
fn every_declaration_by_hand_is_held_against_the_headers() {
    let declarations = read(&repository().join("src/tls/sys.rs"));
    let checks = read(&c_tests().join("sys_decls.c"));
    let names: Vec<_> = declarations
        .lines()
        .filter_map(|line| {
            let declared = line.trim().strip_prefix("pub(super) ")?;
            let rest = declared.strip_prefix("fn ").or_else(|| declared.strip_prefix("const "))?;
            rest.split(['(', ':']).next()
        })
        .collect();
    assert!(names.len() > 20, "what does src/tls/sys.rs look like now? {names:?}");
    let missing: Vec<_> = names.iter().filter(|name| !checks.contains(**name)).collect();
    assert!(missing.is_empty(), "not in c-tests/sys_decls.c: {missing:?}");
}

/// Seconds, for hangs: a busy machine needs ten times as long as an idle one.
const DEADLINE: &str = "1800";

fn run_sanitized(name: &str) {
    let program = program("sanitized", name);
    output_of(
        command(&["timeout", DEADLINE], &program)
            .env("ASAN_OPTIONS", "detect_leaks=1:strict_string_checks=1")
            .env("UBSAN_OPTIONS", "print_stacktrace=1:halt_on_error=1"),
    );
}

fn run_under_valgrind(name: &str) {
    require("valgrind");
    let program = program("plain", name);
    let suppressions = format!("--suppressions={}", c_tests().join("valgrind.supp").display());
    let valgrind = [
        "timeout",
        DEADLINE,
        "valgrind",
        "--quiet",
        "--leak-check=full",
        "--show-leak-kinds=definite,indirect",
        "--errors-for-leak-kinds=definite,indirect",
        "--error-exitcode=9",
        &suppressions,
    ];
    // A tenth of the repetitions, for it is that much slower and more.
    output_of(command(&valgrind, &program).env("CHECK_SCALE", "10"));
}

/// `program` with a command before it, untouched by what the environment says to the library.
fn command(before: &[&str], program: &Path) -> Command {
    let mut command = Command::new(before[0]);
    command.args(&before[1..]).arg(program);
    let ours = |name: &str| name.starts_with("TLSRESUME_") || name.starts_with("CHECK_");
    env::vars().filter(|(name, _)| ours(name)).for_each(|(name, _)| {
        command.env_remove(name);
    });
    command
}

/// A program of `c-tests`, built with all others when the first one is asked for.
fn program(build: &str, name: &str) -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(build_all).join(build).join(name)
}

fn build_all() -> PathBuf {
    require("gcc");
    require("make");
    let release = release_library();
    let directory = target_dir().join("c-tests");
    output_of(
        Command::new("make")
            // A make that knows nothing of the one which runs this test.
            .env_remove("MAKEFLAGS")
            .env_remove("MAKELEVEL")
            .env_remove("MFLAGS")
            .arg("-C")
            .arg(c_tests())
            .arg("CC=gcc")
            .arg(format!("OUT={}", directory.display()))
            .arg(format!("LIBDIR={}", release.parent().expect("a directory").display())),
    );
    directory
}

fn require(tool: &str) {
    let found = Command::new(tool).arg("--version").output().is_ok();
    assert!(found, "{tool} is missing: run scripts/install-deps.sh");
}

fn c_tests() -> PathBuf {
    repository().join("c-tests")
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
