#!/usr/bin/env bash
# What policies make of caps on measured routing: TEXTS replies of each demo model, split, at full, half and a quarter of the
# expert compute, recorded by `run --record-trace`, prompts included, and replayed by `cache-sim`, in sub-experts and in
# whole experts, at caps from 7 to 95 % of the experts. And, as models with random weights route quite differently, TEXTS
# short replies and one long reply of such a one.
#
#   bench/cache.sh [MODEL...]     default: the demo models; writes docs/results/cache.md, .csv and .svg
#
# MODEL is not split. What is made of it is kept in $B/bench-models, as is the model with random weights (4 GB; RANDOM_MODEL=
# leaves it out). TEXTS: 12 unless told otherwise.
set -euo pipefail
cd "$(dirname "$0")/.."

B=${B:-build} texts=${TEXTS:-12}
caps=7%,10%,15%,20%,25%,30%,35%,40%,45%,50%,55%,60%,65%,70%,75%,80%,85%,90%,95%
shared=${MOEPRISM_SHARED:-../shared}/models
models=("$@")
[ $# -gt 0 ] || models=(models/demo-olmoe-q8_0.gguf "$shared"/demo-qwen3moe-q8_0.gguf "$shared"/demo-deepseek2-q8_0.gguf)
random=${RANDOM_MODEL-$B/bench-models/olmoe-1b-7b-16-Q4_0-n32.gguf} # as of offload.sh
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
record() { # artifact, share, file, replies, characters of each prompt, options of run
    local n=0 prompt artifact=$1 share=$2 file=$3 replies=$4 characters=$5
    shift 5
    while IFS= read -r prompt; do
        n=$((n + 1))
        "$B/moeprism" run "$artifact" -p "$prompt" --seed "$n" --compute "$share" --record-trace "$dir/part" "$@" \
            >/dev/null 2>&1 </dev/null
        cat "$dir/part"
    done < <(grep -E '^.{120,}' models/heldout.txt | awk 'NR % 37 == 1' | sed -n "1,${replies}p" | cut -c1-"$characters") |
        awk '/^#/ { if (!heads++) print; begun = 0; next }
            { if (!begun++ || $1 != last) step++; last = $1; $1 = step; print }' >"$file"
}

simulate() { # trace, name, share
    "$B/moeprism" cache-sim --trace "$1" --memory "$caps" -o csv | awk -v head="$2,$3" 'NR > 1 { print head "," $0 }' >>"$csv"
}

echo "model,compute,units,memory_bytes,memory_share,policy,slots,tokens,claimed,misses,hit_rate,bytes_per_token,stall_ms_per_token" >"$csv"
for model in "${models[@]}"; do
    name=$(basename "$model" .gguf)
    artifact=$B/bench-models/cache-$name.gguf
    split "$model" "$artifact"
    for share in 1 0.5 0.25; do
        echo "$name at $share of the expert compute" >&2
        record "$artifact" "$share" "$dir/trace" "$texts" 160 -n 180
        plot=()
        if [ "$model" = "${models[0]}" ] && [ "$share" = 0.5 ]; then plot=(--plot docs/results/cache.svg); fi
        "$B/moeprism" cache-sim --trace "$dir/trace" --memory "$caps" --policy adaptive,lru,belady "${plot[@]}" >/dev/null
        simulate "$dir/trace" "$name" "$share"
    done
done

# Warm, since at low temperatures such a model says one thing over and over.
if [ -n "$random" ]; then
    [ -f "$random" ] || "$B/moeprism" synth --like olmoe-1b-7b --layers 16 --type Q4_0 --split 32 -o "$random" >&2
    warm=(--temp 2 --top-k 0 --top-p 1 --min-p 0 --memory 75%)
    for share in 1 0.5; do
        echo "random weights at $share of the expert compute" >&2
        record "$random" "$share" "$dir/trace" "$texts" 24 -n 24 "${warm[@]}"
        simulate "$dir/trace" "random: short replies" "$share"
        record "$random" "$share" "$dir/trace" 1 24 -n 200 "${warm[@]}"
        simulate "$dir/trace" "random: one long reply" "$share"
    done
fi

# Misses in % of all units claimed: a table of caps by policies, both kinds of units.
table() { # model, share
    echo "| memory | lru | 2q | lfu | lfru | **adaptive** | belady | lru | 2q | lfu | lfru | **adaptive** | belady |"
    echo "|---|---|---|---|---|---|---|---|---|---|---|---|---|"
    awk -F, -v model="$1" -v share="$2" '
        function row(cap, units) {
            return sprintf(" %.2f | %.2f | %.2f | %.2f | **%.2f** | %.2f |", m[cap, units, "lru"], m[cap, units, "2q"],
                m[cap, units, "lfu"], m[cap, units, "lfru"], m[cap, units, "adaptive"], m[cap, units, "belady"])
        }
        $1 == model && $2 == share { m[$5, $3, $6] = 100 * (1 - $11); if (!seen[$5]++) caps[++n] = $5 }
        END { for (i = 1; i <= n; i++)
            printf "| %.0f %% |%s%s\n", 100 * caps[i], row(caps[i], "sub-experts"), row(caps[i], "experts") }' "$csv"
}

# Of the default's misses over LRU's: how many caps and records, the largest, the mean; the means of lfru's and Belady's.
verdict() {
    awk -F, 'NR > 1 && $1 !~ /^random/ { m[$1 FS $2 FS $3 FS $5, $6] = $10; cells[$1 FS $2 FS $3 FS $5] }
        END { for (c in cells) {
                r = m[c, "adaptive"] / m[c, "lru"]; n++; sum += r; best += m[c, "belady"] / m[c, "lru"]; lfru += m[c, "lfru"] / m[c, "lru"]
                if (r > most) most = r; if (r > 1) worse++ }
            printf "Over all %d combinations of demo model, compute, unit and cap, adaptive misses %.4f times what LRU does at most and %.3f\n", n, most, sum / n
            printf "times on average (lfru: %.3f, belady: %.3f); it misses more than LRU in %d of them.\n", lfru / n, best / n, worse }' "$csv"
}

# The same of random weights, by kind of record, with the better of lru and lfru at each cap as the yardstick.
random_table() {
    echo "| replies | expert compute | lfru over lru, caps: least | mean | most | adaptive over lru: mean | adaptive over the better of the two: mean | most |"
    echo "|---|---|---|---|---|---|---|---|"
    awk -F, 'NR > 1 && /^random/ { c = $1 FS $2 FS $3 FS $5; m[c, $6] = $10; if (!seen[c]++) { cells[++n] = c; group[n] = $1 FS $2 } }
        END { for (i = 1; i <= n; i++) {
                g = group[i]; c = cells[i]; a = m[c, "adaptive"]; f = m[c, "lfru"]; l = m[c, "lru"]; over = a / (f < l ? f : l)
                if (!count[g]++) { order[++k] = g; least[g] = f / l }
                if (f / l < least[g]) least[g] = f / l; if (f / l > most[g]) most[g] = f / l
                if (over > worst[g]) worst[g] = over
                sum[g] += f / l; mean[g] += a / l; near[g] += over }
            for (i = 1; i <= k; i++) { g = order[i]; split(g, part, FS); sub("random: ", "", part[1])
                printf "| %s | %.0f %% | %.2f | %.2f | %.2f | %.2f | %.3f | %.3f |\n", part[1], 100 * part[2], least[g],
                    sum[g] / count[g], most[g], mean[g] / count[g], near[g] / count[g], worst[g] } }' "$csv"
}

# Bytes read per token: whole experts under LRU, all that the router chose, over sub-experts under the default at half of the compute.
saving() {
    echo "| model | memory | experts, lru: KiB a token | sub-experts, adaptive, half: KiB a token | ratio |"
    echo "|---|---|---|---|---|"
    awk -F, '$2 != 0.5 || $5 * 4 != int($5 * 4) || /^random/ { next }
        $3 == "experts" && $6 == "lru" { whole[$1, $5] = $12 / 1024 }
        $3 == "sub-experts" && $6 == "adaptive" { part[$1, $5] = $12 / 1024; key[++n] = $1 SUBSEP $5 }
        END { for (i = 1; i <= n; i++) { split(key[i], k, SUBSEP)
            printf "| %s | %.0f %% | %.0f | %.0f | %.2f |\n", k[1], 100 * k[2], whole[key[i]], part[key[i]],
                whole[key[i]] / part[key[i]] } }' "$csv"
}

{
    echo "# Cache policies on measured routing"
    echo
    echo "Misses in % of the units that tokens use, the cache simulated on records of $texts replies a model, prompts included;"
    echo "demo models, N = 32, calibrated with 8192 tokens. adaptive, the default of \`--eviction\`, follows lfru or lru, whichever misses"
    echo "less; belady knows the future and cannot be beaten. Left: sub-experts, those that ran; right: whole experts, all that the router"
    echo "chose, under the same cap in bytes. What is missed on the left is smaller: the chart has bytes. Made by bench/cache.sh; all figures in [cache.csv](cache.csv)."
    echo
    verdict
    echo
    saving
    echo
    if [ -n "$random" ]; then
        echo "Random weights, OLMoE-1B-7B's shape, $texts replies of 24 tokens or one of 200. Each reply has favourites of its own, which those of the"
        echo "reply before are in the way of: where replies are short, lru is the better of the two, and lfru where one is long."
        echo
        random_table
        echo
    fi
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
