#!/usr/bin/env bash
# `run --record-trace` on the demo model and `cache-sim` on what it wrote: tables, CSV, JSON and the chart say the same, and
# what is wrong is told in one line.
# shellcheck disable=SC2016 # awk programs
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1
. tests/testing.sh
# Field $3 of the CSV's row with memory share $1 and policy $2.
field() { awk -F, -v m="$1" -v p="$2" -v c="$3" '$3 == m && $4 == p { print $c }' "$dir/out"; }

# ---- a real run; the model is whole, so its units are experts ----
run run models/demo-olmoe-q8_0.gguf -p 'The old house' -n 40 --seed 1 --record-trace "$dir/run.trace"
check 'a run is recorded' exits 0
check 'with its shape' grep -q '^# moeprism record 1 layers=4 experts=32 parts=1 bytes=' "$dir/run.trace"
run cache-sim --trace "$dir/run.trace" --memory 50%,100%,25% --policy lru,belady,adaptive -o csv
check 'caps ascend, policies stay as asked' [ "$(awk -F, 'NR > 1 { printf "%s:%s ", $3 + 0, $4 }' "$dir/out")" = \
    '0.25:lru 0.25:belady 0.25:adaptive 0.5:lru 0.5:belady 0.5:adaptive 1:lru 1:belady 1:adaptive ' ]
check 'the best policy is the best' [ "$(field 0.5000 belady 8)" -lt "$(field 0.5000 lru 8)" ]
check 'the default is not worse than LRU' [ "$(field 0.5000 adaptive 8)" -le "$(field 0.5000 lru 8)" ]
check 'all in memory: each is read once' [ "$(field 1.0000 lru 8)" -eq "$(field 1.0000 belady 8)" ]

# ---- by hand: sub-experts 0 and 1, then 2, then 1, then 2 and 3 ----
cat >"$dir/hand" <<END
# moeprism record 1 layers=1 experts=2 parts=2 bytes=1048576
0 0 1 experts 0 subs 0 1
1 0 1 experts 1 subs 2
2 0 1 experts 0 subs 1
3 0 1 experts 1 subs 2 3
END
run cache-sim --trace "$dir/hand" --memory 2M --policy lru --bandwidth 1G --latency 1000
check 'sub-experts: 4 of 6 are read' prints '^sub-experts +2.00 MiB +50.0 % +lru +33.33 % +1 +1.0 +1.98$'
check 'experts: all 4 are read' prints '^experts +2.00 MiB +50.0 % +lru +0.00 % +2 +1.0 +2.95$'
run cache-sim --trace "$dir/hand" --units experts -o json --memory 4M
check 'JSON of one kind of unit' [ "$(grep -c '"units": "experts"' "$dir/out")" -eq 6 ]
check 'and no other' [ "$(grep -c '"units"' "$dir/out")" -eq 6 ]
cp "$dir/out" "$dir/first"
run cache-sim --trace "$dir/hand" --units experts -o json --memory 4M
check 'same input, same JSON' cmp "$dir/out" "$dir/first"
run cache-sim --trace "$dir/hand" --memory 50%,75%,100% --plot "$dir/x.svg"
check 'a chart' grep -q '^</svg>$' "$dir/x.svg"
check 'with a line for each policy and kind' [ "$(grep -c '<g fill="none"' "$dir/x.svg")" -eq 12 ]
check 'that is XML' python3 -c 'import sys, xml.dom.minidom; xml.dom.minidom.parse(sys.argv[1])' "$dir/x.svg"

# ---- what is wrong ----
run cache-sim
check 'no record' failed_with 2 "'--trace' is required"
run cache-sim --trace "$dir/none"
check 'a file that is not there' failed_with 1 'none'
run cache-sim --trace tests/test_cache_sim.sh
check 'a file that is none' failed_with 1 'line 1: a record begins with'
echo '4 0 1 experts 0 subs 3' >>"$dir/hand"
run cache-sim --trace "$dir/hand"
check 'a wrong line' failed_with 1 'line 6: sub-expert 3 belongs to none of the experts'
sed -i '$d' "$dir/hand"
run cache-sim --trace "$dir/hand" --memory 25%
check 'too little memory: what would do' failed_with 1 'it takes 2097152 bytes, 50.0 % of all'
for memory in 0 120% 5x '1M,'; do
    run cache-sim --trace "$dir/hand" --memory "$memory"
    check "--memory '$memory'" failed_with 1 '--memory takes sizes'
done
run cache-sim --trace "$dir/hand" --memory 50% --policy fifo
check 'a policy that is not there' failed_with 1 "no cache policy 'fifo'; there are: adaptive"
run cache-sim --trace "$dir/hand" --memory 50% --bandwidth fast
check 'a bandwidth that is none' failed_with 1 '--bandwidth takes'
run cache-sim --trace "$dir/hand" --memory 50% --plot "$dir/none/x.svg"
check 'a chart that cannot be written' failed_with 1 'none/x.svg'

echo "1..$n"
