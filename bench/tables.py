# The figures as Markdown tables.
# SPDX-License-Identifier: Apache-2.0
import statistics

MS = 1e6


def p99(values):
    """The smallest value that at least 99 % do not exceed (with few runs, the largest)."""
    ordered = sorted(values)
    return ordered[max(0, -(-len(ordered) * 99 // 100) - 1)]


def spread(values):
    """min, median, p99 and max, in ms, as cells."""
    return [f"{v / MS:.2f}" for v in (min(values), statistics.median(values), p99(values),
                                      max(values))]


def table(head, rows):
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows]) + "\n"


def start_table(samples):
    """@samples: {contender: [measure_start()]}"""
    rows = []
    for name, runs in samples.items():
        rss = statistics.median(run["rss-bytes"] for run in runs) / (1 << 20)
        rows.append([name, str(len(runs)), *spread([run["first-instruction-ns"] for run in runs]),
                     f"{rss:.1f}"])
    return table(["exec to first guest instruction, ms", "runs", "min", "median", "p99", "max",
                  "RSS beside RAM, MiB"], rows)


def floor_table(samples):
    names = {"transfer": "kick, read and write one vCPU's state, one message there and back",
             "exec": "exec, KVM VM with irqchip, PIT, memslot, vCPU"}
    return table(["this machine's floor, ms", "runs", "min", "median", "p99", "max"],
                 [[names[mode], str(len(values)), *spread(values)]
                  for mode, values in samples.items()])


def reported_ms(run):
    """What the program itself says, in ms; None if it does not."""
    record = run["reported"].get("update-record")
    if record:
        return record["pause-ns"] / MS
    return run["reported"].get("downtime")


def pause_gap_ms(run):
    """
    The gap that holds what molt calls its pause: the pause alone, from outside, in ms.  If none there
    was long enough to be kept: the shortest that was, for it was no longer.  None without a record.
    """
    record = run["reported"].get("update-record", {})
    if "running-at-ns" not in record:
        return None
    found = [length for start, length, _ in run["gaps"] if start < record["running-at-ns"] and
             start + length > record["paused-at-ns"]]
    return (max(found) if found else
            min((length for _, length, _ in run["gaps"]), default=0)) / MS


def median_or_dash(values):
    values = [v for v in values if v is not None]
    return f"{statistics.median(values):.2f}" if values else "-"


def ms(values, how=statistics.median):
    """One figure of many in ns, as a cell in ms."""
    return f"{how(values) / MS:.2f}"


def ratio(values, own):
    """What a contender's median is in terms of molt's, as a cell."""
    if not own or not statistics.median(own):
        return "-"
    return f"{statistics.median(values) / statistics.median(own):.1f}"


def rows_of(samples, key, own="molt"):
    """For each row its beginning: case, name, number of runs, the spread of @key, the ratio."""
    for case, contenders in samples.items():
        ours = [run[key] for run in contenders.get(own, [])] if case.mode != "none" else []
        for name, runs in contenders.items():
            values = [run[key] for run in runs]
            if values:
                yield [case.text(), name, str(len(values)), *spread(values),
                       ratio(values, ours)], runs


def update_table(samples):
    """@samples: {case: {contender: [measure_pause()]}}"""
    rows = [[*row, ms([r["second-ns"] for r in runs]), ms([r["whole-ns"] for r in runs]),
             median_or_dash([pause_gap_ms(r) for r in runs]),
             median_or_dash([reported_ms(r) for r in runs]),
             ms([r["unseen-ns"] for r in runs], max)]
            for row, runs in rows_of(samples, "gap-ns")]
    return table(["longest gap seen from outside, ms", "", "runs", "min", "median", "p99", "max",
                  "median / molt's", "second gap", "whole VM", "pause alone", "own report",
                  "unseen at most"], rows)


def memory_table(samples):
    """@samples: {case: {contender: [measure_speed()]}}"""
    rows = [[*row[:-1], ms([r["lost-ns"] for r in runs]), ms([r["lost-ns"] for r in runs], max),
             f"{statistics.median(r['pages-per-ms'] for r in runs):.0f}"]
            for row, runs in rows_of(samples, "back-ns")]
    return table(["from the pause's end to 90 % of memory speed, ms", "", "runs", "min", "median",
                  "p99", "max", "lost, median", "lost, max", "pages per ms before"], rows)


def stock_table(result, own="molt"):
    """@result: stock_guest.measure()"""
    rows = []
    for mode, contenders in result["runs"].items():
        ours = [run["gap-ns"] for run in contenders.get(own, [])] if mode != "none" else []
        for name, runs in contenders.items():
            gaps = [run["gap-ns"] for run in runs]
            inside = [run["inside-ns"] for run in runs]
            rows.append(["no update" if mode == "none" else mode, name, str(len(runs)),
                         *spread(gaps), ratio(gaps, ours), ms(inside), ms(inside, max),
                         median_or_dash([reported_ms(run) for run in runs])])
    return table([f"longest gap of a busy loop in a stock guest, seen from outside, ms; "
                  f"{result['host']}", "", "runs", "min", "median", "p99", "max", "median / molt's",
                  "by the guest's own clock, median", "max", "own report"], rows)


def phases(runs):
    """Medians in ms of molt's phases from the pause on, in order: [(process, name, ms)]"""
    found = {}
    for run in runs:
        record = run["reported"].get("update-record", {})
        paused_ns = record.get("paused-at-ns", 0)
        for phase in record.get("phases", []):
            if phase["begin-ns"] + phase["ns"] >= paused_ns:
                begin_ns = phase["begin-ns"] - paused_ns
                found.setdefault((phase["process"], phase["name"]), []).append(
                    (begin_ns, phase["ns"]))
    medians = [(statistics.median(b for b, _ in values), process, name,
                statistics.median(ns for _, ns in values))
               for (process, name), values in found.items()]
    return sorted(medians)


def phase_table(case, runs):
    rows = [[f"{process} {name}", f"{begin / MS:.3f}", f"{ns / MS:.3f}"]
            for begin, process, name, ns in phases(runs)]
    return table([f"where the time goes: {case.text()}", "begins after, ms", "takes, ms"], rows)
