# SPDX-License-Identifier: ISC
# Tables in Markdown from compare.sh's samples: lines of
#   SECTION WORK UNIT TARGET SYSTEM ROUND VALUE
# parted by tabs.  In each section the first system is compared with the second:
# the ratio of the medians, and the smallest and largest ratio of any round.
# Latencies are compared as they are; everything else as speed.  Writes the
# ratios, as speed, to the file `ratios` for plot.awk.
BEGIN { FS = OFS = "\t" }

{
    row = $1 FS $2
    if (!(row in unit)) {
        rows[++row_count] = row
        unit[row] = $3
        target[row] = $4
    }
    if (!(($1, $5) in column)) {
        column[$1, $5] = ++systems[$1]
        name[$1, systems[$1]] = $5
    }
    c = column[$1, $5]
    value[row, c, ++count[row, c]] = $7
    by_round[row, c, $6] = $7
    if ($6 > last) last = $6
}

function median(row, c,   n, i, j, t, v)
{
    n = count[row, c]
    for (i = 1; i <= n; i++) v[i] = value[row, c, i] + 0
    for (i = 2; i <= n; i++)
        for (j = i; j > 1 && v[j - 1] > v[j]; j--) {
            t = v[j]; v[j] = v[j - 1]; v[j - 1] = t
        }
    low = v[1]
    high = v[n]
    return n % 2 ? v[(n + 1) / 2] : (v[n / 2] + v[n / 2 + 1]) / 2
}

# Three digits.
function digits(x)
{
    return sprintf(x < 9.995 ? "%.2f" : x < 99.95 ? "%.1f" : "%.0f", x)
}

function figure(x, unit)
{
    if (unit == "us") return digits(x) " µs"
    if (unit == "s") return digits(x) " s"
    if (unit == "B/s") return digits(x / 1e9) " GB/s"
    return x < 999500 ? digits(x / 1e3) " k/s" : digits(x / 1e6) " M/s"
}

# Ours to theirs: latency by latency, else speed by speed.
function ratio(ours, theirs, unit)
{
    return unit == "s" ? theirs / ours : ours / theirs
}

END {
    for (r = 1; r <= row_count; r++) {
        row = rows[r]
        split(row, part, FS)
        section = part[1]
        u = unit[row]
        if (section != before) {
            printf "%s### %s\n\n| work ", before == "" ? "" : "\n", section
            for (c = 1; c <= systems[section]; c++)
                printf "| %s ", name[section, c]
            printf "| %s : %s | of rounds | target |\n|---", \
                name[section, 1], name[section, 2]
            for (c = 1; c <= systems[section]; c++) printf "|---:"
            print "|---:|---|---|"
            before = section
        }
        printf "| %s ", part[2]
        for (c = 1; c <= systems[section]; c++) {
            if (count[row, c] == 0) {
                printf "| failed "
                continue
            }
            m[c] = median(row, c)
            printf "| %s (%s–%s) ", figure(m[c], u), bare(low, u), bare(high, u)
        }
        if (count[row, 1] == 0 || count[row, 2] == 0) {
            print "| | |", target[row], "|"
            continue
        }
        x = ratio(m[1], m[2], u)
        low = high = 0
        for (i = 0; i <= last; i++)
            if ((row, 1, i) in by_round && (row, 2, i) in by_round) {
                y = ratio(by_round[row, 1, i], by_round[row, 2, i], u)
                if (low == 0 || y < low) low = y
                if (y > high) high = y
            }
        split(target[row], goal, " ")
        met = target[row] == "" ? "" : \
            (goal[1] == ">=" ? x >= goal[2] : x <= goal[2]) ? ", met" : ", missed"
        gsub(/>=/, "≥", target[row])
        gsub(/<=/, "≤", target[row])
        printf "| **%.2f** | %.2f–%.2f | %s%s |\n", x, low, high, target[row], met
        print section, part[2], u == "us" ? 1 / x : x, \
            u == "us" ? (high ? 1 / high : x) : low, \
            u == "us" ? (low ? 1 / low : x) : high, \
            goal[2] == "" ? "" : u == "us" ? 1 / goal[2] : goal[2], \
            name[section, 2] >ratios
    }
}

# A figure without its unit, which stands before it.
function bare(x, unit,   text)
{
    text = figure(x, unit)
    sub(/ .*/, "", text)
    # k/s and M/s may differ from the median's: then keep it whole.
    return unit == "req/s" && (x >= 999500) != (m[c] >= 999500) ? \
        figure(x, unit) : text
}
