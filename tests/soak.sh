#!/usr/bin/env bash
# A long run of the server under the address sanitizer: requests of all kinds, clients that leave. Memory must not grow and
# nothing may leak. Not part of `make test`, which has a short one (test_serve_raw.sh).
#
#   tests/soak.sh [REQUESTS]      default 10000
#
# MOEPRISM names the program, default build-asan/moeprism, as `make sanitize` builds it.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1
requests=${1:-10000}
export MOEPRISM=${MOEPRISM:-build-asan/moeprism}
# Freed memory is kept for a while to catch late uses of it; little of it, so that growth shows.
export ASAN_OPTIONS=${ASAN_OPTIONS:-detect_leaks=1:quarantine_size_mb=4}
. tests/serve_testing.sh

resident() { awk '/VmRSS/ { print $2 }' "/proc/$pid/status"; }
soak() { # requests, rounds of 8 clients that leave
    SERVE_REQUESTS=$1 SERVE_ROUNDS=$2 python3 tests/serve_raw.py "$url" "$pid" "$moeprism" "$model" many leave ||
        exit 1
}

start --chat-template chatml || {
    cat "$dir/server.err"
    exit 1
}
soak $((requests / 10)) 10
before=$(resident)
soak "$requests" 63
after=$(resident)
echo "# resident after $((requests / 10)) requests $before KiB, after $requests more $after KiB"
check 'memory does not grow' [ "$after" -lt $((before + before / 20)) ]
stop
check 'nothing leaks' [ "$status" -eq 0 ]
