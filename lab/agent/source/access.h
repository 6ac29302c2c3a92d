/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef AGENT_ACCESS_H
#define AGENT_ACCESS_H

#include <stddef.h>
#include <stdint.h>

/* A copy is in whatever steps; a load or a store is one of exactly its size. */
enum access { ACCESS_COPY, ACCESS_LOAD, ACCESS_STORE, ACCESS_TOUCH };

/* A SIGSEGV or SIGBUS, as sigaction(2) tells it. */
struct fault {
	int signal;
	int code;
	void *address;
};

/* From now on guarded accesses may fault. */
void catch_faults(void);

/*
 * @size is 1, 2, 4 or 8 for a load and a store, whose other end is @value. A touch
 * changes nothing in the 4 bytes at @to, which must be there to be changed.
 *
 * Returns NULL, or how it faulted: valid until the thread's next access.
 */
const struct fault *guarded(enum access access, uint64_t to, uint64_t from, size_t size,
			    uint64_t *value);

#endif
