#!/usr/bin/env bash
# Models larger than memory: decode speed and bytes read per token at caps of 25, 50 and 75 % of the experts, single streams
# and four at once, ours beside two others, in turn:
#   mmap     another engine's own way, the file mapped, within a control group of the memory that we take in all (cap, other
#            weights and 512 MiB); llama.cpp on OLMoE's shape, ik_llama.cpp on Qwen3's, which the former does not know
#   experts  our own store on whole experts, all that the router chose, read when they are wanted, under LRU
#   ahead    the same as far as a store may know whole experts: the default policy, and reading ahead
#   split    sub-experts as they come: the default policy, and reading ahead; at full and at half the expert compute
# Weights are random, and so is what they route: experts have no favourites, only what a text used last. So the measured
# routing of the demo model is replayed as well (bench/replay.c), on sub-experts of the real size. The rows without a cap are
# the same models in memory: computing is as much faster with sub-experts as they say, however few bytes are read.
#
#   bench/offload.sh [ROUNDS]      default 2; writes docs/results/offload.md and .csv; 0: the former anew from the latter
#
# Needs jq and, for mmap, root (control groups, a cold page cache) and the peers; without them that row is left out.
# Environment: PEERS as for peers.sh; SHAPES ("olmoe-1b-7b qwen3-30b-a3b"), CAPS ("25 50 75"), OUT; RUN, what programs are
# started by, as "chrt -f 5" on a machine that is not ours alone.
set -euo pipefail
cd "$(dirname "$0")/.."

B=${B:-build} PEERS=${PEERS:-../shared/peers} OUT=${OUT:-docs/results/offload}
rounds=${1:-2} models=$B/bench-models
caps=${CAPS:-25 50 75}
read -ra run <<<"${RUN:-}"
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
model() { # SHAPE [SPLIT [TYPE]]
    local file
    file=$models/$1-$(layers_of "$1")-${3:-Q4_0}${2:+-n$2}.gguf
    [ -f "$file" ] ||
        "$B/moeprism" synth --like "$1" --layers "$(layers_of "$1")" --type "${3:-Q4_0}" ${2:+--split "$2"} -o "$file" >&2
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
    local peer total whole other type=Q4_0
    peer=$(peer_of "$1")
    # Q4_0 is what this build of llama.cpp arranges anew, in memory, when it starts; Q4_K, as large, it leaves in the file.
    if [ "$peer" = lc ]; then type=Q4_K; fi
    whole=$(model "$1" "" "$type")
    [ -n "$group" ] && [ -r "$PEERS/$peer-llama-bench.xz" ] || return 0
    [ -x "$models/$peer-llama-bench" ] ||
        { xz -dc "$PEERS/$peer-llama-bench.xz" >"$models/$peer-llama-bench" && chmod +x "$models/$peer-llama-bench"; }
    other=$("$B/moeprism" info "$whole" --json | jq .memory.weights_other)
    total=$(($(experts_bytes "$whole") * $2 / 100 + other + (512 << 20)))
    cold
    echo "$total" >"$group/$limit_file"
    # With an F16 cache this build of llama.cpp aborts decoding OLMoE.
    local options=(-m "$whole" -mmp 1 -t 2 -p 0 -n "$mmap_tokens" -r 1 -o json) out=$dir/mmap status=0
    if [ "$peer" = lc ]; then options+=(-ctk q8_0); fi
    (
        echo "$BASHPID" >"$group/cgroup.procs"
        exec "${run[@]}" timeout "$mmap_seconds" "$models/$peer-llama-bench" "${options[@]}" >"$out" 2>/dev/null
    ) || status=$?
    # Of an engine that is not done in time no more is known than that: it has read the model and run one token before.
    if [ "$status" = 124 ]; then awk -v n="$mmap_tokens" -v s="$mmap_seconds" 'BEGIN { printf "%.4f,late\n", n / s }'; fi
    if [ "$status" = 0 ]; then jq -r '.[] | "\(.avg_ts),"' "$out"; fi
}

# ---- ours

in_memory() { # FILE POINT STREAMS -> tokens per second, no bytes
    "${run[@]}" "$B/moeprism" bench "$1" -t 2 -p 0 -n $((24 / (($3 + 1) / 2))) -b "$3" -r 3 --points "$2" --no-mmap --json \
        2>/dev/null | jq -r '.[] | "\(.avg_ts),0"'
}
ours() { # FILE POINT CAP_BYTES STREAMS [OPTIONS...] -> tokens per second, bytes per token
    cold
    "${run[@]}" "$B/moeprism" bench "$1" -t 2 -p 0 -n $((24 / (($4 + 1) / 2))) -b "$4" -r 3 --points "$2" --memory "$3" \
        --json "${@:5}" 2>/dev/null |
        jq -r '.[] | "\(.avg_ts),\(.store.bytes_read / (.n_gen * .n_seqs * (.samples_ns | length)))"'
}

