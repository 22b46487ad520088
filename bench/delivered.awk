# Tables of bench/delivered.sh's CSV; curve_tokens (0: unknown) is how many the curve was measured on. Losses are nats a
# token, so exp(loss) - 1 is the increase of perplexity. The mean of (delivered - promised) is a ratio of sums over windows,
# and the measurement's error is that of such a ratio. Fails where too few windows ran at several points.
BEGIN { mixed_least = 0.25 }
function add(group,    lost) {
    lost = $4 - $5
    if (!(group in windows)) order[++groups] = group
    windows[group]++
    tokens[group] += $3
    delivered[group] += lost
    promised[group] += $3 * $10
    share[group] += $3 * $9
    of[group, windows[group]] = lost - $3 * $10
    weight[group, windows[group]] = $3
    mixed[group] += $6 != $7
}
function row(group,    i, sum) {
    mean = (delivered[group] - promised[group]) / tokens[group]
    for (i = 1; i <= windows[group]; i++) sum += (of[group, i] - mean * weight[group, i]) ^ 2
    error = windows[group] > 1 ? sqrt(sum * windows[group] / (windows[group] - 1)) / tokens[group] : 0
    printf "| %s | %d | %d | %.1f %% | %+.2f %% | %+.2f %% | %+.2f %% | %.2f %% | %s |\n", group, windows[group], mixed[group],
        100 * share[group] / tokens[group], 100 * (exp(delivered[group] / tokens[group]) - 1),
        100 * (exp(promised[group] / tokens[group]) - 1), 100 * mean, 100 * error,
        (error > 0 ? sprintf("%.1f", (mean < 0 ? -mean : mean) / error) : "-")
}
NR > 1 {
    at_full += $4
    add("all")
    add($2 " at a time")
    add(sprintf("floor %.1f %%", 100 * $8))
}
# The curve was measured on text like this, so its own error goes by its tokens.
function verdict(difference, measured,    curve, both) {
    curve = curve_tokens > 0 ? measured * sqrt(tokens["all"] / curve_tokens) : 0
    both = sqrt(measured ^ 2 + curve ^ 2)
    if (difference < 0) difference = -difference
    printf "Delivered and promised %s one standard error of their difference, %.2f %%: ",
        difference <= both ? "agree within" : "DIFFER by more than", 100 * both
    if (curve > 0)
        printf "in it are the measurement's error\nover these windows, %.2f %%, and the curve's own, about %.2f %% for the %d tokens it was measured on. ",
            100 * measured, 100 * curve, curve_tokens
    else
        printf "in it is the measurement's error over these\nwindows, not the curve's own. "
    if (measured > 0) printf "Against the\nmeasurement's alone they are %.1f errors apart.\n", difference / measured
}
END {
    if (windows["all"] == 0) exit 1
    print "| requests | windows | at several points | expert compute | delivered | promised | difference | measurement's error | in errors |"
    print "|---|---|---|---|---|---|---|---|---|"
    row("all")
    difference = mean
    measured = error
    for (i = 2; i <= groups; i++) row(order[i])
    printf "\nPerplexity at full %.3f, delivered %.3f.\n", exp(-at_full / tokens["all"]),
        exp((delivered["all"] - at_full) / tokens["all"])
    verdict(difference, measured)
    if (mixed["all"] >= mixed_least * windows["all"]) exit 0
    printf "%d of %d windows ran at several points, and %d %% have to: this says nothing of load that moves points.\n",
        mixed["all"], windows["all"], 100 * mixed_least >"/dev/stderr"
    exit 1
}
