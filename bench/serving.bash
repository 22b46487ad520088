# shellcheck shell=bash
# What bench/serve.sh and bench/simulate.sh share: the models and what steps on them cost, the mixes of requests, reports
# as rows. Read at the top of the tree, with OUT set; makes what is missing in $B/bench-models, which takes minutes.
#
#   compute   floors uniform over 100, 75, 50 and 25 % of the expert compute
#   quality   as good as the original with 8, 6, 4, 3 or 2 of its 8 experts: on the split model the cheapest share that is
#             at least as good on the demo model's measured curve
#   deadline  as compute, and a token may take 1.5 times what it takes on the idle original
#   full      all floors at full
# Load 1 is what fifo on the original sustains of the compute mix, by the cost model, or RATE requests a second. Under load
# "saturated" all requests are there at once: what a system sustains.
#
# Costs are measured again where the program is newer than they are; COSTS=keep takes them as they are.

B=${B:-build}
moeprism=$B/moeprism
models=$B/bench-models
whole=$models/olmoe-1b-7b-16-Q4_0.gguf
split=$models/olmoe-1b-7b-16-Q4_0-n32.gguf
demo=models/demo-olmoe-q8_0.gguf
engine=(--no-mmap ${THREADS:+-t "$THREADS"})

command -v jq >/dev/null || { echo "$0: needs jq (Debian: apt-get install jq)" >&2; exit 1; }
mkdir -p "$models" "$(dirname "$OUT")"
make B="$B" all >&2

[ -f "$whole" ] || "$moeprism" synth --like olmoe-1b-7b --type Q4_0 -o "$whole" >&2
[ -f "$split" ] || "$moeprism" synth --like olmoe-1b-7b --type Q4_0 --split 32 -o "$split" >&2
for model in "$whole" "$split"; do
    costs=${model%.gguf}.cost.json
    if [ ! -f "$costs" ] || { [ "${COSTS:-}" != keep ] && [ "$moeprism" -nt "$costs" ]; }; then
        "$moeprism" bench "$model" "${engine[@]}" --cost --slots 8 -c 2048 >&2
    fi
done

# Systems are named "original POLICY" or "split POLICY".
model_of() { case $1 in original*) echo "$whole" ;; *) echo "$split" ;; esac; }
policy_of() { echo "${1#* }"; }

# Shares on the split model that are as good as 8, 6, 4, 3, 2 whole experts.
quality_shares() {
    local prism=$models/demo-prism.gguf curve=$models/demo-curve.json
    [ -f "$prism" ] || "$moeprism" refactor "$demo" -o "$prism" --calibration models/calibration.txt >&2
    [ -f "$curve" ] || "$moeprism" eval "$prism" --text models/heldout.txt -c 256 --max-tokens 16384 --against "$demo" \
        --json "$curve" >&2
    jq -r '[(8, 6, 4, 3, 2) as $k | if $k == 8 then 1 else
        (.against.points[] | select(.experts_used == $k).ppl) as $good |
        [.points[] | select(.ppl <= $good).compute_share] | min end] |
        map(. * 1000 | round / 1000 | tostring) | join(",")' "$curve"
}

# floors MIX SYSTEM
floors() {
    case $1 in
    full) echo full ;;
    quality) case $2 in original*) echo uniform:1,0.75,0.5,0.375,0.25 ;; *) echo "uniform:$shares" ;; esac ;;
    *) echo uniform:1,0.75,0.5,0.25 ;;
    esac
}

# simulate SYSTEM OPTIONS...: the report of its policy, and what the work allows.
simulate() {
    local model
    model=$(model_of "$1")
    "$moeprism" simulate --cost "${model%.gguf}.cost.json" --policy "$(policy_of "$1")" --slots 8 -c 1024 "${@:2}" --json |
        jq '.policies[0] + {allowed_requests_per_s}'
}

# shellcheck disable=SC2034 # used by those who read this
columns=requests_per_s,goodput_per_s,tokens_per_s,offered,done,refused,failed,violations,ttft_p50,ttft_p99,tpot_p50,tpot_p99,e2e_p50,e2e_p99,share,floor_share,ppl_increase,allowed_per_s,slower,overhead_ms
# row SLOWER OVERHEAD: a report on standard input as those columns; steps took SLOWER times what the cost file says and
# OVERHEAD ms beside it.
row() {
    jq -r --argjson slower "$1" --argjson overhead "$2" '[.requests_per_s, .goodput_per_s, .output_tokens_per_s,
        .offered, .done, .refused, .failed, .floor_violations, .ttft_ms.p50, .ttft_ms.p99, .tpot_ms.p50, .tpot_ms.p99,
        .end_to_end_ms.p50, .end_to_end_ms.p99, .compute_share, .compute_share_floors, .ppl_increase,
        .allowed_requests_per_s, $slower, $overhead] | map(. // "" | tostring) | join(",")'
}

shares=$(quality_shares)
sustained=${RATE:-$(simulate "original fifo" --floors uniform:1,0.75,0.5,0.25 -r 1000 -n 250 | jq .requests_per_s)}
deadline_ms=$(simulate "original fifo" -r 0.01 -n 50 | jq '.tpot_ms.p50 * 1.5')
load_from=${RATE:+as given}
load_from=${load_from:-what fifo on the original sustains by the cost model}
# arrivals LOAD SECONDS REQUESTS: options; REQUESTS that saturate
arrivals() {
    case $1 in
    saturated) echo "-r 1000 -n $3" ;;
    *) echo "-r $(jq -n "$sustained * $1") --duration $2" ;;
    esac
}
# deadline MIX: options of the load
deadline() { [ "$1" != deadline ] || echo "--tpot-ms $deadline_ms"; }

about_load() {
    echo "OLMoE-1B-7B's shape, Q4_0, random weights; 8 slots, prompts of 64 to 512 tokens, outputs of 32 to 128."
    echo "$(date -u +%Y-%m-%d), $(nproc) cores of $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1). Load 1: $(printf %.3f "$sustained") requests a second, $load_from."
    echo "Mixes: *compute*, floors uniform over 100, 75, 50, 25 % of the expert compute; *quality*, as good"
    echo "as the original with 8, 6, 4, 3, 2 experts, on the split model shares of ${shares//,/, } by the demo model's curve; *deadline*,"
    echo "as compute, and $(printf %.0f "$deadline_ms") ms a token; *full*, all floors at full. Load *saturated*: all requests are there at once."
    echo "\"in time\": within the deadline. \"of the work\": of the throughput that the sum of the requests' work allows at the floors, in"
    echo "steps that are always full (src/sched/work.c). \"perplexity\": its mean increase by the model's curve, where that is"
    echo "measured or, in the simulator, guessed."
}
