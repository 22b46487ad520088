#!/usr/bin/env bash
# Runs fuzz targets, each for a bounded time, on a corpus that grows from run to run.
#
#   scripts/fuzz.sh [-t SECONDS] FOLDER TARGET...
#
# FOLDER/fuzz/TARGET is the program. Its corpus, FOLDER/corpus/TARGET, begins with fuzz/seeds/TARGET/* and with what
# `fuzz/seeds.sh TARGET FOLDER` writes into the given folder, where there are such. A finding stays in FOLDER as TARGET-crash-*.
# Ends like the tests: "N passed, N failed, N skipped".
set -uo pipefail

seconds=30
if [ "${1:-}" = -t ]; then
    seconds=$2
    shift 2
fi
folder=$1
shift

seed_corpus() {
    local target=$1 corpus=$2
    mkdir -p "$corpus"
    if [ -d "fuzz/seeds/$target" ]; then
        cp -n "fuzz/seeds/$target"/* "$corpus"/
    fi
    if [ -x fuzz/seeds.sh ]; then
        fuzz/seeds.sh "$target" "$corpus"
    fi
}

passed=0 failed=0
for target in "$@"; do
    corpus=$folder/corpus/$target
    log=$folder/$target.log
    seed_corpus "$target" "$corpus" || echo "$target: no seeds" >&2
    if "$folder/fuzz/$target" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 \
        -artifact_prefix="$folder/$target-" "$corpus" >"$log" 2>&1; then
        passed=$((passed + 1))
        printf '%-24s %s runs in %s s, corpus %s files\n' "$target" \
            "$(awk '/number_of_executed_units/ { print $2 }' "$log")" "$seconds" "$(find "$corpus" -type f | wc -l)"
    else
        failed=$((failed + 1))
        echo "$target FAILED, full output in $log"
        grep -nE 'ERROR|runtime error|SUMMARY|Test unit written' "$log" | head -n 20
    fi
done
echo "$passed passed, $failed failed, 0 skipped"
[ "$failed" -eq 0 ]
