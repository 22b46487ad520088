#!/usr/bin/env bash
# `make install` as a packager and a user of the library see it.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1
if [ -n "${SANITIZE:-}" ]; then
    echo 1..1
    echo 'ok 1 - install # SKIP sanitizer builds are not installed'
    exit 0
fi
build=${BUILD:-build}
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
root=$dir/root
lib=$root/opt/prism/lib
version=$(sed -n 's/^#define MP_VERSION "\(.*\)"/\1/p' include/moeprism.h)
export PKG_CONFIG_PATH=$lib/pkgconfig

n=0
# $1: the test's name, then a command that must succeed.
check() {
    n=$((n + 1))
    local name=$1
    shift
    if "$@" >"$dir/output" 2>&1; then
        echo "ok $n - $name"
    else
        echo "not ok $n - $name"
        sed 's/^/# /' "$dir/output"
    fi
}

make_it() { "${MAKE:-make}" B="$build" PREFIX=/opt/prism DESTDIR="$root" "$@"; }
installed_files() { (cd "$root" && find . ! -type d | sort); }

is_complete() {
    diff <(installed_files) - <<END
./opt/prism/bin/moeprism
./opt/prism/include/moeprism.h
./opt/prism/lib/libmoeprism.a
./opt/prism/lib/libmoeprism.so
./opt/prism/lib/libmoeprism.so.${version%.*}
./opt/prism/lib/libmoeprism.so.$version
./opt/prism/lib/pkgconfig/moeprism.pc
./opt/prism/share/bash-completion/completions/moeprism
./opt/prism/share/man/man1/moeprism.1
END
}

cat >"$dir/user.c" <<'END'
#include <moeprism.h>
#include <stdio.h>
#include <string.h>

int main(void)
{
    mp_model *model = NULL;
    mp_error err = {0};
    if (mp_model_open("/nonexistent.gguf", NULL, &model, &err) == MP_OK || !err.message[0]) return 1;
    mp_model_close(model);
    puts(mp_version());
    return strcmp(mp_version(), MP_VERSION) != 0;
}
END

# The flags a user gets, with the paths of the final place moved into $root.
flags() { pkg-config "$@" moeprism | sed "s|/opt/prism|$root/opt/prism|g"; }

links_shared() {
    # shellcheck disable=SC2046 # lists of flags
    "${CC:-cc}" -std=c99 -pedantic -Wall -Werror "$dir/user.c" $(flags --cflags --libs) -o "$dir/shared" &&
        LD_LIBRARY_PATH=$lib "$dir/shared" && readelf -d "$dir/shared" | grep -F "[libmoeprism.so.${version%.*}]"
}

links_static() {
    # shellcheck disable=SC2046 # lists of flags
    "${CC:-cc}" "$dir/user.c" $(flags --static --cflags --libs | sed 's|-lmoeprism|-l:libmoeprism.a|') -o "$dir/static" &&
        "$dir/static" && ! readelf -d "$dir/static" | grep -F libmoeprism
}

exports() { nm -D --defined-only --format=posix "$lib/libmoeprism.so" | awk '$2 ~ /^[TDB]$/ { sub("@.*", "", $1); print $1 }' | sort; }
declared() { grep -oE '\bmp_[a-z0-9_]+\(' include/moeprism.h | tr -d '(' | sort -u; }
exports_only_ours() { [ -n "$(exports)" ] && ! exports | grep -v "^mp_"; }
# Functions that comments mention with parentheses are declared too, so the two lists must be the same.
exports_what_is_declared() { diff <(declared) <(exports); }

header_in_cxx() {
    echo '#include <moeprism.h>' >"$dir/user.cc"
    "$1" -std=c++17 -Wall -Werror -I "$root/opt/prism/include" -c "$dir/user.cc" -o "$dir/user.o"
}

program_runs() { "$root/opt/prism/bin/moeprism" --version | grep -F "$version"; }

completes() {
    bash -c 'source "$1"; COMP_WORDS=(moeprism refa); COMP_CWORD=1; _moeprism; echo "${COMPREPLY[*]}"' \
        - "$root/opt/prism/share/bash-completion/completions/moeprism" | grep -x refactor
}

leaves_nothing() { [ -n "$(installed_files)" ] && make_it uninstall && [ -z "$(installed_files)" ]; }

echo 1..10
check 'install' make_it install
check 'every file is there' is_complete
check 'a user links the shared library' links_shared
check 'a user links the static library' links_static
check 'the shared library exports mp_* only' exports_only_ours
check 'it exports exactly what moeprism.h declares' exports_what_is_declared
cxx=$(command -v g++ || command -v clang++)
if [ -n "$cxx" ]; then
    check 'moeprism.h is valid C++' header_in_cxx "$cxx"
else
    n=$((n + 1))
    echo "ok $n - moeprism.h is valid C++ # SKIP no C++ compiler"
fi
check 'the installed program runs' program_runs
check 'completion knows the commands' completes
check 'uninstall leaves nothing' leaves_nothing
