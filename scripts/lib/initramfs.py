# Write initramfs archives (cpio "newc") and find the cached stock kernel and its modules.
# SPDX-License-Identifier: Apache-2.0
"""Used by scripts/test-host and scripts/guest-image.  Needs no root and no cpio program."""

import lzma
import os
import stat
import subprocess


class MissingError(Exception):
    """Something this machine lacks; the text is one line that names the remedy."""


class Archive:
    """An initramfs under construction; parents of a path are made as needed."""

    def __init__(self):
        self._chunks = []
        self._seen = set()

    def _entry(self, path, mode, data=b"", device=(0, 0)):
        name = path.strip("/")
        parent = os.path.dirname(name)
        if parent and parent not in self._seen:
            self.directory(parent)
        if name in self._seen:
            raise ValueError(f"{name} is in the archive already")
        self._seen.add(name)
        self._append(name, mode, data, device)

    def _append(self, name, mode, data, device):
        raw = name.encode() + b"\0"
        fields = (len(self._seen), mode, 0, 0, 1, 0, len(data), 0, 0, *device, len(raw), 0)
        head = b"070701" + b"".join(b"%08X" % field for field in fields) + raw
        for part in (head, data):
            self._chunks.append(part + b"\0" * (-len(part) % 4))

    def directory(self, path, mode=0o755):
        self._entry(path, stat.S_IFDIR | mode)

    def file(self, path, data, mode=0o644):
        self._entry(path, stat.S_IFREG | mode, data)

    def symlink(self, path, target):
        self._entry(path, stat.S_IFLNK | 0o777, target.encode())

    def character_device(self, path, major, minor, mode=0o600):
        self._entry(path, stat.S_IFCHR | mode, device=(major, minor))

    def finish(self):
        """Return the archive's bytes; it must not be added to afterwards."""
        self._append("TRAILER!!!", 0, b"", (0, 0))
        return b"".join(self._chunks)


def cache_directory():
    if os.environ.get("MOLT_CACHE"):
        return os.environ["MOLT_CACHE"]
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return os.path.join(base, "molt")


class StockKernel:
    """A kernel package that scripts/setup unpacked: vmlinuz, config, version, lib/modules."""

    def __init__(self, directory):
        self.directory = os.path.realpath(directory)
        self.vmlinuz = os.path.join(self.directory, "vmlinuz")
        try:
            with open(os.path.join(self.directory, "version"), encoding="ascii") as file:
                self.version = file.read().strip()
        except OSError:
            raise MissingError(f"no stock kernel in {directory}: run scripts/setup") from None
        self.modules = os.path.join(self.directory, "lib/modules", self.version)

    @classmethod
    def find(cls, name=None):
        """The cached kernel of that version or directory, or the current one."""
        if name and "/" in name:
            return cls(name)
        return cls(os.path.join(cache_directory(), "kernel", name or "current"))

    def module_files(self, names):
        """Paths of the modules @names and what they need, in the order to load them.

        A name that is built in, or that this kernel does not have, adds nothing."""
        needs = {}
        with open(os.path.join(self.modules, "modules.dep"), encoding="ascii") as file:
            for line in file:
                path, _, rest = line.partition(":")
                needs[path] = rest.split()
        by_name = {_module_name(path): path for path in needs}
        order = []
        for name in names:
            path = by_name.get(name.replace("-", "_"))
            for each in [*reversed(needs[path]), path] if path else []:
                if each not in order:
                    order.append(each)
        return [os.path.join(self.modules, path) for path in order]

    def add_modules(self, archive, names):
        """Put the modules into /modules of @archive, named so that a glob is in load order."""
        archive.directory("modules")
        for index, path in enumerate(self.module_files(names)):
            archive.file(f"modules/{index:02d}-{_module_name(path)}.ko", _module_bytes(path))


def _module_name(path):
    return os.path.basename(path).split(".ko")[0].replace("-", "_")


def _module_bytes(path):
    with open(path, "rb") as file:
        data = file.read()
    if path.endswith(".xz"):
        return lzma.decompress(data)
    if path.endswith(".zst"):
        return subprocess.run(["zstd", "-dcq"], input=data, stdout=subprocess.PIPE, check=True).stdout
    return data


def static_busybox():
    """Bytes of a statically linked busybox."""
    for path in ("/bin/busybox", "/usr/bin/busybox"):
        try:
            with open(path, "rb") as file:
                data = file.read()
        except OSError:
            continue
        if b"/lib64/ld-linux" not in data[:4096]:
            return data
    raise MissingError("no static busybox (package busybox-static): run scripts/setup")
