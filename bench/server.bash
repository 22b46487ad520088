# shellcheck shell=bash
# shellcheck disable=SC2034,SC2154 # url is used by those who read this, moeprism is set by them
# A server for as long as a benchmark wants it, and $dir, a directory for as long as it runs; both go with the script.

dir=$(mktemp -d)
server=
trap '[ -z "$server" ] || kill "$server" 2>/dev/null; rm -rf "$dir"' EXIT

# start_server MODEL OPTIONS...: on a free port; its address is in $url when it is ready.
start_server() {
    : >"$dir/serve.out" # not the last server's
    "$moeprism" serve "$@" --port 0 --no-prefix-cache >"$dir/serve.out" 2>"$dir/serve.err" &
    server=$!
    until grep -q listening "$dir/serve.out"; do
        kill -0 "$server" 2>/dev/null || { cat "$dir/serve.err" >&2; exit 1; }
        sleep 0.2
    done
    url=$(sed -n 's/.*listening on //p' "$dir/serve.out")
}

stop_server() {
    kill "$server"
    wait "$server" || true
    server=
}
