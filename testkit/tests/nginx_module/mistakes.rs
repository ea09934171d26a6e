//! Mistakes are told with their place; what cannot be had costs no service; the page is right.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use tlsresume_testkit::client::OpenSsl;
use tlsresume_testkit::{DEADLINE, Folder, Mode, Result, Traffic, free_port};

use crate::nginx::{
    Blocks, STREAM_MODULE, Site, address, assert_all_resumed, certificate, module, server, site_on,
};

/// `nginx -t` fails, and says `expected`.
fn assert_refused(site: &Site, http: &str, expected: &str) -> Result<()> {
    site.configure("", &Blocks { http, ..Blocks::default() })?;
    let (passed, said) = site.test();
    assert!(!passed, "{http}: {said}");
    assert!(said.contains(expected), "{http}: {said}");
    assert!(said.contains("nginx.conf:"), "{http}: no place in {said}");
    Ok(())
}

#[test]
fn mistakes_fail_the_test_of_the_configuration_with_their_place() -> Result<()> {
    let (site, port) = (Site::new()?, free_port()?);
    let server = server(port, "");
    let with = |directive: &str| format!("{directive} {server}");
    site.write("good.toml", "realm = \"a\"\n");
    site.write("bad.toml", "realm = \"a\"\n\n[resumption]\nlifetime = \"long\"\n");
    let place = |file: &str| site.file(file).display().to_string();

    assert_refused(&site, &with("tlsresume yes;"), "it must be \"on\", \"off\" or a file")?;
    assert_refused(&site, &with("tlsresume;"), "invalid number of arguments")?;
    assert_refused(&site, &with("tlsresume on off;"), "invalid number of arguments")?;
    assert_refused(&site, &with("tlsresume on; tlsresume off;"), "is duplicate")?;
    assert_refused(&site, &with("tlsresume missing.toml;"), &place("missing.toml"))?;
    assert_refused(&site, &with("tlsresume ./;"), "not a regular file")?;
    assert_refused(&site, &with("tlsresume bad.toml;"), &format!("{}:4", place("bad.toml")))?;
    assert_refused(&site, &with("tlsresume bad.toml;"), "lifetime")?;
    let status = "server { listen 127.0.0.1:1; location / { tlsresume_status; } }";
    assert_refused(&site, status, "\"tlsresume\" is off for the server in")?;
    let twice = "tlsresume on; server { location / { tlsresume_status; tlsresume_status; } }";
    assert_refused(&site, twice, "is duplicate")?;

    site.configure("", &Blocks { http: &with("tlsresume good.toml;"), ..Blocks::default() })?;
    let (passed, said) = site.test();
    assert!(passed && !said.contains("[warn]"), "{said}");
    Ok(())
}

#[test]
fn a_test_of_the_configuration_leaves_running_servers_alone() -> Result<()> {
    let memory = Folder::in_memory()?;
    let port = free_port()?;
    let nginx = site_on(&memory.file("sessions"), port, 1, "")?.start()?;
    let client = OpenSsl::new();
    let visit = |mode: Mode| client.first_visit(address(port), mode);
    let visitors = Mode::ALL.into_iter().map(visit).collect::<Result<Vec<_>>>()?;
    let (passed, said) = nginx.site.test();
    assert!(passed, "{said}");
    let nginx = nginx.restart()?;
    for (mode, visitor) in Mode::ALL.into_iter().zip(&visitors) {
        let back = visitor.come_back_as(&client, address(port))?;
        assert!(back.resumed(), "{mode}: {back:?}\n{}", nginx.log());
    }
    Ok(())
}

#[test]
fn memory_that_cannot_be_had_costs_one_line_and_no_service() -> Result<()> {
    let (site, port) = (Site::new()?, free_port()?);
    let path = site.file("missing/sessions");
    site.write("tlsresume.toml", &format!("memory.path = \"{}\"\n", path.display()));
    let http = format!("tlsresume tlsresume.toml; {}", server(port, ""));
    site.configure("", &Blocks { workers: 2, http: &http, ..Blocks::default() })?;
    let nginx = site.start()?;
    for mode in Mode::ALL {
        let report = Traffic::to([address(port)], mode).connections(50, DEADLINE)?;
        assert_all_resumed(&mode.to_string(), &report);
    }
    assert_eq!(nginx.lines_with("[warn]"), 1, "{}", nginx.log());
    let line = format!("tlsresume: {}", path.display());
    assert_eq!(nginx.lines_with(&line), 1, "{}", nginx.log());
    Ok(())
}

fn blocks_of_the_page() -> Vec<String> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/nginx.md");
    let text = fs::read_to_string(page).expect("the page is there");
    let blocks = text.split("```nginx\n").skip(1).filter_map(|it| it.split("```").next());
    blocks.map(str::to_owned).collect()
}

/// The block that is a file of `modules-enabled`, where nginx's own modules have theirs.
fn is_for_debian(block: &str) -> bool {
    block.contains("ngx_stream_tlsresume_module.so") && !block.contains("ngx_stream_module.so")
}

