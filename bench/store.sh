#!/usr/bin/env bash
# What the store gets from the disk beside what fio gets: random direct reads of the same block sizes at the same depths
# from the same file, in turn; the best of ROUNDS rounds of two seconds each.
#
#   bench/store.sh [FILE] [ROUNDS]     default: a model of OLMoE-1B-7B's shape, and 3; writes docs/results/store.md and .csv.
#                                      Needs fio and jq. FILE should lie on the disk in question and be larger than its cache.
set -euo pipefail
cd "$(dirname "$0")/.."

B=${B:-build}
file=${1:-$B/bench-models/olmoe-4-q4_0-n32.gguf} rounds=${2:-3}
csv=docs/results/store.csv
blocks="36864 73728" # down, and gate with up, of a sub-expert of 32 neurons at d = 2048 in Q4_0
depths="1 8 32 64"
for tool in fio jq; do
    command -v "$tool" >/dev/null || { echo "store.sh: needs $tool (Debian: apt-get install fio jq)" >&2; exit 1; }
done
mkdir -p "$B/bench-models" docs/results
make B="$B" all "$B/bench/store" >&2
[ -f "$file" ] || "$B/moeprism" synth --like olmoe-1b-7b --layers 4 --type q4_0 --split 32 -o "$file"

fio_speed() { # BLOCK DEPTH -> bytes per second
    fio --name=store --filename="$file" --readonly --rw=randread --direct=1 --ioengine=io_uring --fixedbufs --registerfiles \
        --bs="$1" --iodepth="$2" --time_based --runtime=2 --randrepeat=0 --output-format=json | jq '.jobs[0].read.bw_bytes'
}

store_speed() { # BACKEND BLOCK DEPTH
    "$B/bench/store" --csv --backend "$1" --block "$2" --depth "$3" "$file" | awk -F, 'NR == 2 { print $5 }'
}

echo reader,block,depth,bytes_per_s >"$csv"
for ((i = 0; i < rounds; i++)); do
    echo "round $((i + 1)) of $rounds" >&2
    for block in $blocks; do
        for depth in $depths; do
            echo "fio,$block,$depth,$(fio_speed "$block" "$depth")" >>"$csv"
            for backend in io_uring threads; do
                echo "$backend,$block,$depth,$(store_speed "$backend" "$block" "$depth")" >>"$csv"
            done
        done
    done
done

{
    echo "# What the store gets from the disk"
    echo
    echo "Random direct reads, MiB/s and the share of what fio (io_uring) reads in the same blocks at the same depth from the same"
    echo "file; best of $rounds alternating rounds, $(date -u +%Y-%m-%d), $(nproc) cores of $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1). Made by bench/store.sh."
    echo
    echo "| block | depth | fio | io_uring | of fio | threads | of fio |"
    echo "|---|---|---|---|---|---|---|"
    awk -F, 'NR > 1 { key = $2 "," $3; if (!(key in seen)) order[++n] = key; seen[key] = 1
            if ($4 > best[key, $1]) best[key, $1] = $4 }
        END { for (i = 1; i <= n; i++) { key = order[i]; split(key, part, ","); fio = best[key, "fio"]
            printf "| %d | %d | %.0f | %.0f | %.0f %% | %.0f | %.0f %% |\n", part[1], part[2], fio / 1048576,
                best[key, "io_uring"] / 1048576, 100 * best[key, "io_uring"] / fio,
                best[key, "threads"] / 1048576, 100 * best[key, "threads"] / fio } }' "$csv"
} | tee docs/results/store.md
