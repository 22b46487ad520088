#!/usr/bin/env bash
# The whole way, some minutes on two cores: split the demo model, measure its curve beside the original's, generate with it.
#
#   make demo, or scripts/demo.sh at the top of the tree; B=folder of the build (default build)
set -euo pipefail
cd "$(dirname "$0")/.."

B=${B:-build}
out=$B/demo
original=models/demo-olmoe-q8_0.gguf
prism=$out/demo-prism.gguf
prompt='Alice looked at the door, and'

step() { printf '\n== %s\n' "$*"; }
# Shows the command, then runs it.
show() {
    printf '$ %s' "${1##*/}"
    printf ' %q' "${@:2}"
    printf '\n'
    "$@"
}

scripts/deps.sh build
make B="$B" all
mkdir -p "$out"
moeprism=$B/moeprism

step 'Split every expert into sub-experts and measure the ladder'
show "$moeprism" refactor "$original" -o "$prism" --calibration models/calibration.txt --eval models/heldout.txt --force

step 'The curve on held-out text, beside the original model'
show "$moeprism" eval "$prism" --text models/heldout.txt -c 256 --max-tokens 32768 --points all --against "$original" \
    --json "$out/curve.json" --html "$out/curve.html"

step 'Text at full expert compute'
show "$moeprism" run "$prism" -p "$prompt" -n 100 --temp 0.8 --top-p 0.9 --seed 1

step 'The same prompt at a quarter of it'
show "$moeprism" run "$prism" -p "$prompt" -n 100 --temp 0.8 --top-p 0.9 --seed 1 --compute 0.25

step 'Files'
echo "split model   $prism"
echo "curve         $out/curve.json"
echo "report        $out/curve.html (open it in a browser, it needs no network)"
