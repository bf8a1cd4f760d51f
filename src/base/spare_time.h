// Work in processor time that nobody else wants, as long as there is some.
// SPDX-License-Identifier: Apache-2.0
#pragma once

/**
 * spare_time_run() - Call @work once, in processor time that nobody else wants
 *
 * For what goes on beside a guest and is in no hurry.  @work runs as SCHED_IDLE on a thread of its own: a
 * guest's vCPU never waits for it, and is moved to its processor as if that were idle.  Where all
 * processors are wanted all the time such a thread hardly ever runs, whatever locks it holds; so it
 * goes on like any other as soon as it has had less than a quarter of a processor for 100 ms.
 *
 * All of this is among what runs in the same cgroup: against others, the cgroup's weight counts.
 *
 * Leaving SCHED_IDLE takes CAP_SYS_NICE or an RLIMIT_NICE of 20 - nice value (sched(7); LimitNICE=+0
 * under systemd).  Without, or if the caller itself is not SCHED_OTHER, @work is simply called.
 *
 * Context: any thread that may wait; returns when @work has.
 */
void spare_time_run(void (*work)(void *opaque), void *opaque);
