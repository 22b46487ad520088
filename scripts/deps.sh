#!/usr/bin/env bash
# Makes sure that the Debian packages of a task are installed. Silent and quick when nothing is missing.
#
#   scripts/deps.sh [-n] build|test|sanitize|fuzz|lint|all
#
# Installs what is missing where it may (as root, or by sudo without a password); otherwise, and with -n, prints one
# line with the command to run and stops with status 1. `a|b` below: either will do, a is installed.
set -euo pipefail

build="gcc libc6-dev make pkg-config libcurl4-openssl-dev|libcurl4-gnutls-dev libjansson-dev libmicrohttpd-dev
    libpcre2-dev libedit-dev nettle-dev liburing-dev
    libopenblas-pthread-dev|libopenblas-dev|libopenblas-openmp-dev|libopenblas-serial-dev liblapacke-dev libjs-chart.js"
test="$build libcmocka-dev python3 curl chromium prometheus"
# Node often comes from elsewhere, with an npm of its own; Debian's would not install beside it.
command -v npm >/dev/null || test="$test nodejs npm"
clang="clang libclang-rt-dev|libclang-rt-14-dev"
lint="$test clang clang-format clang-tidy mandoc shellcheck"

install_missing=yes
if [ "${1:-}" = -n ]; then
    install_missing=no
    shift
fi
case "${1:-build}" in
build) wanted=$build ;;
test) wanted=$test ;;
sanitize | fuzz) wanted="$test $clang" ;;
lint) wanted=$lint ;;
all) wanted="$lint $clang" ;;
*)
    echo "usage: scripts/deps.sh [-n] build|test|sanitize|fuzz|lint|all" >&2
    exit 2
    ;;
esac

if ! command -v dpkg-query >/dev/null; then
    echo "deps: no dpkg-query here, so the packages are not checked; docs/dependencies.md lists the libraries" >&2
    exit 0
fi

# Names of $wanted that no installed package satisfies, one a line.
missing_packages() {
    local installed entry name
    # shellcheck disable=SC2086 # a list of names; dpkg-query fails when it does not know one of them
    installed=" $(dpkg-query -W -f '${db:Status-Status}:${Package} ' ${wanted//|/ } 2>/dev/null || true)"
    for entry in $wanted; do
        for name in ${entry//|/ }; do
            case "$installed" in *" installed:$name "*) continue 2 ;; esac
        done
        echo "${entry%%|*}"
    done
}

missing=$(missing_packages | sort -u | tr '\n' ' ')
missing=${missing% }
[ -n "$missing" ] || exit 0

sudo=
[ "$(id -u)" -eq 0 ] || sudo="sudo"
give_up() {
    echo "deps: missing packages: ${missing}; install them with: ${sudo:+$sudo }apt-get install -y $missing" >&2
    exit 1
}
[ "$install_missing" = yes ] || give_up
command -v apt-get >/dev/null || give_up
[ -z "$sudo" ] || sudo -n true 2>/dev/null || give_up

echo "deps: installing $missing" >&2
apt() {
    # shellcheck disable=SC2086 # $sudo may be empty
    DEBIAN_FRONTEND=noninteractive $sudo apt-get -qq "$@" >&2
}
# shellcheck disable=SC2086 # a list of names
apt install -y --no-install-recommends $missing 2>/dev/null ||
    { apt update && apt install -y --no-install-recommends $missing; } || give_up
