# Tables of bench/delivered.sh's CSV. Losses are nats a token, so exp(loss) - 1 is the increase of perplexity. The mean of
# (delivered - promised) is a ratio of sums over windows, and its error is that of such a ratio.
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
function row(group,    i, mean, sum, error, difference) {
    mean = (delivered[group] - promised[group]) / tokens[group]
    for (i = 1; i <= windows[group]; i++) sum += (of[group, i] - mean * weight[group, i]) ^ 2
    error = windows[group] > 1 ? sqrt(sum * windows[group] / (windows[group] - 1)) / tokens[group] : 0
    printf "| %s | %d | %d | %.1f %% | %+.2f %% | %+.2f %% | %+.2f %% | %.2f %% | %s |\n", group, windows[group], mixed[group],
        100 * share[group] / tokens[group], 100 * (exp(delivered[group] / tokens[group]) - 1),
        100 * (exp(promised[group] / tokens[group]) - 1), 100 * mean, 100 * error,
        (error > 0 ? sprintf("%.1f", (mean < 0 ? -mean : mean) / error) : "-")
    return mean ^ 2 <= (2 * error) ^ 2
}
NR > 1 {
    add("all")
    add($2 " at a time")
    add(sprintf("floor %.1f %%", 100 * $8))
}
END {
    print "| requests | windows | at several points | expert compute | delivered | promised | difference | its standard error | in errors |"
    print "|---|---|---|---|---|---|---|---|---|"
    agrees = row("all")
    for (i = 2; i <= groups; i++) row(order[i])
    printf "\nPerplexity at full %.3f, delivered %.3f. ", exp(-full()), exp(-full() + delivered["all"] / tokens["all"])
    print agrees ? "Delivered and promised agree within two standard errors." : "Delivered and promised differ by more than two standard errors."
}
{ at_full += NR > 1 ? $4 : 0 }
function full() { return at_full / tokens["all"] }
