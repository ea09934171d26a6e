//! No mistake of ours keeps a server from serving: it starts, it answers, and one line says what is
//! wrong.

use std::fs;
use std::path::Path;

use tlsresume_testkit::installed::{Program, Settings, Visits, preload_library};
use tlsresume_testkit::{Folder, Mode, Result};

/// A server that starts and serves all the same, and says `expected` on one line and nothing more of
/// the library.
fn serves_and_says(settings: Settings, expected: &str) -> Result<()> {
    let server = settings.start()?;
    let mut visits = Visits::start()?;
    for mode in Mode::ALL {
        let visit = visits.visit(&server, mode, None)?;
        assert!(visit.answer.starts_with("HTTP/1.1"), "{mode}: {visit:?}");
    }
    let log = server.log();
    let lines: Vec<_> =
        log.lines().filter(|line| line.contains("tlsresume") && !line.contains("notice")).collect();
    assert_eq!(lines.len(), 1, "{log}");
    assert!(lines[0].contains(expected), "{expected:?} is not in {:?}", lines[0]);
    Ok(())
}

fn preloaded(program: Program) -> Result<Settings> {
    Ok(program.settings().preload(preload_library()?))
}

const SERVERS: [Program; 3] = [Program::Nginx, Program::Hitch, Program::Apache];

#[test]
fn an_unwritable_memory_path_costs_one_line() -> Result<()> {
    for program in SERVERS {
        let path = "/proc/no/such/sessions";
        serves_and_says(
            preloaded(program)?.env("TLSRESUME_MEMORY_PATH", path),
            &format!("{path}: open: No such file or directory"),
        )?;
    }
    Ok(())
}

#[test]
fn a_broken_configuration_costs_one_line() -> Result<()> {
    for program in SERVERS {
        let folder = Folder::new()?;
        let path = folder.file("tlsresume.toml");
        fs::write(&path, "realm = \"a\"\n[resumption]\nlifetime = \"long\"\n").expect("ours");
        let expected = format!("{}:3: resumption.lifetime", path.display());
        serves_and_says(preloaded(program)?.env("TLSRESUME_CONFIG", path), &expected)?;
    }
    Ok(())
}

#[test]
fn a_mistyped_variable_costs_one_line() -> Result<()> {
    for program in SERVERS {
        let memory = Folder::in_memory()?;
        let path = memory.file("sessions");
        serves_and_says(
            preloaded(program)?.env("TLSRESUME_MEMORY_PATHS", path),
            "TLSRESUME_MEMORY_PATHS is no setting of this release",
        )?;
    }
    Ok(())
}

#[test]
fn a_missing_library_beside_the_preload_costs_one_line() -> Result<()> {
    for program in SERVERS {
        let folder = Folder::new()?;
        let alone = folder.file("libtlsresume_preload.so");
        fs::copy(preload_library()?, &alone).expect("the folder is ours");
        serves_and_says(program.settings().preload(&alone), "cannot load libtlsresume.so")?;
    }
    Ok(())
}

/// The dynamic linker says it, for each program that a server starts.
#[test]
fn a_missing_preload_costs_a_line_of_the_dynamic_linker() -> Result<()> {
    let missing = Path::new("/nowhere/libtlsresume_preload.so");
    serves_and_says(
        Program::Nginx.settings().preload(missing),
        "from LD_PRELOAD cannot be preloaded",
    )
}
