#!/usr/bin/env bash
# The comparison of methods on the demo model: docs/results/method.md and method.csv. About half an hour on two cores.
#
#   bench/method.sh [VARIANT...]    all of them without arguments (see bench/method.c)
set -euo pipefail
cd "$(dirname "$0")/.."

B=${B:-build}
results=docs/results
work=$B/method
[ $# -gt 0 ] && results=$work/results
mkdir -p "$work" "$results"
make B="$B" "$B/bench/method" >&2

cpu=$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1)
{
    cat <<EOF
# Methods on the demo model

Perplexity on 16384 tokens of models/heldout.txt, spread over it, at context 256 (and over the full model's), interpolated
at equal shares of the expert compute. Gate: its own share, not included. Seconds: refactoring without the curve.
Model models/demo-olmoe-q8_0.gguf, calibration models/calibration.txt, seed 0; $(date -u +%Y-%m-%d), $(nproc) cores of
$cpu. Made by bench/method.sh.

EOF
    "$B/bench/method" models/demo-olmoe-q8_0.gguf models/calibration.txt models/heldout.txt "$work" "$@"
} | tee "$work/method.md"
cp "$work/method.md" "$work/method.csv" "$results/"
