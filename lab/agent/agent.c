// SPDX-License-Identifier: GPL-2.0-only
/*
 * agent - makes system calls and memory accesses on behalf of a test.
 *
 * One agent is one process under test. It reads frames from stdin, each of
 * which holds a program, runs the program, and writes the results to stdout.
 * The frames are described in protocol.py; integers are little-endian, and
 * everything is padded to 8 bytes.
 *
 * It leaves when its host does, whatever it is blocked in: see watch_host().
 */
#define _GNU_SOURCE
#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define PROTOCOL_VERSION 1
#define MAX_PAYLOAD (64u << 20)
#define MAX_OPS (1u << 16)
#define MAX_THREADS 64
#define MAX_ARGS 6
#define NR_REGISTERS 32
#define NO_REGISTER 0xff
#define SPINS (1u << 14)

/* From linux/futex.h, which a musl toolchain need not have. */
#define FUTEX_WAIT 0
#define FUTEX_WAKE 1

enum frame_kind { FRAME_HELLO = 1, FRAME_PROGRAM, FRAME_RESULTS, FRAME_ERROR };
enum op_code { OP_CALL = 1, OP_READ, OP_WRITE, OP_LOAD, OP_STORE, OP_DELAY, OP_TOUCH };
enum arg_kind { ARG_VALUE = 1, ARG_REGISTER, ARG_BUFFER };

struct frame {
	uint32_t length;	/* of the payload that follows */
	uint32_t kind;
};

struct hello {
	struct frame frame;
	uint32_t version;
	uint32_t pid;
	uint32_t page_size;
	uint32_t reserved;
};

struct wire_program {
	uint32_t rounds;
	uint32_t nr_threads;
	uint64_t barrier;
	uint32_t parties;
	uint32_t nr_setup;
	uint32_t nr_teardown;
	uint32_t reserved;
	/* nr_threads counts of ops; then all ops: setup, threads, teardown */
};

struct wire_op {
	uint8_t code;
	uint8_t reg;		/* where the result goes, or NO_REGISTER */
	uint8_t nr_args;
	uint8_t width;
	uint32_t nr;
};

struct wire_arg {
	uint8_t kind;
	uint8_t reg;
	uint8_t nr_fields;
	uint8_t returned;
	uint32_t size;		/* of a buffer */
	uint64_t value;		/* or offset to a register, or bytes of a buffer that follow */
};

/* A part of a buffer that a register fills, or that fills a register. */
struct wire_field {
	uint32_t offset;
	uint8_t width;
	uint8_t reg;
	uint8_t out;
	uint8_t reserved;
};

struct wire_result {
	int64_t value;		/* the address, after a fault */
	int32_t error;
	int16_t signal;
	int16_t code;
	uint64_t start;
	uint64_t end;
	/* the buffers to be returned */
};

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

/* Zeroes are a valid start. May be shared between processes. */
struct barrier {
	_Atomic uint32_t generation;
	_Atomic uint32_t arrived;
	_Atomic uint32_t sleepers;
	_Atomic uint32_t tickets;	/* one for each thread of each program */
};

struct memory {
	uint8_t *data;
	size_t size;
};

struct program {
	struct wire_program wire;
	struct list setup, teardown, threads[MAX_THREADS];
	struct barrier *barrier;
	struct barrier own_barrier;
	cpu_set_t processors;	/* that a thread may run on */
	size_t round_size;
	uint8_t *results;
	_Atomic uint64_t registers[NR_REGISTERS];
	struct memory ops;
};

struct worker {
	struct program *program;
	pthread_t thread;
	uint32_t index;
};

struct cursor {
	uint8_t *at;
	uint8_t *end;
};

static _Thread_local struct {
	sigjmp_buf env;
	volatile sig_atomic_t armed;
	volatile int signal;
	volatile int code;
	void *volatile address;
} guard;

static void __attribute__((noreturn)) die(const char *what)
{
	perror(what);
	_exit(1);
}

static void reserve(struct memory *memory, size_t size)
{
	if (size <= memory->size)
		return;
	memory->data = realloc(memory->data, size);
	if (!memory->data)
		die("agent: out of memory");
	memory->size = size;
}

static uint64_t now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000ull + t.tv_nsec;
}

/* Guarded accesses */

