#!/bin/sh
# Installs the Debian packages that building and testing need; does nothing when all are there.
set -eu

# One package a line, with what needs it.
packages='
pkg-config   finds OpenSSL for the build, and libtlsresume for the examples
libssl-dev   headers and libraries of the OpenSSL to build against
gcc          examples and C tests
g++          compiles the header as C++
make         the Makefiles
binutils     nm and readelf read what the library exports
valgrind     memory errors and leaks in the C tests
openssl      s_client and s_server, and certificates for tests and demo
gnutls-bin   gnutls-cli, a client that is not OpenSSL
faketime     steps the clock of a server
python3      a server that loads OpenSSL by dlopen, and test scripts
curl         a client that nobody changes
nginx        the servers that tests load the library into, by LD_PRELOAD and by a module
nginx-dev
libnginx-mod-stream
hitch
haproxy
apache2
stunnel4
lighttpd
lighttpd-mod-openssl
h2o
postgresql
redis-server   carries ring and sessions between hosts
redis-sentinel
redis-tools    redis-cli, whose TLS shows that the test servers ask for certificates
memcached      what peers of ours share sessions by, beside us in the benchmarks
'

if ! command -v dpkg-query >/dev/null; then
    echo "install-deps: not a Debian system; what it takes is:$packages" >&2
    exit 0
fi

installed() {
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}

missing=$(echo "$packages" | while read -r package _; do
    [ -z "$package" ] || installed "$package" || echo "$package"
done)
[ -n "$missing" ] || exit 0

as_root() {
    if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo "$@"; fi
}

# Debian starts a server as it installs it, and half of these want port 80: this program, which invoke-rc.d(8) asks,
# says no meanwhile. One that is there already says what the administrator wants; one of ours was left by a power cut.
policy=${POLICY_RC_D:-/usr/sbin/policy-rc.d}
mark='# made by libtlsresume scripts/install-deps.sh, and removed by it'
keep_servers_down() {
    if [ -e "$policy" ] && ! grep -qxF "$mark" "$policy"; then
        return 0
    fi
    # dash runs no EXIT trap when a signal ends it.
    trap 'as_root rm -f "$policy"' EXIT
    trap 'exit 129' HUP
    trap 'exit 130' INT
    trap 'exit 143' TERM
    printf '#!/bin/sh\n%s\nexit 101\n' "$mark" | as_root tee "$policy" >/dev/null
    as_root chmod 755 "$policy"
}

install_missing() {
    # Unquoted: one argument for each package.
    # shellcheck disable=SC2086
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $missing
}

echo "install-deps: installing" $missing
keep_servers_down
# Fails where the package lists are absent or older than the mirror: only then are they fetched.
install_missing || { as_root apt-get update && install_missing; }
