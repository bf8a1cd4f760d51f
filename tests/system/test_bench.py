# What the benchmark's figures rest on: the observer, and how a pace becomes a recovery.
# SPDX-License-Identifier: Apache-2.0
import ctypes
import json
import mmap
import pathlib
import subprocess
import sys
import time

import pytest
from qmp import wait_for_change
from vm import BUILD, ROOT

sys.path.append(str(ROOT / "bench"))
from recovery import recovery  # noqa: E402
from tables import median_or_dash, pause_gap_ms  # noqa: E402

MS = 1_000_000


class Counter:
    """A counter in a file, as a guest would have it in its RAM."""

    def __init__(self, path):
        path.write_bytes(bytes(4096))
        with open(path, "r+b") as file:
            self.cell = ctypes.c_uint64.from_buffer(mmap.mmap(file.fileno(), 4096))

    @property
    def value(self):
        return self.cell.value

    def count(self, for_ns):
        end_ns = time.monotonic_ns() + for_ns
        while time.monotonic_ns() < end_ns:
            self.cell.value += 1  # in one store, as a guest would


@pytest.fixture
def gap(tmp_path):
    counter = Counter(tmp_path / "ram")
    process = subprocess.Popen(
        [pathlib.Path(BUILD) / "bench/gap", tmp_path / "ram", "0", "64", "1", "100", "1000"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"watching\n"
    yield counter, process
    process.kill()
    process.communicate()


def test_observer_sees_a_stall_and_its_end(gap):
    counter, process = gap
    counter.count(20 * MS)
    wait_for_change(None, 0.05)
    resumed_ns = time.monotonic_ns()
    counter.count(20 * MS)
    seen = json.loads(process.communicate()[0])
    for kind in ("any", "whole"):
        over = [gap for gap in seen[kind] if gap[0] < resumed_ns <= gap[0] + gap[1]]
        assert len(over) == 1, seen
        start_ns, length_ns, unseen_ns = over[0]
        assert length_ns >= unseen_ns
        assert start_ns + length_ns >= resumed_ns
    assert seen["eyes"] >= 1 and seen["looks"] > seen["eyes"]
    values = [value for _, value in seen["series"]]
    assert values == sorted(values) and values[-1] <= counter.value


def pace(*parts):
    """A series from (ms, pages per ms) after each other, a sample each ms."""
    series, value = [[0, 0]], 0
    for length_ms, rate in parts:
        for _ in range(length_ms):
            value += rate
            series.append([series[-1][0] + MS, value])
    return series


def test_recovery_from_a_slow_start():
    series = pace((300, 100), (5, 0), (20, 50), (500, 100))
    found = recovery(series, [[300 * MS, 5 * MS, 0]], 299 * MS, 310 * MS, 200 * MS)
    assert found["pages-per-ms"] == pytest.approx(100)
    assert found["lost-ns"] == pytest.approx(10 * MS)
    assert found["back-ns"] == pytest.approx(18 * MS, abs=MS)


def test_recovery_of_a_guest_that_is_back_at_once():
    series = pace((300, 100), (5, 0), (500, 100))
    found = recovery(series, [[300 * MS, 5 * MS, 0]], 299 * MS, 310 * MS, 200 * MS)
    assert found["back-ns"] == 0
    assert found["lost-ns"] == pytest.approx(0, abs=1)


def updated(*gaps, paused=100, running=101):
    return {"gaps": [[start * MS, length * MS, 0] for start, length in gaps],
            "reported": {"update-record": {"paused-at-ns": paused * MS,
                                           "running-at-ns": running * MS}}}


def pause_gaps(runs):
    return median_or_dash([pause_gap_ms(run) for run in runs])


def test_the_pause_is_told_from_longer_gaps():
    """Wherever it is in the list; too short for it, it is no longer than what is there."""
    held_up = updated((50, 9), (100, 2), (102, 1))
    assert pause_gaps([held_up]) == "2.00"
    assert pause_gaps([held_up, updated((99, 4), (200, 5))]) == "3.00"
    assert pause_gaps([updated((50, 9), (101, 5))]) == "5.00"
    assert pause_gaps([updated()]) == "0.00"
    assert pause_gaps([{"gaps": [[0, MS, 0]], "reported": {"downtime": 3}}]) == "-"


def test_help_and_clear_errors():
    def bench(*words):
        return subprocess.run([sys.executable, "-B", ROOT / "bench/bench.py", "--build", BUILD,
                               *words], capture_output=True, text=True, check=False, timeout=60)
    assert "longest gap that a busy loop" in bench("--help").stdout
    for words, text in ((["--mem", "1X"], "no size like"), (["--modes", "jump"], "none of"),
                        (["--runs", "0"], "no positive number"),
                        (["--qemu", "/no/such", "start"], "there is no such program"),
                        (["--mem", "900G", "memory"], "does not fit")):
        found = bench(*words)
        assert found.returncode != 0 and text in found.stderr, found