system() { # NAME SHAPE CAP STREAMS; CAP 100: none
    local whole split bytes
    whole=$(model "$2") split=$(model "$2" 32)
    case $3-$1 in
    100-experts) in_memory "$whole" 0 "$4" && return ;;
    "100-split, full") in_memory "$split" 0 "$4" && return ;;
    "100-split, half") in_memory "$split" 4 "$4" && return ;;
    100-*) return ;;
    esac
    bytes=$(($(experts_bytes "$whole") * $3 / 100))
    case $1 in
    mmap) [ "$4" -gt 1 ] || mmap_row "$2" "$3" ;;
    experts) ours "$whole" 0 "$bytes" "$4" --eviction lru --no-read-ahead ;;
    ahead) ours "$whole" 0 "$bytes" "$4" ;;
    "split, full") ours "$split" 0 "$bytes" "$4" ;;
    "split, half") ours "$split" 4 "$bytes" "$4" ;;
    esac
}

measure() {
    make_group || echo "offload.sh: mmap is left out: control groups cannot be made here" >&2
    echo "shape,memory,streams,system,round,tokens_per_s,bytes_per_token" >"$OUT.csv"
    for shape in ${SHAPES:-olmoe-1b-7b qwen3-30b-a3b}; do
        for cap in $caps 100; do
            for streams in 1 4; do
                for ((round = 1; round <= rounds; round++)); do
                    for name in mmap experts ahead "split, full" "split, half"; do
                        [ "$name" = mmap ] && [ "$round" -gt 1 ] && continue # minutes each
                        echo "$shape, $cap %, $streams streams, round $round: $name" >&2
                        figures=$(system "$name" "$shape" "$cap" "$streams")
                        [ -z "$figures" ] || echo "$shape,$cap,$streams,\"$name\",$round,$figures" >>"$OUT.csv"
                    done
                done
            done
        done
    done
}

# ---- measured routing

replay() {
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
}

if [ "$rounds" -gt 0 ]; then
    measure
    replay
fi
{
    echo "# Models larger than memory"
    echo
    echo "Decoding, tokens a second (all streams together) and MiB read from disk a token; means of three runs in a"
    echo "row, systems in turn, $(date -u +%Y-%m-%d), $(nproc) cores of $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1). Q4_0, random weights; \"<\": not done with $mmap_tokens tokens in"
    echo "$mmap_seconds s; memory \"all\": no cap, nothing is read. *experts* is the store on whole experts, all that the router chose, read"
    echo "when wanted, LRU; *ahead* the same with the default policy and reading ahead, as *full* and *half* have them on sub-experts."
    echo "Made by bench/offload.sh, which says more; figures in [offload.csv](offload.csv)."
    echo
    echo "| model | memory | streams | mmap | experts | ahead | full | half | read: experts | ahead | full | half | half: fewer bytes | half: faster | full: of experts |"
    echo "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|"
    tr -d '"' <"$OUT.csv" | sed 's/split, //' | awk -F, 'NR > 1 { key = $1 "," $2 "," $3; if (!(key in seen)) order[++n] = key; seen[key]
            speed[key, $4] += $6; bytes[key, $4] += $7; runs[key, $4]++; if ($7 == "late") late[key] = 1 }
        function s(name) { return runs[key, name] ? speed[key, name] / runs[key, name] : 0 }
        function b(name) { return runs[key, name] ? bytes[key, name] / runs[key, name] / 1048576 : 0 }
        function cell(format, x) { return x ? sprintf(format, x) : "-" }
        END { for (i = 1; i <= n; i++) { key = order[i]; split(key, part, ",")
            printf "| %s | %s | %d | %s%s | %.2f | %s | %.2f | %.2f | %s | %s | %s | %s | %s | %.2f | %.2f |\n", part[1],
                part[2] < 100 ? part[2] " %" : "all", part[3], late[key] ? "< " : "", cell("%.2f", s("mmap")), s("experts"),
                cell("%.2f", s("ahead")), s("full"), s("half"), cell("%.0f", b("experts")), cell("%.0f", b("ahead")),
                cell("%.0f", b("full")), cell("%.0f", b("half")), cell("%.2f", b("half") ? b("experts") / b("half") : 0),
                s("half") / s("experts"), s("full") / s("experts") } }'
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
