#!/usr/bin/env bash
# The metrics of a live server: as Prometheus wants them, as the documents describe them, and counting what happens.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1
. tests/serve_testing.sh

skip() {
    n=$((n + 1))
    echo "ok $n - $1 # SKIP $2"
}

# Two requests that run and one that is refused; then the metrics land in $dir/metrics.
use_server() {
    local prompt
    for prompt in 'Once upon a time' 'The old man'; do
        ask /v1/completions "{\"prompt\":\"$prompt\",\"max_tokens\":5,\"ignore_eos\":true,\"temperature\":0}"
        [ "$code" = 200 ] || return
    done
    ask /v1/completions '{"prompt":"Once upon a time","max_tokens":"five"}'
    [ "$code" = 400 ] || return
    ask /metrics
    until grep -qx 'moeprism_requests_running 0' "$dir/out"; do ask /metrics || return; done
    cp "$dir/out" "$dir/metrics"
    [ "$code" = 200 ] && grep -qi '^content-type: text/plain; version=0.0.4' "$dir/headers"
}

# Value $2 of series $1.
has() { grep -qxF "$1 $2" "$dir/metrics" || { grep -F "${1%%\{*}" "$dir/metrics" && false; }; }
counts_requests() {
    has 'moeprism_requests_total{outcome="length"}' 2 && has 'moeprism_requests_total{outcome="invalid"}' 1 &&
        has moeprism_requests_running 0 && has moeprism_requests_waiting 0
}
counts_tokens() {
    has 'moeprism_tokens_total{kind="generated"}' 10 && has moeprism_time_to_first_token_seconds_count 2 &&
        has moeprism_inter_token_seconds_count 8 && has moeprism_request_seconds_count 2 &&
        has 'moeprism_time_to_first_token_seconds_bucket{le="+Inf"}' 2
}

# Every kind of end once, of requests that are several jobs or none as well; of bodies that are too large those that say
# so, that do not, and that do not stop; then how often each was counted.
ends_of_all_kinds() {
    local client many='{"prompt":["a","b"],"n":2,"max_tokens":2,"ignore_eos":true}'
    local endless
    endless="{\"prompt\":[\"a\"$(printf ',"b"%.0s' {1..31})],\"max_tokens\":200,\"ignore_eos\":true,\"stream\":true}"
    ask /v1/completions "$many" && [ "$code" = 200 ] || return
    ask /v1/completions "${many%\}},\"stream\":true}" && [ "$code" = 200 ] || return
    ask /v1/completions "{\"prompt\":\"$(printf ' word%.0s' {1..400})\"}" && [ "$code" = 400 ] || return
    ask /v1/completions "{\"prompt\":[[1],[$(printf '7,%.0s' {1..400})7]]}" && [ "$code" = 400 ] || return
    ask /v1/nothing '{}' && [ "$code" = 404 ] || return
    head -c 100000 /dev/zero >"$dir/body" && ask /v1/completions "@$dir/body" && [ "$code" = 413 ] || return
    ask /v1/completions "@$dir/body" -H 'Transfer-Encoding: chunked' -H 'Expect:' && [ "$code" = 413 ] || return
    head -c 1000000 /dev/zero | curl -s "$url/v1/completions" -T - -X POST -H 'Expect:' && return 1
    curl -sN "$url/v1/completions" -d "$endless" >"$dir/stream" &
    client=$!
    until_health '"running":2' && kill "$client" && until_health '"running":0'
    ask /metrics && cp "$dir/out" "$dir/metrics"
}
outcome() { has "moeprism_requests_total{outcome=\"$1\"}" "$2"; }
counts_each_request_once() {
    outcome length 4 && outcome stop 0 && outcome invalid 5 && outcome refused_size 2 && outcome cancelled 1 &&
        outcome failed 0 && outcome refused_queue 0
}

# Names without the suffixes that histograms add, one a line.
families() { sed 's/_\(bucket\|sum\|count\)$//' | sort -u; }
served() { sed -n 's/^# TYPE \([a-z_]*\) .*/\1/p' "$dir/metrics" | sort -u; }
on_dashboard() {
    python3 -c 'import json
for panel in json.load(open("docs/grafana.json"))["panels"]:
    for target in panel.get("targets", []): print(target["expr"])' | grep -o 'moeprism_[a-z_]*' | families
}
documented() { sed -n '/^## Metrics/,$p' docs/serving.md | grep '^| `' | grep -o 'moeprism_[a-z_]*' | families; }
dashboard_agrees() { diff <(on_dashboard) <(served); }
document_agrees() { diff <(documented) <(served); }

every_family_has_help() { diff <(sed -n 's/^# HELP \([a-z_]*\) .*/\1/p' "$dir/metrics" | sort -u) <(served); }

# Panels do not overlap in their ids, and each asks something.
dashboard_is_sound() {
    python3 - <<'END'
import json
board = json.load(open("docs/grafana.json"))
panels = board["panels"]
ids = [panel["id"] for panel in panels]
assert len(ids) == len(set(ids))
taken = set()
for panel in panels:
    place = panel["gridPos"]
    cells = {(x, y) for x in range(place["x"], place["x"] + place["w"]) for y in range(place["y"], place["y"] + place["h"])}
    assert place["x"] + place["w"] <= 24 and not cells & taken, panel["title"]
    taken |= cells
    assert panel["type"] == "row" or all(target["expr"] for target in panel["targets"]), panel["title"]
END
}

# The dashboard's questions, with its variables filled in, as rules: promtool reads every one of them.
queries_parse() {
    python3 - >"$dir/rules.yml" <<'END'
import json
print("groups:\n- name: dashboard\n  rules:")
n = 0
for panel in json.load(open("docs/grafana.json"))["panels"]:
    for target in panel.get("targets", []):
        query = target["expr"]
        for name, value in (("$__rate_interval", "1m"), ("$job", ".*"), ("$instance", ".*")):
            query = query.replace(name, value)
        print(f"  - record: query{n}\n    expr: {json.dumps(query)}")
        n += 1
END
    promtool check rules "$dir/rules.yml"
}
promtool_is_content() { promtool check metrics <"$dir/metrics"; }
ends_well() { stop && [ "$status" -eq 0 ]; }

check 'a server starts' start --context 256 --slots 2 --max-body 65536
check 'requests and metrics are answered' use_server
check 'requests are counted by outcome' counts_requests
check 'tokens and times are counted' counts_tokens
check 'requests end in all ways' ends_of_all_kinds
check 'each is counted once' counts_each_request_once
check 'every metric has a help text' every_family_has_help
check 'docs/serving.md describes exactly these metrics' document_agrees
check 'docs/grafana.json shows exactly these metrics' dashboard_agrees
check 'the dashboard is sound' dashboard_is_sound
if command -v promtool >/dev/null; then
    check 'promtool check metrics' promtool_is_content
    check 'promtool reads the queries of the dashboard' queries_parse
else
    skip 'promtool check metrics' 'no promtool (scripts/deps.sh test installs it)'
    skip 'promtool reads the queries of the dashboard' 'no promtool (scripts/deps.sh test installs it)'
fi
check 'the server ends well' ends_well
echo "1..$n"
