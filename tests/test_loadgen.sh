#!/usr/bin/env bash
# The load generator against a scripted server: what it sends, what it makes of replies, refusals, broken streams and
# servers that are not there. Needs python3 for the server.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1
. tests/testing.sh
if ! command -v python3 >/dev/null; then
    printf '1..1\nok 1 # SKIP python3 is not there: it runs the scripted server\n'
    exit 0
fi
server=
trap '[ -z "$server" ] || kill "$server" 2>/dev/null; rm -rf "$dir"' EXIT

python3 tests/openai_server.py "$dir/log" >"$dir/port" 2>"$dir/server.err" &
server=$!
for ((i = 0; i < 200; i++)); do
    [ -s "$dir/port" ] && break
    sleep 0.1
done
url=http://127.0.0.1:$(cat "$dir/port")

run() {
    : >"$dir/log"
    "$moeprism" loadgen "$@" >"$dir/out" 2>"$dir/err" </dev/null
    status=$?
}

# A condition of python on `r`, the JSON on standard output, and `log`, the bodies that the server saw.
holds() {
    python3 - "$dir/out" "$dir/log" "$1" <<'PYTHON'
import json, sys
r = json.load(open(sys.argv[1]))
log = [json.loads(line) for line in open(sys.argv[2])]
assert eval(sys.argv[3]), (sys.argv[3], r, log[:3])
PYTHON
}
exits() { [ "$status" -eq "$1" ]; }
says() { grep -qF -- "$1" "$dir/err"; }
prints() { grep -qE -- "$1" "$dir/out"; }

# ---- what is sent ----
run --url "$url/" --rate 200 -n 20 --prompt-tokens 5-9 --output-tokens 2-4 --json
check 'all are served' exits 0
check 'every request comes to its end' holds 'r["done"] == 20 and r["failed"] == 0 and r["unfinished"] == 0'
check 'the model is the first that the server lists' holds 'r["model"] == "scripted-model" and all(q["model"] == "scripted-model" for q in log)'
check 'prompts are ids, as many as asked for' holds 'all(5 <= len(q["prompt"]) <= 9 and all(0 <= i < 8192 for i in q["prompt"]) for q in log)'
check 'prompts differ' holds 'len({str(q["prompt"]) for q in log}) == 20'
check 'outputs are fixed and streamed' holds 'all(2 <= q["max_tokens"] <= 4 and q["ignore_eos"] and q["stream"] and q["stream_options"]["include_usage"] for q in log)'
check 'nothing that other servers do not know' holds 'all("moeprism" not in q for q in log)'
check 'tokens are counted' holds 'abs(r["output_tokens_per_s"] * r["seconds"] - sum(q["max_tokens"] for q in log)) < 0.01'
check 'latencies are there' holds '20 <= r["ttft_ms"]["p50"] <= r["ttft_ms"]["p99"] <= r["end_to_end_ms"]["p99"] and r["tpot_ms"]["p50"] >= 1'

cp "$dir/log" "$dir/first"
run --url "$url" --rate 400 -n 20 --prompt-tokens 5-9 --output-tokens 2-4 --json
check 'the same seed, the same prompts at any rate' cmp <(sort "$dir/log") <(sort "$dir/first")

printf 'key\nmore\n' >"$dir/key"
run --url "$url" --rate 100 -n 5 --endpoint chat --model other --api-key-file "$dir/key" --json
check 'chat: messages, the model and the key' holds 'r["done"] == 5 and all(q["path"] == "/v1/chat/completions" and q["model"] == "other" and q["messages"][0]["role"] == "user" and q["authorization"] == "Bearer key" for q in log)'
check 'chat: the role is no first token' holds 'r["ttft_ms"]["p50"] >= 20'

