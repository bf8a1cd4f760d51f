# One Debian guest's life under molt: boot, devices, updates under load, reboots, power button.
# SPDX-License-Identifier: Apache-2.0
"""The tests share a guest and follow each other through its life, because booting it takes longest.
Each leaves it beating; where one fails, the next begins with a new guest."""
import re
import time

import pytest

from stock import SLOWNESS, image_records

# How far a reading of the guest's clock may be off while its processor is busy with reading clocks.
CLOCK_TOLERANCE_NS = 80_000_000

MIX = ("exec", "transfer", "transfer", "exec", "exec", "transfer", "exec", "transfer", "transfer",
       "exec")
# Fills, copies and compares memory for ever; counts the rounds in /load.
LOAD = ('(i=0; while :; do i=$((i+1)); dd if=/dev/urandom of=/a bs=64k count=16 2>/dev/null; '
        'a=$(md5sum </a); cp /a /b; [ "$a" = "$(md5sum </b)" ] || echo bad >/load.bad; rm /b; '
        'echo $i >/load.new; mv /load.new /load; done) >/dev/null 2>&1 & echo $! >/load.pid')


def assert_healthy(guest):
    """Nothing lost, nothing bad, nothing in the kernel's log, no clock that went back."""
    line = guest.line
    line.wait_beats(3)
    status = line.command("status")
    assert not line.holes, f"heartbeats lost: {line.holes}"
    assert line.kmsg == []
    wrong = {name: status[name] for name in ("disk_bad", "clock_back", "dropped")
             if status[name]}
    assert not wrong, status
    return status


def assert_uptime_goes_on(line, first):
    beats = line.beats[line.beats.index(first):]
    assert all(a.up_ns < b.up_ns and a.mono_ns < b.mono_ns for a, b in zip(beats, beats[1:]))


def kernel_of(line):
    return [re.search("kernel=(\\S+)", text)[1] for text in line.other if text.startswith("READY")]


def rounds(line):
    return int(line.shell("cat /load 2>/dev/null || echo 0"))


def wait_rounds(line, more):
    """Until the load has gone round @more times; rounds() makes the guest answer each time."""
    wanted = rounds(line) + more
    for _ in range(600):
        if rounds(line) >= wanted:
            return
        line.wait_beats(5)
    raise AssertionError("the load stands still")


def test_boots(guest):
    assert guest.line.boots == 1
    assert_healthy(guest)
    assert guest.qmp.cmd("query-status") == {"status": "running", "running": True}


