#!/usr/bin/env bash
# The program as its users see it: exit statuses, one line of message on standard error, nothing left behind after a
# failure, results that other programs can read.
# shellcheck disable=SC2016 # conditions in single quotes are for eval
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1
moeprism=${MOEPRISM:-build/moeprism}
model=models/demo-olmoe-q8_0.gguf
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
export XDG_STATE_HOME=$dir/state

n=0
passed=0
report() { # $1: "true" if it holds, $2: the test's name
    n=$((n + 1))
    local name=${2//[^[:print:]]/?}
    if [ "$1" = true ]; then
        passed=$((passed + 1))
        echo "ok $n - $name"
    else
        echo "not ok $n - $name"
        sed 's/^/# out: /' "$dir/out" | head -n 10
        sed 's/^/# err: /' "$dir/err" | head -n 10
    fi
}

# Runs the program; leaves status, out and err.
run() {
    "$moeprism" "$@" >"$dir/out" 2>"$dir/err" </dev/null
    status=$?
}

# The last run ended with status $1 and said nothing but one line with $2 on standard error.
failed_with() {
    [ "$status" -eq "$1" ] && [ "$(wc -l <"$dir/err")" -eq 1 ] && grep -q '^moeprism: ' "$dir/err" &&
        grep -qF -- "$2" "$dir/err" && [ ! -s "$dir/out" ]
}

succeeded() { [ "$status" -eq 0 ]; }

# $1: name, then a command that must succeed.
check() {
    local name=$1
    shift
    if "$@"; then report true "$name"; else report false "$name"; fi
}

# usage "part of the message" ARGUMENTS: a usage error, status 2.
usage() {
    local message=$1
    shift
    run "$@"
    check "usage: $* : $message" failed_with 2 "$message"
}

# refuses "part of the message" ARGUMENTS: a failure, status 1.
refuses() {
    local message=$1
    shift
    run "$@"
    check "refused: $* : $message" failed_with 1 "$message"
    if [ -n "$(ls -A "$dir/made")" ]; then report false "and leaves no file: $(ls -A "$dir/made")"; fi
    rm -f "$dir"/made/* "$dir"/made/.[!.]*
}

# What is JSON to jq where there is one, else to a reader that knows strings, brackets and commas.
is_json() {
    if command -v jq >/dev/null; then
        jq -e . "$1" >/dev/null
    else
        tr -d '\n' <"$1" | sed 's/"\([^"\\]\|\\.\)*"/S/g; s/[[:space:]]//g; s/-\?[0-9][0-9.eE+-]*/N/g; s/true\|false\|null/N/g
            :a; s/{}/N/g; s/\[\]/N/g; s/S:[SN]\([,}]\)/P\1/g; s/\([[,]\)S\([],]\)/\1N\2/g; s/P,P/P/g; s/{P}/N/g
            s/N,N/N/g; s/\[N\]/N/g; ta' | grep -qx N
    fi
}

mkdir "$dir/made"
commands=$("$moeprism" --help | awk '/^Commands:/ { on = 1; next } /^$/ { on = 0 } on { print $1 }')

# ---- help and version ----
run --version
check '--version' grep -qx 'moeprism [0-9.]*' "$dir/out"
run --help
check '--help names at least ten commands' [ "$(wc -w <<<"$commands")" -ge 10 ]
for command in $commands; do
    run "$command" --help
    check "$command --help" grep -q "^Usage: moeprism $command" "$dir/out"
    cp "$dir/out" "$dir/help"
    check "$command --help says nothing on standard error and has an example" \
        eval 'succeeded && [ ! -s "$dir/err" ] && grep -q "^  moeprism $command" "$dir/help"'
    check "$command --help tells no default twice" \
        sh -c "! tr -s ' \n' ' ' <'$dir/help' | grep -E '\(default[^)]*\) \(default'"
    run help "$command"
    check "help $command is the same" cmp -s "$dir/out" "$dir/help"
    run "$command" "$model" -h
    check "$command -h works wherever it stands" cmp -s "$dir/out" "$dir/help"
done
run completion
check 'completion is a script that bash accepts' bash -n "$dir/out"

