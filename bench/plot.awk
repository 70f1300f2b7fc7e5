# SPDX-License-Identifier: ISC
# An SVG of ratios: lines of
#   SECTION WORK RATIO LOW HIGH TARGET PEER
# parted by tabs, where more than 1 is faster than the peer.  A bar for each
# row, on a logarithmic scale that begins at 1, with the range of the rounds as
# a line and the target as a tick.
BEGIN {
    FS = "\t"
    left = 330
    right = 60
    scale = 400 # of a factor of ten
    top = 46
    step = 20
}

# A bound is no peer.
$7 == "memcpy" { next }

{
    rows[++count] = $0
    if ($3 > most) most = $3
    if ($5 > most) most = $5
    if (least == "" || $3 < least) least = $3
    if ($4 < least) least = $4
    if ($6 != "" && $6 > most) most = $6
    if ($1 != section) {
        section = $1
        sections++
    }
}

function log10(x) { return log(x) / log(10) }
function at(x) { return left + scale * (log10(x) - log10(least)) }
function escape(text)
{
    gsub(/&/, "\\&amp;", text)
    gsub(/</, "\\&lt;", text)
    return text
}

END {
    if (count == 0) exit
    least = least < 0.45 ? least * 0.9 : 0.45
    most = most > 4.5 ? most * 1.1 : 4.5
    width = at(most) + right
    height = top + step * count + 30 * sections + 20
    printf "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%.0f\" height=\"%.0f\" font-family=\"sans-serif\" font-size=\"12\">\n", width, height
    printf "<rect width=\"100%%\" height=\"100%%\" fill=\"white\"/>\n"
    printf "<text x=\"10\" y=\"20\" font-size=\"15\">Speed of farblk relative to its peer (logarithmic; right of the line is faster)</text>\n"
    split("0.1 0.2 0.5 1 1.5 2 3 4 5 7 10 20 50 100", marks, " ")
    for (i = 1; i in marks; i++) {
        x = marks[i]
        if (x < least || x > most) continue
        printf "<line x1=\"%.1f\" x2=\"%.1f\" y1=\"%d\" y2=\"%d\" stroke=\"%s\"/>\n", at(x), at(x), top, height - 10, (x == 1 ? "#333" : "#ddd")
        printf "<text x=\"%.1f\" y=\"%d\" text-anchor=\"middle\" fill=\"#555\">%s</text>\n", at(x), top - 6, x
    }
    y = top
    section = ""
    for (i = 1; i <= count; i++) {
        split(rows[i], f, FS)
        if (f[1] != section) {
            section = f[1]
            y += 30
            printf "<text x=\"10\" y=\"%d\" font-weight=\"bold\">%s: against %s</text>\n", y - 6, escape(section), escape(f[7])
        }
        a = at(1)
        b = at(f[3])
        met = f[6] == "" || f[3] + 0 >= f[6] + 0
        printf "<text x=\"%d\" y=\"%d\" text-anchor=\"end\">%s</text>\n", left - 8, y + 13, escape(f[2])
        from = a < b ? a : b
        color = f[3] >= 1 ? "#3a7d44" : "#b5533c"
        printf "<rect x=\"%.1f\" y=\"%d\" width=\"%.1f\" height=\"12\" fill=\"%s\"/>\n", from, y + 3, a + b - 2 * from, color
        printf "<line x1=\"%.1f\" x2=\"%.1f\" y1=\"%d\" y2=\"%d\" stroke=\"#222\"/>\n", at(f[4]), at(f[5]), y + 9, y + 9
        if (f[6] != "")
            printf "<line x1=\"%.1f\" x2=\"%.1f\" y1=\"%d\" y2=\"%d\" stroke=\"#1f4e9c\" stroke-width=\"2\"/>\n", at(f[6]), at(f[6]), y, y + 18
        end = at(f[5])
        if (end < b) end = b
        if (end < a) end = a
        if (end < at(f[6]) && f[6] != "") end = at(f[6])
        printf "<text x=\"%.1f\" y=\"%d\">%.2f%s</text>\n", end + 6, y + 13, f[3], (met ? "" : " (below target)")
        y += step
    }
    print "</svg>"
}
