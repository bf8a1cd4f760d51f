# Adds up what the test runners wrote and prints the closing line of scripts/test.
# SPDX-License-Identifier: Apache-2.0
"""usage: summary.py DIR     DIR holds meson test logs (*.json) and junit files (*.xml)

A skip whose "name: reason" no line of tests/expected-skips matches (as a regular expression) is a
failure: a run that skips what it could have run must not pass.
"""
import json
import pathlib
import re
import sys
import xml.etree.ElementTree

HERE = pathlib.Path(__file__).resolve().parent


def meson(path):
    for line in path.read_text().splitlines():
        test = json.loads(line)
        cases = re.findall(r"^(not ok|ok) \d+ ?-? ?(\S+)?(.*)$", test.get("stdout") or "", re.M)
        if not cases or test["result"] in ("TIMEOUT", "INTERRUPT", "ERROR"):
            result = {"OK": "passed", "EXPECTEDFAIL": "passed", "SKIP": "skipped"}
            yield test["name"], result.get(test["result"], "failed"), test["result"]
        for verdict, name, rest in cases:
            skip = re.search(r"# SKIP ?(.*)", rest)
            kind = "skipped" if skip else "passed" if verdict == "ok" else "failed"
            yield f"{test['name']} {name}", kind, skip.group(1) if skip else ""


def junit(path):
    for case in xml.etree.ElementTree.parse(path).iter("testcase"):
        name = f"{case.get('classname')}::{case.get('name')}"
        skip = case.find("skipped")
        if case.find("failure") is not None or case.find("error") is not None:
            yield name, "failed", ""
        elif skip is not None:
            yield name, "skipped", skip.get("message", "")
        else:
            yield name, "passed", ""


def main():
    expected = [re.compile(line) for line in (HERE / "expected-skips").read_text().splitlines()
                if line and not line.startswith("#")]
    count = {"passed": 0, "failed": 0, "skipped": 0}
    unlisted = 0
    for path in sorted(pathlib.Path(sys.argv[1]).iterdir()):
        for name, kind, reason in (meson if path.suffix == ".json" else junit)(path):
            count[kind] += 1
            if kind == "failed":
                print(f"failed: {name} {reason}")
            if kind == "skipped":
                listed = any(e.search(f"{name}: {reason}") for e in expected)
                unlisted += not listed
                print(f"skipped{'' if listed else ' (not listed in tests/expected-skips)'}: "
                      f"{name}: {reason}")
    print("{passed} passed, {failed} failed, {skipped} skipped".format(**count))
    return 1 if count["failed"] or unlisted or not count["passed"] else 0


sys.exit(main())
