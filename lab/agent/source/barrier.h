/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef AGENT_BARRIER_H
#define AGENT_BARRIER_H

#include <stdatomic.h>
#include <stdint.h>

/* Zeroes are a valid start. May be shared between processes. */
struct barrier {
	_Atomic uint32_t generation;
	_Atomic uint32_t arrived;
	_Atomic uint32_t sleepers;
	_Atomic uint32_t tickets;	/* one for each thread of each program */
};

/* Returns when as many threads are here; looks @spins times before it sleeps. */
void barrier_wait(struct barrier *barrier, uint32_t parties, uint32_t spins);

#endif
