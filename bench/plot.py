# The pause over the RAM size, as an SVG drawn with nothing but text.
# SPDX-License-Identifier: Apache-2.0
import math
import statistics
from xml.sax.saxutils import escape

from guest import size_bytes

WIDTH, HEIGHT = 860, 460
LEFT, RIGHT, TOP, BOTTOM = 75, 285, 56, 76
COLOURS = ("#c0392b", "#2471a3", "#1e8449", "#7d3c98", "#935116", "#d68910")
SPREAD = 0.09  # how far the series stand beside each other, of a doubling of the size


def text(x, y, words, anchor="middle", size=12, more=""):
    return (f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" '
            f'{more}>{escape(words)}</text>')


def line(x1, y1, x2, y2, colour, width=1.0, more=""):
    return (f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}" '
            f'stroke-width="{width}" {more}/>')


def dash(mode):
    return 'stroke-dasharray="7 4"' if mode == "exec" else ""


def series_of(samples):
    """{(contender, mode): [(bytes, min, median, max in ms)]}: one vCPU, idle host."""
    series = {}
    for case, contenders in samples.items():
        if case.cpus != 1 or case.busy or case.mode == "none":
            continue
        for name, runs in contenders.items():
            gaps = [run["gap-ns"] / 1e6 for run in runs]
            if gaps:
                series.setdefault((name, case.mode), []).append(
                    (size_bytes(case.mem), min(gaps), statistics.median(gaps), max(gaps)))
    names = list(dict.fromkeys(name for name, _ in series))
    order = sorted(series, key=lambda key: (names.index(key[0]), key[1] == "exec"))
    return {key: sorted(series[key]) for key in order}


class Axes:
    """Both logarithmic: decades of ms upwards, doublings of the RAM size to the right."""

    def __init__(self, points):
        self.low = math.floor(math.log10(min(p[1] for p in points)))
        self.high = max(self.low + 1, math.ceil(math.log10(max(p[3] for p in points))))
        self.sizes = sorted({p[0] for p in points})
        self.first = math.log2(self.sizes[0]) - 0.5
        self.span = math.log2(self.sizes[-1]) + 0.5 - self.first

    def x(self, size, aside=0.0):
        at = (math.log2(size) + aside - self.first) / self.span
        return LEFT + at * (WIDTH - LEFT - RIGHT)

    def y(self, ms):
        at = (math.log10(ms) - self.low) / (self.high - self.low)
        return HEIGHT - BOTTOM - at * (HEIGHT - TOP - BOTTOM)

    def draw(self):
        out = []
        for power in range(self.low, self.high + 1):
            for digit in range(1, 10 if power < self.high else 2):
                ms = digit * 10.0 ** power
                out.append(line(LEFT, self.y(ms), WIDTH - RIGHT, self.y(ms),
                                "#bbb" if digit == 1 else "#eee"))
                if digit in (1, 2, 5):
                    out.append(text(LEFT - 8, self.y(ms) + 4, f"{ms:g}", "end",
                                    12 if digit == 1 else 9))
        for size in self.sizes:
            x = self.x(size)
            out.append(line(x, HEIGHT - BOTTOM, x, HEIGHT - BOTTOM + 5, "#666"))
            out.append(text(x, HEIGHT - BOTTOM + 19, f"{size / (1 << 30):g} GiB"))
        middle = (TOP + HEIGHT - BOTTOM) / 2
        out.append(text(22, middle, "longest gap, ms (logarithmic)",
                        more=f'transform="rotate(-90 22 {middle})"'))
        out.append(text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - BOTTOM + 40,
                        "guest RAM, fully populated"))
        return out


def draw_series(axes, values, colour, mode, aside):
    """Medians joined by a line; a bar from the least to the most at each."""
    at = [(axes.x(size, aside), axes.y(low), axes.y(mid), axes.y(high))
          for size, low, mid, high in values]
    path = " ".join(f"{x:.1f},{mid:.1f}" for x, _, mid, _ in at)
    return [*(line(x, low, x, high, colour, 1.2, 'opacity="0.6"') for x, low, _, high in at),
            f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2" '
            f'{dash(mode)}/>',
            *(f'<circle cx="{x:.1f}" cy="{mid:.1f}" r="3.5" fill="{colour}"/>'
              for x, _, mid, _ in at)]


def draw_legend(i, name, mode, colour):
    x, y = WIDTH - RIGHT + 14, TOP + 12 + 20 * i
    return [line(x, y, x + 32, y, colour, 2, dash(mode)),
            f'<circle cx="{x + 16}" cy="{y}" r="3.5" fill="{colour}"/>',
            text(x + 40, y + 4, f"{name}, {mode}", "start")]


def draw(samples, machine):
    """The SVG's text; None if there is nothing to draw."""
    series = series_of(samples)
    if not series:
        return None
    axes = Axes([point for values in series.values() for point in values])
    names = list(dict.fromkeys(name for name, _ in series))
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
           f'font-family="sans-serif"><rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
           text(LEFT, 22, "How long a guest stands still when its VMM is replaced", "start", 15,
                'font-weight="bold"'),
           text(LEFT, 40, "Seen from outside, 1 vCPU, idle host; median, bars from min to max",
                "start", 12, 'fill="#444"'),
           text(LEFT, HEIGHT - 10, machine.split("; load")[0], "start", 10, 'fill="#666"'),
           *axes.draw()]
    for i, ((name, mode), values) in enumerate(series.items()):
        colour = COLOURS[names.index(name) % len(COLOURS)]
        aside = (i - (len(series) - 1) / 2) * SPREAD / max(1, len(series) - 1)
        out += draw_series(axes, values, colour, mode, aside)
        out += draw_legend(i, name, mode, colour)
    return "\n".join(out) + "\n</svg>\n"
