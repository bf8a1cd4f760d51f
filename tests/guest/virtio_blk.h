// Drives virtio-blk by polling, with several requests in flight.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "payload.h"

/** DISK_SLOTS - Requests that may be in flight */
#define DISK_SLOTS	  8
#define DISK_SECTOR_BYTES 512

/** enum disk_request - virtio 1.2, 5.2.6 */
enum disk_request {
	DISK_READ = 0,
	DISK_WRITE = 1,
	DISK_FLUSH = 4,
};

/** disk_start() - Find the first virtio-blk device and start its queue; false if there is none. */
bool disk_start(void);

/**
 * disk_submit() - Make a request available; disk_kick() tells the device
 * @slot:	Below DISK_SLOTS, with no request in flight
 * @data:	A sector, untouched until the request is done; of no meaning for DISK_FLUSH
 */
void disk_submit(uint32_t slot, enum disk_request type, uint64_t sector, void *data);
void disk_kick(void);

/** disk_in_flight() - How many requests the device still has. */
uint16_t disk_in_flight(void);

/** disk_ended() - The slot of a request that the device gave back, each once, in its order; -1: no more. */
int disk_ended(void);

/** disk_good() - Whether the request that was last in @slot ended well. */
bool disk_good(uint32_t slot);

/* What the device's configuration space says now (5.2.4). */
uint64_t disk_capacity(void); /* sectors */
uint32_t disk_block_bytes(void);
uint8_t disk_generation(void);

/** disk_was_told() - Whether a configuration interrupt came since the last look (4.1.4.5). */
bool disk_was_told(void);
