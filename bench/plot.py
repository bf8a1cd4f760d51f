# The pause over the RAM size, as an SVG drawn with nothing but text.
# SPDX-License-Identifier: Apache-2.0
import math
import statistics
from xml.sax.saxutils import escape

from guest import size_bytes

WIDTH, HEIGHT = 760, 440
LEFT, RIGHT, TOP, BOTTOM = 70, 230, 40, 60
COLOURS = ("#d62728", "#1f77b4", "#2ca02c", "#9467bd", "#8c564b", "#ff7f0e")


def text(x, y, words, anchor="middle", more=""):
    return (f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="12" '
            f'{more}>{escape(words)}</text>')


def line(x1, y1, x2, y2, colour, width=1):
    return (f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}" '
            f'stroke-width="{width}"/>')


def series_of(samples):
    """{(contender, mode): [(bytes, median ms)]} of the cases with one vCPU and an idle host."""
    series = {}
    for case, contenders in samples.items():
        if case.cpus != 1 or case.busy or case.mode == "none":
            continue
        for name, runs in contenders.items():
            if runs:
                series.setdefault((name, case.mode), []).append(
                    (size_bytes(case.mem), statistics.median(r["gap-ns"] for r in runs) / 1e6))
    return {key: sorted(points) for key, points in series.items()}


def draw(samples, machine):
    """The SVG's text; None if there is nothing to draw."""
    series = series_of(samples)
    points = [point for line_ in series.values() for point in line_]
    if not points:
        return None
    low = math.floor(math.log10(min(ms for _, ms in points)))
    high = max(low + 1, math.ceil(math.log10(max(ms for _, ms in points))))
    first, last = (math.log2(f(size for size, _ in points)) for f in (min, max))
    span = max(1.0, last - first)

    def x(size):
        return LEFT + (math.log2(size) - first) / span * (WIDTH - LEFT - RIGHT)

    def y(ms):
        return HEIGHT - BOTTOM - (math.log10(ms) - low) / (high - low) * (HEIGHT - TOP - BOTTOM)

    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
           f'font-family="sans-serif"><rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
           text((LEFT + WIDTH - RIGHT) / 2, 20, "Longest gap seen by an outside observer, median",
                more='font-weight="bold"'),
           text(20, HEIGHT / 2, "ms", more=f'transform="rotate(-90 20 {HEIGHT / 2})"'),
           text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 25, "guest RAM, fully populated"),
           text(LEFT, HEIGHT - 6, machine, "start", 'fill="#666" style="font-size:9px"')]
    for power in range(low, high + 1):
        out.append(line(LEFT, y(10 ** power), WIDTH - RIGHT, y(10 ** power), "#ddd"))
        out.append(text(LEFT - 8, y(10 ** power) + 4, f"{10 ** power:g}", "end"))
    for size in sorted({size for size, _ in points}):
        out.append(line(x(size), TOP, x(size), HEIGHT - BOTTOM, "#eee"))
        out.append(text(x(size), HEIGHT - BOTTOM + 16, f"{size / (1 << 30):g} GiB"))
    names = sorted({name for name, _ in series}, key=lambda n: (n != "molt", n))
    for i, ((name, mode), values) in enumerate(sorted(series.items())):
        colour = COLOURS[names.index(name) % len(COLOURS)]
        dash = ' stroke-dasharray="6 4"' if mode == "exec" else ""
        path = " ".join(f"{x(size):.1f},{y(ms):.1f}" for size, ms in values)
        out.append(f'<polyline points="{path}" fill="none" stroke="{colour}" '
                   f'stroke-width="2"{dash}/>')
        out += [f'<circle cx="{x(size):.1f}" cy="{y(ms):.1f}" r="3.5" fill="{colour}"/>'
                for size, ms in values]
        at = TOP + 12 + 20 * i
        out.append(f'<line x1="{WIDTH - RIGHT + 12}" y1="{at}" x2="{WIDTH - RIGHT + 40}" y2="{at}" '
                   f'stroke="{colour}" stroke-width="2"{dash}/>')
        out.append(text(WIDTH - RIGHT + 46, at + 4, f"{name}, {mode}", "start"))
    return "\n".join(out) + "\n</svg>\n"
