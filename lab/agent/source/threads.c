// SPDX-License-Identifier: GPL-2.0-only
/*
 * Threads that start together: each waits for the others at a barrier, on a
 * processor of its own, before it runs its ops.
 */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "barrier.h"
#include "program.h"
#include "util.h"

#define SPINS (1u << 14)

struct worker {
	struct program *program;
	pthread_t thread;
	uint32_t index;
};

static void run_thread(struct program *program, uint32_t thread, uint32_t round)
{
	uint32_t parties = program->wire.parties;
	bool crowded = (uint32_t)CPU_COUNT(&program->processors) < parties;

	/*
	 * Some sleep until the first barrier is met. All are awake at the second,
	 * and should not fall asleep again: being woken is what makes a late start.
	 */
	barrier_wait(program->barrier, parties, SPINS);
	barrier_wait(program->barrier, parties, crowded ? SPINS : 32 * SPINS);
	run_list(program, &program->threads[thread], round);
	barrier_wait(program->barrier, parties, SPINS);
}

/*
 * Who speaks with the host is best off on the processor of the SSH server, where
 * the agent begins. Racers go wherever the kernel lets them.
 */
static void leave_home(struct program *program)
{
	cpu_set_t all;

	memset(&all, 0xff, sizeof(all));
	if (sched_getaffinity(0, sizeof(program->home), &program->home) ||
	    sched_setaffinity(0, sizeof(all), &all) ||
	    sched_getaffinity(0, sizeof(program->processors), &program->processors))
		die("agent: cannot tell the processors");
}

/* A processor for each racer, as far as there are any: a woken one often stays on its waker's. */
static void spread_out(struct program *program)
{
	uint32_t ticket = atomic_fetch_add(&program->barrier->tickets, 1) % program->wire.parties;
	int nth = ticket % CPU_COUNT(&program->processors);
	cpu_set_t mine;

	CPU_ZERO(&mine);
	for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
		if (CPU_ISSET(cpu, &program->processors) && nth-- == 0)
			CPU_SET(cpu, &mine);
	sched_setaffinity(0, sizeof(mine), &mine);
}

static void *work(void *data)
{
	struct worker *worker = data;

	spread_out(worker->program);
	for (uint32_t round = 0; round < worker->program->wire.rounds; round++)
		run_thread(worker->program, worker->index, round);
	return NULL;
}

/* The executor is thread 0, so that a batch, or one thread a process, needs no clone(). */
void run_program(struct program *program)
{
	struct worker workers[MAX_THREADS];
	uint32_t nr_threads = program->wire.nr_threads;

	if (nr_threads)
		leave_home(program);
	for (uint32_t i = 1; i < nr_threads; i++) {
		workers[i] = (struct worker){ .program = program, .index = i };
		errno = pthread_create(&workers[i].thread, NULL, work, &workers[i]);
		if (errno)
			die("agent: cannot create a thread");
	}
	if (nr_threads)
		spread_out(program);
	for (uint32_t round = 0; round < program->wire.rounds; round++) {
		for (int i = 0; i < NR_REGISTERS; i++)
			program->registers[i] = UINT64_MAX;
		run_list(program, &program->setup, round);
		if (nr_threads)
			run_thread(program, 0, round);
		run_list(program, &program->teardown, round);
	}
	for (uint32_t i = 1; i < nr_threads; i++)
		pthread_join(workers[i].thread, NULL);
	if (nr_threads)
		sched_setaffinity(0, sizeof(program->home), &program->home);
}
