#!/usr/bin/env bash
# The official clients of OpenAI and Anthropic (npm) against a real server, streams included. Needs node, npm and its
# registry; skipped with the reason where one is missing.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1
. tests/serve_testing.sh
build=${BUILD:-build}/openai

skip() {
    echo "1..1"
    echo "ok 1 - official clients # SKIP $1"
    exit 0
}

if ! command -v node >/dev/null || ! command -v npm >/dev/null; then skip 'node and npm are not installed'; fi
mkdir -p "$build"
cp tests/openai/package.json tests/openai/package-lock.json tests/openai/clients.mjs "$build"
(cd "$build" && npm ci --prefer-offline --no-audit --no-fund --ignore-scripts >npm.log 2>&1) ||
    skip "npm ci failed: $(grep -m 1 -i 'code\|error' "$build/npm.log")"
printf 'a-key\n' >"$dir/keys"
start --chat-template chatml --api-key-file "$dir/keys" --slots 4 || {
    echo "1..1"
    check 'the server starts' false
    exit 1
}
node "$build/clients.mjs" "$url" a-key
