/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef AGENT_PROGRAM_H
#define AGENT_PROGRAM_H

#include <sched.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include "barrier.h"
#include "util.h"
#include "wire.h"

#define MAX_OPS (1u << 16)
#define MAX_THREADS 64
#define MAX_ARGS 6
#define NR_REGISTERS 32

struct arg {
	struct wire_arg wire;
	const struct wire_field *fields;
	void *data;
	size_t offset;		/* of a returned buffer, in its op's result */
};

struct op {
	struct wire_op wire;
	struct arg args[MAX_ARGS];
	size_t offset;		/* of the result, in its round's results */
};

struct list {
	const struct op *ops;
	uint32_t nr;
};

struct program {
	struct wire_program wire;
	struct list setup, teardown, threads[MAX_THREADS];
	struct barrier *barrier;
	struct barrier own_barrier;
	cpu_set_t home;		/* where the executor is while nobody races */
	cpu_set_t processors;	/* that a racer may run on */
	size_t round_size;	/* of the results */
	uint8_t *results;
	_Atomic uint64_t registers[NR_REGISTERS];
	struct memory ops;
};

/*
 * Make a program of a frame's payload, into which it points from then on. Memory of
 * the program that was there before is used again.
 *
 * Returns NULL, or what is wrong.
 */
const char *parse_program(struct program *program, void *payload, size_t size);

/* Run each op of a list; their results go to those of the round. */
void run_list(struct program *program, const struct list *list, uint32_t round);

/* Run all rounds; there must be zeroes where the results go. */
void run_program(struct program *program);

#endif
