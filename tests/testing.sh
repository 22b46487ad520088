# shellcheck shell=bash
# shellcheck disable=SC2034 # what it leaves in variables is for those who source it
# What test scripts share: a folder of their own, $dir, and results as TAP. To be sourced at the top of the tree.
moeprism=${MOEPRISM:-build/moeprism}
model=models/demo-olmoe-q8_0.gguf
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT

n=0
# check NAME COMMAND...: a test that holds if the command succeeds. Of one that does not, what the command said is shown
# and what lies in the usual files.
check() {
    local name=$1 file
    shift
    n=$((n + 1))
    if "$@" >"$dir/check" 2>&1; then
        echo "ok $n - $name"
    else
        echo "not ok $n - $name"
        for file in check out err server.err refusal; do
            [ ! -s "$dir/$file" ] || head -n 12 "$dir/$file" | sed "s/^/# $file: /"
        done
    fi
}

# run ARGUMENT...: the program, its output, messages and status kept for the checks below.
run() {
    "$moeprism" "$@" >"$dir/out" 2>"$dir/err" </dev/null
    status=$?
}
exits() { [ "$status" -eq "$1" ]; }
prints() { grep -qE -- "$1" "$dir/out"; }
failed_with() { # status, part of the one line
    [ "$status" -eq "$1" ] && [ "$(wc -l <"$dir/err")" -eq 1 ] && grep -qF -- "$2" "$dir/err" && [ ! -s "$dir/out" ]
}