static void on_fault(int signal, siginfo_t *info, void *context)
{
	(void)context;
	if (!guard.armed || info->si_code <= 0) {
		/* The agent's own bug, or somebody's kill(): die of it. */
		struct sigaction action = { .sa_handler = SIG_DFL };

		sigaction(signal, &action, NULL);
		raise(signal);
		return;
	}
	guard.armed = 0;
	guard.signal = signal;
	guard.code = info->si_code;
	guard.address = info->si_addr;
	siglongjmp(guard.env, 1);
}

static void catch_faults(void)
{
	/* SA_NODEFER: siglongjmp() need not restore a mask then, which costs a system call. */
	struct sigaction action = { .sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_NODEFER };

	sigaction(SIGSEGV, &action, NULL);
	sigaction(SIGBUS, &action, NULL);
}

#define ACCESS(type)                                      \
	do {                                              \
		if (code == OP_STORE)                     \
			*(volatile type *)to = *value;    \
		else                                      \
			*value = *(volatile type *)from;  \
	} while (0)

static void access_memory(enum op_code code, void *to, const void *from, size_t size,
			  uint64_t *value)
{
	if (code == OP_READ || code == OP_WRITE)
		memcpy(to, from, size);
	else if (code == OP_TOUCH)
		atomic_fetch_add((_Atomic uint32_t *)to, 0);
	else if (size == 1)
		ACCESS(uint8_t);
	else if (size == 2)
		ACCESS(uint16_t);
	else if (size == 4)
		ACCESS(uint32_t);
	else
		ACCESS(uint64_t);
}

/* Returns false when it faulted; guard tells how. */
static bool guarded(enum op_code code, uint64_t to, uint64_t from, size_t size, uint64_t *value)
{
	if (sigsetjmp(guard.env, 0))
		return false;
	guard.armed = 1;
	atomic_signal_fence(memory_order_seq_cst);
	access_memory(code, (void *)(uintptr_t)to, (void *)(uintptr_t)from, size, value);
	atomic_signal_fence(memory_order_seq_cst);
	guard.armed = 0;
	return true;
}

/* Barriers */