# ---- usage errors ----
usage 'no command given'
usage "did you mean 'refactor'?" refacter
usage "unknown command 'frobnicate'" frobnicate
usage "unknown option '--verison'; did you mean '--version'?" --verison
usage 'no model given' info
usage "unexpected argument 'two'" info one two
usage "did you mean '--json'?" info --jsn "$model"
usage "unknown option '-z'" info -z "$model"
usage "option '--json' takes no argument" info --json=yes "$model"
usage "'--threads' takes a whole number from 1 to 4096, not '0'" info -t 0 "$model"
usage "not '2x'" info --threads 2x "$model"
usage "not ''" info --threads '' "$model"
usage "not ' 2'" info --threads ' 2' "$model"
usage "not '99999999999999999999'" info --threads 99999999999999999999 "$model"
usage "option '--threads' needs an argument" info "$model" --threads
usage "option '--text' is required" eval "$model"
usage "not '1,,2'" eval "$model" --text x --points 1,,2
usage "not '5-3'" eval "$model" --text x --points 5-3
usage "option '--output' is required" refactor "$model" --calibration x
usage 'one of bcd, anneal, sort' refactor "$model" -o x --calibration x --solver bdc
usage 'give one of --experts' run "$model" -p x --experts 2 --compute 0.5
usage 'give one of --prompt' run "$model" -p x -f y
usage "not '1.5'" run "$model" -p x --compute 1.5
usage "not 'nan'" run "$model" -p x --temp nan
usage "not '0x10'" run "$model" -p x --temp 0x10
usage "not '-1'" run "$model" -p x --top-k -1
usage 'nothing to measure' bench "$model" -p 0 -n 0
usage "'--batch' takes" bench "$model" -b 0
usage "option '--like' is required" synth -o x
usage 'qwen3-30b-a3b' synth --like llama -o x
usage '?[31m' "$(printf '\033[31m\nred')"

# ---- bad inputs ----
refuses "$dir/none" info "$dir/none"
printf 'not a model' >"$dir/bad.gguf"
head -c 5000000 "$model" >"$dir/short.gguf"
: >"$dir/empty"
printf 'caf\351 au lait' >"$dir/latin1.txt"
printf '1 2 three' >"$dir/words.txt"
printf '1 2 99999999' >"$dir/big.txt"
for command in info tokenize 'run -p x' 'bench -p 1' 'logits --tokens models/heldout.txt -o made'; do
    read -r name rest <<<"$command"
    # shellcheck disable=SC2086
    refuses 'bad.gguf' "$name" "$dir/bad.gguf" ${rest/made/$dir/made/out}
done
refuses 'short.gguf' info "$dir/short.gguf"
refuses "$dir" info "$dir"
refuses "$dir/none" eval "$model" --text "$dir/none" --json "$dir/made/e.json" --html "$dir/made/e.html"
refuses 'empty' eval "$model" --text "$dir/empty" --json "$dir/made/e.json"
refuses 'UTF-8' eval "$model" --text "$dir/latin1.txt" --html "$dir/made/e.html"
refuses 'operating point 99' eval "$model" --text models/heldout.txt --points 0,99
refuses '--token-deadline changes nothing' eval "$model" --text models/heldout.txt --token-deadline 5
refuses '--prefer-resident changes nothing' eval "$model" --text models/heldout.txt --prefer-resident 0.5 --memory 100%
refuses "$dir/none" refactor "$model" -o "$dir/made/out.gguf" --calibration "$dir/none"
refuses 'empty' refactor "$model" -o "$dir/made/out.gguf" --calibration "$dir/empty"
refuses 'UTF-8' refactor "$model" -o "$dir/made/out.gguf" --calibration "$dir/latin1.txt"
refuses 'bad.gguf' refactor "$dir/bad.gguf" -o "$dir/made/out.gguf" --calibration models/calibration.txt
refuses '5' refactor "$model" -o "$dir/made/out.gguf" --calibration models/calibration.txt --parts 5
refuses 'NOTYPE' refactor "$model" -o "$dir/made/out.gguf" --calibration models/calibration.txt --type NOTYPE
refuses 'exists' refactor "$model" -o "$dir/bad.gguf" --calibration models/calibration.txt
refuses "'three'" logits "$model" --tokens "$dir/words.txt" -o "$dir/made/l"
refuses "'99999999'" logits "$model" --tokens "$dir/big.txt" -o "$dir/made/l"
refuses 'no token ids' logits "$model" --tokens "$dir/empty" -o "$dir/made/l"
refuses "'three'" detokenize "$model" -f "$dir/words.txt"
refuses 'exists' synth --like olmoe-1b-7b -o "$dir/bad.gguf"
refuses 'nope' run "$model" -p x --isa nope
refuses 'context' run "$model" -c 4 -f models/heldout.txt
run run "$model" -p x --point 99
check 'refused: an operating point that is not there' failed_with 1 '99'
check 'a file that was there is untouched' [ "$(cat "$dir/bad.gguf")" = 'not a model' ]

