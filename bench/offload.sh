#!/usr/bin/env bash
# Models larger than memory: decode speed and bytes read per token at caps of 25, 50 and 75 % of the experts, single streams
# and four at once, ours beside two others, in turn:
#   mmap     another engine's own way, the file mapped, within a control group of the memory that we take in all (cap, other
#            weights and 512 MiB); llama.cpp on OLMoE's shape, ik_llama.cpp on Qwen3's, which the former does not know
#   experts  our own store on whole experts, all that the router chose, under LRU
# Sub-experts go by LRU too, so that nothing but their size tells. Weights are random, and so is what they route: experts have
# no favourites, only what a text used last. So the measured routing of the demo model is replayed as well (bench/replay.c),
# on sub-experts of the real size, there with the default policy.
#
#   bench/offload.sh [ROUNDS]      default 2; writes docs/results/offload.md and .csv
#
# Needs jq and, for mmap, root (control groups, a cold page cache) and the peers; without them that row is left out.
# Environment: PEERS as for peers.sh; SHAPES ("olmoe-1b-7b qwen3-30b-a3b"), CAPS ("25 50 75"), OUT.
set -euo pipefail
cd "$(dirname "$0")/.."

B=${B:-build} PEERS=${PEERS:-../shared/peers} OUT=${OUT:-docs/results/offload}
rounds=${1:-2} models=$B/bench-models
caps=${CAPS:-25 50 75}
mmap_tokens=4 mmap_seconds=60
command -v jq >/dev/null || { echo "offload.sh: needs jq (Debian: apt-get install jq)" >&2; exit 1; }
mkdir -p "$models" "$(dirname "$OUT")"
make B="$B" all "$B/bench/replay" >&2
dir=$(mktemp -d)
group=
finish() {
    if [ -n "$group" ]; then rmdir "$group" 2>/dev/null || true; fi
    rm -rf "$dir"
}
trap finish EXIT

layers_of() { case $1 in qwen3*) echo 24 ;; *) echo 16 ;; esac; }
model() { # SHAPE [SPLIT]
    local file
    file=$models/$1-$(layers_of "$1")-Q4_0${2:+-n$2}.gguf
    [ -f "$file" ] ||
        "$B/moeprism" synth --like "$1" --layers "$(layers_of "$1")" --type Q4_0 ${2:+--split "$2"} -o "$file" >&2
    echo "$file"
}
experts_bytes() { "$B/moeprism" info "$1" --json | jq .bytes_experts; }
cold() {
    sync
    if [ -w /proc/sys/vm/drop_caches ]; then echo 3 >/proc/sys/vm/drop_caches; fi
}

# ---- another engine in a control group

limit_file=
make_group() {
    local own mount
    if own=$(sed -n 's/^[0-9]*:memory:\(.*\)/\1/p' /proc/self/cgroup) && [ -n "$own" ]; then
        mount=/sys/fs/cgroup/memory limit_file=memory.limit_in_bytes
    else
        own=$(sed -n 's/^0::\(.*\)/\1/p' /proc/self/cgroup) mount=/sys/fs/cgroup limit_file=memory.max
    fi
    group=$mount$own/moeprism-offload.$$
    if mkdir "$group" 2>/dev/null && [ -w "$group/$limit_file" ]; then return 0; fi
    group=
    return 1
}
peer_of() { case $1 in qwen3*) echo ik ;; *) echo lc ;; esac; }
mmap_row() { # SHAPE CAP -> tokens per second of one stream
    local peer total whole other
    peer=$(peer_of "$1") whole=$(model "$1")
    [ -n "$group" ] && [ -r "$PEERS/$peer-llama-bench.xz" ] || return 0
    [ -x "$models/$peer-llama-bench" ] ||
        { xz -dc "$PEERS/$peer-llama-bench.xz" >"$models/$peer-llama-bench" && chmod +x "$models/$peer-llama-bench"; }
    other=$("$B/moeprism" info "$whole" --json | jq .memory.weights_other)
    total=$(($(experts_bytes "$whole") * $2 / 100 + other + (512 << 20)))
    cold
    echo "$total" >"$group/$limit_file"
    # With an F16 cache this build of llama.cpp aborts decoding OLMoE in Q4_0.
    local options=(-m "$whole" -mmp 1 -t 2 -p 0 -n "$mmap_tokens" -r 1 -o json) out=$dir/mmap status=0
    if [ "$peer" = lc ]; then options+=(-ctk q8_0); fi
    (
        echo "$BASHPID" >"$group/cgroup.procs"
        exec timeout "$mmap_seconds" "$models/$peer-llama-bench" "${options[@]}" >"$out" 2>/dev/null
    ) || status=$?
    # Of an engine that is not done in time no more is known than that: it has read the model and run one token before.
    if [ "$status" = 124 ]; then awk -v n="$mmap_tokens" -v s="$mmap_seconds" 'BEGIN { printf "%.4f,late\n", n / s }'; fi
    if [ "$status" = 0 ]; then jq -r '.[] | "\(.avg_ts),"' "$out"; fi
}

# ---- ours

ours() { # FILE POINT CAP_BYTES STREAMS EVICTION -> tokens per second, bytes per token
    cold
    "$B/moeprism" bench "$1" -t 2 -p 0 -n $((24 / (($4 + 1) / 2))) -b "$4" -r 2 --points "$2" --memory "$3" \
        --eviction "$5" --json 2>/dev/null |
        jq -r '.[] | "\(.avg_ts),\(.store.bytes_read / (.n_gen * .n_seqs * (.samples_ns | length)))"'
}

