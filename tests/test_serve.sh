#!/usr/bin/env bash
# moeprism serve as an operator and a client with curl see it: starting, answering, refusing, stopping.
# shellcheck disable=SC2016,SC2034 # conditions in single quotes are for eval
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1
. tests/serve_testing.sh

if ! command -v curl >/dev/null; then
    echo '1..1'
    echo 'ok 1 - the server # SKIP curl is not installed'
    exit 0
fi

replied() { [ "$code" = "$1" ] && grep -qF -- "$2" "$dir/out"; }
header_has() { tr -d '\r' <"$dir/headers" | grep -qixF -- "$1"; }
# refuses STATUS "part of the reply" PATH [BODY [CURL OPTIONS]]
refuses() {
    local want=$1 part=$2
    shift 2
    ask "$@"
    check "$want: $1 ${2:-} : $part" replied "$want" "$part"
}

# ---- what stops it from starting ----
fails() { # "part of the message" OPTIONS
    local part=$1
    shift
    "$moeprism" serve "$model" "$@" >"$dir/out" 2>"$dir/refusal"
    status=$?
    check "does not start: $* : $part" eval '[ $status -ne 0 ] && grep -qF -- "$part" "$dir/refusal" && [ ! -s "$dir/out" ]'
}
printf 'slots = 2 # two\n\n# comment\nportt = 1\n' >"$dir/typo.conf"
printf 'slots = many\n' >"$dir/value.conf"
printf 'slots\n' >"$dir/form.conf"
printf 'no-mmap = maybe\n' >"$dir/flag.conf"
: >"$dir/nokeys"
fails "'--port' takes a whole number from 0 to 65535" --port 65536
fails 'one of elastic, fifo' --policy best
fails 'nothing/keys' --api-key-file "$dir/nothing/keys" --port 0
fails 'holds no key' --api-key-file "$dir/nokeys" --port 0
fails "typo.conf:4: unknown option 'portt'; did you mean 'port'?" --config "$dir/typo.conf"
fails "value.conf:1: option '--slots' takes a whole number" --config "$dir/value.conf"
fails "form.conf:1: a line is 'name = value'" --config "$dir/form.conf"
fails 'true or false' --config "$dir/flag.conf"
fails 'nothing.conf' --config "$dir/nothing.conf"
fails 'cannot listen on nohost.invalid' --host nohost.invalid
fails "--floor: 'most' is no quality" --floor most --port 0 --cost "$dir/cost.json"
fails 'there is no chat template "nope"' --chat-template nope --port 0 --cost "$dir/cost.json"

# ---- a server with a configuration file ----
printf 'slots = 2\nqueue = 1\nalias = from-file\nchat-template = chatml\nfloor = medium\n' >"$dir/good.conf"
check 'starts and says where' start --config "$dir/good.conf" --alias from-line
fails 'another program has it (--port chooses another)' --port "$port"

ask /health
check '/health' replied 200 '{"status":"ok","slots":2,"running":0,"waiting":0}'
ask /v1/models
check '/v1/models, and the command line wins over the file' replied 200 '"id":"from-line"'
ask /props
check '/props tells the configuration' eval 'replied 200 "\"floor\":4" && grep -q "\"slots\":2,\"queue\":1" "$dir/out"'
check '/props tells the ladder and its levels' \
    eval 'grep -q "\"ladder\":\[{\"point\":0,\"experts\":8.0," "$dir/out" && grep -q "\"levels\":{\"low\":6,\"medium\":4,\"high\":2,\"full\":0}" "$dir/out"'
ask /metrics
check '/metrics' eval 'replied 200 "# TYPE moeprism_" && header_has "content-type: text/plain; version=0.0.4; charset=utf-8"'
ask /
check 'the page' eval 'replied 200 "<!DOCTYPE html>" && grep -qi "^content-security-policy: default-src .none" "$dir/headers"'
etag=$(tr -d '\r' <"$dir/headers" | sed -n 's/^etag: //ip')
ask / '' -H "If-None-Match: $etag"
check 'a page that is known is not sent again' [ "$code" = 304 -a ! -s "$dir/out" ]
ask /tokenize '{"content":"The old lighthouse"}'
ids=$(grep -o '\[[0-9,]*\]' "$dir/out")
check '/tokenize' replied 200 '"count":4'
ask /detokenize "{\"tokens\":$ids}"
check '/detokenize gives the text back' replied 200 '{"content":"The old lighthouse"}'
ask /health '' -I
check 'HEAD has no body' eval 'header_has "content-length: 50" && ! grep -q status "$dir/out"'

ask /v1/chat/completions '{"messages":[{"role":"user","content":"hi"}],"max_tokens":4,"temperature":0}'
check 'a chat' replied 200 '"object":"chat.completion"'
check 'which accounts for its quality' grep -q '"moeprism":{"experts_mean":[0-9.]*,"experts_floor":4.0,' "$dir/out"
ask /v1/chat/completions '{"messages":[{"role":"user","content":"hi"}],"max_tokens":4,"stream":true,"ignore_eos":true}'
check 'a stream: role first, [DONE] last' eval 'header_has "content-type: text/event-stream; charset=utf-8" &&
    head -n 1 "$dir/out" | grep -q "^data: .*\"role\":\"assistant\"" && tail -n 2 "$dir/out" | head -n 1 | grep -qx "data: \[DONE\]"'