def test_finds_the_devices(guest):
    line = guest.line
    assert line.shell("nproc").strip() == "1"
    ids = line.shell("cat /sys/bus/pci/devices/*/vendor").split()
    assert ids.count("0x1af4") == 2, ids
    drivers = line.shell("ls -d /sys/bus/virtio/drivers/*/virtio[0-9]").split()
    assert sorted(path.split("/")[-2] for path in drivers) == ["virtio_blk", "virtio_rng"]
    assert line.shell("cat /sys/block/vda/size").strip() == str((32 << 20) // 512)
    assert line.shell("cat /sys/devices/system/clocksource/clocksource0/"
                      "available_clocksource").split()[0] == "kvm-clock"


def test_rng_feeds_hwrng(guest):
    line = guest.line
    assert line.shell("cat /sys/class/misc/hw_random/rng_current").startswith("virtio_rng")
    read = "head -c 32 /dev/hwrng | hexdump -v -e '1/1 \"%02x\"'"
    first, second = line.shell(read), line.shell(read)
    assert len(first) == len(second) == 64
    assert first != second


def test_ten_updates_under_load(guest):
    line = guest.line
    line.shell(LOAD)
    wait_rounds(line, 2)
    first = line.wait_beats(1)
    before_ns = line.clock_offset_ns()
    for mode in MIX:
        line.wait_beats(5)
        record = guest.update(mode)["update-record"]
        assert record["result"] == "committed" and record["mode"] == f"cpr-{mode}"
        assert record["pause-ns"] > 0
        line.wait_beats(10)
    wait_rounds(line, 2)
    assert line.shell("ls /load.bad 2>/dev/null; true") == "", "memory changed under the guest"
    line.shell("kill $(cat /load.pid)")
    drift_ns = line.clock_offset_ns() - before_ns
    assert abs(drift_ns) < 20_000_000, f"guest and host clock are {drift_ns} ns apart"
    assert_uptime_goes_on(line, first)
    line.command("verify")
    assert_healthy(guest)


def clock_log(line):
    """What the kernel has said of its clocks since it booted."""
    return line.shell("dmesg | grep -iE 'clocksource|watchdog|tsc|unstable|hrtimer' | "
                      f"grep -vE '{'|'.join(SLOWNESS)}'; true")


def assert_rtc_right(line):
    """The guest's real-time clock, read through its driver, tells the host's second."""
    before_s = time.time()
    seconds = int(line.shell("cat /sys/class/rtc/rtc0/since_epoch"))
    assert before_s - 1 <= seconds <= time.time() + 1, (before_s, seconds)


def test_clocks_over_fifty_updates(guest):
    """No clock goes back, and all keep their distance to the host's; the pause is guest time.

    A distance is known to some milliseconds only, because an emulated processor is slow to tell it;
    what is looked for adds up over the updates."""
    line = guest.line
    said = clock_log(line)
    source = line.shell("cat /sys/devices/system/clocksource/clocksource0/current_clocksource")
    first = line.wait_beats(1)
    before = line.clock_offsets_ns()
    reads = line.command("watch")["watch_reads"]
    for n in range(50):
        guest.update(("exec", "transfer", "transfer", "exec")[n % 4])
        line.wait_beats(1)
        drift_ns = [now - then for now, then in zip(line.clock_offsets_ns(4), before)]
        assert all(abs(ns) < CLOCK_TOLERANCE_NS for ns in drift_ns), (n + 1, drift_ns)
        if n % 10 == 9:
            assert_rtc_right(line)
    status = line.command("unwatch")
    assert status["watch_reads"] > reads + 1000, status
    assert not any(status[f"{clock}_back"] for clock in ("mono", "real", "tsc", "clock")), status
    drift_ns = [now - then for now, then in zip(line.clock_offsets_ns(), before)]
    assert all(abs(ns) < CLOCK_TOLERANCE_NS // 4 for ns in drift_ns), drift_ns
    assert abs(before[1]) < 2_000_000_000, "the guest's time of day is not the host's"
    assert_uptime_goes_on(line, first)
    assert clock_log(line) == said
    assert source == line.shell(
        "cat /sys/devices/system/clocksource/clocksource0/current_clocksource")
    assert_healthy(guest)


@pytest.mark.parametrize("fault", ["load:kill", "loaded:kill", "load:hang"])
def test_successor_dies_before_the_commit(guest, fault):
    """It had everything, and was killed or stood still: the guest goes on where it was."""
    line = guest.line
    first = line.wait_beats(1)
    successor = guest.successor(env={"MOLT_FAULT": f"transfer-target:{fault}"})
    guest.vm.migrate_to(successor)
    info = guest.qmp.wait_status(("failed",), 60)
    assert info["error-desc"], info
    if fault.endswith("hang"):
        successor.process.kill()
    successor.wait_exit()
    line.wait_beats(10)
    assert_uptime_goes_on(line, first)
    assert_healthy(guest)


def test_waiting_successor_is_killed(guest):
    """Killed while it waits for a manager: the guest was not even stopped."""
    line = guest.line
    successor = guest.successor(defer=True)
    guest.vm.migrate_to(successor)
    line.wait_beats(3)
    successor.process.kill()
    successor.wait_exit()
    info = guest.qmp.wait_status(("failed",), 60)
    assert info["update-record"]["result"] == "unchanged", info
    guest.transfer()
    line.wait_beats(10)
    assert_healthy(guest)


def test_reboots_after_updates(guest):
    """The kernel and initrd it boots again are files that crossed the updates."""
    line = guest.line
    guest.exec()
    guest.transfer()
    boots = line.boots
    line.send("reboot")
    guest.qmp.wait_event("RESET", timeout=60, guest=True)
    line.wait_boot(boots + 1)
    assert len(set(kernel_of(line))) == 1
    assert_healthy(guest)


def test_update_while_it_boots(guest):
    """Each update meets another moment of the boot: the kernel has said something new since.

    An update may also see the boot's end, after which the kernel has nothing more to say."""
    line = guest.line
    boots = line.boots
    line.send("reboot")
    guest.qmp.wait_event("RESET", timeout=60, guest=True)
    updates = 0
    while line.boots == boots and updates < 8:
        said = len(line.other)
        guest.update(("exec", "transfer")[updates % 2])
        updates += 1
        line.wait(lambda said=said: line.boots > boots or len(line.other) > said + 1,
                  "progress of the boot")
    line.wait_boot(boots + 1)
    assert updates >= 3
    assert_healthy(guest)


def test_power_button(guest):
    """An orderly end by ACPI; then the host reads what the guest wrote."""
    line = guest.line
    assert "button=1" in [text for text in line.other if text.startswith("READY")][-1]
    guest.transfer()
    written = line.command("verify", timeout_s=120)["disk_seq"]
    assert_healthy(guest)
    guest.qmp.cmd("system_powerdown")
    guest.qmp.wait_event("POWERDOWN", timeout=60)
    line.wait_text("POWER button")
    guest.qmp.wait_event("SHUTDOWN", timeout=60, guest=True)
    assert guest.wait_gone() == 0
    right, wrong = image_records(guest.image)
    assert wrong == [] and right >= written