system() { # NAME SHAPE CAP STREAMS
    local whole split bytes
    whole=$(model "$2") split=$(model "$2" 32)
    bytes=$(($(experts_bytes "$whole") * $3 / 100))
    case $1 in
    mmap) [ "$4" -gt 1 ] || mmap_row "$2" "$3" ;;
    experts) ours "$whole" 0 "$bytes" "$4" lru ;;
    "split, full") ours "$split" 0 "$bytes" "$4" lru ;;
    "split, half") ours "$split" 4 "$bytes" "$4" lru ;;
    esac
}

make_group || echo "offload.sh: mmap is left out: control groups cannot be made here" >&2
echo "shape,memory,streams,system,round,tokens_per_s,bytes_per_token" >"$OUT.csv"
for shape in ${SHAPES:-olmoe-1b-7b qwen3-30b-a3b}; do
    for cap in $caps; do
        for streams in 1 4; do
            for ((round = 1; round <= rounds; round++)); do
                for name in mmap experts "split, full" "split, half"; do
                    [ "$name" = mmap ] && [ "$round" -gt 1 ] && continue # minutes each
                    echo "$shape, $cap %, $streams streams, round $round: $name" >&2
                    figures=$(system "$name" "$shape" "$cap" "$streams")
                    [ -z "$figures" ] || echo "$shape,$cap,$streams,\"$name\",$round,$figures" >>"$OUT.csv"
                done
            done
        done
    done
done

# ---- measured routing

echo "compute,units,memory,eviction,tokens,hit_rate,bytes_per_token,ms_per_token" >"$OUT-replay.csv"
artifact=$models/cache-demo-olmoe-q8_0.gguf # as of cache.sh
[ -f "$artifact" ] || "$B/moeprism" refactor models/demo-olmoe-q8_0.gguf -o "$artifact" \
    --calibration models/calibration.txt --max-tokens 8192 >&2
for share in 1 0.5; do
    "$B/moeprism" run "$artifact" -p "$(grep -E '^.{120,}' models/heldout.txt | head -1 | cut -c1-160)" -n 300 --seed 1 \
        --compute "$share" --record-trace "$dir/trace" >/dev/null 2>&1
    for cap in $caps; do
        for kind in "--whole --eviction lru" ""; do
            # shellcheck disable=SC2086 # words of options
            echo "$share,$("$B/bench/replay" --record "$dir/trace" --memory "0.$cap" $kind "$(model olmoe-1b-7b 32)")" \
                >>"$OUT-replay.csv"
        done
    done
done

{
    echo "# Models larger than memory"
    echo
    echo "Decoding, tokens a second (all streams together) and MiB read from disk a token; means of $rounds alternating rounds,"
    echo "$(date -u +%Y-%m-%d), $(nproc) cores of $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1). Q4_0, random weights, LRU on both"
    echo "sides; \"<\": not done with $mmap_tokens tokens in $mmap_seconds s. Made by bench/offload.sh, which says what the systems are; figures in [offload.csv](offload.csv)."
    echo
    echo "| model | memory | streams | mmap | experts | split, full | split, half | read: experts | full | half | half: fewer bytes | half: faster | full: of experts |"
    echo "|---|---|---|---|---|---|---|---|---|---|---|---|---|"
    tr -d '"' <"$OUT.csv" | sed 's/split, /split /' | awk -F, 'NR > 1 { key = $1 "," $2 "," $3; if (!(key in seen)) order[++n] = key; seen[key]
            speed[key, $4] += $6; bytes[key, $4] += $7; runs[key, $4]++; if ($7 == "late") late[key] = 1 }
        function s(name) { return runs[key, name] ? speed[key, name] / runs[key, name] : 0 }
        function b(name) { return runs[key, name] ? bytes[key, name] / runs[key, name] / 1048576 : 0 }
        END { for (i = 1; i <= n; i++) { key = order[i]; split(key, part, ",")
            printf "| %s | %d %% | %d | %s | %.2f | %.2f | %.2f | %.0f | %.0f | %.0f | %.2f | %.2f | %.2f |\n", part[1], part[2], part[3],
                s("mmap") ? sprintf("%s%.2f", late[key] ? "< " : "", s("mmap")) : "-", s("experts"), s("split full"), s("split half"), b("experts"),
                b("split full"), b("split half"), b("experts") / b("split half"), s("split half") / s("experts"),
                s("split full") / s("experts") } }'
    echo
    echo "## Measured routing"
    echo
    echo "The routing of one reply of the OLMoE demo model (4 layers of 32 experts of 32 parts) replayed on sub-experts of"
    echo "OLMoE-1B-7B's size: reads only, nothing is computed; memory in shares of the units that the record has."
    echo
    echo "| expert compute | memory | experts, lru: MiB a token | ms | sub-experts: MiB a token | ms | fewer bytes | faster |"
    echo "|---|---|---|---|---|---|---|---|"
    awk -F, 'NR > 1 { key = $1 "," $3; if (!(key in seen)) order[++n] = key; seen[key]; b[key, $2] = $7; t[key, $2] = $8 }
        END { for (i = 1; i <= n; i++) { key = order[i]; split(key, part, ",")
            printf "| %.0f %% | %.0f %% | %.1f | %.2f | %.1f | %.2f | %.2f | %.2f |\n", 100 * part[1], 100 * part[2],
                b[key, "experts"] / 1048576, t[key, "experts"], b[key, "sub-experts"] / 1048576, t[key, "sub-experts"],
                b[key, "experts"] / b[key, "sub-experts"], t[key, "experts"] / t[key, "sub-experts"] } }' "$OUT-replay.csv"
} | tee "$OUT.md"
