#!/usr/bin/env bash
# What policies make of caps on measured routing: TEXTS replies of each demo model, split, at full, half and a quarter of the
# expert compute, recorded by `run --record-trace`, prompts included, and replayed by `cache-sim`, in sub-experts and in
# whole experts, at caps from 7 to 95 % of the experts.
#
#   bench/cache.sh [MODEL...]     default: the demo models; writes docs/results/cache.md, .csv and .svg
#
# MODEL is not split. What is made of it is kept in $B/bench-models. TEXTS: 12 unless told otherwise.
set -euo pipefail
cd "$(dirname "$0")/.."

B=${B:-build} texts=${TEXTS:-12}
caps=7%,10%,15%,20%,25%,30%,35%,40%,45%,50%,55%,60%,65%,70%,75%,80%,85%,90%,95%
shared=${MOEPRISM_SHARED:-../shared}/models
models=("$@")
[ $# -gt 0 ] || models=(models/demo-olmoe-q8_0.gguf "$shared"/demo-qwen3moe-q8_0.gguf "$shared"/demo-deepseek2-q8_0.gguf)
csv=docs/results/cache.csv
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
mkdir -p "$B/bench-models" docs/results
make B="$B" all >&2

split() { # model, artifact
    [ -f "$2" ] || "$B/moeprism" refactor "$1" -o "$2" --calibration models/calibration.txt \
        --max-tokens 8192 >&2
}

# Replies to the beginnings of paragraphs, one record after the other: steps are numbered anew.
record() { # artifact, share, file
    local n=0 prompt
    while IFS= read -r prompt; do
        n=$((n + 1))
        "$B/moeprism" run "$1" -p "$prompt" -n 180 --seed "$n" --compute "$2" --record-trace "$dir/part" >/dev/null 2>&1
        cat "$dir/part"
    done < <(grep -E '^.{120,}' models/heldout.txt | awk 'NR % 37 == 1' | sed -n "1,${texts}p" | cut -c1-160) |
        awk '/^#/ { if (!heads++) print; begun = 0; next }
            { if (!begun++ || $1 != last) step++; last = $1; $1 = step; print }' >"$3"
}

echo "model,compute,units,memory_bytes,memory_share,policy,slots,tokens,claimed,misses,hit_rate,bytes_per_token,stall_ms_per_token" >"$csv"
for model in "${models[@]}"; do
    name=$(basename "$model" .gguf)
    artifact=$B/bench-models/cache-$name.gguf
    split "$model" "$artifact"
    for share in 1 0.5 0.25; do
        echo "$name at $share of the expert compute" >&2
        record "$artifact" "$share" "$dir/trace"
        plot=()
        if [ "$model" = "${models[0]}" ] && [ "$share" = 0.5 ]; then plot=(--plot docs/results/cache.svg); fi
        "$B/moeprism" cache-sim --trace "$dir/trace" --memory "$caps" --policy lfru,lru,belady "${plot[@]}" >/dev/null
        "$B/moeprism" cache-sim --trace "$dir/trace" --memory "$caps" -o csv |
            awk -v head="$name,$share" 'NR > 1 { print head "," $0 }' >>"$csv"
    done
done

# Misses in % of all units claimed: a table of caps by policies, both kinds of units.
table() { # model, share
    echo "| memory | lru | 2q | lfu | **lfru** | belady | lru | 2q | lfu | **lfru** | belady |"
    echo "|---|---|---|---|---|---|---|---|---|---|---|"
    awk -F, -v model="$1" -v share="$2" '
        function row(cap, units) {
            return sprintf(" %.2f | %.2f | %.2f | **%.2f** | %.2f |", m[cap, units, "lru"], m[cap, units, "2q"],
                m[cap, units, "lfu"], m[cap, units, "lfru"], m[cap, units, "belady"])
        }
        $1 == model && $2 == share { m[$5, $3, $6] = 100 * (1 - $11); if (!seen[$5]++) caps[++n] = $5 }
        END { for (i = 1; i <= n; i++)
            printf "| %.0f %% |%s%s\n", 100 * caps[i], row(caps[i], "sub-experts"), row(caps[i], "experts") }' "$csv"
}

# Of lfru's misses over LRU's: how many caps and records, the largest, the mean; the mean of Belady's.
verdict() {
    awk -F, 'NR > 1 { m[$1 FS $2 FS $3 FS $5, $6] = $10; cells[$1 FS $2 FS $3 FS $5] }
        END { for (c in cells) {
                r = m[c, "lfru"] / m[c, "lru"]; n++; sum += r; best += m[c, "belady"] / m[c, "lru"]
                if (r > most) most = r; if (r > 1) worse++ }
            printf "Over all %d combinations of model, compute, unit and cap, lfru misses %.4f times what LRU does at most and %.3f\n", n, most, sum / n
            printf "times on average (belady: %.3f); it misses more than LRU in %d of them.\n", best / n, worse }' "$csv"
}

# Bytes read per token: whole experts under LRU, all that the router chose, over sub-experts under lfru at half of the compute.
saving() {
    echo "| model | memory | experts, lru: KiB a token | sub-experts, lfru, half: KiB a token | ratio |"
    echo "|---|---|---|---|---|"
    awk -F, '$2 != 0.5 || $5 * 4 != int($5 * 4) { next }
        $3 == "experts" && $6 == "lru" { whole[$1, $5] = $12 / 1024 }
        $3 == "sub-experts" && $6 == "lfru" { part[$1, $5] = $12 / 1024; key[++n] = $1 SUBSEP $5 }
        END { for (i = 1; i <= n; i++) { split(key[i], k, SUBSEP)
            printf "| %s | %.0f %% | %.0f | %.0f | %.2f |\n", k[1], 100 * k[2], whole[key[i]], part[key[i]],
                whole[key[i]] / part[key[i]] } }' "$csv"
}

{
    echo "# Cache policies on measured routing"
    echo
    echo "Misses in % of the units that tokens use, the cache simulated on records of $texts replies a model, prompts included;"
    echo "demo models, N = 32, calibrated with 8192 tokens. lfru is the default of \`--eviction\`; belady knows the future and cannot be"
    echo "beaten. Left: sub-experts, those that ran; right: whole experts, all that the router chose, under the same cap in bytes. What"
    echo "is missed on the left is smaller: the chart has bytes. Made by bench/cache.sh; all figures in [cache.csv](cache.csv)."
    echo
    verdict
    echo
    saving
    echo
    echo "![Bytes read per token over memory, $(basename "${models[0]}" .gguf), half of the expert compute](cache.svg)"
    for model in "${models[@]}"; do
        name=$(basename "$model" .gguf)
        for share in 1 0.5 0.25; do
            echo
            echo "## $name, $(awk -v s="$share" 'BEGIN { printf "%.0f", 100 * s }') % of the expert compute"
            echo
            table "$name" "$share"
        done
    done
} | tee docs/results/cache.md
