#!/usr/bin/env bash
# Prompt and decode speed beside other engines, on models of real shapes with random weights: llama.cpp where the shape is
# OLMoE-1B-7B's, ik_llama.cpp (as it comes, and with its options for repacking) where it is 12 layers of Qwen3-30B-A3B's.
# Both read the very file that our whole model is; ours split runs it at full, half and a quarter of the expert compute.
# Everybody reads the model into memory, as how the page cache happens to hold a file makes a quarter of the speed, and asks for
# huge pages, the peers through their C library (glibc 2.35 or later): where faults are dear small ones cost more still.
# Engines alternate within a round, each round begins with another; medians over ROUNDS rounds.
#
#   bench/peers.sh [ROUNDS] [THREADS]       defaults 5 and 2; writes docs/results/peers.md and .csv
#
# Environment: PEERS, the directory with lc-llama-bench.xz and ik-llama-bench.xz (default ../shared/peers; where the
# processor lacks AVX-VNNI, which they need, only ours is measured, unless lc-llama-bench and ik-llama-bench built for it
# are in build/bench-models); SHAPES and TYPES, what to measure (default "olmoe-1b-7b qwen3-30b-a3b" and "Q4_0 Q4_K");
# OUT, where to write. Needs jq.
set -euo pipefail
cd "$(dirname "$0")/.."

B=${B:-build}
PEERS=${PEERS:-../shared/peers}
OUT=${OUT:-docs/results/peers}
rounds=${1:-5} threads=${2:-2}
models=$B/bench-models
command -v jq >/dev/null || { echo "peers.sh: needs jq (Debian: apt-get install jq)" >&2; exit 1; }
for peer in lc-llama-bench ik-llama-bench; do
    [ -r "$PEERS/$peer.xz" ] || { echo "peers.sh: SKIPPED, $PEERS/$peer.xz is not there" >&2; exit 0; }
done
mkdir -p "$models" "$(dirname "$OUT")"
make B="$B" all >&2

for peer in lc-llama-bench ik-llama-bench; do
    [ -x "$models/$peer" ] || { xz -dc "$PEERS/$peer.xz" >"$models/$peer" && chmod +x "$models/$peer"; }
done

layers_of() { case $1 in qwen3*) echo 12 ;; *) echo 16 ;; esac; }

# model SHAPE TYPE [SPLIT]: the file's name; made where it is missing.
model() {
    local file
    file=$models/$1-$(layers_of "$1")-$2${3:+-n$3}.gguf
    [ -f "$file" ] ||
        "$B/moeprism" synth --like "$1" --layers "$(layers_of "$1")" --type "$2" ${3:+--split "$3"} -o "$file" >&2
    echo "$file"
}

# Each prints test,tokens per second,milliseconds a token in MoE layers (ours only).
peer() {
    local binary=$models/$1-llama-bench file=$2 status=0 report
    shift 2
    report=$(GLIBC_TUNABLES=glibc.malloc.hugetlb=1 "$binary" -m "$file" -mmp 0 -t "$threads" -p 512 -n 128 -r 1 -o json \
        "$@" 2>/dev/null) || status=$?
    case $status in
    0) ;;
    132) echo "peers.sh: SKIPPED, $binary uses instructions that this processor lacks" >&2 && return ;;
    *) echo "peers.sh: $binary ended with $status" >&2 && return "$status" ;;
    esac
    jq -r '.[] | [(if .n_prompt > 0 then "pp\(.n_prompt)" else "tg\(.n_gen)" end), .avg_ts, ""] | @csv' <<<"$report" |
        tr -d '"'
}

ours() {
    "$B/moeprism" bench "$1" --no-mmap -t "$threads" -p 512 -n 128 -r 1 --points "$2" --json 2>/dev/null |
        jq -r '.[] | [(if .n_prompt > 0 then "pp\(.n_prompt)" else "tg\(.n_gen)" end), .avg_ts,
            (.timings | (.router_ns + .gate_ns + .experts_ns) / 1e6) / (.n_prompt + .n_gen * .n_seqs)] | @csv' | tr -d '"'
}

# engine NAME SHAPE TYPE: one run of it.
engine() {
    local whole split
    whole=$(model "$2" "$3") split=$(model "$2" "$3" 32)
    case $1 in
    "llama.cpp -ctk q8_0") peer lc "$whole" -ctk q8_0 ;; # with an F16 cache this build aborts decoding OLMoE in Q4_0
    ik_llama.cpp) peer ik "$whole" ;;
    "ik_llama.cpp -rtr 1 -fmoe 1") peer ik "$whole" -rtr 1 -fmoe 1 ;;
    whole) ours "$whole" 0 ;;
    "split, full") ours "$split" 0 ;;
    "split, 50 %") ours "$split" 4 ;;
    "split, 25 %") ours "$split" 8 ;;
    esac
}

engines_of() {
    case $1 in
    qwen3*) printf '%s\n' "ik_llama.cpp" "ik_llama.cpp -rtr 1 -fmoe 1" ;;
    *) echo "llama.cpp -ctk q8_0" ;;
    esac
    printf '%s\n' whole "split, full" "split, 50 %" "split, 25 %"
}

echo "shape,type,engine,round,test,tokens_per_s,moe_ms_per_token" >"$OUT.csv"
for shape in ${SHAPES:-olmoe-1b-7b qwen3-30b-a3b}; do
    for type in ${TYPES:-Q4_0 Q4_K}; do
        for ((i = 1; i <= rounds; i++)); do
            mapfile -t names < <(engines_of "$shape")
            for ((k = 0; k < ${#names[@]}; k++)); do
                name=${names[(i + k) % ${#names[@]}]}
                echo "$shape $type, round $i of $rounds: $name" >&2
                engine "$name" "$shape" "$type" </dev/null |
                    sed "s/^/$shape,$type,\"$name\",$i,/" >>"$OUT.csv"
            done
        done
    done
done

{
    echo "# Beside other engines"
    echo
    echo "Tokens per second, $threads threads, the same file for all (ours split: the same shape), medians of $rounds alternating rounds"
    echo "and their range, $(date -u +%Y-%m-%d), $(nproc) cores of $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1). llama.cpp c392e5094, ik_llama.cpp 8337e4cd3."
    echo "All read it into memory and ask for huge pages (peers: GLIBC_TUNABLES). \"of the peer\": beside the best peer's median in"
    echo "the same rounds. MoE: time a token spends in router, gate and experts. Made by bench/peers.sh."
    awk -f bench/peers.awk "$OUT.csv"
} >"$OUT.md"
cat "$OUT.md"