# ---- results ----
run info "$model"
check 'info names the architecture' grep -q 'olmoe' "$dir/out"
run info "$model" --json
check 'info --json' is_json "$dir/out"

text=$'The old  lighthouse, caf\303\251\n\ttab'
printf '%s' "$text" >"$dir/text"
run tokenize "$model" -f "$dir/text" --ids
check 'tokenize --ids is one line' [ "$(wc -l <"$dir/out")" -eq 1 ]
cp "$dir/out" "$dir/ids"
run detokenize "$model" -f "$dir/ids"
check 'detokenize gives the text back' cmp -s "$dir/out" "$dir/text"
run tokenize "$model" -f "$dir/text"
check 'tokenize prints one token in a line' [ "$(wc -l <"$dir/out")" -eq "$(wc -w <"$dir/ids")" ]
"$moeprism" tokenize "$model" --ids <"$dir/text" >"$dir/out" 2>"$dir/err"
check 'tokenize reads standard input' cmp -s "$dir/out" "$dir/ids"

tr ' ' '\n' <"$dir/ids" | head -n 5 >"$dir/five"
run logits "$model" --tokens "$dir/five" -o "$dir/l1" --batch 2
check 'logits: a row of F32 for every token' [ "$(stat -c %s "$dir/l1")" -eq $((5 * 8192 * 4)) ]
"$moeprism" logits "$model" --tokens - -o - -t 1 <"$dir/five" >"$dir/out" 2>"$dir/err"
check 'logits: the same bytes in pieces, on standard output, on one thread' cmp -s "$dir/out" "$dir/l1"

run run "$model" -p 'The old' -n 12 --temp 0
cp "$dir/out" "$dir/greedy"
check 'run writes the prompt first' grep -q '^The old' "$dir/out"
check 'run tells speed and experts in one line' \
    eval '[ "$(wc -l <"$dir/err")" -eq 1 ] && grep -q "generated 12 tokens.*experts 8.00 of 8 (100 % of full), point 0$" "$dir/err"'
printf 'The old\n' | "$moeprism" run "$model" -n 12 --temp 0 >"$dir/out" 2>"$dir/err"
check 'run reads the prompt from standard input' cmp -s "$dir/out" "$dir/greedy"
run run "$model" -p 'The old' -n 12 --seed 7
cp "$dir/out" "$dir/seven"
run run "$model" -p 'The old' -n 12 --seed 7 -t 1
check 'run: same seed, same text' cmp -s "$dir/out" "$dir/seven"
run run "$model" -p 'The old' -n 2 --compute 50%
check 'run --compute 50% runs half' grep -q 'experts 4.00 of 8 (50 % of full)' "$dir/err"
run run "$model" -p 'The old' -n -1 -c 16 --temp 0
check 'run ends where the context is full' eval 'succeeded && grep -q "context of 16 tokens is full" "$dir/err"'
run run "$model" --plan
check 'a small model is read into memory' grep -q 'all of it is allocated' "$dir/out"
run run "$model" --plan --mmap
check 'it is left mapped where that is asked for' grep -q 'weights are mapped' "$dir/out"
run run "$model" --plan --mmap --no-mmap
check 'it cannot be both' failed_with 1 'cannot be both mapped'

head -c 6000 models/heldout.txt >"$dir/heldout"
run eval "$model" --text "$dir/heldout" -c 64 --points 0,4 --max-tokens 512 --json "$dir/e.json" --html "$dir/e.html"
check 'eval prints a table' grep -q '^ *4 *50.0 %' "$dir/out"
check 'eval --json FILE' is_json "$dir/e.json"
check 'eval --html is one page that names no other' \
    eval 'tail -n 1 "$dir/e.html" | grep -q "</html>" && ! grep -qE "(src|href)=\"?(https?:)?//" "$dir/e.html"'
