# shellcheck shell=bash
# shellcheck disable=SC2034,SC2154 # url is used by those who read this, moeprism is set by them
# Servers for as long as a benchmark wants them, and $dir, a directory for as long as it runs; all go with the script.

dir=$(mktemp -d)
servers=()
trap 'stop_servers; rm -rf "$dir"' EXIT

# start_server MODEL OPTIONS...: on a free port; its address is in $url when it is ready.
start_server() {
    local out=$dir/serve.${#servers[@]}
    "$moeprism" serve "$@" --port 0 --no-prefix-cache >"$out" 2>"$out.err" &
    servers+=($!)
    until grep -q listening "$out"; do
        kill -0 "${servers[-1]}" 2>/dev/null || { cat "$out.err" >&2; exit 1; }
        sleep 0.2
    done
    url=$(sed -n 's/.*listening on //p' "$out")
}

stop_servers() {
    [ "${#servers[@]}" = 0 ] || kill "${servers[@]}" 2>/dev/null || true
    wait
    servers=()
}