#[test]
fn debians_own_configuration_loads_the_modules_as_the_page_says() -> Result<()> {
    const DEBIAN: &str = "/etc/nginx";

    let site = Site::new()?;
    link_modules(&site)?;
    let block = blocks_of_the_page().into_iter().find(|block| is_for_debian(block));
    let enabled = site.file("modules-enabled");
    fs::create_dir(&enabled).expect("the folder is ours");
    // Of the package that the page installs, whose file is the one that ours must come after. Those of other packages
    // are not needed, and may be left from packages that are gone.
    let stream = "modules-enabled/50-mod-stream.conf";
    fs::copy(format!("{DEBIAN}/{stream}"), site.file(stream)).expect("its package is installed");
    // The page's file is ours, wherever it may be installed on this host too.
    site.write("modules-enabled/60-tlsresume.conf", &block.expect("a block for Debian"));
    fs::copy(format!("{DEBIAN}/mime.types"), site.file("mime.types")).expect("it is Debian's");
    fs::create_dir(site.file("conf.d")).expect("the folder is ours");
    site.write("conf.d/tlsresume.conf", "tlsresume on;\n");

    let text = fs::read_to_string(format!("{DEBIAN}/nginx.conf")).expect("nginx is installed");
    assert!(text.contains("include /etc/nginx/modules-enabled/*.conf;"), "{text}");
    // Everything else is in the site: no site of Debian's, no port below 1024.
    let folder = site.folder.path().display();
    let text = ["/etc/nginx/", "/var/log/nginx/", "/run/"]
        .iter()
        .fold(text, |text, path| text.replace(path, &format!("{folder}/")));
    site.write("nginx.conf", &text);
    let (passed, said) = site.test();
    assert!(passed && !said.contains("[warn]"), "{said}\n{text}");
    Ok(())
}

#[test]
fn an_address_whose_default_server_is_not_attached_is_told() -> Result<()> {
    let (site, ports) = (Site::new()?, [free_port()?, free_port()?]);
    let said = |default: &str, named: &str| -> Result<usize> {
        // The other address has no TLS, nor a default server that is attached.
        let plain = format!("server {{ listen 127.0.0.1:{}; tlsresume off; }}", ports[1]);
        let also_plain = format!("server_name a.example; listen 127.0.0.1:{}; {named}", ports[1]);
        let servers = [plain, server(ports[0], default), server(ports[0], &also_plain)];
        site.configure("", &Blocks { http: &servers.join("\n"), ..Blocks::default() })?;
        let (passed, said) = site.test();
        assert!(passed, "{said}");
        let line = format!("the default server of 127.0.0.1:{} is not attached", ports[0]);
        assert!(!said.contains("[warn]") || said.contains(&line), "{said}");
        Ok(said.matches("[warn]").count())
    };
    assert_eq!(said("tlsresume off;", "tlsresume on;")?, 1);
    assert_eq!(said("tlsresume on;", "tlsresume on;")?, 0);
    assert_eq!(said("tlsresume on;", "tlsresume off;")?, 0);
    assert_eq!(said("", "")?, 0);
    Ok(())
}

/// The blocks of `docs/nginx.md`, completed to whole configurations, pass `nginx -t`.
#[test]
fn every_configuration_of_the_page_is_accepted() -> Result<()> {
    let blocks = blocks_of_the_page();
    assert!(blocks.len() >= 3, "{blocks:?}");
    for block in blocks.iter().filter(|block| !is_for_debian(block)) {
        let site = Site::new()?;
        for ca in ["staff", "partners"] {
            certificate(&site, ca, &[&format!("/CN={ca}")]);
        }
        site.write("tlsresume.toml", "");
        site.write("nginx.conf", &completed(&site, block)?);
        let (passed, said) = site.test();
        assert!(passed, "{said}\n{block}");
    }
    Ok(())
}

/// Paths and ports of an installed system become those of the site; a part gets the blocks around it.
fn completed(site: &Site, block: &str) -> Result<String> {
    let mut loads = String::new();
    for name in link_modules(site)? {
        loads += &format!("load_module modules/{name};\n");
    }

    let mut text = block.replace("/etc/nginx/", "");
    for (port, end) in [("443", " "), ("853", " "), ("127.0.0.1:9145", ";")] {
        let free = format!("listen 127.0.0.1:{}{end}", free_port()?);
        text = text.replace(&format!("listen {port}{end}"), &free);
    }
    if text.contains("load_module") {
        loads.clear();
    } else if !text.contains("http {") && !text.contains("stream {") {
        text = format!(
            "http {{ ssl_certificate server.crt; ssl_certificate_key server.key;\n{text}}}\n"
        );
    }
    Ok(format!("{loads}{text}pid nginx.pid; events {{ }}\n"))
}

/// Makes `modules` of the site what it is in an installed nginx's prefix, and returns the names.
fn link_modules(site: &Site) -> Result<Vec<String>> {
    let modules = site.file("modules");
    fs::create_dir(&modules).expect("the folder is ours");
    let links = [PathBuf::from(STREAM_MODULE), module("http")?, module("stream")?];
    let link = |link: PathBuf| {
        let name = link.file_name().expect("a file").to_string_lossy().into_owned();
        symlink(link, modules.join(&name)).expect("the folder is ours");
        name
    };
    Ok(links.into_iter().map(link).collect())
}
