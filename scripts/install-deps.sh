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

install_missing() {
    # Unquoted: one argument for each package.
    # shellcheck disable=SC2086
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $missing
}

echo "install-deps: installing" $missing
# Fails where the package lists are absent or older than the mirror: only then are they fetched.
install_missing || { as_root apt-get update && install_missing; }