ask /v1/messages '{"messages":[{"role":"user","content":"hi"}],"max_tokens":4,"stream":true}'
check 'a stream of messages' eval '[ "$(grep ^event: "$dir/out" | sort -u | tr -d "\n")" = "event: content_block_deltaevent: content_block_startevent: content_block_stopevent: message_deltaevent: message_startevent: message_stopevent: ping" ]'
ask /v1/completions '{"prompt":"x","max_tokens":4,"temperature":0,"moeprism":{"point":3}}'
check 'a fixed point is used, and no other' replied 200 '"points":[3,3],"floor_point":3'
one_after_another() {
    local i
    for i in {1..8}; do
        ask /v1/completions "{\"prompt\":\"$i$(printf ' word%.0s' {1..70})\",\"max_tokens\":12,\"moeprism\":{\"min_compute\":0.25}}"
        replied 200 '"compute_share":1.0,"compute_floor":0.25,' && grep -q '"points":\[0,0\],"floor_point":6' "$dir/out" || return
    done
}
check 'an idle server answers at full, whatever the floor' one_after_another

ask /v1/completions '{"prompt":"The old lighthouse","max_tokens":1,"echo":true,"logprobs":1,"ignore_eos":true}'
check 'the log probabilities of an echoed prompt: of all its tokens but the first' \
    eval 'replied 200 "\"text\":\"The old lighthouse" && grep -q "\"token_logprobs\":\[null,\(-[0-9.e-]*,\)\{3\}-[0-9.e-]*\],\"top_logprobs\":\[null,{" "$dir/out"'

# ---- refusals ----
refuses 400 '"param":"temperature"' /v1/chat/completions '{"messages":[{"role":"user","content":"hi"}],"temperature":"x"}'
refuses 400 '"type":"invalid_request_error"' /v1/messages '{"messages":[]}'
refuses 400 'not valid JSON' /v1/completions '{"prompt":NaN}'
refuses 400 'the body is empty' /v1/completions '' -X POST
refuses 400 'has room for 255' /v1/completions "{\"prompt\":\"$(printf ' word%.0s' {1..400})\"}"
head -c 600000 /dev/zero | tr '\0' 'a' >"$dir/a"
printf '{"content":"%s"}' "$(cat "$dir/a")" >"$dir/much"
refuses 400 'content has 600000 bytes of text, more than the 524288' /tokenize '' --data-binary "@$dir/much"
ask /tokenize '{"content":" lighthouse"}'
id=$(grep -o '\[[0-9]*' "$dir/out") # of its first token, several bytes long
{
    printf '{"tokens":[%s' "${id#[}"
    yes ",${id#[}" | head -n 300000 | tr -d '\n'
    printf ']}'
} >"$dir/ids"
refuses 400 'bytes of text, more than the 524288' /detokenize '' --data-binary "@$dir/ids"
printf '{"prompt":["","%s"]}' "$(cat "$dir/a")" >"$dir/much"
refuses 400 'prompt has 600000 bytes of text' /v1/completions '' --data-binary "@$dir/much"
refuses 404 '"code":"not_found"' /v2/nothing
refuses 404 '"code":"model_not_found"' /v1/models/nothing
refuses 405 '"code":"method_not_allowed"' /v1/completions
check 'which names what is allowed' header_has 'allow: POST, OPTIONS'
refuses 403 '"code":"wrong_host"' /v1/models '' -H 'Host: rebound.example'
refuses 403 '"code":"wrong_origin"' /v1/completions '{"prompt":"x"}' -H 'Origin: http://page.example'
refuses 403 '"code":"wrong_origin"' /v1/completions '{"prompt":"x"}' -H 'Origin: null'
ask /v1/models '' -H "Origin: http://127.0.0.1:$port"
check 'the page of this server may ask' [ "$code" = 200 ]
check 'and no other reads the answers' sh -c "! grep -qi '^access-control' '$dir/headers'"

# ---- a full queue ----
long='{"prompt":"The old","max_tokens":250,"ignore_eos":true,"stream":true}'
come_in_a_crowd 6 /v1/completions "$long" # more than there is room for
until ask /v1/completions '{"prompt":"x"}' && [ "$code" = 503 ]; do :; done
check 'a full queue: 503' replied 503 '"code":"queue_full"'
check 'with Retry-After' grep -qi '^retry-after: [0-9]' "$dir/headers"
kill "${crowd[@]}"
wait "${crowd[@]}" 2>/dev/null
check 'when clients stay away the slots are free' until_health '"running":0,"waiting":0'
stop
check 'told to stop while nothing runs it ends well' [ "$status" -eq 0 ]

