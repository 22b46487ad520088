#!/usr/bin/env bash
# What it costs that sequences of one step run at different operating points: eight that decode together at points 0 to 7
# beside the mean of eight at point 0, eight at point 1, ... on a model of Qwen3-30B-A3B's shape with random weights.
# Mixed and uniform steps alternate; medians over ROUNDS rounds.
#
#   bench/mixed.sh [LAYERS] [ROUNDS]       defaults 12 and 3; writes docs/results/mixed.md and .csv. Needs jq.
set -euo pipefail
cd "$(dirname "$0")/.."

B=${B:-build}
layers=${1:-12} rounds=${2:-3}
model=$B/bench-models/qwen3-30b-a3b-$layers-Q4_0-n32.gguf
csv=docs/results/mixed.csv
command -v jq >/dev/null || { echo "mixed.sh: needs jq (Debian: apt-get install jq)" >&2; exit 1; }
mkdir -p "$B/bench-models" docs/results
make B="$B" all >&2
[ -f "$model" ] || "$B/moeprism" synth --like qwen3-30b-a3b --layers "$layers" --type Q4_0 --split 32 -o "$model" >&2

# Milliseconds a step, share of the expert compute; of several points their means.
step() {
    "$B/moeprism" bench "$model" --no-mmap --points 0-7 -p 0 -n 32 -b 8 -r 1 --json "$@" 2>/dev/null |
        jq -r '[([.[] | .timings.total_ns / .timings.steps / 1e6] | add / length), ([.[].compute_share] | add / length)] |
            map(tostring) | join(",")'
}

echo mixed_ms,mixed_share,uniform_ms,uniform_share >"$csv"
for ((i = 0; i < rounds; i++)); do
    echo "round $((i + 1)) of $rounds" >&2
    echo "$(step --mixed),$(step)" >>"$csv"
done

median() { awk -F, -v c="$1" 'NR > 1 { print $c }' "$csv" | sort -n | sed -n "$((rounds / 2 + 1))p"; }

{
    echo "# Different operating points in one step"
    echo
    echo "Milliseconds a step of eight sequences that decode together, Qwen3-30B-A3B's shape ($layers layers), Q4_0, N = 32;"
    echo "medians of $rounds alternating rounds, $(date -u +%Y-%m-%d), $(nproc) cores of $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1). Made by"
    echo "bench/mixed.sh."
    echo
    echo "| eight sequences | share of the expert compute | ms a step |"
    echo "|---|---|---|"
    awk -v s="$(median 2)" -v ms="$(median 1)" 'BEGIN { printf "| at points 0 to 7, one each | %.1f %% | %.1f |\n", 100 * s, ms }'
    awk -v s="$(median 4)" -v ms="$(median 3)" 'BEGIN { printf "| all at one point, mean over points 0 to 7 | %.1f %% | %.1f |\n", 100 * s, ms }'
    awk -v m="$(median 1)" -v u="$(median 3)" 'BEGIN { printf "| ratio | | %.2f |\n", m / u }'
} | tee docs/results/mixed.md
