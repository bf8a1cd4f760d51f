# The guest that is measured: its RAM file, and the payload in it for peers without a PVH loader.
# SPDX-License-Identifier: Apache-2.0
import mmap
import os
import struct
import time

SHARED_GPA = 0x100000  # tests/guest/payload.h
FIRST_GPA = 0x101000
COUNTERS_GPA = SHARED_GPA + 512
COUNTER_STRIDE = 64
ROUNDS_GPA = SHARED_GPA + 24  # tests/guest/walk.c
MAGIC = 0x6D6F6C742D6F6B21
FIRST_FREE = 0x400000  # below it is everything that the payload has; above it only touches
ABOUT_GPA, ENTRY_GPA = 0x7000, 0x7FF8  # bench/firmware.S
HIGH_START = 1 << 32
SPARE_BYTES = 1 << 30


def size_bytes(mem):
    return int(mem[:-1]) << {"M": 20, "G": 30}[mem[-1].upper()]


def available_bytes():
    with open("/proc/meminfo") as meminfo:
        return next(int(line.split()[1]) * 1024 for line in meminfo
                    if line.startswith("MemAvailable"))


class Ram:
    """
    Guest RAM in a file that every contender gets in turn, so that its pages are made once.  It has
    no name but this process's descriptor, so that nothing stays behind however the run ends.
    """

    def __init__(self, mem):
        self.mem, self.size = mem, size_bytes(mem)
        if available_bytes() < self.size + SPARE_BYTES:
            raise RuntimeError(f"a guest of {mem} does not fit: {available_bytes() >> 20} MiB are "
                               f"free, and {SPARE_BYTES >> 20} must stay so; see --mem")
        self.fd = os.memfd_create("bench-ram")
        os.truncate(self.fd, self.size)
        os.posix_fallocate(self.fd, 0, self.size)
        self.path = f"/proc/{os.getpid()}/fd/{self.fd}"
        self.map = mmap.mmap(self.fd, FIRST_FREE)

    def u64(self, gpa):
        return struct.unpack_from("<Q", self.map, gpa)[0]

    def clear(self):
        self.map[:] = bytes(FIRST_FREE)

    def wait(self, what, process, timeout, step=0.0):
        """The time in ns when @what was true; @process runs the guest."""
        end = time.monotonic() + timeout
        while not what():
            if process.poll() is not None:
                raise RuntimeError(f"the VMM ended with status {process.returncode}")
            if time.monotonic() > end:
                raise TimeoutError("the guest did not get there")
            if step:
                time.sleep(step)
        return time.monotonic_ns()

    def wait_counting(self, cpus, process):
        """Until every vCPU counts, all RAM having been touched."""
        self.wait(lambda: self.u64(SHARED_GPA) == MAGIC and
                  all(self.u64(COUNTERS_GPA + i * COUNTER_STRIDE) > 10 for i in range(cpus)),
                  process, 60 + 30 * (self.size >> 30), 0.01)

    def counters(self, at, n):
        return [struct.unpack("<Q", os.pread(self.fd, 8, at + i * COUNTER_STRIDE))[0]
                for i in range(n)]

    def wait_moving(self, at, n, process):
        """Until each of the @n counters from @at on has moved: no gap is open any more."""
        before = self.counters(at, n)
        self.wait(lambda: all(map(int.__ne__, before, self.counters(at, n))), process, 60, 0.001)

    def load(self, elf, command_line, low_bytes):
        """Put the payload where bench/firmware.S finds it; RAM up to @low_bytes is below 4 GiB."""
        with open(elf, "rb") as f:
            image = f.read()
        entry, headers = struct.unpack_from("<QQ", image, 24)
        n_headers = struct.unpack_from("<H", image, 56)[0]
        for i in range(n_headers):
            kind, _, offset, _, gpa, filesz, memsz, _ = struct.unpack_from(
                "<IIQQQQQQ", image, headers + 56 * i)
            if kind == 1:
                assert FIRST_FREE >= gpa + memsz, "the payload is too large"
                self.map[gpa:gpa + filesz] = image[offset:offset + filesz]
        low = min(self.size, low_bytes)
        ranges = [(0, low)] + ([(HIGH_START, self.size - low)] if self.size > low else [])
        text = command_line.encode() + b"\0"
        at_map = ABOUT_GPA + 64
        at_text = at_map + 24 * len(ranges)
        # struct hvm_start_info, then its memory map and command line
        struct.pack_into("<IIIIQQQQII", self.map, ABOUT_GPA, 0x336EC578, 1, 0, 0, 0, at_text, 0,
                         at_map, len(ranges), 0)
        for i, (base, size) in enumerate(ranges):
            struct.pack_into("<QQII", self.map, at_map + 24 * i, base, size, 1, 0)
        self.map[at_text:at_text + len(text)] = text
        struct.pack_into("<I", self.map, ENTRY_GPA, entry)

    def close(self):
        self.map.close()
        os.close(self.fd)
