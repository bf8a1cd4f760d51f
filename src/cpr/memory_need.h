// Whether a program has room to start beside this one: asked before it could cost the guest.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <glib.h>

/**
 * DOC: What is charged when
 *
 * Guest RAM that can cross is in files or memfds, charged once, whoever maps it.  Beside it a program
 * has private memory, page tables, a KVM VM.
 *
 * cpr-exec: the rehearsal has all of that beside the old program's; so has the new program after
 * execve(), for the guardian keeps the old address space until the guest runs.  Then it is freed, while
 * the new VM's second-level tables grow into what the old ones leave.  So there are two moments in
 * which somebody is killed if the memory cgroup is too small.  In the rehearsal the child is: the
 * first to go (oom_score_adj), but with memory.oom.group all go.  After the mark the guest is.  Hence two
 * questions: before a rehearsal, by what this program itself takes; and before the guest is stopped,
 * by what the rehearsal took.
 *
 * cpr-transfer: the successor has built and populated everything when it says "ready".  If memory is
 * short in its cgroup, it fails before the guest is stopped.
 *
 * MEMORY_SPARE_BYTES is added for what the kernel keeps for a VM and its descriptors, and for what a
 * guest touches for the first time meanwhile.
 */
#define MEMORY_SPARE_BYTES (4U << 20)

/**
 * memory_need_check() - Whether every cgroup that this process is in has room for @need_bytes more
 * Return: false with @error naming the cgroup, the need and the room.
 */
bool memory_need_check(uint64_t need_bytes, GError **error);
