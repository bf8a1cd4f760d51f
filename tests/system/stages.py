# The stages of a build's update tables, and who has the guest when one of them has failed.
# SPDX-License-Identifier: Apache-2.0
import subprocess
import time

from vm import BUILD, wait_for_change

STAGES = BUILD / "tests/tools/list_stages"
UPDATE_SECONDS = 60


def stages(table):
    """The names of @table's stages, in their order; none where nothing is built yet."""
    if not STAGES.exists():
        return []
    lines = subprocess.run([STAGES], capture_output=True, text=True, check=True).stdout.split("\n")
    return [line.split()[1] for line in lines if line.startswith(table + " ")]


def running(vm):
    """Whether this process says that it runs the guest."""
    if not vm.alive():
        return False
    try:
        if not vm.qmp:
            vm.connect()
        return vm.qmp.cmd("query-status", timeout=5)["running"]
    except (AssertionError, EOFError, ConnectionError, TimeoutError, OSError):
        return False


def wait_one_owner(processes, shared, seconds=UPDATE_SECONDS):
    """Until exactly one process says it runs the guest, and the guest's counter goes up."""
    end = time.monotonic() + seconds
    while True:
        owners = [vm for vm in processes if running(vm)]
        if len(owners) == 1:
            before = shared.counter
            wait_for_change(None, 0.05)
            if shared.counter > before:
                return owners[0]
        if time.monotonic() > end:
            logs = "\n".join(vm.log_text() for vm in processes)
            raise AssertionError(f"{len(owners)} owners, counter {shared.counter}\n{logs}")
        wait_for_change(None, 0.02)
