# Medians and ranges of bench/peers.sh's CSV, a table for every shape, type and test, in order of appearance.
function median(list, n,    i, j, sorted, swap) {
    for (i = 1; i <= n; i++) sorted[i] = list[i]
    for (i = 1; i <= n; i++)
        for (j = i + 1; j <= n; j++)
            if (sorted[j] < sorted[i]) { swap = sorted[i]; sorted[i] = sorted[j]; sorted[j] = swap }
    least = sorted[1]
    most = sorted[n]
    return n % 2 ? sorted[(n + 1) / 2] : (sorted[n / 2] + sorted[n / 2 + 1]) / 2
}

NR > 1 {
    split($0, quoted, "\"") # shape,type,"engine",round,test,speed,moe
    split(quoted[1], head, ",")
    split(quoted[3], tail, ",")
    group = head[1] " " head[2] ", " tail[3]
    if (!(group in n_engines)) groups[++n_groups] = group
    key = group SUBSEP quoted[2]
    if (!(key in count)) engines[group, ++n_engines[group]] = quoted[2]
    speed[key, ++count[key]] = tail[4]
    moe[key, count[key]] = tail[5]
}

function fill(key, from,    i) {
    for (i = 1; i <= count[key]; i++) values[i] = from == "moe" ? moe[key, i] : speed[key, i]
    return count[key]
}

END {
    for (g = 1; g <= n_groups; g++) {
        group = groups[g]
        best = 0
        for (e = 1; e <= n_engines[group]; e++) {
            key = group SUBSEP engines[group, e]
            m = median(values, fill(key, "speed"))
            if (engines[group, e] ~ /llama/ && m > best) best = m
        }
        printf "\n## %s\n\n| engine | tokens/s | range | of the peer | MoE, ms a token |\n|---|---|---|---|---|\n", group
        for (e = 1; e <= n_engines[group]; e++) {
            key = group SUBSEP engines[group, e]
            m = median(values, fill(key, "speed"))
            low = least
            high = most
            printf "| %s | %.1f | %.1f to %.1f | %s |", engines[group, e], m, low, high, best ? sprintf("%.2f", m / best) : "-"
            if (moe[key, 1] == "")
                print " |"
            else
                printf " %.3f |\n", median(values, fill(key, "moe"))
        }
    }
}
