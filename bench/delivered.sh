#!/usr/bin/env bash
# shellcheck disable=SC1091,SC2016,SC2154 # server.bash, which sets what is used here; variables of jq and of an inner shell
# Is the quality that a server under load delivers the quality that it accounts for? Held-out text goes to the elastic server
# as prompts to be scored (/v1/completions with echo and logprobs: teacher forcing), with floors of all kinds, first few at a
# time, then more than there are slots, so that it runs at mixed points; and once more all of it at full. What the text's
# log probability lost by that is held against the sum of what the curve says of the points that ran, which every
# reply tells (usage.moeprism.ppl_increase). They agree if they differ by no more than one standard error of that difference,
# the curve's own and the measurement's. A run in which fewer than a quarter of the windows ran at several points has not
# tried what it is about: it fails and writes nothing.
#
#   bench/delivered.sh [WINDOWS]      of 255 tokens each, default 240; writes docs/results/delivered.md, .csv
#
# Environment: MODEL (a split one with a curve; default: the demo model, split here), OUT, THREADS.
set -euo pipefail
cd "$(dirname "$0")/.."

B=${B:-build}
OUT=${OUT:-docs/results/delivered}
moeprism=$B/moeprism
model=${MODEL:-$B/bench-models/demo-measured.gguf}
windows=${1:-240} length=255
command -v jq >/dev/null || { echo "$0: needs jq (Debian: apt-get install jq)" >&2; exit 1; }
make B="$B" all >&2
mkdir -p "$B/bench-models" "$(dirname "$OUT")"
[ -f "$model" ] || "$moeprism" refactor models/demo-olmoe-q8_0.gguf -o "$model" --calibration models/calibration.txt \
    --eval models/heldout.txt >&2

. bench/server.bash
start_server "$model" ${THREADS:+-t "$THREADS"} --slots 8 -c $((length + 1)) --queue 64
curl -sf "$url/props" | jq -e 'all(.ladder[]; .measured)' >/dev/null || {
    echo "$0: the curve of $model was not measured: refactor --eval measures it" >&2
    exit 1
}

# ---- requests: one a line, evenly spread over the text; floors in turn ----
jq -Rs '{content: .}' models/heldout.txt | curl -sf "$url/tokenize" --data-binary @- >"$dir/text.json"
requests() { # jq's expression of the quality asked for, of window $i
    jq -c --argjson n "$windows" --argjson length "$length" '.tokens as $ids | ($ids | length) as $all |
        range([$n, ($all / $length | floor)] | min) as $i |
        (($all - $length) * $i / $n | floor) as $at |
        {prompt: $ids[$at:$at + $length], max_tokens: 1, temperature: 0, ignore_eos: true, echo: true, logprobs: 0,
         moeprism: '"$1"'}' "$dir/text.json"
}
requests '{point: 0}' >"$dir/full"
requests '{min_compute: [1, 0.75, 0.5, 0.25, 0.125][$i % 5]}' >"$dir/mixed"

# serve NAME SIDE FROM TO: lines FROM to TO of file NAME, SIDE at a time; replies land in $dir/NAME.LINE.
serve() {
    seq "$3" "$4" | xargs -P "$2" -I LINE sh -c 'sed -n "LINE p" "$1/$2" | curl -sf "$3/v1/completions" --data-binary @- -o "$1/$2.LINE"' \
        serve "$dir" "$1" "$url"
}
n=$(wc -l <"$dir/full")
serve full 8 1 "$n"
serve mixed 4 1 $((n / 2))
serve mixed 16 $((n / 2 + 1)) "$n"

# ---- what they lost, what they were said to lose ----
curve_tokens() { "$moeprism" info --json "$model" | jq '.. | .eval_tokens? // empty'; }
row() { # reply: tokens, sum of log probabilities, points, loss a token by the curve
    jq -r --argjson length "$length" '(.choices[0].logprobs.token_logprobs[1:$length]) as $p | .usage.moeprism |
        [($p | length), ($p | add), .points[0], .points[1], .compute_floor, .compute_share, (.ppl_increase + 1 | log)] |
        map(tostring) | join(",")' "$1"
}
{
    echo "window,side,tokens,logprob_full,logprob,best_point,worst_point,share_floor,share,promised"
    for ((i = 1; i <= n; i++)); do
        full=$(row "$dir/full.$i" | cut -d, -f2)
        side=$((i <= n / 2 ? 4 : 16))
        row "$dir/mixed.$i" | awk -v i="$i" -v side="$side" -v full="$full" -F, -v OFS=, \
            '{ print i, side, $1, full, $2, $3, $4, $5, $6, $7 }'
    done
} >"$dir/delivered.csv"
counts=true
{
    echo "# Quality that was delivered"
    echo
    echo "$(basename "$model") under the elastic server, $n windows of $length tokens of held-out text scored by it (bench/delivered.sh,"
    echo "$(date -u +%Y-%m-%d)). Delivered: what the text's log probability lost beside the same windows at full. Promised: what the"
    echo "curve says of the points that ran, token by token. The measurement's error is the standard error of the difference over windows."
    echo
    awk -F, -v curve_tokens="$(curve_tokens)" -f bench/delivered.awk "$dir/delivered.csv"
} >"$dir/delivered.md" || counts=false
cat "$dir/delivered.md"
if ! $counts; then
    echo "$0: FAILED: too few windows ran at several points, $OUT.* stay as they were" >&2
    exit 1
fi
mv "$dir/delivered.csv" "$OUT.csv"
mv "$dir/delivered.md" "$OUT.md"
