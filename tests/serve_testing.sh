# shellcheck shell=bash
# shellcheck disable=SC2034 # what it leaves in variables is for those who source it
# For scripts that test the server: starting one, asking it, ending it. To be sourced; sets $dir and cleans up at exit.
. tests/testing.sh
started=() # in the background: servers and clients
clean_up() {
    if [ ${#started[@]} -gt 0 ]; then { kill -9 "${started[@]}" && wait "${started[@]}"; } 2>/dev/null; fi
    rm -rf "$dir"
}
trap clean_up EXIT

# Some step times, so that a server need not measure them first.
cat >"$dir/cost.json" <<END
{"moeprism_cost": 2, "model": {"file": "x.gguf", "bytes": 1, "name": "x"},
 "machine": {"cpu": "x", "isa": "ref", "threads": 1},
 "measured": {"date": "x", "quick": false, "in_memory": false, "memory": 0, "kv_type": "f16", "slots": 8, "step_tokens": 512,
              "context": 256},
 "cost": {"experts_used": 0.25, "error_median": 0, "ns": {"step": 1e6, "tokens": 5e4, "experts": 2e5, "touched": 2e6,
          "context": 100, "logits": 2e5, "cache": 1e3}},
 "ladder": [{"share": 1, "loss": 0}]}
END

cost=(--cost "$dir/cost.json") # empty: they are measured at the start

# start OPTIONS: a server on a free port; leaves $url and $pid.
start() {
    : >"$dir/server.out"
    "$moeprism" serve "$model" --port 0 "${cost[@]}" "$@" >"$dir/server.out" 2>"$dir/server.err" &
    pid=$!
    started+=("$pid")
    until url=$(grep -so 'http://[^ ]*' "$dir/server.out"); do
        [ -e "$dir/server.out" ] && kill -0 "$pid" 2>/dev/null || return 1
        sleep 0.05
    done
    port=${url##*:}
}

# stop: ends it by SIGTERM, leaves its exit status in $status.
stop() {
    kill -TERM "$pid"
    wait "$pid"
    status=$?
}

# Clients that ask for the same again and again. They end with the script and with the server: a client that went on
# asking at the port would keep the next server busy that gets it. Leaves their process ids in crowd.
come_in_a_crowd() { # NUMBER PATH BODY
    crowd=()
    for ((i = 0; i < $1; i++)); do
        while kill -0 $$ && curl -sN "$url$2" -d "$3"; do :; done >/dev/null 2>&1 &
        crowd+=($!)
    done
    started+=("${crowd[@]}")
}

# until_health STATE: waits until the server answers /health with it; fails where there is no server any more.
until_health() {
    until ask /health && grep -qF -- "$1" "$dir/out"; do
        kill -0 "$pid" 2>/dev/null || return 1
        sleep 0.02
    done
}

# ask PATH [BODY [CURL OPTIONS]]: leaves $code, $dir/out and $dir/headers.
ask() {
    local path=$1 body=()
    if [ -n "${2:-}" ]; then body=(--data-binary "$2"); fi
    shift
    if [ $# -gt 0 ]; then shift; fi
    : >"$dir/out"
    code=$(curl -s -m 120 -o "$dir/out" -D "$dir/headers" -w '%{http_code}' "${body[@]}" "$@" "$url$path")
}
