#!/usr/bin/env bash
# shellcheck disable=SC1091,SC2154 # serving.bash, which sets what is used here
# bench/serve.sh's comparison in virtual time: five minutes of arrivals, three seeds, Poisson and bursty (gamma intervals,
# deviation 4 times their mean), all policies; saturated by 256 requests. Steps cost what `moeprism bench --cost` measured on both models.
#
#   bench/simulate.sh [SECONDS] [SEEDS]      defaults 300 and 3; writes docs/results/simulate.md and .csv
set -euo pipefail
cd "$(dirname "$0")/.."

OUT=${OUT:-docs/results/simulate}
seconds=${1:-300} seeds=${2:-3}
. bench/serving.bash

one() { # ARRIVALS MIX LOAD SEED SYSTEM
    local options load
    read -ra options <<<"$(deadline "$2")"
    read -ra load <<<"$(arrivals "$3" "$seconds" 256)"
    echo "$2 $1,$3,$5,simulated,$4,$(simulate "$5" --arrivals "$1" "${load[@]}" --floors "$(floors "$2" "$5")" --seed "$4" \
        "${options[@]}" | row 1 0)"
}

echo "mix,load,system,source,seed,$columns" >"$OUT.csv"
for arrivals in poisson bursty; do
    for mix in compute quality deadline full; do
        echo "$mix, $arrivals" >&2
        case "$mix $arrivals" in
        deadline* | full*) loads=1.5 ;;
        *poisson) loads="0.5 1 1.5 saturated" ;;
        *) loads="0.5 1 1.5" ;;
        esac
        for load in $loads; do
            for system in "original fifo" "split fifo" "split fullbatch" "split virtual-queues" "split lanes" "split elastic"; do
                for ((seed = 0; seed < seeds; seed++)); do one "$arrivals" "$mix" "$load" "$seed" "$system"; done
            done
        done
    done
done >>"$OUT.csv"

{
    echo "# Policies in virtual time"
    echo
    about_load
    echo "$seconds s of arrivals, means of $seeds seeds, a queue of 256, in virtual time. Made by bench/simulate.sh."
    awk -f bench/serving.awk "$OUT.csv"
} >"$OUT.md"
cat "$OUT.md"
