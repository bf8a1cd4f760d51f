// What every fuzz harness defines.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <stddef.h>
#include <stdint.h>

/**
 * LLVMFuzzerTestOneInput() - Feed one input to the parser under test
 *
 * libFuzzer's entry point; replay.c calls it for every file of the committed corpus.  A finding is
 * a crash, an abort() or a sanitizer's report.
 * Return: 0.
 */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