# Reads come one at a time, an expert needs three, and the memory holds hardly more than those of a token in one layer:
# when a deadline is over at once, something is dropped, for certain.
late=(eval "$model" --text "$dir/heldout" -c 64 --points '0,7' --max-tokens 128 --memory 8%)
run "${late[@]}" --token-deadline 1e-6 --io threads --io-depth 1 --json "$dir/late.json"
check 'eval names a deadline and what it cost' eval 'succeeded && grep -q "1e-06 ms a token, down to point 7" "$dir/out" &&
    is_json "$dir/late.json" && grep -q "\"token_deadline_ms\": 1e-6" "$dir/late.json" &&
    grep -q "\"dropped\": [1-9]" "$dir/late.json"'
run "${late[@]}"
check 'without one nothing is dropped' eval 'succeeded && ! grep -q "ms a token" "$dir/out" &&
    [ "$(grep -c "  0[.]00 %$" "$dir/out")" = 2 ]'
run eval --json "$model" --text "$dir/heldout" -c 64 --max-tokens 128
check 'eval --json before the model prints JSON' is_json "$dir/out"
run eval "$model" --text "$dir/heldout" -c 64 --max-tokens 128 --json
check 'eval --json at the end prints JSON' is_json "$dir/out"

run bench "$model" -p 8,16 -n 4 -b 1,2 -r 2 --points 0,7 --breakdown
check 'bench: a row for every test and point' [ "$(grep -c '^| olmoe' "$dir/out")" -eq 8 ]
run bench "$model" -p 8 -n 4 -b 3 -r 1 --points 0,7 --mixed
check 'bench --mixed: one row for all points' [ "$(grep -c '^| olmoe.*| mixed |' "$dir/out")" -eq 2 ]
run bench "$model" -p 8 -n 4 -r 2 --json
check 'bench --json' eval 'is_json "$dir/out" && grep -q "\"avg_ts\"" "$dir/out"'

# ---- refactor, interrupted and whole ----
head -c 20000 models/calibration.txt >"$dir/calibration"
args=("$model" -o "$dir/prism.gguf" --calibration "$dir/calibration" --parts 4 --solver sort)
# Started as a job of its own: an interactive shell would not make it ignore SIGINT.
(trap - INT; exec setsid "$moeprism" refactor "${args[@]}" --solver anneal --max-tokens 3000) >"$dir/out" 2>"$dir/err" &
job=$!
sleep 1
kill -INT "$job"
wait "$job"
status=$?
check 'refactor: Ctrl-C ends with 130, names --resume and leaves no artifact' \
    eval '[ "$status" -eq 130 ] && tail -n 1 "$dir/err" | grep -q -- "--resume" && [ ! -e "$dir/prism.gguf" ]'
run refactor "${args[@]}" --max-tokens 2000 --eval "$dir/heldout" --eval-tokens 512 --eval-ctx 64 \
    --json "$dir/r.json"
check 'refactor writes an artifact and its curve' eval 'succeeded && grep -q "^ *0 .*100.0 %" "$dir/out"'
check 'refactor --json' is_json "$dir/r.json"
run info "$dir/prism.gguf"
check 'info of an artifact tells where it comes from' grep -q 'calibration .*SHA-256' "$dir/out"
run eval "$dir/prism.gguf" --text "$dir/heldout" -c 64 --max-tokens 128 --points 0,5 --against "$model" --json
check 'eval --against also runs fewer whole experts' eval 'is_json "$dir/out" && grep -q experts_used "$dir/out"'
run run "$dir/prism.gguf" -p 'The old' -n 4 --experts 2
check 'run --experts on an artifact' grep -Eq 'point [1-9]' "$dir/err"

# ---- output that cannot be written ----
if [ -w /dev/full ]; then
    "$moeprism" info "$model" >/dev/full 2>"$dir/err"
    status=$?
    : >"$dir/out"
    check 'a full disk is a failure' failed_with 1 'standard output'
fi
: >"$dir/out"
"$moeprism" run "$model" -p 'The old' -n 200 -c 256 2>"$dir/err" | head -c 1 >"$dir/out"
check 'a reader that leaves is no reason to complain' eval '! grep -q moeprism: "$dir/err"'
run eval "$model" --text "$dir/heldout" -c 64 --max-tokens 128 --json "$dir/none/e.json"
check 'JSON to a folder that is not there' eval '[ "$status" -eq 1 ] && grep -q "$dir/none/e.json" "$dir/err"'

echo "1..$n"
echo "# $passed passed, $((n - passed)) failed"
[ "$passed" -eq "$n" ]
