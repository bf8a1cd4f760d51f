# What a process has at one moment, counted by kind: descriptors, mappings, threads, memory.
# SPDX-License-Identifier: Apache-2.0
import collections
import os
import pathlib
import re
import resource

# Glibc and the kernel join neighbouring anonymous mappings as they please: only the sum counts.
ANONYMOUS = ("", "[heap]", "[stack]")

PAGE_BYTES = resource.getpagesize()
STACK_BYTES = resource.getrlimit(resource.RLIMIT_STACK)[0]  # pthread_attr_setstacksize(3)

PF_IO_WORKER = 0x10  # include/linux/sched.h


def kind_of(name):
    """A path or a name of the kernel's, without the numbers that differ from one to the next."""
    return re.sub(r"\d+", "N", name.removesuffix(" (deleted)"))


def descriptors(pid):
    kinds = collections.Counter()
    for fd in os.listdir(f"/proc/{pid}/fd"):
        try:
            kinds[kind_of(os.readlink(f"/proc/{pid}/fd/{fd}"))] += 1
        except FileNotFoundError:
            pass  # closed since
    return kinds


def mappings(pid):
    """(named ones by name and permission, octets of the anonymous ones).

    What glibc has for a thread is left out, the stacks that it keeps when threads have ended, and
    what it reserves for arenas: how many there are depends on which threads met."""
    kinds = collections.Counter()
    anonymous_bytes = 0
    guarded_at = None  # the end of a guard page, where a stack begins
    for line in pathlib.Path(f"/proc/{pid}/maps").read_text().splitlines():
        area, permissions, *_, name = (line.split(None, 5) + [""])[:6]
        start, end = (int(number, 16) for number in area.split("-"))
        if name not in ANONYMOUS:
            kinds[f"{kind_of(name)} {permissions}"] += 1
        elif permissions != "---p":
            anonymous_bytes += end - start
            if guarded_at == start:
                anonymous_bytes -= min(end - start, STACK_BYTES)
        guarded_at = end if permissions == "---p" and end - start == PAGE_BYTES else None
    return kinds, anonymous_bytes


def threads(pid):
    """By name; io_uring's workers in the kernel come and go."""
    kinds = collections.Counter()
    for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
        try:
            name, rest = (task / "stat").read_text().split("(", 1)[1].rsplit(")", 1)
        except (FileNotFoundError, ProcessLookupError):
            continue  # ended since
        if not int(rest.split()[6]) & PF_IO_WORKER:
            kinds[kind_of(name)] += 1
    return kinds


def status_kib(pid, *names):
    text = pathlib.Path(f"/proc/{pid}/status").read_text()
    return sum(int(re.search(rf"^{name}:\s+(\d+) kB", text, re.M)[1]) for name in names)


def strings(pid, name):
    """How many there are in /proc/PID/environ or cmdline, and their octets, numbers and nonces left out."""
    data = pathlib.Path(f"/proc/{pid}/{name}").read_bytes()
    return data.count(b"\0"), len(re.sub(rb"[0-9a-f]{32}|\d+", b"N", data))


class Census:
    """@kinds must be the same for two processes that stand at the same place; @own_kib and
    @anonymous_bytes may differ a little."""

    def __init__(self, vm):
        named, self.anonymous_bytes = mappings(vm.pid)
        self.kinds = {
            "descriptors": descriptors(vm.pid),
            "mappings": named,
            "threads": threads(vm.pid),
            "children": vm.children(),
            "environment": strings(vm.pid, "environ"),
            "command line": strings(vm.pid, "cmdline"),
        }
        # Guest RAM is shared memory, and so counts elsewhere.
        self.own_kib = status_kib(vm.pid, "RssAnon", "RssFile")
        self.anon_kib = status_kib(vm.pid, "RssAnon")

    @property
    def settled(self):
        """No child takes an old address space apart any more, and none is watched."""
        return not self.kinds["children"] and not self.kinds["descriptors"]["anon_inode:[pidfd]"]

    def differences(self, other):
        return {what: (here, other.kinds[what]) for what, here in self.kinds.items()
                if here != other.kinds[what]}
