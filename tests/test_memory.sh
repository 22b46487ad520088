#!/usr/bin/env bash
# A server whose experts are read from disk, watched from outside: what it holds, and what it does when its file is cut or
# changed.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1
. tests/serve_testing.sh
least=$("$moeprism" info "$model" --json | python3 -c 'import json, sys; print(json.load(sys.stdin)["memory"]["experts_least"])')
cp "$model" "$dir/small.gguf"
"$moeprism" synth --like olmoe-1b-7b --layers 1 --split 32 -o "$dir/large.gguf" >/dev/null 2>&1 || exit 1

# use TEXT: a request that is answered.
use() {
    ask /v1/completions "{\"prompt\":\"$1\",\"max_tokens\":12,\"ignore_eos\":true,\"temperature\":0}"
    [ "$code" = 200 ]
}
use_several() { use 'Once upon a time' && use 'The old man' && use 'In the garden' && use 'It was late'; }

# Bytes of the plan's FIELD, and of the server's memory: at its peak, and of it those that are pages of the model's file.
planned() { "$moeprism" info "$model" --json -c 256 | python3 -c 'import json, sys; print(json.load(sys.stdin)["memory"][sys.argv[1]])' "$1"; }
peak() { awk '/^VmHWM/ { print $2 * 1024 }' "/proc/$pid/status"; }
mapped() {
    awk -v path="$model" '/^[0-9a-f]+-[0-9a-f]+ / { ours = $6 == path } /^Rss:/ && ours { n += $2 * 1024 } END { print n + 0 }' \
        "/proc/$pid/smaps"
}

holds_no_pages_of_the_file() { echo "$(mapped) bytes" && [ "$(mapped)" -eq 0 ]; }
# A quarter of the experts, all else that the plan names, and what any server needs besides: less than three quarters of
# the experts are.
stays_under_its_cap() {
    local experts others plan field
    experts=$(planned weights_experts) others=$(planned weights_other) plan=$((experts / 4 + others))
    for field in kv_cache kv_cache scratch logits; do plan=$((plan + $(planned $field))); done # two slots
    local besides=$((4 << 20))
    [ -z "${SANITIZE:-}" ] || besides=$((plan / 4)) # a sanitizer keeps notes, on memory and for threads
    local most=$((plan + besides))
    echo "peak $(peak), planned $plan, experts $experts, others $others" && [ "$(peak)" -le "$most" ] &&
        [ "$most" -lt $((experts + others)) ]
}

cut() { : >"$model"; }
write_into() { printf x | dd of="$model" bs=1 seek=100 conv=notrunc status=none; }
# By a file of other bytes.
replace() { head -c 100000 /dev/zero >"$dir/other" && mv "$dir/other" "$model"; }
# What is in memory may answer a while.
fails_soon() {
    local word
    for word in {a..z}; do
        ask /v1/completions "{\"prompt\":\"$word $word $word the $word\",\"max_tokens\":8,\"ignore_eos\":true,\"temperature\":0}"
        [ "$code" = 200 ] || break
    done
    [ "$code" = 500 ] && grep -q '"type":"server_error".*"code":"model_file_changed"' "$dir/out"
}
lives() { kill -0 "$pid" && ask /v1/models && [ "$code" = 200 ]; }
is_well() { ask /health && [ "$code" = 200 ]; }
says_so() {
    ask /health && [ "$code" = 503 ] && grep -q '"status":"failed","reason":"the model.s file has changed' "$dir/out" &&
        ! grep -q 'small' "$dir/out" && ask /metrics && grep -qx 'moeprism_model_file_changed 1' "$dir/out" &&
        [ "$(grep -c 'small.gguf: the file has changed while in use.*until the server is started again' "$dir/server.err")" = 1 ] &&
        [ "$(wc -l <"$dir/server.err")" = 1 ]
}
# What has been answered before is in memory, but nothing new is taken on any more; also streams hear it as a status.
refuses() {
    ask "$1" '{"prompt":"a a a the a","messages":[{"role":"user","content":"a"}],"max_tokens":8,"stream":true}'
    [ "$code" = 500 ] && grep -q "$2" "$dir/out"
}
ends_well() { stop && [ "$status" -eq 0 ]; }

