// Writes numbered sectors to virtio-blk, reads them back, counts what does not match.
// SPDX-License-Identifier: Apache-2.0
#include "virtio_blk.h"

#define N_SECTORS 256

static uint64_t sector_data[64] __attribute__((aligned(512)));
static uint64_t last_written[N_SECTORS];

/* One request at a time. */
static void request(enum disk_request type, uint64_t sector)
{
	disk_submit(0, type, sector, sector_data);
	disk_kick();
	while (disk_in_flight())
		SHARED->counter++;
	if (!disk_good(0))
		SHARED->errors++;
}

/* detail: 0 sectors written, 1 sectors verified, 2 mismatches */
void payload_main(void *info)
{
	payload_begin();
	if (!disk_start()) {
		serial_puts("no disk\n");
		for (;;)
			;
	}
	serial_puts("ready\n");
	for (uint64_t n = 1;; n++) {
		uint64_t sector = n % N_SECTORS, other = (n * 7) % N_SECTORS;

		for (uint32_t i = 0; i < 64; i++)
			sector_data[i] = n ^ (i << 20) ^ sector;
		request(DISK_WRITE, sector);
		last_written[sector] = n;
		SHARED->detail[0] = n;
		if (n % 16 == 0)
			request(DISK_FLUSH, 0);
		if (!last_written[other])
			continue;
		for (uint32_t i = 0; i < 64; i++)
			sector_data[i] = 0;
		request(DISK_READ, other);
		for (uint32_t i = 0; i < 64; i++)
			if (sector_data[i] != (last_written[other] ^ (i << 20) ^ other)) {
				SHARED->detail[2]++;
				SHARED->errors++;
			}
		SHARED->detail[1]++;
	}
}
