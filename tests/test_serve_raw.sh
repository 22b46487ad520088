#!/usr/bin/env bash
# Clients that misbehave, leave, crawl or come in crowds: serve_raw.py against a real server. Needs python3.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1
. tests/serve_testing.sh

if ! command -v python3 >/dev/null; then
    echo '1..1'
    echo 'ok 1 - clients over plain sockets # SKIP python3 is not installed'
    exit 0
fi
start --chat-template chatml --timeout 2 --slots 32 || {
    echo '1..1'
    check 'the server starts' false
    exit 1
}
python3 tests/serve_raw.py "$url" "$pid" "$moeprism" "$model"
echo '1..1'
stop
check 'and it still ends well' [ "$status" -eq 0 ]
