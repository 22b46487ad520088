#!/usr/bin/env bash
# Every check of `make lint`, as TAP: one test per check, with what it found below it. Runs at the top of the tree.
# shellcheck disable=SC2317 # the checks are called by name, from the list below
set -uo pipefail

ours() { git ls-files -co --exclude-standard -- "$@"; }
refuse() { ! git grep --untracked -nIE "$@"; }

check_format() { ours '*.c' '*.h' | xargs clang-format --dry-run --Werror; }
check_includes() { scripts/include-check.sh; }
check_tidy() { env -u MAKEFLAGS make -k -j "$(nproc)" tidy; }
check_shell() { ours '*.sh' '*.bash' .ci/run | xargs shellcheck; }
check_manual() { mandoc -Tlint -W style docs/moeprism.1; }

# Only the program ends the process; the library returns a status.
check_exits() { refuse '\<(_?exit|quick_exit) *\(' -- 'src/*.[ch]' ':!src/cli'; }

# Calls that cannot be used safely, or that hide what was wrong with a number.
check_calls() { refuse '\<(gets|strcpy|strcat|sprintf|vsprintf|strtok|atoi|atol|atoll|atof|rand|alloca) *\(' -- 'src/*.[ch]'; }

# Nothing may depend on where somebody keeps the tree.
check_paths() { refuse '(^|[^[:alnum:]_.])/(work|home|root|Users)/' -- ':!models/*.txt'; }

check_whitespace() { refuse '[[:blank:]]+$' -- ':!models/*.txt' ':!LICENSE' ':!*.md'; }

checks=(format includes exits calls paths whitespace shell manual tidy)
echo "1..${#checks[@]}"
status=0
for i in "${!checks[@]}"; do
    if found=$("check_${checks[$i]}" 2>&1); then
        echo "ok $((i + 1)) - ${checks[$i]}"
    else
        echo "not ok $((i + 1)) - ${checks[$i]}"
        printf '# %s\n' "${found//$'\n'/$'\n'# }"
        status=1
    fi
done
exit $status
