#!/usr/bin/env bash
# `bench --cost` on the demo model, and `simulate` on what it wrote: reports, traces that come back the same, and what is
# wrong told in one line.
# shellcheck disable=SC2016 # awk programs
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1
. tests/testing.sh
# Column $2 of the table's row $1.
cell() { awk -v row="$1" -v c="$2" 'index($0, row) == 1 { n = split(substr($0, length(row) + 1), f, " "); print f[c] }' "$dir/out"; }

# ---- bench --cost ----
ln -s "$PWD/models/demo-olmoe-q8_0.gguf" "$dir/m.gguf"
run bench "$dir/m.gguf" --cost --slots 4
check 'bench --cost' exits 0
check 'tells the error on steps left out' prints '^all +96 +[0-9.]+ %'
check 'writes beside the model' test -s "$dir/m.cost.json"
run bench "$dir/m.gguf" --cost --slots 2 --json -o "$dir/other.json"
check '--json prints what -o gets' cmp "$dir/out" "$dir/other.json"
run bench "$dir/m.gguf" -o "$dir/x"
check '-o without --cost' failed_with 2 "'--output' goes with --cost"
rm "$dir/m.gguf"

# ---- simulate, without the model ----
load=(--cost "$dir/m.cost.json" --rate 2000 -n 250 --prompt-tokens 8-60 --output-tokens 4-20 --floors 'uniform:1,0.5')
run simulate "${load[@]}" --policy all --save-trace "$dir/t.csv"
check 'all policies, side by side' prints '^ +elastic +fifo +fullbatch +virtual-queues +lanes'
check 'every request is done' [ "$(cell 'done' 1) $(cell 'done' 2) $(cell 'done' 3) $(cell 'done' 4) $(cell 'done' 5)" = "250 250 250 250 250" ]
check 'tells what the work allows' prints '^the work at the floors allows [0-9.]+ requests/s$'
check 'no floor is undercut' [ "$(cell 'floor violations' 1)$(cell 'floor violations' 4)" = 00 ]
check 'the trace is saved' [ "$(wc -l <"$dir/t.csv")" -eq 251 ]
cp "$dir/out" "$dir/first"
run simulate --cost "$dir/m.cost.json" --trace "$dir/t.csv" --policy all
check 'and gives the same when it is replayed' cmp "$dir/out" "$dir/first"
run simulate "${load[@]}" --policy fifo --json
cp "$dir/out" "$dir/first"
run simulate "${load[@]}" --policy fifo --json
check 'same input, same JSON' cmp "$dir/out" "$dir/first"
run simulate "${load[@]}" --queue 5
check 'a short queue refuses' [ "$(cell refused 1)" -gt 0 ]
check 'and all are accounted for' [ "$(($(cell refused 1) + $(cell 'done' 1)))" -eq 250 ]

# ---- what is wrong ----
run simulate --rate 1
check 'no cost file' failed_with 2 "'--cost' is required"
run simulate --cost "$dir/m.cost.json"
check 'no load' failed_with 2 'nothing arrives'
run simulate "${load[@]}" --policy fifo,elastik
check 'a policy that is not there' failed_with 1 "did you mean 'elastic'"
run simulate --cost "$dir/none.json" --rate 1
check 'a file that is not there' failed_with 1 'none.json'
echo '{"moeprism_cost": 2}' >"$dir/bad.json"
run simulate --cost "$dir/bad.json" --rate 1
check 'a file that is none' failed_with 1 "measure again with 'moeprism bench --cost'"
echo '1,1,1,2,,' >>"$dir/t.csv"
run simulate --cost "$dir/m.cost.json" --trace "$dir/t.csv"
check 'a wrong line of a trace' failed_with 1 'line 252: floor'
run simulate --cost "$dir/m.cost.json" --rate 1 --floors point:99
check 'floors of no known kind' failed_with 1 'use full, uniform'
run simulate --cost "$dir/m.cost.json" --rate 1 --floors uniform:point:99
check 'a floor that the ladder does not have' failed_with 1 'there is no operating point 99'
run simulate --cost "$dir/m.cost.json" --rate 1 --prompt-tokens 9-3
check 'a range that is none' failed_with 1 "'--prompt-tokens' takes"

echo "1..$n"
