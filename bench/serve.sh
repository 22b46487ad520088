#!/usr/bin/env bash
# shellcheck disable=SC1091,SC2154 # serving.bash and server.bash, which set what is used here
# What elasticity buys a server, over HTTP and in open loop: a model of OLMoE-1B-7B's shape, the original under fifo (which
# runs a batch at the dearest floor in it, with fewer whole experts where all floors allow) beside the split model under
# virtual-queues and elastic; at half of what fifo on the original sustains, at that, at 1.5 times as much, and saturated.
# The servers wait beside each other and take every load in turn, so that a machine that slows down slows all of them; what
# saturates comes in rounds. bench/serving.bash tells the mixes of requests.
#
# Every load is also replayed by `moeprism simulate`, so that the two can be held against each other: by the cost file alone,
# and with steps as much slower than it, and as much time between them, as the server's metrics tell of that load.
#
#   bench/serve.sh [SECONDS] [SEED]      arrivals of so many seconds a load, default 40; writes docs/results/serve.md, .csv
#
# By default about half an hour, costs included, and 13 GB of memory; making the models takes some more, once. Environment:
# SYSTEMS (names with colons between), MIXES (default "compute quality deadline full"), LOADS (default "0.5 1 1.5 saturated";
# deadline and full run at 1.5 only, virtual-queues saturated only), REQUESTS (that saturate, default 32), ROUNDS (of them,
# default 2, each with a seed of its own), OUT, THREADS (default: the program's), RATE (requests a second at load 1),
# COSTS=keep (the cost files as they are); APPEND=1 adds to the CSV that is there.
set -euo pipefail
cd "$(dirname "$0")/.."

OUT=${OUT:-docs/results/serve}
seconds=${1:-40} seed=${2:-0} requests=${REQUESTS:-32} rounds=${ROUNDS:-2}
. bench/serving.bash
. bench/server.bash

# Of the server's steps so far: their number, seconds they took, seconds by the cost file, seconds between them.
steps() {
    curl -sf "$url/metrics" | awk '$1 == "moeprism_step_seconds_count" { n = $2 } $1 == "moeprism_step_seconds_sum" { took = $2 }
        $1 == "moeprism_step_uncorrected_seconds_total" { file = $2 } $1 == "moeprism_step_overhead_seconds_total" { between = $2 }
        END { print n, took, file, between }'
}

# run SYSTEM MIX LOAD SEED: on its server, then in the simulator.
run() {
    local options load before slower overhead url=${urls[$1]}
    read -ra options <<<"$(deadline "$2")"
    read -ra load <<<"$(arrivals "$3" "$seconds" "$requests")"
    echo "$1: $2, load $3" >&2
    before=$(steps)
    "$moeprism" loadgen --url "$url" --quality "${load[@]}" --floors "$(floors "$2" "$1")" --seed "$4" --vocabulary 50000 \
        "${options[@]}" --save-trace "$dir/t.csv" --json "$dir/report.json"
    read -r slower overhead <<<"$(echo "$before $(steps)" | awk '{ print ($6 - $2) / ($7 - $3), 1000 * ($8 - $4) / ($5 - $1) }')"
    simulate "$1" --trace "$dir/t.csv" >"$dir/file.json"
    simulate "$1" --trace "$dir/t.csv" --slower "$slower" --overhead-ms "$overhead" >"$dir/speed.json"
    {
        echo "$2,$3,$1,server,$4,$(jq -s '.[0] + (.[1] | {allowed_requests_per_s})' "$dir/report.json" "$dir/speed.json" |
            row "$slower" "$overhead")"
        echo "$2,$3,$1,simulated,$4,$(row 1 0 <"$dir/file.json")"
        echo "$2,$3,$1,at its speed,$4,$(row "$slower" "$overhead" <"$dir/speed.json")"
    } >>"$OUT.csv"
}

# Whether a load is one for this system.
applies() { # SYSTEM MIX LOAD
    case "$1 $2 $3" in
    *" deadline 1.5" | *" full 1.5") ;;
    *" deadline "* | *" full "*) return 1 ;;
    *virtual-queues*" saturated") ;;
    *virtual-queues*) return 1 ;;
    esac
}

[ -n "${APPEND:-}" ] || echo "mix,load,system,source,seed,$columns" >"$OUT.csv"
IFS=: read -ra systems <<<"${SYSTEMS:-original fifo:split virtual-queues:split elastic}"
declare -A urls
for system in "${systems[@]}"; do
    start_server "$(model_of "$system")" "${engine[@]}" --policy "$(policy_of "$system")" --slots 8 -c 1024 --queue 256
    urls[$system]=$url
done
for mix in ${MIXES:-compute quality deadline full}; do
    for load in ${LOADS:-0.5 1 1.5 saturated}; do
        for ((round = 0; round < rounds; round++)); do
            [ "$load" = saturated ] || [ "$round" = 0 ] || continue
            for system in "${systems[@]}"; do
                ! applies "$system" "$mix" "$load" || run "$system" "$mix" "$load" $((seed + round))
            done
        done
    done
done
stop_servers

{
    echo "# A server under load"
    echo
    about_load
    echo "Poisson arrivals of $seconds s a load, means of $rounds times $requests requests that saturate, seed $seed on, over HTTP. Made by bench/serve.sh."
    awk -f bench/serving.awk "$OUT.csv"
} >"$OUT.md"
cat "$OUT.md"
