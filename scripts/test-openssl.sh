#!/bin/bash
# test-openssl.sh 1.1.1|3.5|4.0: builds that OpenSSL from the source that the crate openssl-src carries, the library against
# it, and runs the C tests with both. Takes about ten minutes the first time; what it builds stays in
# target/openssl-VERSION. The crate leaves out files that modules and shared libraries are made from.
set -eu
cd "$(dirname "$0")/.."
version=${1:?usage: test-openssl.sh 1.1.1|3.5|4.0}
case $version in
    1.1.1) crate='=111.28.2' libssl=libssl.so.1.1 options= ;;
    3.5) crate='=300.5.5' libssl=libssl.so.3 options='no-docs no-module no-legacy' ;;
    4.0) crate='=400.0.2' libssl=libssl.so.4 options='no-docs no-module no-legacy' ;;
    *) echo "test-openssl.sh: no OpenSSL $version here: 1.1.1, 3.5 or 4.0" >&2; exit 2 ;;
esac
work=$PWD/target/openssl-$version
prefix=$work/prefix

build_openssl() {
    mkdir -p "$work/fetch"
    cat > "$work/fetch/Cargo.toml" <<END
[package]
name = "fetch"
edition = "2024"
[lib]
path = "lib.rs"
[dependencies]
openssl-src = "$crate"
[workspace]
END
    : > "$work/fetch/lib.rs"
    (cd "$work/fetch" && cargo vendor --quiet vendor > /dev/null)
    rm -rf "$work/source"
    cp -r "$work/fetch/vendor/openssl-src/openssl" "$work/source"
    cd "$work/source"
    chmod +x config Configure
    # What the linker shall export: everything, without versions.
    [ -e util/mkdef.pl ] || echo 'print "{ global: *; };\n";' > util/mkdef.pl
    ./Configure linux-x86_64 shared no-tests $options --prefix="$prefix" --libdir=lib
    make -j"$(nproc)"
    make install_sw
    cd -
}

[ -e "$prefix/lib/$libssl" ] || build_openssl > "$work.log" 2>&1 || { tail "$work.log"; exit 1; }

OPENSSL_DIR=$prefix CARGO_TARGET_DIR=$work/rust cargo build --release --package tlsresume
ln -sf libtlsresume.so "$work/rust/release/libtlsresume.so.0"
programs=$(ls c-tests/*.c | sed 's|c-tests/\(.*\)\.c|\1|' | grep -vx -e check -e realm)
CPPFLAGS="-I$prefix/include -Wno-deprecated-declarations" make --silent -C c-tests OUT="$work/c" LIBDIR="$work/rust/release" \
    OPENSSL="-L$prefix/lib -Wl,-rpath,$prefix/lib -lssl -lcrypto" \
    $(for program in $programs; do echo "$work/c/plain/$program"; done)

failed=0 passed=0
run() { # NAME COMMAND...
    if timeout 300 "${@:2}" > "$work/$1.log" 2>&1; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
        echo "$1 failed:"
        tail "$work/$1.log"
    fi
}

for program in $programs; do
    run "$program" "$work/c/plain/$program"
done

# The preload, with those of its programs that are not about functions of OpenSSL 3.
TLSRESUME_LIBSSL=$libssl cargo build --release --locked --manifest-path preload/Cargo.toml \
    --target-dir "$work/preload"
cp "$work/preload/release/libtlsresume_preload.so" "$work/rust/release"
mkdir -p "$work/c/preload"
for program in clients early late threads vhosts; do
    gcc -std=c99 -g -pthread "-I$prefix/include" -Iinclude -Ic-tests -o "$work/c/preload/$program" \
        "c-tests/preload/$program.c" c-tests/check.c "-L$prefix/lib" "-Wl,-rpath,$prefix/lib" -lssl -lcrypto
    run "preload-$program" env "LD_PRELOAD=$work/rust/release/libtlsresume_preload.so" "$work/c/preload/$program"
done

# Servers of QUIC, which OpenSSL has from 3.5 on.
if [ "$version" != 1.1.1 ]; then
    for build in quic quic-preloaded; do
        defined= also=("c-tests/realm.c" "-L$work/rust/release" -ltlsresume "-Wl,-rpath,$work/rust/release")
        [ $build = quic ] || { defined=-DPRELOADED also=(); }
        gcc -std=c99 -Wall -Wextra -Werror -g "-I$prefix/include" -Iinclude -Ic-tests $defined -o "$work/c/$build" \
            c-tests/quic/resume.c c-tests/check.c "${also[@]}" "-L$prefix/lib" "-Wl,-rpath,$prefix/lib" -lssl -lcrypto
    done
    run quic "$work/c/quic"
    for mode in stateless stateful; do
        run "quic-preloaded-$mode" env "LD_PRELOAD=$work/rust/release/libtlsresume_preload.so" \
            "TLSRESUME_RESUMPTION_MODE=$mode" "$work/c/quic-preloaded"
    done
fi
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
