#!/bin/sh
# Runs every test beside programs that want every processor: BUSY of them, or six for each processor. What fails here
# and passes alone measures the machine. Several times as slow as make test.
set -eu

: "${CARGO:=cargo}"
: "${BUSY:=$((6 * $(nproc)))}"

# The compiler needs no such company.
"$CARGO" test --no-run "$@"

burners=
# By their process ids, and also when the tests fail.
stop() { kill $burners 2>/dev/null || :; }
trap stop EXIT
trap 'exit 1' INT TERM

for _ in $(seq "$BUSY"); do
    while :; do :; done &
    burners="$burners $!"
done
echo "test-busy: every test beside $BUSY busy processes"
"$CARGO" test --no-fail-fast "$@"
