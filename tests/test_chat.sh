#!/usr/bin/env bash
# run --chat: one message, a conversation by lines, what is kept between turns, what is refused.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1
. tests/testing.sh

# chat ARGUMENTS: standard input is the conversation; leaves status, out and err.
chat() {
    "$moeprism" run "$model" --chat -n 8 --temp 0 "$@" >"$dir/out" 2>"$dir/err"
    status=$?
}
ended() { [ "$status" -eq "$1" ] && grep -qF -- "$2" "$dir/err"; }
# Tokens of the prompt that turn $1 ran.
prompt_tokens() { awk -v turn="$1" '/^prompt / && ++i == turn { print $2 }' "$dir/err"; }

chat -p hello </dev/null
check 'a model without a template says so and names the families' ended 1 'no chat template; name one (--chat-template) of'
check 'chatml is among them' ended 1 'chatml'
chat -p hello --chat-template nope </dev/null
check 'an unknown family is refused' ended 1 'there is no chat template "nope"'
"$moeprism" run "$model" -p x --system y >"$dir/out" 2>"$dir/err"
status=$?
check '--system needs --chat' ended 2 "'--system' needs --chat"

chat -p 'Who are you?' --chat-template tulu </dev/null
cp "$dir/out" "$dir/once"
alone=$(prompt_tokens 1)
check 'one message, one reply' [ "$status" -eq 0 -a -s "$dir/out" ]
check 'the message is not printed' sh -c "! grep -q 'Who are' '$dir/out'"
printf 'Who are you?\n' | chat --chat-template tulu
check 'a line of standard input is a message' cmp -s "$dir/out" "$dir/once"
printf 'Who are you?\n/clear\nWho are you?\n/exit\nnever\n' | chat --chat-template tulu
cat "$dir/once" "$dir/once" >"$dir/twice"
check '/clear begins anew, /exit leaves' cmp -s "$dir/out" "$dir/twice"
chat -p 'Who are you?' --chat-template tulu --system 'You are the sea.' </dev/null
check 'a system message stands before it' [ "$(prompt_tokens 1)" -gt "$alone" ]

printf 'The old lighthouse stood\nThe old lighthouse stood\n' | chat --chat-template tulu
first=$(prompt_tokens 1) second=$(prompt_tokens 2)
check 'a second turn runs only what is new' [ "$second" -lt $((2 * first)) ]
chat --chat-template tulu -c 16 -p 'The old lighthouse stood on a rock far out in the sea, and nobody had lit it for years.' </dev/null
check 'a conversation that does not fit is refused' ended 1 'the context has room for 16'
echo "1..$n"
