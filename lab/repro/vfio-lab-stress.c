// SPDX-License-Identifier: GPL-2.0-only
/*
 * Makes a guest's life hard: `memory MIB` leaves so much of it available, `noise SEED` takes the
 * CPUs for random moments. It is a process group of its own, and ends when that is killed.
 */
#define _GNU_SOURCE
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define STEPS 4096		/* that are taken, or given back, one at a time */
#define PRIORITY 50
#define BUSY 3000		/* microseconds at the most that a real-time thread runs, */
#define IDLE 10000		/* and sleeps */

static void write_to(const char *path, const char *text)
{
	FILE *file = fopen(path, "w");

	if (file) {
		fputs(text, file);
		fclose(file);
	}
}

static long available(void)	/* KiB, or -1 */
{
	char line[128];
	long found = -1;
	FILE *file = fopen("/proc/meminfo", "r");

	while (file && found < 0 && fgets(line, sizeof(line), file))
		sscanf(line, "MemAvailable: %ld kB", &found);
	if (file)
		fclose(file);
	return found;
}

static void take_memory(long leave)	/* MiB */
{
	static struct { char *start; long length; } taken[STEPS];
	long count = 0;

	write_to("/proc/self/oom_score_adj", "1000");	/* the first to be killed */
	for (;;) {
		long left = available() / 1024, step = (left - leave) / 2;

		if (left > leave && count < STEPS) {
			long length = (step ? step : 1) << 20;
			char *more = mmap(NULL, length, PROT_READ | PROT_WRITE,
					  MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);

			if (more != MAP_FAILED) {
				taken[count].start = more;
				taken[count++].length = length;
			}
		} else if (left < leave / 2 && count) {
			count--;
			munmap(taken[count].start, taken[count].length);
		} else {
			usleep(1000);
		}
	}
}

static long microseconds(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000000L + now.tv_nsec / 1000;
}

static void burst(unsigned int seed)
{
	struct sched_param priority = { .sched_priority = PRIORITY };

	sched_setscheduler(0, SCHED_FIFO, &priority);
	for (;;) {
		long end = microseconds() + rand_r(&seed) % BUSY;

		while (microseconds() < end)
			;
		usleep(rand_r(&seed) % IDLE);
	}
}

static void spin(void)
{
	nice(5);
	for (;;)
		microseconds();
}

static void make_noise(unsigned int seed)
{
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);

	for (long cpu = 0; cpu < cpus; cpu++) {
		for (int real_time = 0; real_time < 2; real_time++) {
			cpu_set_t own;

			if (fork())
				continue;
			CPU_ZERO(&own);
			CPU_SET(cpu, &own);
			sched_setaffinity(0, sizeof(own), &own);
			if (real_time)
				burst(seed * 64 + cpu);
			spin();
		}
	}
	for (;;)
		pause();
}

int main(int argc, char **argv)
{
	long number = argc == 3 ? atol(argv[2]) : -1;

	if (number < 0)
		return 2;
	setpgid(0, 0);
	if (!strcmp(argv[1], "noise"))
		make_noise(number);
	for (;;) {		/* and again when it was killed for its size */
		if (!fork())
			take_memory(number);
		wait(NULL);
	}
}
