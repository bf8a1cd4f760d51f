// Starts the other vCPUs.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "payload.h"

/**
 * cpus_start() - Start vCPUs 1 to @n_cpus - 1 with INIT and SIPI
 *
 * Each runs cpu_main(), the payload's own, with its number, on a stack of its own.  The local APIC
 * is enabled on the caller's vCPU only.
 */
void cpus_start(uint32_t n_cpus);
void cpu_main(uint32_t cpu);
