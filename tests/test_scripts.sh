#!/usr/bin/env bash
# The tools of the build itself: a runner that lost failures or a lint that saw nothing would hide everything else.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
if [ -n "${SANITIZE:-}" ]; then
    echo 1..1
    echo 'ok 1 - scripts # SKIP nothing here is compiled'
    exit 0
fi
unset MAKEFLAGS MFLAGS MAKELEVEL

n=0
# $1: the test's name, then a command that must succeed.
check() {
    n=$((n + 1))
    local name=$1
    shift
    if "$@" >"$dir/output" 2>&1; then
        echo "ok $n - $name"
    else
        echo "not ok $n - $name"
        sed 's/^/# /' "$dir/output"
    fi
}

# A program $1 for the runner, from a script on standard input.
program() {
    { echo '#!/bin/sh' && cat; } >"$dir/$1"
    chmod +x "$dir/$1"
}
program good <<<'echo 1..3; echo "ok 1 - a"; echo "ok 2 - b # SKIP no such CPU"; echo "ok 3 - c"'
cp "$dir/good" "$dir/good2"
cp "$dir/good" "$dir/good3"
program bad <<<'echo 1..2; echo "ok 1 - a"; echo "not ok 2 - b"; exit 1'
program crash <<<'echo 1..4; echo "ok 1 - a"; kill -SEGV $$'
program late_crash <<<'echo 1..1; echo "ok 1 - a"; kill -ABRT $$'
program silent <<<'exit 0'
program hang <<<'echo 1..1; sleep 60'
program cmocka <<<'printf "1..3\nok 1 - a\nnot ok 2 # SKIP b\nnot ok 3 - c\n"; exit 1'

# $1: the closing line expected, $2: the status, then arguments of the runner.
runner() {
    local line=$1 status=$2 got=0
    shift 2
    TEST_TIMEOUT=1 scripts/run-tests.sh "$@" >"$dir/runner" 2>&1 || got=$?
    cat "$dir/runner"
    [ "$(tail -n 1 "$dir/runner")" = "$line" ] && [ "$got" -eq "$status" ]
}

# A tree with one source file: $1 its path, $2 its only line; and the include check's verdict on it.
include_check() {
    rm -rf "$dir/tree"
    mkdir -p "$dir/tree/$(dirname "$1")"
    echo "$2" >"$dir/tree/$1"
    scripts/include-check.sh "$dir/tree"
}
refused() { ! "$@"; }

# .ci/run with a `make` that prints the results of one step each: test, sanitize, lint; $1: line, $2: status expected.
ci() {
    local line=$1 status=$2 got=0
    mkdir -p "$dir/ci"
    {
        echo '#!/bin/sh'
        # shellcheck disable=SC2016 # the argument of the script that is written
        echo 'case $1 in'
        printf '%s) echo "%s"; echo noise; exit %s ;;\n' test "$3" "$4" sanitize "$5" "$6" lint "$7" "$8"
        echo 'esac'
    } >"$dir/ci/make"
    chmod +x "$dir/ci/make"
    PATH=$dir/ci:$PATH .ci/run >"$dir/ci/output" 2>&1 || got=$?
    cat "$dir/ci/output"
    [ "$(tail -n 1 "$dir/ci/output")" = "$line" ] && [ "$got" -eq "$status" ]
}

# deps.sh among packages $1, as nobody: its message names $2, or it is silent where there is no $2.
deps() {
    mkdir -p "$dir/bin"
    # shellcheck disable=SC2016 # the variable of the script that is written
    printf '#!/bin/sh\nfor p in %s; do printf "installed:%%s " $p; done\n' "$1" >"$dir/bin/dpkg-query"
    chmod +x "$dir/bin/dpkg-query"
    local status=0 said
    said=$(PATH=$dir/bin:$PATH scripts/deps.sh -n build 2>&1) || status=$?
    echo "status $status: $said"
    if [ -n "${2:-}" ]; then
        [ "$status" -eq 1 ] && [[ $said == *"apt-get install -y $2" ]] && [ "$(wc -l <<<"$said")" -eq 1 ]
    else
        [ "$status" -eq 0 ] && [ -z "$said" ]
    fi
}
libraries="gcc libc6-dev make pkg-config libcurl4-gnutls-dev libjansson-dev libmicrohttpd-dev libpcre2-dev libedit-dev"
libraries+=" nettle-dev liburing-dev liblapacke-dev libjs-chart.js"

echo 1..21
check 'runner: passes and skips' runner '2 passed, 0 failed, 1 skipped' 0 "$dir/good"
check 'runner: goes on after a failure' runner '3 passed, 1 failed, 1 skipped' 1 "$dir/bad" "$dir/good"
check 'runner: a crash fails what was planned' runner '1 passed, 3 failed, 0 skipped' 1 "$dir/crash"
check 'runner: a crash after the last test is a failure' runner '1 passed, 1 failed, 0 skipped' 1 "$dir/late_crash"
check 'runner: a program that reports nothing fails' runner '0 passed, 1 failed, 0 skipped' 1 "$dir/silent"
check 'runner: a missing program fails' runner '2 passed, 1 failed, 1 skipped' 1 "$dir/none" "$dir/good"
check 'runner: a hang fails' runner '0 passed, 1 failed, 0 skipped' 1 "$dir/hang"
check 'runner: skips as cmocka writes them' runner '1 passed, 1 failed, 1 skipped' 1 "$dir/cmocka"
check 'runner: side by side' runner '6 passed, 0 failed, 3 skipped' 0 -j 3 "$dir/good" "$dir/good2" "$dir/good3"
check 'runner: no test at all is no success' runner '0 passed, 0 failed, 0 skipped' 1
check 'includes: a folder below' include_check src/engine/a.c '#include "tensor/b.h"'
check 'includes: the own folder, the public header' include_check src/base/a.c '#include "moeprism.h"'
check 'includes: a folder above is refused' refused include_check src/base/a.c '#include "engine/b.h"'
check 'includes: a neighbour is refused' refused include_check src/tensor/a.h '# include "gguf/b.h"'
check 'includes: a name without folder is refused' refused include_check src/base/a.c '#include "b.h"'
check 'includes: an unknown folder is refused' refused include_check src/misc/a.c 'int a;'
check 'deps: silent when all is there, alternatives count' deps "$libraries libopenblas-dev"
check 'deps: names what is missing' deps "${libraries/nettle-dev/}" 'libopenblas-pthread-dev nettle-dev'
check 'ci: sums the steps' ci '9 passed, 0 failed, 2 skipped' 0 '4 passed, 0 failed, 1 skipped' 0 \
    '3 passed, 0 failed, 1 skipped' 0 '2 passed, 0 failed, 0 skipped' 0
check 'ci: one failure fails it, the rest still runs' ci '8 passed, 1 failed, 0 skipped' 1 \
    '3 passed, 1 failed, 0 skipped' 1 '3 passed, 0 failed, 0 skipped' 0 '2 passed, 0 failed, 0 skipped' 0
check 'ci: a step that ends early is a failure' ci '6 passed, 1 failed, 0 skipped' 1 \
    '4 passed, 0 failed, 0 skipped' 0 'no compiler' 2 '2 passed, 0 failed, 0 skipped' 0
