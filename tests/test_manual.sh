#!/usr/bin/env bash
# The manual page and the program's own --help name the same commands and options.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1
moeprism=${MOEPRISM:-build/moeprism}
page=docs/moeprism.1

# "SECTION OPTION" for every option in a list of the manual.
manual_options() {
    awk '/^\.S[sh] / { section = $2 (NF > 2 ? "*" : "") }
        /^\.It Fl / {
            gsub(/\\-/, "-")
            for (i = 2; i < NF; i++) if ($i == "Fl") print section, "-" $(i + 1)
        }' "$page"
}
# Options of command $1 in the manual; those of several commands stand in sections of more than one word.
manual_own() { manual_options | awk -v s="$1" '$1 == s { print $2 }' | sort -u; }
manual_shared() { manual_options | awk '$1 ~ /\*$/ { print $2 }' | sort -u; }
# Options of command $1 in its help: the first words of indented lines that begin with a dash.
help_options() {
    "$moeprism" "$1" --help | awk '/^ +-/ { for (i = 1; i <= NF && $i ~ /^-/; i++) { sub(",", "", $i); print $i } }' | sort -u
}
help_commands() { "$moeprism" --help | awk '/^Commands:/ { on = 1; next } /^$/ { on = 0 } on { print $1 }'; }

commands=$(help_commands)
n=1
echo "1..$(($(wc -w <<<"$commands") + 1))"
if found=$(diff <(sort <<<"$commands") <(awk '/^\.Ss [a-z-]+$/ { print $2 }' "$page" | sort)) && [ -n "$commands" ]; then
    echo 'ok 1 - commands'
else
    printf 'not ok 1 - commands (< help, > manual)\n%s\n' "$found"
fi
for command in $commands; do
    n=$((n + 1))
    missing=$(comm -23 <(help_options "$command") <({ manual_own "$command"; manual_shared; } | sort -u))
    extra=$(comm -13 <(help_options "$command") <(manual_own "$command"))
    if [ -z "$missing$extra" ]; then
        echo "ok $n - options of $command"
    else
        echo "not ok $n - options of $command"
        echo "# not in the manual: ${missing//$'\n'/ }; not in the help: ${extra//$'\n'/ }"
    fi
done
