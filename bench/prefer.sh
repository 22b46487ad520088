#!/usr/bin/env bash
# What --prefer-resident costs and saves: the OLMoE demo model, split, at half of the expert compute, token by token on
# held-out text, under caps of 25, 50 and 75 % of the experts.
#
#   bench/prefer.sh [TOKENS]      default 6144; writes docs/results/prefer.md and .csv. Needs jq.
set -euo pipefail
cd "$(dirname "$0")/.."

B=${B:-build} tokens=${1:-6144} out=docs/results/prefer
command -v jq >/dev/null || { echo "prefer.sh: needs jq (Debian: apt-get install jq)" >&2; exit 1; }
mkdir -p "$B/bench-models" docs/results
make B="$B" all >&2
artifact=$B/bench-models/cache-demo-olmoe-q8_0.gguf # as of cache.sh
[ -f "$artifact" ] || "$B/moeprism" refactor models/demo-olmoe-q8_0.gguf -o "$artifact" \
    --calibration models/calibration.txt --max-tokens 8192 >&2

echo "memory,bound,tokens,ppl,ppl_se,kl_mean,hit_rate,bytes_per_token,replaced" >"$out.csv"
for cap in 25 50 75; do
    for bound in 0.000001 0.3 0.5 0.7 0.85; do # the first replaces nothing, but runs token by token as well
        "$B/moeprism" eval "$artifact" --text models/heldout.txt --points 4 --memory "$cap%" --prefer-resident "$bound" \
            --max-tokens "$tokens" --json |
            jq -r --arg cap "$cap" --arg bound "$bound" '.tokens as $n | .points[0] |
                "\($cap),\($bound),\($n),\(.ppl),\(.ppl_se),\(.kl_mean),\(.hit_rate),\(.bytes_read),\(.swap_share)"' >>"$out.csv"
    done
done
{
    echo "# Sub-experts in memory before those on disk"
    echo
    echo "\`--prefer-resident\` on models/demo-olmoe-q8_0.gguf, N = 32, at half of the expert compute, eviction lfru (the default with it): perplexity and"
    echo "KL to the full model over $(awk -F, 'NR == 2 { print $3 }' "$out.csv") held-out tokens, one a step; bytes read a token. Made by bench/prefer.sh."
    echo
    echo "| memory | bound | perplexity | over off | KL | in memory | read a token, KiB | fewer bytes | replaced |"
    echo "|---|---|---|---|---|---|---|---|---|"
    awk -F, 'NR > 1 { if ($2 < 0.001) { ppl[$1] = $4; bytes[$1] = $8 }
        printf "| %d %% | %s | %.3f ± %.2f | %+.2f %% | %.4f | %.1f %% | %.0f | %.0f %% | %.1f %% |\n", $1, $2 < 0.001 ? "off" : $2, $4, $5,
            100 * ($4 / ppl[$1] - 1), $6, 100 * $7, $8 / 1024, 100 * (1 - $8 / bytes[$1]), 100 * $9 }' "$out.csv"
} | tee "$out.md"
