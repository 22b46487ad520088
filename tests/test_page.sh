#!/usr/bin/env bash
# The page at `/` in a headless browser: against a mock server that does what is asked of it, and one pass against the
# real server with the demo model. Pictures land in the build folder's page/shots.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1
build=${BUILD:-build}
moeprism=$(realpath "${MOEPRISM:-build/moeprism}")
dir=$build/page

skip() {
    echo 1..1
    echo "ok 1 - the page in a browser # SKIP $1"
    exit 0
}

CHROMIUM=$(command -v chromium || command -v chromium-browser) || skip "no chromium (scripts/deps.sh test installs it)"
command -v node >/dev/null || skip "no node (scripts/deps.sh test installs it)"
command -v npm >/dev/null || skip "no npm (scripts/deps.sh test installs it)"

mkdir -p "$dir/shots"
cp tests/page/* src/serve/page/*.js "$dir/"
if ! cmp -s "$dir/package-lock.json" "$dir/node_modules/installed.json"; then
    (cd "$dir" && npm ci --no-audit --no-fund --ignore-scripts >npm.log 2>&1) || skip "npm ci failed, see $dir/npm.log"
    cp "$dir/package-lock.json" "$dir/node_modules/installed.json"
fi

PAGE=$(realpath src/serve/page)
SHOTS=$(realpath "$dir/shots")
CHART_JS=${CHART_JS:-/usr/share/javascript/chart.js/chart.min.js}
export CHROMIUM PAGE SHOTS CHART_JS MOEPRISM=$moeprism
exec node "$dir/${1:-all.mjs}"
