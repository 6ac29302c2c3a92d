// SPDX-License-Identifier: GPL-2.0-only
#include <limits.h>
#include <stdatomic.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "barrier.h"

/* From linux/futex.h, which a musl toolchain need not have. */
#define FUTEX_WAIT 0
#define FUTEX_WAKE 1

static void futex(_Atomic uint32_t *word, int op, uint32_t value)
{
	syscall(SYS_futex, word, op, value, NULL, NULL, 0);
}

void barrier_wait(struct barrier *barrier, uint32_t parties, uint32_t spins)
{
	uint32_t generation = atomic_load(&barrier->generation);

	if (atomic_fetch_add(&barrier->arrived, 1) + 1 == parties) {
		atomic_store(&barrier->arrived, 0);
		atomic_fetch_add(&barrier->generation, 1);
		if (atomic_load(&barrier->sleepers))
			futex(&barrier->generation, FUTEX_WAKE, INT_MAX);
		return;
	}
	for (uint32_t i = 0; i < spins; i++)
		if (atomic_load_explicit(&barrier->generation, memory_order_acquire) != generation)
			return;
	atomic_fetch_add(&barrier->sleepers, 1);
	while (atomic_load(&barrier->generation) == generation)
		futex(&barrier->generation, FUTEX_WAIT, generation);
	atomic_fetch_sub(&barrier->sleepers, 1);
}
