//! Which command lines of servers only test a configuration, print something or send a signal. Such a process makes
//! contexts, but serves nobody: it must not create, replace or change the memory of those that do.
//!
//! Pure. Called by `ffi`, once in a process under the preload. Failure: a command line that is not understood is one of
//! a server that serves.

#![forbid(unsafe_code)]

/// How one server reads its command line, as far as it matters here.
struct Server {
    /// What the program is called.
    names: &'static [&'static str],
    /// Letters of options after which nobody is served.
    dry: &'static str,
    /// Letters of options that have a value: what follows is no option.
    valued: &'static str,
    /// Whether an argument is one option, whatever follows its first letter. Else it may be several in one: `-tq`.
    is_one_option: bool,
    /// Whole arguments after which nobody is served; an option and its value may also be two arguments.
    words: &'static [&'static str],
}

/// Servers of docs/servers.md that can do something else than serve; Python has no options of its own.
const SERVERS: [Server; 8] = [
    // -s sends a signal, for which nginx reads its configuration.
    Server {
        names: &["nginx", "openresty", "angie"],
        dry: "tTvVh?s",
        valued: "pecg",
        is_one_option: false,
        words: &[],
    },
    // -c, -cc, -v, -vv.
    Server { names: &["haproxy"], dry: "cv", valued: "fpnNmLCxS", is_one_option: true, words: &[] },
    // -k graceful starts a server where none runs. -T serves.
    Server {
        names: &["apache2", "httpd"],
        dry: "tSvVlLMh",
        valued: "DCcfdkeE",
        is_one_option: false,
        words: &[],
    },
    Server {
        names: &["hitch"],
        dry: "tVh",
        valued: "cebfnBkRrugLlpECU",
        is_one_option: false,
        words: &["--test", "--version", "--help"],
    },
    // -1 serves one request.
    Server {
        names: &["lighttpd", "lighttpd-angel"],
        dry: "tpvVh",
        valued: "fmi",
        is_one_option: false,
        words: &[],
    },
    Server {
        names: &["h2o"],
        dry: "tvh",
        valued: "cm",
        is_one_option: false,
        words: &["--test", "--version", "--help", "--mode=test", "-mtest"],
    },
    // -C prints a setting. -h is the host.
    Server {
        names: &["postgres"],
        dry: "CV?",
        valued: "BcDdfhkNpPrStWv",
        is_one_option: false,
        words: &["--check", "--describe-config", "--version", "--help"],
    },
    Server {
        names: &["stunnel", "stunnel4"],
        dry: "",
        valued: "",
        is_one_option: true,
        words: &["-version", "-help", "-sockets", "-options"],
    },
];

/// Whether nobody is served after this command line, in the form of /proc/PID/cmdline: each argument ends with NUL.
pub(crate) fn is_dry_run(command_line: &[u8]) -> bool {
    let mut arguments = command_line.split(|byte| *byte == 0).map(String::from_utf8_lossy);
    let program = arguments.next().unwrap_or_default();
    let name = program.rsplit('/').next().unwrap_or_default();
    let server = SERVERS.iter().find(|server| server.names.contains(&name));
    let arguments: Vec<_> = arguments.collect();
    server.is_some_and(|server| {
        server.is_dry(&arguments.iter().map(AsRef::as_ref).collect::<Vec<_>>())
    })
}

impl Server {
    fn is_dry(&self, arguments: &[&str]) -> bool {
        let mut rest = arguments.iter().copied().peekable();
        while let Some(argument) = rest.next() {
            if argument == "--" {
                return false;
            }
            if self.has_word(argument, rest.peek().copied().unwrap_or_default()) {
                return true;
            }
            match self.read(argument) {
                Read::Dry => return true,
                Read::ValueFollows => {
                    rest.next();
                }
                Read::Other => {}
            }
        }
        false
    }

    fn has_word(&self, argument: &str, next: &str) -> bool {
        let forms =
            [argument.to_owned(), format!("{argument}{next}"), format!("{argument}={next}")];
        self.words.iter().any(|word| forms.iter().any(|form| form == word))
    }

