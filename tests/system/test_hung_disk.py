# Commands that meet a disk that does not answer: one outcome each, the monitor alive all the while.
# SPDX-License-Identifier: Apache-2.0
import pytest

from hungfs import hung_disk  # noqa: F401


@pytest.fixture(params=["io_uring", "threads"])
def guest(request, vms, hung_disk):
    """A guest that writes and reads, with a request held by its disk's storage: (vm, disk)."""
    disk = hung_disk()
    vm = vms(kernel="disk",
             args=["-drive", f"file={disk.path},format=raw,if=virtio,aio={request.param}"])
    vm.shared.wait_started()
    vm.shared.wait(lambda: vm.shared.detail(0) > 16)
    disk.hang()
    disk.wait_held()
    return vm, disk


def goes_on(vm, disk):
    """The disk answers again, and the guest finds nothing wrong."""
    disk.go()
    before = vm.shared.detail(0)
    vm.shared.wait(lambda: vm.shared.detail(0) > before + 16)
    assert vm.shared.errors == 0


def test_hang_and_go(guest):
    vm, disk = guest
    vm.shared.assert_running()
    assert disk.held() == 1
    goes_on(vm, disk)
