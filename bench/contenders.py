# Who is measured: molt, and the QEMUs that are there; how each is started with the same VM.
# SPDX-License-Identifier: Apache-2.0
import dataclasses
import os
import pathlib
import re
import subprocess


@dataclasses.dataclass(frozen=True)
class Guest:
    """What runs in the VM: a payload of tests/guest, and its command line."""

    payload: str
    command_line: str


@dataclasses.dataclass(frozen=True)
class Linux:
    """The same for a stock kernel; @serial is the file for its console."""

    kernel: str
    initrd: str
    command_line: str
    serial: str

    def argv(self):
        return ["-kernel", self.kernel, "-initrd", self.initrd, "-append", self.command_line,
                "-serial", f"file:{self.serial}"]


IDLE = Guest("smp", "none")
WALKING = Guest("walk", "none")


def touching(cpus):
    return Guest("smp", f"touch cpus={cpus}")


class Contender:
    """
    One VMM and machine.  .argv() describes the same VM to each; .modes: the updates it has;
    .keeps_monitors: connections to its monitor stay over an exec.
    """

    keeps_monitors = False

    def __init__(self, name, command, machine, modes, env=None):
        self.name, self.command, self.machine, self.modes = name, command, machine, modes
        self.env = dict(os.environ, **(env or {}))

    def argv(self, ram, qmp, cpus, extra=(), guest=IDLE):
        return [*self.command, "-machine", f"{self.machine},memory-backend=ram0,aux-ram-share=on",
                "-accel", "kvm", "-smp", str(cpus), "-m", ram.mem, "-nodefaults",
                "-display", "none", "-no-user-config", "-object",
                f"memory-backend-file,id=ram0,size={ram.mem},mem-path={ram.path},share=on",
                "-qmp", f"unix:{qmp},server=on,wait=off",
                "-cpu", self.cpu,
                *(guest.argv() if isinstance(guest, Linux) else self.boot(guest)), *extra]

    def prepare(self, ram, guest):
        """Before the start: no trace of another guest, and the payload if need be."""
        ram.clear()
        if isinstance(guest, Guest):
            self.load(ram, guest)


class Molt(Contender):
    """Loads the payload itself, by PVH."""

    cpu = "host"
    keeps_monitors = True

    def __init__(self, build, name="molt"):
        super().__init__(name, [f"{build}/src/molt"], "q35", ("transfer", "exec"))
        self.payloads = f"{build}/tests/guest"
        self.version = f"{name} " + output([f"{build}/src/molt", "--version"]).split()[-1]

    def load(self, ram, guest):
        """Nothing: boot() names it."""

    def boot(self, guest):
        return ["-kernel", f"{self.payloads}/{guest.payload}.elf", "-append", guest.command_line]


class Qemu(Contender):
    """
    Starts the payload through bench/firmware.S: under PVM KVM, which emulates kernel code, SeaBIOS
    takes many seconds.  The payload is put into the RAM file before, which only favours QEMU.
    """

    cpu = "host,-arch-capabilities"  # PVM KVM refuses to set an MSR that it lists (0x10a)
    LOW_BYTES = {"q35": (0xB0000000, 0x80000000), "microvm": (0xC0000000, 0xC0000000)}

    def __init__(self, path, machine, build):
        command, env = direct_command(path)
        text = output([*command, "--version"], env)
        self.number = re.search(r"version ([0-9.]+)", text).group(1)
        new = tuple(int(n) for n in self.number.split(".")[:2])
        modes = ("transfer", "exec") if new >= (10, 2) else ("transfer",) if new >= (10, 0) else ()
        super().__init__(f"QEMU {self.number} {machine}", command, machine, modes, env)
        self.version = f"QEMU {self.number} ({path})"
        self.payloads = f"{build}/tests/guest"
        self.firmware = f"{build}/bench/firmware.bin"

    def load(self, ram, guest):
        # q35 moves the split down when the RAM does not fit below 2.75 GiB
        limit, low = self.LOW_BYTES[self.machine]
        ram.load(f"{self.payloads}/{guest.payload}.elf", guest.command_line,
                 ram.size if ram.size < limit else low)

    def boot(self, guest):
        return ["-bios", self.firmware]


def output(argv, env=None):
    return subprocess.run(argv, check=True, capture_output=True, text=True,
                          env=dict(os.environ, **(env or {}))).stdout


def direct_command(path):
    """
    What the script that scripts/qemu-peer wrote would execute, and its environment: a shell in
    front of QEMU would be part of its exec pause.
    """
    tree = pathlib.Path(path).resolve().parent
    libraries = tree / "usr/lib/x86_64-linux-gnu"
    if not (libraries / "ld-linux-x86-64.so.2").exists():
        return [str(path)], {}
    return ([str(libraries / "ld-linux-x86-64.so.2"), "--library-path", str(libraries),
             str(tree / "usr/bin/qemu-system-x86_64"), "-L", str(tree / "usr/share/qemu"),
             "-L", str(tree / "usr/share/seabios")],
            {"QEMU_MODULE_DIR": str(libraries / "qemu")})


def found_qemus():
    """What scripts/qemu-peer has set up, newest release first."""
    cache = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"))
    return [path for release in ("trixie", "bookworm")
            if (path := cache / "molt/qemu" / release / "qemu-system-x86_64").exists()]


def contenders(build, paths, everything=False, beside=None):
    """molt, the build @beside, each QEMU of @paths; if that is empty, the newest found, or all."""
    for path in paths:
        if not os.access(path, os.X_OK):
            raise RuntimeError(f"--qemu {path}: there is no such program")
    if not paths:
        paths = found_qemus()[:None if everything else 1]
    molts = [Molt(build)] + ([Molt(beside, "molt before")] if beside else [])
    return molts + [Qemu(path, machine, build) for path in paths
                    for machine in ("q35", "microvm")]
