# Updates between this build and an earlier commit's: there and back, in both modes.
# SPDX-License-Identifier: Apache-2.0
"""MOLT_OLD_BUILD names what scripts/lib/old-build has made.  Two builds whose protocols have a version
in common carry the guest there and back; two that have none refuse it before it is stopped."""
import os
import pathlib

import pytest

from vm import MOLT, ROOT, wait_for_socket

OLD = os.environ.get("MOLT_OLD_BUILD")
pytestmark = pytest.mark.skipif(not OLD, reason="MOLT_OLD_BUILD is not set: scripts/test does")


def defined(path, name):
    """The values of the macros in @path whose names begin with @name, as text."""
    return " ".join(line.split()[2] for line in (ROOT / path).read_text().splitlines()
                    if line.startswith(f"#define {name}"))


def versions(text):
    numbers = [int(word) for word in text.split()]
    return set(range(min(numbers), max(numbers) + 1))


def common(old, path, name):
    """Whether both speak a version that the other understands."""
    return versions(defined(path, name)) & versions((pathlib.Path(OLD) / old).read_text())


def common_protocol():
    return common("protocol", "src/cpr/frame.h", "FRAME_PROTOCOL")


def common_envelope():
    return common("envelope", "src/cpr/envelope.c", "ENVELOPE_PROTOCOL")


def binaries(direction):
    old = str(pathlib.Path(OLD) / "src/molt")
    return (old, MOLT) if direction == "upgrade" else (MOLT, old)


@pytest.mark.parametrize("direction", ["upgrade", "downgrade"])
def test_transfer(vms, direction):
    first, second = binaries(direction)
    vm = vms(binary=first)
    vm.shared.wait_started()
    if common_protocol():
        vm = vm.transfer(binary=second)
        vm.shared.assert_running()
        vm = vm.transfer(binary=first)
        vm.shared.assert_running()
        return
    new = vm.successor(binary=second)
    wait_for_socket(new.cpr_path)
    vm.migrate_to(new)
    info = vm.qmp.wait_status(("completed", "failed"))
    assert info["status"] == "failed" and info["update-record"]["result"] == "unchanged", info
    assert "protocol" in info["error-desc"], info
    vm.shared.assert_running()


@pytest.mark.parametrize("direction", ["upgrade", "downgrade"])
def test_exec(vms, direction):
    first, second = binaries(direction)
    vm = vms(binary=first)
    vm.shared.wait_started()
    if common_envelope():
        for binary in (second, first):
            vm.exec(command=[binary])
            assert os.readlink(f"/proc/{vm.pid}/exe") == os.path.realpath(binary)
            vm.shared.assert_running()
        # What the first program made is the last one's to remove.
        vm.quit()
        assert not os.path.exists(vm.qmp_path)
        return
    vm.qmp.cmd("migrate-set-parameters", **{"mode": "cpr-exec", "cpr-exec-command": [second]})
    vm.qmp.cmd("migrate", uri=f"file:{vm.tmp}/state")
    info = vm.qmp.wait_status(("completed", "failed"))
    assert info["status"] == "failed" and info["update-record"]["result"] == "unchanged", info
    vm.shared.assert_running()