# ---- floors ----
run --url "$url" --rate 200 -n 30 --floors uniform:1,0.5 --ttft-ms 5000 --tpot-ms 2500.5 --output-tokens 2 --json
check 'floors and deadlines go along' holds '{q["moeprism"]["min_compute"] for q in log} == {1, 0.5} and all(q["moeprism"]["ttft_ms"] == 5000 and q["moeprism"]["tpot_ms"] == 2500.5 for q in log)'
check 'quality comes back' holds 'r["floor_violations"] == 0 and r["unverified_floors"] == 0 and r["compute_share"] == 0.75 and abs(r["ppl_increase"] - 0.01) < 1e-6'
check 'deadlines are judged' holds 'r["goodput_per_s"] == r["requests_per_s"]'
run --url "$url" --rate 200 -n 4 --floors uniform:0.5 --plain --output-tokens 2 --json
check '--plain sends none' holds 'all("moeprism" not in q for q in log)'
run --url "$url" --rate 200 -n 4 --quality --output-tokens 2 --json
check '--quality sends full' holds 'all(q["moeprism"]["min_compute"] == 1 for q in log)'
printf 'arrival_s,prompt_tokens,output_tokens,floor,ttft_ms,tpot_ms\n0,3,2,point:3,,\n0,3,2,point:2,,\n0,3,66,point:4,,\n0,3,67,0.5,,\n' >"$dir/t.csv"
run --url "$url" --trace "$dir/t.csv" --json
check 'floors that were not kept are counted, of a mapping too dear as well' holds 'r["floor_violations"] == 2 and r["unverified_floors"] == 1'
check 'and said' says 'they are not verified'

# ---- what goes wrong ----
printf 'arrival_s,prompt_tokens,output_tokens,floor,ttft_ms,tpot_ms\n0,3,2,,,\n0,3,503,,,\n0.01,3,400,,,\n0.02,3,13,,,\n0.03,3,14,,,\n' >"$dir/t.csv"
run --url "$url" --trace "$dir/t.csv" --json
check 'refused and failed ones do not end it' holds 'r["done"] == 1 and r["refused"] == 1 and r["failed"] == 3'
check 'the first failure is told' says 'max_tokens is silly'
run --url "$url" --trace "$dir/t.csv"
check 'the table' prints '^refused +1$'
printf 'arrival_s,prompt_tokens,output_tokens,floor,ttft_ms,tpot_ms\n0,3,13,,,\n' >"$dir/t.csv"
run --url "$url" --trace "$dir/t.csv"
check 'all failed: status 1' exits 1
check 'and the reason' says 'the stream ended in the middle'

# Open loop: while one request takes a second, the others come and go.
printf 'arrival_s,prompt_tokens,output_tokens,floor,ttft_ms,tpot_ms\n0,3,900,,,\n0.05,3,1,,,\n0.1,3,1,,,\n0.15,3,1,,,\n' >"$dir/t.csv"
run --url "$url" --trace "$dir/t.csv" --json
check 'arrivals do not wait for replies' holds 'r["end_to_end_ms"]["p50"] < 500 < 900 <= r["end_to_end_ms"]["p99"] / 0.95'

# Ctrl-C: what there is.
"$moeprism" loadgen --url "$url" --rate 5 -n 1000 --output-tokens 2 --json >"$dir/out" 2>"$dir/err" </dev/null &
pid=$!
while [ "$(wc -l <"$dir/log")" -lt 8 ] && kill -0 "$pid"; do sleep 0.1; done
kill -INT "$pid"
wait "$pid"
status=$?
check 'Ctrl-C prints what there is' holds 'r["done"] >= 1 and r["unfinished"] + r["offered"] == 1000'
check 'and says so' says 'are left out'

kill "$server"
wait "$server" 2>/dev/null
server=
run --url "$url" --rate 100 -n 3
check 'nobody there: status 1' exits 1
check 'one line that says so' says 'all 3 requests to'
run --url localhost --rate 1
check 'a URL without http: usage' exits 2
run --url "$url"
check 'no load: usage' exits 2

echo "1..$n"