# ---- a slow end ----
# One request of many prompts, which keeps the slots busy for as long as the test looks at them.
many="{\"prompt\":[\"a\"$(printf ',"a"%.0s' {1..99})],\"max_tokens\":250,\"ignore_eos\":true,\"stream\":true}"
check 'starts with a grace' start --slots 2 --queue 300 --grace 1000
curl -sN "$url/v1/completions" -d "$many" >"$dir/stream" &
client=$!
until_health '"running":2'
until_more_wait() { # than NUMBER
    until ask /health && [ "$(grep -o '"waiting":[0-9]*' "$dir/out" | tr -cd 0-9)" -gt "$1" ]; do :; done
}
curl -sN "$url/v1/completions" -d "$many" >"$dir/waits" & # behind the first
waits=$!
until_more_wait 98
curl -s "$url/v1/completions" -d "${many//,\"stream\":true/}" -D "$dir/whole.headers" >"$dir/whole" &
waits_whole=$!
until_more_wait 198
kill -TERM "$pid"
until_health '"status":"stopping"'
ask /v1/completions '{"prompt":"x"}'
check 'told to stop it refuses what is new' replied 503 '"code":"stopping"'
wait "$waits" "$waits_whole"
check 'and what waits: a stream' grep -q '"code":"stopping"' "$dir/waits"
check 'and a whole reply' eval 'grep -q "^HTTP/1.1 503 " "$dir/whole.headers" && grep -q "\"code\":\"stopping\"" "$dir/whole"'
check 'before what runs has ended' kill -0 "$client"
wait "$pid"
check 'and ends well' [ $? -eq 0 ]
wait "$client"
check 'but finishes what runs' eval '[ "$(tail -n 2 "$dir/stream" | head -n 1)" = "data: [DONE]" ]'

check 'starts again' start --slots 2 --queue 100 --grace 1000
curl -sN "$url/v1/completions" -d "$many" >"$dir/stream" &
client=$!
until_health '"running":2'
kill -TERM "$pid"
until_health '"status":"stopping"'
kill -TERM "$pid"
wait "$pid"
check 'a second signal ends it' [ $? -eq 0 ]
wait "$client"
check 'and the stream says so' grep -q '"code":"stopping"' "$dir/stream"

# ---- keys, origins ----
printf '# for tests\none-key\nother-key\n' >"$dir/keys"
check 'starts again with keys' start --api-key-file "$dir/keys" --cors-origin https://app.example,http://b.example
refuses 401 '"code":"invalid_api_key"' /v1/models
refuses 401 '"code":"invalid_api_key"' /v1/completions '{"prompt":"x"}' -H 'Authorization: Bearer one-ke'
refuses 401 '"type":"authentication_error"' /v1/messages '{}' -H 'x-api-key: wrong'
ask /v1/models '' -H 'Authorization: Bearer other-key'
check 'a key in Authorization' [ "$code" = 200 ]
ask /v1/models '' -H 'x-api-key: one-key'
check 'a key in x-api-key' [ "$code" = 200 ]
ask /health
check '/health needs none' [ "$code" = 200 ]
ask /v1/chat/completions '' -X OPTIONS -H 'Origin: https://app.example' -H 'Access-Control-Request-Method: POST' \
    -H 'Access-Control-Request-Headers: authorization'
check 'preflight' eval '[ "$code" = 204 ] && header_has "access-control-allow-origin: https://app.example" &&
    header_has "access-control-allow-headers: authorization"'
ask /v1/models '' -H 'Origin: http://b.example' -H 'x-api-key: one-key'
check 'an allowed origin reads the answer' header_has 'access-control-allow-origin: http://b.example'
ask /v1/chat/completions '{"messages":[{"role":"user","content":"hi"}]}' -H 'x-api-key: one-key'
check 'a model without chat template says what to do' replied 400 '--chat-template'

stop

# ---- killed, and another start on the same port: one that nobody gets by chance ----
files() { ls -A "$dir" "$(dirname "$model")"; }
until start --slots 2 --queue 100 --port $((20000 + RANDOM % 10000)); do :; done
curl -sN "$url/v1/completions" -d "$many" >"$dir/stream" &
client=$!
until_health '"running":2'
come_in_a_crowd 4 /v1/completions "$long"
before=$(files)
kill -9 "$pid"
wait "$pid" 2>/dev/null
wait "$client"
check 'killed in the middle of a stream: its client is told' [ $? -ne 0 ]
wait "${crowd[@]}" # a crowd ends with its server
check 'no file is left behind' [ "$(files)" = "$before" ]
check 'it starts on the same port' start --port "$port"
ask /v1/completions '{"prompt":"The old","max_tokens":4,"ignore_eos":true}'
check 'and answers' replied 200 '"completion_tokens":4'
stop
check 'and ends well' [ "$status" -eq 0 ]

# ---- no file of step times beside the model, and none is named ----
ln -s "$PWD/$model" "$dir/m.gguf"
model=$dir/m.gguf cost=()
check 'it starts without step times' start --slots 1 --context 64 --batch 64
check 'which it measures briefly, and says so' \
    grep -qF "moeprism: there is no $dir/m.cost.json; step times are measured briefly now" "$dir/server.err"
stop
echo "1..$n"
