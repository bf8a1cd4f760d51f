# Many VMs updated at the same time on processors that their guests keep busy: slow is no failure.
# SPDX-License-Identifier: Apache-2.0
"""MOLT_CAMPAIGN is the number of VMs; twenty take some minutes in a test host."""
import os

import pytest

from vm import wait_for_socket

VMS = int(os.environ.get("MOLT_CAMPAIGN", "6"))
UPDATE_SECONDS = 300


@pytest.fixture
def many(vms):
    started = [vms(mem="16M", args=["-S"]) for _ in range(VMS)]
    for vm in started:
        vm.qmp.cmd("cont")
    for vm in started:
        vm.shared.wait_started(120)
    return started


def finish(vm):
    """Wait for the end of @vm's update, which must be good; its monitor answers all the while."""
    info = vm.qmp.wait_status(("completed", "failed"), UPDATE_SECONDS)
    assert info["status"] == "completed", f"{info}\n{vm.log_text()}"
    assert info["update-record"]["result"] == "committed", info


def test_exec(many):
    for vm in many:
        vm.qmp.cmd("migrate-set-parameters", mode="cpr-exec")
    for vm in many:
        vm.qmp.cmd("migrate", uri=f"file:{vm.tmp}/{vm.tag}.state")
    for vm in many:
        finish(vm)
    for vm in many:
        vm.shared.assert_running(60)


def test_transfer(many):
    successors = [vm.successor(wait_qmp=False) for vm in many]
    for new in successors:
        wait_for_socket(new.cpr_path, 120)
    for vm, new in zip(many, successors):
        vm.migrate_to(new)
    for vm in many:
        finish(vm)
    for vm, new in zip(many, successors):
        vm.quit()
        new.owns_ram, vm.owns_ram = vm.owns_ram, False
        new.connect()
        finish(new)
        new.shared.assert_running(60)
