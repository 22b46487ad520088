# Tables of bench/serve.sh's and bench/simulate.sh's CSV: one per mix and load, systems in order of appearance, seeds
# averaged; then, where a load was run and simulated as well, how well the two agree.
BEGIN { FS = "," }
NR == 1 {
    for (i = 1; i <= NF; i++) column[$i] = i
    next
}
{
    group = $1 SUBSEP $2
    key = group SUBSEP $3 SUBSEP $4
    if (!(group in seen)) { seen[group] = 1; groups[++n_groups] = group }
    if (!((group, $3) in known)) { known[group, $3] = 1; systems[group, ++n_systems[group]] = $3 }
    sources[group, $4] = 1
    count[key]++
    for (i = 6; i <= NF; i++) {
        sum[key, i] += $i
        known_values[key, i] += $i != ""
    }
}

function value(key, name) { return sum[key, column[name]] / count[key] }
function ratio(a, b) { return b > 0 ? sprintf("%.2f", a / b) : "-" }
function percent(a, b) { return b > 0 ? sprintf("%.1f %%", 100 * a / b) : "-" }
function increase(key) {
    return known_values[key, column["ppl_increase"]] == count[key] ? sprintf("%+.2f %%", 100 * value(key, "ppl_increase")) : "-"
}

function table(group, source,    s, key, base, part) {
    split(group, part, SUBSEP)
    base = group SUBSEP systems[group, 1] SUBSEP source
    printf "\n## %s, load %s\n\n", part[1], part[2]
    print "| system | requests/s | over the first | of the work | in time/s | over the first | first token p50, s | ms a token p50 | p99 | expert compute | at the floors | perplexity | refused | floors undercut |"
    print "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|"
    for (s = 1; s <= n_systems[group]; s++) {
        key = group SUBSEP systems[group, s] SUBSEP source
        if (!(key in count)) continue
        printf "| %s | %.3f | %s | %s | %.3f | %s | %.1f | %.0f | %.0f | %.1f %% | %.1f %% | %s | %.0f | %d |\n", systems[group, s],
            value(key, "requests_per_s"), ratio(value(key, "requests_per_s"), value(base, "requests_per_s")),
            percent(value(key, "requests_per_s"), value(key, "allowed_per_s")),
            value(key, "goodput_per_s"), ratio(value(key, "goodput_per_s"), value(base, "goodput_per_s")),
            value(key, "ttft_p50") / 1000, value(key, "tpot_p50"), value(key, "tpot_p99"), 100 * value(key, "share"),
            100 * value(key, "floor_share"), increase(key), value(key, "refused"), sum[key, column["violations"]]
    }
}

function three(made, real) {
    return ratio(value(made, "requests_per_s"), value(real, "requests_per_s")) " | " \
        ratio(value(made, "e2e_p50"), value(real, "e2e_p50")) " | " ratio(value(made, "tpot_p50"), value(real, "tpot_p50"))
}

function agreement(    g, s, at, part, shown) {
    for (g = 1; g <= n_groups; g++)
        for (s = 1; s <= n_systems[groups[g]]; s++) {
            at = groups[g] SUBSEP systems[groups[g], s] SUBSEP
            if (!((at "server") in count) || !((at "simulated") in count)) continue
            if (!shown++) {
                print "\n## Simulation over server\n"
                print "By the cost file alone, and with steps as much slower than it (\"steps\"), and as much time between them, as the"
                print "server's metrics tell of the load.\n"
                print "| mix | load | system | requests/s | end to end p50 | ms a token p50 | steps | between, ms | requests/s | end to end p50 | ms a token p50 |"
                print "|---|---|---|---|---|---|---|---|---|---|---|"
            }
            split(groups[g], part, SUBSEP)
            printf "| %s | %s | %s | %s | %.2f | %.1f | %s |\n", part[1], part[2], systems[groups[g], s],
                three(at "simulated", at "server"), value(at "server", "slower"), value(at "server", "overhead_ms"),
                three(at "at its speed", at "server")
        }
}

# The paper's own comparison: throughput of the split model's scheduler over FIFO on the original, under overload.
function paper(mix, source,    best, base) {
    best = mix SUBSEP "saturated" SUBSEP "split elastic" SUBSEP source
    base = mix SUBSEP "saturated" SUBSEP "original fifo" SUBSEP source
    if (!(best in count) || !(base in count)) return
    printf "\nThroughput of `elastic` over `fifo` on the original, %s, saturated: **%+.1f %%**. The paper reports +14.9 %% (OLMoE)\n", mix,
        100 * (value(best, "requests_per_s") / value(base, "requests_per_s") - 1)
    print "and +19.9 % (DeepSeek-V2-Lite) for its scheduler over FIFO; +33.9 % in its second version, offline. On a GPU."
}

END {
    paper("compute", "server")
    paper("compute poisson", "simulated")
    for (g = 1; g <= n_groups; g++) table(groups[g], (groups[g], "server") in sources ? "server" : "simulated")
    agreement()
}