# An evaluation that takes long, ended when it has read more than the model has bytes: most of that are experts, again
# and again. Started as a job of its own: an interactive shell would not make it ignore SIGINT.
stops_in_the_middle() {
    local job bytes read
    bytes=$(stat -c %s "$model")
    (trap - INT; exec setsid "$moeprism" eval "$model" --text models/heldout.txt --memory "$least" --io "$1" \
        --token-deadline 1e6) >"$dir/out" 2>"$dir/err" &
    job=$!
    started+=("$job")
    until read=$(awk '/^rchar/ { print $2 }' "/proc/$job/io") && [ "${read:-0}" -gt $((3 * bytes)) ]; do
        kill -0 "$job" || return 1
    done
    kill -INT "$job"
    wait "$job"
    status=$?
    [ "$status" -eq 130 ] && [ ! -s "$dir/out" ]
}

check 'Ctrl-C amid reads by threads' stops_in_the_middle threads
model=$dir/large.gguf
check 'a server starts under a cap' start --context 256 --slots 2 --memory 25%
check 'it answers' use_several
check 'no page of its file is in its memory' holds_no_pages_of_the_file
check 'its memory stays under the cap' stays_under_its_cap
check 'it ends well' ends_well
rm "$model"

# reply NAME...: what the reply has under these names, one in another.
reply() {
    python3 -c 'import functools, json, sys
print(functools.reduce(lambda at, name: at[int(name) if isinstance(at, list) else name], sys.argv[2:], json.load(open(sys.argv[1]))))'         "$dir/out" "$@"
}
# A quarter of the experts is the least, all of them the best: what has not come in time is left out, and told.
told() { reply usage moeprism dropped_subexperts; }
leaves_out() {
    ask /v1/completions '{"prompt":"The old man","max_tokens":12,"ignore_eos":true,"temperature":0,"moeprism":{"min_compute":0.25}}'
    dropped=$(told)
    [ "$code" = 200 ] && [ "$dropped" -gt 0 ] && [ "$(reply usage moeprism experts_floor)" = 2.0 ] &&
        [[ $(reply usage moeprism experts_mean) == [2-7].* ]] &&
        [ "$(reply usage moeprism points 1)" = "$(reply usage moeprism floor_point)" ]
}
leaves_nothing_out() { use 'The old man' && [ "$(told)" = 0 ] && reply choices 0 text >"$dir/exact"; }
is_silent_about_it() { use 'The old man' && ! grep -q dropped "$dir/out" && reply choices 0 text | cmp - "$dir/exact"; }
counts_what_it_left_out() { ask /metrics && grep -qx "moeprism_store_dropped_total $dropped" "$dir/out"; }

model=models/demo-olmoe-q8_0.gguf
check 'a server starts that does not wait for reads' start --context 256 --slots 2 --memory "$least" --io threads \
    --io-depth 1 --token-deadline 1e-6
check 'it leaves out what is late' leaves_out
check 'nothing at a floor of full' leaves_nothing_out
check 'its metrics tell as much' counts_what_it_left_out
check 'it ends well' ends_well
check 'a server starts that waits' start --context 256 --slots 2 --memory "$least"
check 'it says the same, and nothing of it' is_silent_about_it
check 'it ends well' ends_well

model=$dir/small.gguf
change='cut'
for option in '' --no-mmap; do
    cp models/demo-olmoe-q8_0.gguf "$model"
    check "a server starts ${option:-mapped}" start --context 256 --slots 2 --memory "$least" $option
    check 'it answers' use_several
    check 'it is replaced' replace
    check 'it answers all the same' use_several
    check 'and is well' is_well
    check 'it ends well' ends_well
    cp models/demo-olmoe-q8_0.gguf "$model"
    check "another starts ${option:-mapped}" start --context 256 --slots 2 --chat-template chatml --memory "$least" $option
    check 'it answers' use_several
    check 'its file is changed' "$change"
    change=write_into
    check 'requests fail' fails_soon
    check 'it lives' lives
    check 'it says what happened, once' says_so
    check 'it refuses texts' refuses /v1/completions '"type":"server_error".*"code":"model_file_changed"'
    check 'it refuses chats' refuses /v1/chat/completions '"type":"server_error".*"code":"model_file_changed"'
    check 'it refuses messages' refuses /v1/messages '"error":{"type":"api_error".*has changed while in use'
    check 'it has said nothing more' says_so
    check 'it ends well' ends_well
done
cp models/demo-olmoe-q8_0.gguf "$model"
check 'a server starts with everything in memory' start --context 256 --slots 2 --no-mmap
check 'its file is cut' cut
check 'it answers all the same' use_several
check 'it ends well' ends_well
echo "1..$n"
