# Breaks every stage of every update table, one at a time, and sees that a test notices.
# SPDX-License-Identifier: Apache-2.0
"""The long form of scripts/mutants --stages.  Nothing is built again: in builds with fault injection
MOLT_MUTANT=TABLE:STAGE:WHAT leaves out a stage ("skip") or its undo ("no-undo"), in every process that
inherits it.  tests/mutants/stages.txt says which tests must notice.  Where /dev/kvm makes no VM, test hosts
run them, many rows to a host; each row is a pytest in a child of the program inside.
"""
import argparse
import fnmatch
import json
import linecache
import os
import pathlib
import select
import shlex
import signal
import subprocess
import sys
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
TABLE = ROOT / "tests/mutants/stages.txt"
TESTS = "tests/system"
MARK = "MOLT-MUTANT "
ROW_LIMIT_S = 400
HOST_ROWS = 12
HOST_LIMIT_S = 1500
SHOWN = 100  # characters of a failure

sys.path.insert(0, str(ROOT / "tests"))
from relay import Slot, kvm_reason  # noqa: E402


def build():
    return pathlib.Path(os.environ.get("MOLT_BUILD", ROOT / "build/gcc"))


def rows_of_the_build():
    """TABLE:STAGE:WHAT of everything that can be left out."""
    lines = subprocess.run([build() / "tests/tools/list_stages"], capture_output=True, text=True,
                           check=True).stdout.splitlines()
    for table, stage, _, undo in map(str.split, lines):
        yield f"{table}:{stage}:skip"
        if undo == "1":
            yield f"{table}:{stage}:no-undo"


class Expected:
    """What is in stages.txt: self.tests and self.reasons by row, self.faults of the file itself."""

    def __init__(self):
        self.tests, self.reasons, self.faults = {}, {}, []
        sets = {}
        for number, line in enumerate(TABLE.read_text(encoding="utf-8").splitlines(), 1):
            first, *words = shlex.split(line, comments=True) or ["#"]
            if first == "#":
                continue
            if first.startswith("@"):
                sets[first] = words
            elif first in self.tests or first in self.reasons:
                self.faults.append(f"line {number}: {first} stands there already")
            elif words[:1] == ["-"] and words[1:]:
                self.reasons[first] = " ".join(words[1:])
            elif words and set(filter(lambda word: word[0] == "@", words)) <= set(sets):
                self.tests[first] = [test for word in words for test in sets.get(word, [word])]
            else:
                self.faults.append(f"line {number}: needs tests, sets of them that exist, or - and "
                                   "a reason")

    def check(self):
        """What is wrong with the file, a line each."""
        there, named = set(rows_of_the_build()), set(self.tests) | set(self.reasons)
        return (self.faults + [f"{row} is not named" for row in sorted(there - named)] +
                [f"{row} is no row of this build" for row in sorted(named - there)])


# ---- where a VM can be made ----


def statement(report):
    """Line and text of where it failed, in the test's own file."""
    text = report.when
    for entry in getattr(getattr(report.longrepr, "reprtraceback", None), "reprentries", ()):
        place = entry.reprfileloc
        if place and pathlib.Path(place.path).name == report.location[0].split("/")[-1]:
            line = linecache.getline(str(ROOT / place.path), place.lineno).strip()
            text = f"line {place.lineno}, {line}"
    return text


def message(report):
    crash = getattr(report.longrepr, "reprcrash", None)
    return (crash.message if crash else str(report.longrepr)).split("\n", 1)[0]


class Witness:
    """A pytest plug-in that keeps the first failure."""

    def __init__(self):
        self.seen = None

    def pytest_runtest_logreport(self, report):
        if report.failed and not self.seen:
            self.seen = (report.nodeid.split("/")[-1], statement(report), message(report)[:SHOWN])


def run_tests(row, tests, log):
    """In a child: pytest under the mutant.  Never returns; the verdict is the last line of @log."""
    import pytest

    os.setpgid(0, 0)
    with open(log, "w", encoding="utf-8") as out:
        os.dup2(out.fileno(), 1)
        os.dup2(out.fileno(), 2)
    os.environ["MOLT_MUTANT"] = row
    witness = Witness()
    status = pytest.main(["-q", "-x", "-p", "no:cacheprovider", "--tb=short",
                          *(f"{TESTS}/{test}" for test in tests)], plugins=[witness])
    print(f"\n{MARK}{json.dumps([int(status), witness.seen])}", flush=True)
    os._exit(0)


