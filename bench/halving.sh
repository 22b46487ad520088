#!/usr/bin/env bash
# What half the expert compute saves: time in MoE layers (router, gate, experts) per token at full and at half, decode and
# prompts, on a model of OLMoE-1B-7B's shape with random weights. Points alternate; medians over ROUNDS rounds.
#
#   bench/halving.sh [LAYERS] [ROUNDS]     defaults 4 and 5; writes docs/results/halving.md and .csv
set -euo pipefail
cd "$(dirname "$0")/.."

B=${B:-build}
layers=${1:-4} rounds=${2:-5}
model=$B/bench-models/olmoe-$layers-q4_0-n32.gguf
csv=docs/results/halving.csv
mkdir -p "$B/bench-models" docs/results
make B="$B" all >&2
[ -f "$model" ] || "$B/moeprism" synth --like olmoe-1b-7b --layers "$layers" --type q4_0 --split 32 -o "$model"

# A row of the bench table: | model | size | params | backend | threads | point | share | seqs | test | t/s | attention | router | gate | experts | head |
# becomes test,point,nanoseconds per token in MoE layers.
moe_time() {
    "$B/moeprism" bench "$model" --points "$1" -p 512 -n 64 -r 1 --breakdown 2>/dev/null |
        awk -F'|' '/ pp512 | tg64 / { gsub(/[ %]/, ""); split($11, speed, "±")
            printf "%s,%s,%.0f\n", $10, $7, ($13 + $14 + $15) / 100 / speed[1] * 1e9 }'
}

echo test,point,moe_ns_per_token >"$csv"
for ((i = 0; i < rounds; i++)); do
    for point in 0 4; do
        moe_time "$point" >>"$csv"
    done
done

{
    echo "# Half the expert compute"
    echo
    echo "Time in MoE layers per token, OLMoE-1B-7B's shape ($layers layers), Q4_0, N = 32, top-k; medians of $rounds alternating"
    echo "rounds, $(date -u +%Y-%m-%d), $(nproc) cores of $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1). Made by bench/halving.sh."
    echo
    echo "| test | full, us | half, us | saved |"
    echo "|---|---|---|---|"
    for t in pp512 tg64; do
        full=$(awk -F, -v t="$t" '$1 == t && $2 == 0 { print $3 }' "$csv" | sort -n | sed -n "$((rounds / 2 + 1))p")
        half=$(awk -F, -v t="$t" '$1 == t && $2 == 4 { print $3 }' "$csv" | sort -n | sed -n "$((rounds / 2 + 1))p")
        awk -v t="$t" -v f="$full" -v h="$half" 'BEGIN { printf "| %s | %.0f | %.0f | %.1f %% |\n", t, f / 1e3, h / 1e3, 100 * (1 - h / f) }'
    done
} | tee docs/results/halving.md
