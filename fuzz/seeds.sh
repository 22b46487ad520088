#!/usr/bin/env bash
# Writes first inputs of a fuzz target, valid ones, for it to damage.
#
#   fuzz/seeds.sh TARGET FOLDER
#
# A target that needs none has no function here.
set -euo pipefail

# Little-endian numbers; a string is a u64 length and bytes. Numbers here stay below 2^31.
byte() { printf '%b' "\\x$(printf %02x "$1")"; }
u32() { for shift in 0 8 16 24; do byte $((($1 >> shift) & 255)); done; }
u64() { u32 "$1" && u32 0; }
string() { u64 ${#1} && printf %s "$1"; }
zeros() { head -c "$1" /dev/zero; }
ones() { zeros "$1" | tr '\0' '\1'; }

gguf_head() { # version tensors keys
    printf GGUF && u32 "$1" && u64 "$2" && u64 "$3"
}

gguf_tensor() { # name type offset dims...
    string "$1" && u32 $(($# - 3))
    local type=$2 offset=$3
    shift 3
    for dim in "$@"; do u64 "$dim"; done
    u32 "$type" && u64 "$offset"
}

# One key of every type, of value 1, and an array of every type, of two ones.
gguf_keys() {
    local widths=(1 1 2 2 4 4 4 1 0 0 8 8 8) type
    gguf_head 3 0 24
    for type in 0 1 2 3 4 5 6 7 10 11 12; do
        string "key$type" && u32 "$type" && byte 1 && zeros $((widths[type] - 1))
        string "array$type" && u32 9 && u32 "$type" && u64 2 && ones $((2 * widths[type]))
    done
    string text && u32 8 && string "some text"
    string texts && u32 9 && u32 8 && u64 2 && string one && string ""
}

# F32, Q8_0 and F16 tensors; the header ends at byte 184, the data begins at 192.
gguf_tensors() {
    gguf_head 2 3 0
    gguf_tensor a.weight 0 0 4 3
    gguf_tensor b.weight 8 64 32 2
    gguf_tensor c.weight 1 160 1 2 3 1
    zeros 8 && ones 48 && zeros 16 && ones 68 && zeros 28 && ones 12 && zeros 20
}

# An alignment of its own; the header ends at byte 90, the data begins at 128.
gguf_aligned() {
    gguf_head 3 1 1
    string general.alignment && u32 4 && u32 64
    gguf_tensor t 0 0 16
    zeros 38 && ones 64
}

fuzz_gguf() {
    gguf_keys >"$1/keys"
    gguf_tensors >"$1/tensors"
    gguf_aligned >"$1/aligned"
}

# Between them, every field of the three APIs and of what is answered at once; a Host and an Origin.
fuzz_api() {
    local user='{"role":"user","content":"hi"}'
    cat >"$1/chat" <<END
{"model":"m","messages":[{"role":"system","content":"s"},$user,{"role":"assistant","content":[{"type":"text","text":"a"}]}],
"stream":true,"stream_options":{"include_usage":true},"n":2,"stop":["a","b"],"max_completion_tokens":5,"temperature":0.5,
"top_p":0.9,"top_k":4,"min_p":0.1,"seed":-7,"logit_bias":{"17":-100,"5":1.5},"logprobs":true,"top_logprobs":3,
"presence_penalty":-1,"frequency_penalty":1.5,"repeat_penalty":1.1,"repeat_last_n":8,"ignore_eos":true,
"response_format":{"type":"text"},"tools":[],"service_tier":"flex","best_of":1,
"moeprism":{"experts":4,"min_experts":"low","ttft_ms":100,"tpot_ms":50.5,"priority":-2}}
END
    printf %s '{"prompt":["The old","x"],"echo":true,"max_tokens":3,"suffix":null,"moeprism":{"compute":0.5}}' >"$1/texts"
    printf %s '{"prompt":[[5,6],[7]],"logprobs":2,"moeprism":{"point":3,"min_point":7}}' >"$1/ids"
    printf %s '{"prompt":"x\u0000y","n":2,"moeprism":{"min_compute":0.25,"max_ppl_increase":null}}' >"$1/text"
    printf %s '{"prompt":"x","repeat_last_n":2000000}' >"$1/window"
    printf %s '{"prompt":"x","logit_bias":{"17":100,"017":100,"+17":100}}' >"$1/bias"
    printf %s '{"content":"The old <s>","add_special":true,"parse_special":false,"with_pieces":true}' >"$1/tokenize"
    printf %s '{"tokens":[1,509,8191]}' >"$1/detokenize"
    printf %s '{"system":"s","messages":['"$user"']}' >"$1/count_tokens"
    printf 'localhost:8080\nhttp://localhost:8080' >"$1/host"
    printf '[::1]:1\nhttps://friend.example' >"$1/friend"
    printf '127.0.0.1.evil.example\nhttp://myhost:1' >"$1/stranger"
    printf %s '{"max_tokens":9,"system":[{"type":"text","text":"s"}],"messages":['"$user"'],"stop_sequences":["END"],
"thinking":{"type":"disabled"},"service_tier":"standard_only","stream":true}' >"$1/messages"
}

fuzz_record() {
    printf '# moeprism record 1 layers=2 experts=4 parts=8 bytes=1000\n%s\n\n# more\n%s\n%s\n' \
        '0 0 1 experts 3 0 subs 31 0 7' '0 1 3 experts 1 subs 9 8' '7 1 2 experts subs' >"$1/record"
}

if [ "$(type -t "$1")" = function ]; then
    "$1" "$2"
fi
