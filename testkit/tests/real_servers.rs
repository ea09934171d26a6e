//! Servers as Debian packages them resume each other's sessions once the library is preloaded, and
//! do not without it. What each does is a row of `docs/servers.md`, which is compared with what
//! happened; `make servers-table` writes it.

use tlsresume_testkit::installed::table::{Cell, Row};
use tlsresume_testkit::installed::{self, Program, Settings, Visits, preload_library};
use tlsresume_testkit::{Folder, Mode, Result, net, say};

const NGINX: &str = include_str!("../servers/nginx.conf");

/// The table's word for servers that were started as usual, and with the library preloaded.
const WITHOUT: &str = "no";
const WITH: &str = "yes";
const FORCED: &str = "yes, forced";

/// Two instances of `program` that share a memory path, and that alone.
fn with_library(
    program: Program,
    library: &'static str,
    settings: impl Fn(Settings) -> Settings,
) -> Result<Row> {
    let memory = Folder::in_memory()?;
    program.give(&memory)?;
    let preload = preload_library()?;
    Row::measure(program, library, |address| {
        let it = program.settings().at(address).preload(&preload);
        settings(it.env("TLSRESUME_MEMORY_PATH", memory.file("sessions"))).start()
    })
}

/// With the library, every client resumes wherever it comes back.
fn resumes_everywhere(program: Program) -> Result<()> {
    let row = with_library(program, WITH, |settings| settings)?;
    assert_all(&row);
    row.check()
}

fn assert_all(row: &Row) {
    for cell in [&row.other_worker, &row.other_instance, &row.after_reload, &row.after_restart] {
        assert!(cell.is_all(), "{row}");
    }
}

/// Control: without it, nobody resumes at the other instance, and what a restart forgets is gone.
fn does_not_resume_by_itself(program: Program) -> Result<()> {
    let row = plain(program)?;
    assert!(matches!(row.other_instance, Cell::Resumed(_)), "{row}");
    assert!(row.other_instance.is_none(), "{row}");
    row.check()
}

/// Nobody resumes anywhere.
fn resumes_nowhere(row: &Row) -> Result<()> {
    for cell in [&row.other_worker, &row.other_instance, &row.after_reload, &row.after_restart] {
        assert!(cell.is_none(), "{row}");
    }
    row.check()
}

fn plain(program: Program) -> Result<Row> {
    Row::measure(program, WITHOUT, |address| program.settings().at(address).start())
}

/// PostgreSQL turns tickets and sessions off, and the library respects that.
#[test]
fn postgres_is_left_alone() -> Result<()> {
    resumes_nowhere(&with_library(Program::Postgres, WITH, |settings| settings)?)
}

#[test]
fn plain_postgres_resumes_nothing() -> Result<()> {
    resumes_nowhere(&plain(Program::Postgres)?)
}

#[test]
fn two_instances_of_postgres_resume_each_others_sessions_when_forced() -> Result<()> {
    let forced = |settings: Settings| settings.env("TLSRESUME_RESUMPTION_FORCE", "true");
    let row = with_library(Program::Postgres, FORCED, forced)?;
    assert_all(&row);
    row.check()
}

/// Debian's configurations have it so: other users than root serve, some in another root directory.
#[test]
fn servers_that_give_up_root_resume_each_others_sessions() -> Result<()> {
    if !installed::is_root() {
        say("nothing to give up: not root");
        return Ok(());
    }
    let settings = |program| match program {
        Program::Nginx => {
            Program::Nginx.settings().config(NGINX.replace("@user@", "user nobody nogroup;"))
        }
        Program::Haproxy => program.settings().top("user nobody\nchroot /var/lib/haproxy"),
        Program::Stunnel => program.settings().top("setuid = nobody\nchroot = /var/lib/haproxy"),
        _ => program.settings().top("server.username = \"nobody\""),
    };
    for program in [Program::Nginx, Program::Haproxy, Program::Stunnel, Program::Lighttpd] {
        let memory = Folder::in_memory()?;
        let preload = preload_library()?;
        let start = |address| {
            let it = settings(program).at(address).preload(&preload);
            it.env("TLSRESUME_MEMORY_PATH", memory.file("sessions")).start()
        };
        let [one, other] = net::one_port_of_two_addresses()?;
        let (one, other) = (start(one)?, start(other)?);
        let mut clients = Visits::start()?;
        // As in the table: the first visit to an address makes its name known to the node.
        clients.visit(&other, Mode::Tls12Id, None)?;
        for mode in Mode::ALL {
            let home = clients.visit(&one, mode, None)?;
            let back = clients.visit(&other, mode, home.session)?;
            assert!(back.reused, "{program} {mode}: {back:?}");
        }
    }
    Ok(())
}

/// A row that no test measures any more would stay as it is for ever.
#[test]
fn every_row_of_the_table_is_measured() {
    let page = include_str!("../../docs/servers.md");
    let rows = page.lines().skip_while(|line| !line.starts_with("|---")).skip(1);
    let rows: Vec<_> = rows.take_while(|line| line.starts_with('|')).collect();
    let measured = Program::ALL.iter().flat_map(|program| {
        let forced = (*program == Program::Postgres).then_some(FORCED);
        [Some(WITHOUT), Some(WITH), forced].map(|it| Some(format!("| {program} | {} |", it?)))
    });
    let measured: Vec<_> = measured.flatten().collect();
    assert_eq!(rows.len(), measured.len(), "{rows:#?}");
    for (row, start) in rows.iter().zip(&measured) {
        assert!(row.starts_with(start), "{row} is not the row of {start}");
    }
}

macro_rules! servers {
    ($($program:expr, $with:ident, $without:ident;)*) => { $(
        #[test]
        fn $with() -> Result<()> {
            resumes_everywhere($program)
        }

        #[test]
        fn $without() -> Result<()> {
            does_not_resume_by_itself($program)
        }
    )* };
}

servers! {
    Program::Nginx,
    two_instances_of_nginx_resume_each_others_sessions,
    two_instances_of_plain_nginx_do_not;

    Program::Hitch,
    two_instances_of_hitch_resume_each_others_sessions,
    two_instances_of_plain_hitch_do_not;

    Program::Haproxy,
    two_instances_of_haproxy_resume_each_others_sessions,
    two_instances_of_plain_haproxy_do_not;

    Program::Apache,
    two_instances_of_apache_resume_each_others_sessions,
    two_instances_of_plain_apache_do_not;

    Program::Stunnel,
    two_instances_of_stunnel_resume_each_others_sessions,
    two_instances_of_plain_stunnel_do_not;

    Program::Lighttpd,
    two_instances_of_lighttpd_resume_each_others_sessions,
    two_instances_of_plain_lighttpd_do_not;

    Program::H2o,
    two_instances_of_h2o_resume_each_others_sessions,
    two_instances_of_plain_h2o_do_not;

    Program::Python,
    two_instances_of_a_python_server_resume_each_others_sessions,
    two_instances_of_a_plain_python_server_do_not;
}