    fn read(&self, argument: &str) -> Read {
        let Some(letters) = argument.strip_prefix('-').filter(|it| !it.starts_with('-')) else {
            return Read::Other;
        };
        let most = if self.is_one_option { 1 } else { letters.len() };
        for (at, letter) in letters.char_indices().take(most) {
            if self.dry.contains(letter) {
                return Read::Dry;
            }
            if self.valued.contains(letter) {
                let is_last = at + letter.len_utf8() == letters.len();
                return if is_last { Read::ValueFollows } else { Read::Other };
            }
        }
        Read::Other
    }
}

/// What an argument is.
enum Read {
    /// Nobody is served.
    Dry,
    /// An option, and the next argument is its value.
    ValueFollows,
    /// Anything else.
    Other,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_dry(line: &str) -> bool {
        is_dry_run((line.replace(' ', "\0") + "\0").as_bytes())
    }

    #[test]
    fn what_tests_prints_or_signals_serves_nobody() {
        for line in [
            "nginx -t",
            "/usr/sbin/nginx -t -q -g daemon",
            "nginx -T",
            "nginx -qt",
            "nginx -c /etc/nginx.conf -t",
            "nginx -p/srv -s reload",
            "nginx -sreload",
            "nginx -v",
            "nginx -V",
            "openresty -t",
            "/usr/sbin/haproxy -Ws -f /etc/haproxy/haproxy.cfg -c -q",
            "haproxy -c -f a",
            "haproxy -cc version_atleast(2.4)",
            "haproxy -vv",
            "apache2 -t",
            "apache2 -d /etc/apache2 -S",
            "httpd -f a -t -D DUMP_VHOSTS",
            "apache2 -V",
            "apache2 -DFOREGROUND -M",
            "hitch --config=/etc/hitch.conf --test",
            "hitch -t",
            "hitch -qt",
            "hitch --version",
            "lighttpd -tt -f /etc/lighttpd/lighttpd.conf",
            "lighttpd -t -f a",
            "lighttpd -f a -p",
            "lighttpd -V",
            "h2o -t -c a",
            "h2o --test",
            "h2o -m test",
            "h2o -mtest",
            "h2o --mode test",
            "h2o --mode=test",
            "h2o -m worker -c a -t",
            "postgres -D a -C ssl",
            "postgres --describe-config",
            "stunnel4 -version",
            "stunnel -options",
        ] {
            assert!(is_dry(line), "{line}");
        }
    }

    #[test]
    fn what_serves_is_no_dry_run_whatever_its_values_look_like() {
        for line in [
            "",
            "nginx",
            "nginx -g daemon -q",
            "nginx -c -t",
            "nginx -p -t",
            "nginx -c/etc/test.conf",
            "nginx -e stderr -p /test -c test.conf",
            "nginx: master process /usr/sbin/nginx -t",
            "haproxy -Ws -f /etc/haproxy/haproxy.cfg",
            "haproxy -f -c",
            "haproxy -db -dV -dr -W -f a",
            "haproxy -f a -- -c",
            "haproxy -C /etc -f a -sf 1 2",
            "apache2 -k start",
            "apache2 -k graceful",
            "apache2 -T",
            "apache2 -DFOREGROUND -X",
            "apache2 -D -t",
            "apache2 -dt",
            "hitch --config=test",
            "hitch -c -t",
            "hitch --quiet --tls-protos=TLSv1.2",
            "lighttpd -D -f /etc/lighttpd/lighttpd.conf",
            "lighttpd -1 -f a",
            "lighttpd -f -t",
            "h2o -m master -c test",
            "h2o -c -t",
            "h2o --mode master",
            "h2o --conf=test",
            "postgres -D /var/lib/test -c config_file=a",
            "postgres -h -C",
            "postgres: checkpointer -C",
            "stunnel4 /etc/stunnel/version.conf",
            "python3 server.py -t",
            "mynginx -t",
            "nginx/ -t",
        ] {
            assert!(!is_dry(line), "{line}");
        }
    }

    #[test]
    fn no_bytes_make_it_fail() {
        for line in [&b"\0"[..], b"\0\0\0", b"nginx\0-\0--\0-\xff\0", b"\xff\xfe", b"nginx\0-c"] {
            assert!(!is_dry_run(line), "{line:?}");
        }
        assert!(is_dry_run(b"nginx\0-\xfft\0"), "an option that nobody knows, and then one");
    }
}