def wait_child(pid, limit_s):
    """Return: whether it ended by itself in time; if not it is killed, and with it what it started."""
    end = time.monotonic() + limit_s
    pidfd = os.pidfd_open(pid)
    try:
        while time.monotonic() < end:
            if os.waitpid(pid, os.WNOHANG)[0]:
                return True
            select.select([pidfd], [], [], 1)
        os.killpg(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        return False
    finally:
        os.close(pidfd)


def verdict_of(log, ended):
    """Return: (noticed, what to say about it)."""
    text = pathlib.Path(log).read_text(encoding="utf-8", errors="replace")
    last = text.rsplit(MARK, 1)
    if not ended:
        return False, f"no end within {ROW_LIMIT_S} s:\n{text[-1500:]}"
    if len(last) != 2:
        return False, f"pytest itself ended:\n{text[-1500:]}"
    status, seen = json.loads(last[1].split("\n", 1)[0])
    if status == 1 and seen:
        return True, "{}: {}: {}".format(*seen)
    return False, "every test passed" if status == 0 else f"pytest could not run:\n{text[-1500:]}"


def try_rows(rows, expected, tell):
    """Where VMs can be made: each row's tests under that mutant."""
    import pytest  # noqa: F401  once, for all children

    with tempfile.TemporaryDirectory(prefix="molt-mutants-") as directory:
        for row in rows:
            log = f"{directory}/log"
            pathlib.Path(log).write_text("", encoding="utf-8")
            pid = os.fork()
            if pid == 0:
                run_tests(row, expected.tests[row], log)
            begun = time.monotonic()
            ended = wait_child(pid, ROW_LIMIT_S)
            noticed, text = verdict_of(log, ended)
            tell(row, noticed, text, time.monotonic() - begun)


def tell_outside(row, noticed, text, seconds):
    print(f"{MARK}{json.dumps([row, noticed, text, seconds])}", flush=True)


# ---- outside ----


class Report:
    """Prints each row's verdict as it comes; any thread."""

    def __init__(self, rows):
        self.waited_for = set(rows)
        self.missed = []
        self.lock = threading.Lock()

    def tell(self, row, noticed, text, seconds):
        with self.lock:
            if row not in self.waited_for:
                return  # a host that hung is started once more, and with it every row of its own
            self.waited_for.remove(row)
            if not noticed:
                self.missed.append(row)
            print(f"{row}: {'noticed by' if noticed else 'NOT noticed:'} {text} ({seconds:.0f} s)",
                  flush=True)


def run_host(rows, report):
    command = [str(ROOT / "scripts/test-host"), "-t", str(HOST_LIMIT_S)]
    if "MOLT_BUILD" in os.environ:
        command += ["-e", f"MOLT_BUILD={os.environ['MOLT_BUILD']}"]
    command += ["--", "/usr/bin/python3", "-B", __file__, "--inside", *rows]
    with Slot(), subprocess.Popen(command, stdout=subprocess.PIPE, text=True,
                                  errors="replace") as host:
        for line in host.stdout:
            if line.startswith(MARK):
                report.tell(*json.loads(line[len(MARK):]))
            else:
                sys.stderr.write(line)
    if host.returncode:
        print(f"a test host ended with status {host.returncode}", file=sys.stderr)


def run_hosts(rows, report):
    """Rows of one table are as slow as each other, so that the hosts get some of each."""
    n = -(-len(rows) // HOST_ROWS)
    threads = [threading.Thread(target=run_host, args=(rows[i::n], report)) for i in range(n)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def chosen(patterns, rows):
    """Those of @rows that a pattern names: TABLE, TABLE:STAGE or TABLE:STAGE:WHAT, with * and ?."""
    unknown = [p for p in patterns
               if not any(fnmatch.fnmatchcase(row, p) or fnmatch.fnmatchcase(row, p + ":*")
                          for row in rows)]
    if unknown:
        sys.exit(f"scripts/mutants: there is no stage {', '.join(unknown)}")
    return [row for row in rows if not patterns or
            any(fnmatch.fnmatchcase(row, p) or fnmatch.fnmatchcase(row, p + ":*") for p in patterns)]


def main():
    parser = argparse.ArgumentParser(prog="scripts/mutants --stages",
                                     description="Leaves out stages of updates, and their undo, one "
                                     "at a time, and sees that the tests of tests/mutants/stages.txt "
                                     "notice.")
    parser.add_argument("stages", nargs="*", metavar="TABLE[:STAGE[:WHAT]]",
                        help="only these; WHAT is skip or no-undo, * is anything")
    parser.add_argument("--check", action="store_true",
                        help="only whether the file names each row once, which scripts/check does too")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    os.chdir(ROOT)
    expected = Expected()
    faults = expected.check()
    for fault in faults:
        print(f"{TABLE.relative_to(ROOT)}: {fault}", file=sys.stderr)
    if options.check or faults:
        return 1 if faults else 0
    if options.inside:
        try_rows(options.stages, expected, tell_outside)
        return 0
    rows = chosen(options.stages, list(rows_of_the_build()))
    for row in rows:
        if row in expected.reasons:
            print(f"{row}: cannot be noticed: {expected.reasons[row]}")
    rows = [row for row in rows if row in expected.tests]
    report = Report(rows)
    reason = kvm_reason()
    if not reason:
        try_rows(rows, expected, report.tell)
    else:
        print(f"{reason}: the tests run in test hosts", flush=True)
        run_hosts(rows, report)
    for row in sorted(report.waited_for):
        print(f"{row}: NOT tried: its test host ended before")
    print(f"{len(rows)} tried, {len(report.missed) + len(report.waited_for)} not noticed")
    return 1 if report.missed or report.waited_for else 0


if __name__ == "__main__":
    sys.exit(main())