static void barrier_wait(struct barrier *barrier, uint32_t parties, uint32_t spins)
{
	uint32_t generation = atomic_load(&barrier->generation);

	if (atomic_fetch_add(&barrier->arrived, 1) + 1 == parties) {
		atomic_store(&barrier->arrived, 0);
		atomic_fetch_add(&barrier->generation, 1);
		if (atomic_load(&barrier->sleepers))
			syscall(SYS_futex, &barrier->generation, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
		return;
	}
	for (uint32_t i = 0; i < spins; i++)
		if (atomic_load_explicit(&barrier->generation, memory_order_acquire) != generation)
			return;
	atomic_fetch_add(&barrier->sleepers, 1);
	while (atomic_load(&barrier->generation) == generation)
		syscall(SYS_futex, &barrier->generation, FUTEX_WAIT, generation, NULL, NULL, 0);
	atomic_fetch_sub(&barrier->sleepers, 1);
}

/* Running a program */

static void delay(uint64_t ns)
{
	uint64_t end = now() + ns;

	/* A sleep is too coarse for a short one. */
	if (ns >= 1000000) {
		struct timespec t = { .tv_sec = ns / 1000000000, .tv_nsec = ns % 1000000000 };

		nanosleep(&t, NULL);
	}
	while (now() < end)
		;
}

static void fill_buffer(struct program *program, const struct arg *arg, uint8_t *buffer)
{
	if (arg->wire.returned)
		memcpy(buffer, arg->data, arg->wire.value);
	for (int i = 0; i < arg->wire.nr_fields; i++) {
		const struct wire_field *field = &arg->fields[i];
		uint64_t value = program->registers[field->reg];

		if (!field->out)
			memcpy(buffer + field->offset, &value, field->width);
	}
}

static void drain_buffer(struct program *program, const struct arg *arg, const uint8_t *buffer,
			 bool failed)
{
	for (int i = 0; i < arg->wire.nr_fields; i++) {
		const struct wire_field *field = &arg->fields[i];
		uint64_t value = 0;

		if (!field->out)
			continue;
		memcpy(&value, buffer + field->offset, field->width);
		program->registers[field->reg] = failed ? UINT64_MAX : value;
	}
}

static void run_op(struct program *program, const struct op *op, uint32_t round)
{
	uint8_t *record = program->results + round * program->round_size + op->offset;
	struct wire_result *result = (struct wire_result *)record;
	uint64_t a[MAX_ARGS] = { 0 };
	uint64_t value = 0;
	bool fine = true;

	for (int i = 0; i < op->wire.nr_args; i++) {
		const struct arg *arg = &op->args[i];

		if (arg->wire.kind == ARG_VALUE) {
			a[i] = arg->wire.value;
		} else if (arg->wire.kind == ARG_REGISTER) {
			a[i] = program->registers[arg->wire.reg] + arg->wire.value;
		} else {
			a[i] = (uintptr_t)(arg->wire.returned ? record + arg->offset : arg->data);
			fill_buffer(program, arg, (uint8_t *)(uintptr_t)a[i]);
		}
	}

	result->start = now();
	switch (op->wire.code) {
	case OP_CALL:
		value = syscall(op->wire.nr, a[0], a[1], a[2], a[3], a[4], a[5]);
		if (value == UINT64_MAX)
			result->error = errno;
		break;
	case OP_READ:
		fine = guarded(OP_READ, a[1], a[0], op->args[1].wire.size, NULL);
		break;
	case OP_WRITE:
		fine = guarded(OP_WRITE, a[0], a[1], op->args[1].wire.size, NULL);
		break;
	case OP_LOAD:
		fine = guarded(OP_LOAD, 0, a[0], op->wire.width, &value);
		break;
	case OP_STORE:
		fine = guarded(OP_STORE, a[0], 0, op->wire.width, &a[1]);
		break;
	case OP_DELAY:
		delay(a[0] + round * a[1]);
		break;
	}
	result->end = now();

	result->value = fine ? value : (uintptr_t)guard.address;
	if (!fine) {
		result->signal = guard.signal;
		result->code = guard.code;
		value = UINT64_MAX;
	}
	for (int i = 0; i < op->wire.nr_args; i++)
		if (op->args[i].wire.kind == ARG_BUFFER)
			drain_buffer(program, &op->args[i], (uint8_t *)(uintptr_t)a[i],
				     !fine || result->error);
	if (op->wire.reg != NO_REGISTER)
		program->registers[op->wire.reg] = value;
}

static void run_list(struct program *program, const struct list *list, uint32_t round)
{
	for (uint32_t i = 0; i < list->nr; i++)
		run_op(program, &list->ops[i], round);
}

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
static void run_program(struct program *program)
{
	struct worker workers[MAX_THREADS];
	uint32_t nr_threads = program->wire.nr_threads;

	if (nr_threads && sched_getaffinity(0, sizeof(cpu_set_t), &program->processors))
		die("agent: cannot tell the processors");
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
		sched_setaffinity(0, sizeof(cpu_set_t), &program->processors);
}

/* Reading a program: each function returns what is wrong, or NULL. */

static size_t padded(size_t size)
{
	return (size + 7) & ~(size_t)7;
}

static void *take(struct cursor *cursor, uint64_t size)
{
	uint8_t *at = cursor->at;

	if (size > MAX_PAYLOAD || padded(size) > (size_t)(cursor->end - at))
		return NULL;
	cursor->at += padded(size);
	return at;
}

static bool is_width(uint8_t width)
{
	return width == 1 || width == 2 || width == 4 || width == 8;
}

static const char *parse_buffer(struct cursor *cursor, struct arg *arg)
{
	arg->fields = take(cursor, arg->wire.nr_fields * sizeof(*arg->fields));
	arg->data = take(cursor, arg->wire.value);
	if (!arg->fields || !arg->data)
		return "a buffer is cut short";
	if (arg->wire.value > arg->wire.size)
		return "a buffer holds more than its size";
	/* One that is not returned is used where it lies in the frame. */
	if (!arg->wire.returned && arg->wire.value != arg->wire.size)
		return "a buffer that is not returned holds less than its size";
	for (int i = 0; i < arg->wire.nr_fields; i++) {
		const struct wire_field *field = &arg->fields[i];

		if (!is_width(field->width) || field->reg >= NR_REGISTERS)
			return "a field has no such width or register";
		if ((uint64_t)field->offset + field->width > arg->wire.size)
			return "a field is outside its buffer";
	}
	return NULL;
}

static const char *parse_op(struct cursor *cursor, struct op *op)
{
	/* What each op needs: how many arguments (a call: up to 6), and a buffer as the last. */
	static const struct { uint8_t args; bool width, buffer; } shapes[] = {
		[OP_CALL] = { MAX_ARGS, false, false }, [OP_READ] = { 2, false, true },
		[OP_WRITE] = { 2, false, true },	[OP_LOAD] = { 1, true, false },
		[OP_STORE] = { 2, true, false },	[OP_DELAY] = { 2, false, false },
	};
	struct wire_op *wire = take(cursor, sizeof(*wire));

	if (!wire)
		return "an op is cut short";
	op->wire = *wire;
	if (wire->code < OP_CALL || wire->code > OP_DELAY)
		return "there is no such op";
	if (wire->reg >= NR_REGISTERS && wire->reg != NO_REGISTER)
		return "there is no such register";
	if (wire->nr_args > MAX_ARGS ||
	    (wire->code != OP_CALL && wire->nr_args != shapes[wire->code].args))
		return "an op has a wrong number of arguments";
	if (shapes[wire->code].width && !is_width(wire->width))
		return "a width is none of 1, 2, 4, 8";

	for (int i = 0; i < wire->nr_args; i++) {
		struct arg *arg = &op->args[i];
		struct wire_arg *wire_arg = take(cursor, sizeof(*wire_arg));
		const char *wrong = NULL;
		bool buffer = shapes[wire->code].buffer && i == 1;

		if (!wire_arg)
			return "an argument is cut short";
		arg->wire = *wire_arg;
		if (arg->wire.kind < ARG_VALUE || arg->wire.kind > ARG_BUFFER)
			return "there is no such kind of argument";
		if (wire->code != OP_CALL && buffer != (arg->wire.kind == ARG_BUFFER))
			return "an op has an argument of a wrong kind";
		if (arg->wire.kind == ARG_REGISTER && arg->wire.reg >= NR_REGISTERS)
			return "there is no such register";
		if (arg->wire.kind == ARG_BUFFER)
			wrong = parse_buffer(cursor, arg);
		if (wrong)
			return wrong;
	}
	return NULL;
}

static void lay_out(struct program *program, struct op *op)
{
	size_t size = sizeof(struct wire_result);

	for (int i = 0; i < op->wire.nr_args; i++) {
		struct arg *arg = &op->args[i];

		if (arg->wire.kind != ARG_BUFFER || !arg->wire.returned)
			continue;
		arg->offset = size;
		size += padded(arg->wire.size);
	}
	op->offset = program->round_size;
	program->round_size += size;
}

static const char *parse_lists(struct cursor *cursor, struct program *program)
{
	uint32_t *counts = take(cursor, program->wire.nr_threads * sizeof(*counts));
	struct list *lists[MAX_THREADS + 2];
	uint64_t total = (uint64_t)program->wire.nr_setup + program->wire.nr_teardown;
	uint32_t nr_lists = program->wire.nr_threads + 2;
	struct op *op;

	if (!counts)
		return "the program is cut short";
	program->setup.nr = program->wire.nr_setup;
	program->teardown.nr = program->wire.nr_teardown;
	lists[0] = &program->setup;
	lists[nr_lists - 1] = &program->teardown;
	for (uint32_t i = 0; i < program->wire.nr_threads; i++) {
		program->threads[i].nr = counts[i];
		lists[i + 1] = &program->threads[i];
		total += counts[i];
	}
	if (total > MAX_OPS)
		return "the program has too many ops";

	reserve(&program->ops, (total + 1) * sizeof(*op));
	op = (struct op *)program->ops.data;
	program->round_size = 0;
	for (uint32_t i = 0; i < nr_lists; i++) {
		lists[i]->ops = op;
		for (uint32_t j = 0; j < lists[i]->nr; j++, op++) {
			const char *wrong = parse_op(cursor, op);

			if (wrong)
				return wrong;
			lay_out(program, op);
		}
	}
	if (cursor->at != cursor->end)
		return "there is something after the program";
	return NULL;
}

static const char *parse_barrier(struct program *program)
{
	struct wire_program *wire = &program->wire;

	if (!wire->parties)
		wire->parties = wire->nr_threads;
	if (!wire->barrier) {
		memset(&program->own_barrier, 0, sizeof(program->own_barrier));
		program->barrier = &program->own_barrier;
		return wire->parties == wire->nr_threads ?
			NULL : "threads of other processes need a shared barrier";
	}
	program->barrier = (struct barrier *)(uintptr_t)wire->barrier;
	if (!wire->nr_threads || wire->parties < wire->nr_threads)
		return "fewer parties than threads meet at the barrier";
	if (wire->barrier % sizeof(struct barrier) ||
	    !guarded(OP_TOUCH, wire->barrier, 0, sizeof(uint32_t), NULL))
		return "the barrier is not at a mapped and aligned address";
	return NULL;
}

static const char *parse_program(struct cursor *cursor, struct program *program)
{
	struct wire_program *wire = take(cursor, sizeof(*wire));
	const char *wrong;

	if (!wire)
		return "the program is cut short";
	program->wire = *wire;
	if (!wire->rounds)
		return "a program runs at least once";
	if (wire->nr_threads > MAX_THREADS)
		return "the program has too many threads";
	wrong = parse_lists(cursor, program);
	if (!wrong)
		wrong = parse_barrier(program);
	if (wrong)
		return wrong;
	if (program->round_size > MAX_PAYLOAD ||
	    (uint64_t)program->round_size * wire->rounds > MAX_PAYLOAD)
		return "the results would not fit into a frame";
	return NULL;
}

/* Talking with the host */

static void *watch_host(void *unused)
{
	/* Without POLLIN: only a hang-up is of interest, and it is always told. */
	struct pollfd host = { .fd = STDIN_FILENO, .events = POLLRDHUP };

	(void)unused;
	while (poll(&host, 1, -1) <= 0)
		;
	_exit(0);
}

static void send_bytes(const void *data, size_t size)
{
	while (size) {
		ssize_t sent = write(STDOUT_FILENO, data, size);

		if (sent < 0 && errno == EINTR)
			continue;
		if (sent < 0)
			die("agent: cannot write to the host");
		data = (const uint8_t *)data + sent;
		size -= sent;
	}
}

static void send_error(const char *text)
{
	struct { struct frame frame; char text[128]; } error;

	snprintf(error.text, sizeof(error.text), "%s", text);
	error.frame = (struct frame){ .length = strlen(error.text), .kind = FRAME_ERROR };
	send_bytes(&error, sizeof(error.frame) + error.frame.length);
}

/* The input holds at least @size bytes when this returns. */
static void receive(struct memory *input, size_t *held, size_t size)
{
	reserve(input, size);
	while (*held < size) {
		ssize_t got = read(STDIN_FILENO, input->data + *held, input->size - *held);

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			die("agent: cannot read from the host");
		if (!got)
			_exit(0);
		*held += got;
	}
}

static void serve(struct program *program, struct cursor payload, struct memory *output)
{
	const char *wrong = parse_program(&payload, program);
	struct frame *frame;
	size_t size;

	if (wrong) {
		send_error(wrong);
		return;
	}
	size = program->round_size * program->wire.rounds;
	reserve(output, sizeof(*frame) + size);
	frame = (struct frame *)output->data;
	*frame = (struct frame){ .length = size, .kind = FRAME_RESULTS };
	program->results = output->data + sizeof(*frame);
	memset(program->results, 0, size);
	run_program(program);
	send_bytes(frame, sizeof(*frame) + size);
}

int main(void)
{
	struct hello hello = {
		.frame = { .length = sizeof(hello) - sizeof(hello.frame), .kind = FRAME_HELLO },
		.version = PROTOCOL_VERSION,
		.pid = getpid(),
		.page_size = sysconf(_SC_PAGESIZE),
	};
	static struct program program;
	struct memory input = { 0 }, output = { 0 };
	struct frame frame;
	size_t held = 0;
	pthread_t watcher;

	signal(SIGPIPE, SIG_IGN);
	catch_faults();
	errno = pthread_create(&watcher, NULL, watch_host, NULL);
	if (errno)
		die("agent: cannot create a thread");
	reserve(&input, 1 << 16);
	send_bytes(&hello, sizeof(hello));

	for (;;) {
		size_t size;

		receive(&input, &held, sizeof(frame));
		memcpy(&frame, input.data, sizeof(frame));
		if (frame.kind != FRAME_PROGRAM || frame.length > MAX_PAYLOAD || frame.length % 8) {
			/* Where the next frame starts is unknown. */
			send_error("this is no frame of a program");
			return 1;
		}
		size = sizeof(frame) + frame.length;
		receive(&input, &held, size);
		serve(&program, (struct cursor){ input.data + sizeof(frame), input.data + size },
		      &output);
		held -= size;
		memmove(input.data, input.data + size, held);
	}
}
