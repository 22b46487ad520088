#!/usr/bin/env bash
# shellcheck disable=SC1091,SC2154 # serving.bash, which sets what is used here
# What elasticity buys a server, over HTTP and in open loop: a model of OLMoE-1B-7B's shape, the original under fifo (which
# runs a batch at the dearest floor in it, with fewer whole experts where all floors allow) beside the split model under
# fifo, virtual-queues and elastic; at half of what fifo on the original sustains, at that, and at 1.5 times as much.
# bench/serving.bash tells the mixes of requests. Every load is also replayed by `moeprism simulate`, so that the two can
# be held against each other.
#
#   bench/serve.sh [SECONDS] [SEED]      arrivals of so many seconds a load, default 120; writes docs/results/serve.md, .csv
#
# Environment: MIXES (default "compute quality deadline full"), LOADS (default "0.5 1 1.5"; deadline and full run at 1.5
# only), SYSTEMS (names with colons between), OUT, THREADS (default: the program's), RATE
# (requests a second at load 1); APPEND=1 adds to the CSV that is there.
set -euo pipefail
cd "$(dirname "$0")/.."

OUT=${OUT:-docs/results/serve}
seconds=${1:-120} seed=${2:-0}
. bench/serving.bash
dir=$(mktemp -d)
server=
trap '[ -z "$server" ] || kill "$server" 2>/dev/null; rm -rf "$dir"' EXIT

start_server() { # SYSTEM
    "$moeprism" serve "$(model_of "$1")" "${engine[@]}" --policy "$(policy_of "$1")" --slots 8 -c 1024 --port 0 \
        --no-prefix-cache >"$dir/serve.out" 2>"$dir/serve.err" &
    server=$!
    until grep -q listening "$dir/serve.out"; do
        kill -0 "$server" 2>/dev/null || { cat "$dir/serve.err" >&2; exit 1; }
        sleep 0.2
    done
    url=$(sed -n 's/.*listening on //p' "$dir/serve.out")
}

stop_server() {
    kill "$server"
    wait "$server" || true
    server=
}

# run SYSTEM MIX LOAD: on the server that runs, then in the simulator.
run() {
    local options
    read -ra options <<<"$(deadline "$2")"
    echo "$1: $2, load $3" >&2
    "$moeprism" loadgen --url "$url" --quality -r "$(rate "$3")" --duration "$seconds" --floors "$(floors "$2" "$1")" \
        --seed "$seed" --vocabulary 50000 "${options[@]}" --save-trace "$dir/t.csv" --json "$dir/report.json"
    echo "$2,$3,$1,server,$seed,$(row <"$dir/report.json")" >>"$OUT.csv"
    echo "$2,$3,$1,simulated,$seed,$(simulate "$1" --trace "$dir/t.csv" | row)" >>"$OUT.csv"
}

[ -n "${APPEND:-}" ] || echo "mix,load,system,source,seed,$columns" >"$OUT.csv"
IFS=: read -ra systems <<<"${SYSTEMS:-original fifo:split fifo:split virtual-queues:split elastic}"
for system in "${systems[@]}"; do
    start_server "$system"
    for mix in ${MIXES:-compute quality deadline full}; do
        case $mix in deadline | full) loads=1.5 ;; *) loads=${LOADS:-0.5 1 1.5} ;; esac
        for load in $loads; do run "$system" "$mix" "$load"; done
    done
    stop_server
done

{
    echo "# A server under load"
    echo
    about_load
    echo "Poisson arrivals of $seconds s a load, seed $seed, over HTTP. Made by bench/serve.sh."
    awk -f bench/serving.awk "$OUT.csv"
} >"$OUT.md"
cat "$OUT.md"
