# When a guest is back at full memory speed after an update: from the pages it visited over time.
# SPDX-License-Identifier: Apache-2.0
import bisect

BEFORE_S = 0.3  # watched before an update: what it is compared with
WINDOW_NS = 10_000_000
ENOUGH = 0.9


class Pace:
    """A series of [ns, pages visited], asked for any time between its ends."""

    def __init__(self, series):
        self.times = [at for at, _ in series]
        self.values = [value for _, value in series]

    def pages(self, at_ns):
        i = min(max(bisect.bisect_right(self.times, at_ns), 1), len(self.times) - 1)
        (t0, t1), (v0, v1) = self.times[i - 1:i + 1], self.values[i - 1:i + 1]
        return v0 + (v1 - v0) * (at_ns - t0) / (t1 - t0)

    def rate(self, from_ns, to_ns):
        """Pages for each ns."""
        return (self.pages(to_ns) - self.pages(from_ns)) / (to_ns - from_ns)


def resumed_ns(whole, begin_ns, end_ns):
    """When the guest ran again: the end of the longest gap that began during the update."""
    gaps = [(length, start + length) for start, length, _ in whole
            if begin_ns - WINDOW_NS <= start <= end_ns]
    return max(gaps)[1] if gaps else begin_ns


def recovery(series, whole, begin_ns, end_ns, round_ns):
    """
    back-ns: from the end of the pause to the first WINDOW_NS at ENOUGH of the rate before it.
    lost-ns: of the time in which the guest could have visited all its RAM once, counted from the
    end of the pause, what went into anything but visiting pages at that rate.
    """
    pace = Pace(series)
    before = pace.rate(pace.times[0], begin_ns)
    start_ns = resumed_ns(whole, begin_ns, end_ns)
    last_ns = min(pace.times[-1], start_ns + round_ns)
    at_ns = start_ns
    while at_ns + WINDOW_NS < last_ns and pace.rate(at_ns, at_ns + WINDOW_NS) < ENOUGH * before:
        at_ns += WINDOW_NS // 10
    visited = pace.pages(last_ns) - pace.pages(start_ns)
    return {"back-ns": at_ns - start_ns, "lost-ns": last_ns - start_ns - visited / before,
            "pages-per-ms": before * 1e6, "watched-ns": last_ns - start_ns}
