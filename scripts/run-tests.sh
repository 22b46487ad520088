#!/usr/bin/env bash
# Runs test programs and sums up their results.
#
#   scripts/run-tests.sh [-j JOBS] PROGRAM...
#
# A program is a cmocka binary or a script that prints TAP: a plan "1..N", then "ok I - name" or "not ok I - name",
# "# SKIP" in the line of a skipped test. A test that was planned and never reported (a crash, a time-out) has failed,
# and so has a program that is missing, has no plan, or ends badly without saying why. Each program's output
# stays beside it as NAME.log; the last line printed is "N passed, N failed, N skipped". Status 1 if any failed.
# TEST_TIMEOUT: seconds a program may take.
set -uo pipefail
export CMOCKA_MESSAGE_OUTPUT=TAP
export TEST_TIMEOUT=${TEST_TIMEOUT:-600}
export ASAN_OPTIONS=${ASAN_OPTIONS:-detect_leaks=1:handle_segv=2:handle_abort=0}
export UBSAN_OPTIONS=${UBSAN_OPTIONS:-print_stacktrace=1}
export TSAN_OPTIONS=${TSAN_OPTIONS:-halt_on_error=1}

# Counts of one program from its output ($1) and exit status ($2): "passed failed skipped".
count_results() {
    awk -v status="$2" '
        /^1\.\.[0-9]+/ { planned += substr($1, 4); plans++ }
        /^(not )?ok .*# SKIP/ { skipped++; next }
        /^ok / { passed++ }
        /^not ok / { failed++ }
        END {
            lost = planned - passed - failed - skipped
            if (lost > 0) failed += lost
            if (!failed && (status || !plans || lost < 0)) failed = 1
            print passed + 0, failed + 0, skipped + 0
        }' "$1"
}

# What to show of log $1, status $2: the tests that failed, else (a crash, a sanitizer's report) the end.
failures() {
    if [ "$2" -lt 66 ] && grep -q '^not ok .* - ' "$1"; then
        grep -A 12 '^not ok' "$1" | grep -v '# SKIP' | head -n 80
    else
        tail -n 60 "$1"
    fi
}

# Runs program $1, appends its counts to $2, reports in one write so that parallel runs do not mix lines.
run_one() {
    local program=$1 results=$2 log status=0 started passed failed skipped line
    log=$program.log
    case "$program" in *.sh) log=${BUILD:-build}/$program.log ;; esac
    mkdir -p "$(dirname "$log")"
    started=$(date +%s%N)
    { timeout -k 10 "$TEST_TIMEOUT" "$program" >"$log" 2>&1 </dev/null; } 2>/dev/null || status=$?
    read -r passed failed skipped < <(count_results "$log" "$status")
    echo "$passed $failed $skipped" >>"$results"
    line=$(printf '%-42s %4d passed %3d failed %3d skipped %7.1f s' "$program" "$passed" "$failed" "$skipped" \
        "$((($(date +%s%N) - started) / 100000000))e-1")
    if [ "$failed" -gt 0 ]; then
        [ "$status" -ne 124 ] || line+=$'\n    stopped after '"$TEST_TIMEOUT s"
        line+=$'\n    exit status '"$status, full output in $log"$'\n'
        line+=$(failures "$log" "$status" | sed 's/^/    /')
    fi
    printf '%s\n' "$line"
}

if [ "${1:-}" = --one ]; then
    run_one "$3" "$2"
    exit 0
fi

jobs=1
case "${1:-}" in
-j) jobs=$2 && shift 2 ;;
-j*) jobs=${1#-j} && shift ;;
esac
results=$(mktemp)
trap 'rm -f "$results"' EXIT
[ $# -eq 0 ] || printf '%s\0' "$@" | xargs -0 -n 1 -P "$jobs" "$0" --one "$results"
awk '{ p += $1; f += $2; s += $3 }
    END { printf "%d passed, %d failed, %d skipped\n", p, f, s; exit f > 0 || p == 0 }' "$results"
