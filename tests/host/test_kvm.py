# The tiny guest of tests/unit/accel on a full KVM, where it has second-level page tables and XSAVE.
# SPDX-License-Identifier: Apache-2.0
import subprocess

from vm import BUILD

SMOKE = BUILD / "tests/unit/accel/accel_kvm_smoke_test"


def test_tiny_guest():
    """All that the other KVM runs, and what only this one has."""
    run = subprocess.run([SMOKE], capture_output=True, text=True, timeout=120, check=False)
    assert run.returncode == 0 and "not ok" not in run.stdout, run.stdout + run.stderr
    assert "KVM_PRE_FAULT_MEMORY there" in run.stdout
