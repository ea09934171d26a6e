//! The status page.

use tlsresume_testkit::{DEADLINE, Mode, Result, Traffic, free_port};

use crate::nginx::{Blocks, Site, address, ask, server};

/// `# HELP NAME …`, `# TYPE NAME KIND` or `NAME{LABELS} VALUE`.
fn is_prometheus(line: &str) -> bool {
    let is_name = |name: &str| {
        name.starts_with("tlsresume_")
            && name.chars().all(|c| c.is_ascii_lowercase() || c == '_' || c.is_ascii_digit())
    };
    if let Some(comment) = line.strip_prefix("# ") {
        let words: Vec<_> = comment.splitn(3, ' ').collect();
        return match words[..] {
            ["HELP", name, text] => is_name(name) && !text.is_empty(),
            ["TYPE", name, kind] => {
                is_name(name) && ["counter", "gauge", "histogram"].contains(&kind)
            }
            _ => false,
        };
    }
    let Some((series, value)) = line.rsplit_once(' ') else { return false };
    let (name, labels) = series.split_once('{').map_or((series, "a=\"\"}"), |it| it);
    is_name(name) && labels.ends_with("\"}") && value.parse::<f64>().is_ok()
}

#[test]
fn the_status_page_is_prometheus_text_with_the_counts_of_all_workers() -> Result<()> {
    let (site, ports) = (Site::new()?, [free_port()?, free_port()?]);
    let status = format!(
        "server {{ listen 127.0.0.1:{}; charset utf-8; location /metrics {{ tlsresume_status; }} }}",
        ports[1]
    );
    let http = format!("tlsresume on; {status} {}", server(ports[0], ""));
    site.configure("", &Blocks { workers: 4, http: &http, ..Blocks::default() })?;
    let nginx = site.start()?;
    for mode in Mode::ALL {
        Traffic::to([address(ports[0])], mode).connections(40, DEADLINE)?;
    }

    let page = ask(ports[1], "GET", "/metrics")?;
    let (head, body) = page.split_once("\r\n\r\n").expect("a head and a body");
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    assert!(head.contains("Content-Type: text/plain; version=0.0.4\r\n"), "{head}");
    assert!(head.contains(&format!("Content-Length: {}", body.len())), "{head}");
    let wrong: Vec<_> = body.lines().filter(|line| !is_prometheus(line)).collect();
    assert!(wrong.is_empty() && body.ends_with('\n'), "{wrong:?}");
    let value = |series: &str| {
        let line = body.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.and_then(|value| value.parse::<u64>().ok())
            .unwrap_or_else(|| panic!("{series}: {body}"))
    };
    // Each run has two clients with a first visit each.
    assert_eq!(value("tlsresume_sessions_stored_total"), 2, "{body}");
    assert_eq!(value("tlsresume_sessions_hit_total"), 38, "{body}");
    assert!(value("tlsresume_tickets_issued_total") >= 2 + 2 * 2 + 38, "{body}");
    assert!(value("tlsresume_tickets_accepted_total{key=\"current\"}") >= 38, "{body}");

    let head = ask(ports[1], "HEAD", "/metrics")?;
    assert!(head.starts_with("HTTP/1.1 200") && head.ends_with("\r\n\r\n"), "{head}");
    assert!(ask(ports[1], "POST", "/metrics")?.starts_with("HTTP/1.1 405"));
    assert_eq!(nginx.lines_with("[alert]") + nginx.lines_with("[error]"), 0, "{}", nginx.log());
    Ok(())
}
