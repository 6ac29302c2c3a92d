// SPDX-License-Identifier: GPL-2.0-only
#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "access.h"
#include "program.h"

static uint64_t now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000ull + t.tv_nsec;
}

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

/* Do what the op says with its arguments. Returns NULL, or how it faulted. */
static const struct fault *do_op(const struct op *op, uint64_t a[MAX_ARGS], uint32_t round,
				 uint64_t *value, int32_t *error)
{
	switch (op->wire.code) {
	case OP_CALL:
		*value = syscall(op->wire.nr, a[0], a[1], a[2], a[3], a[4], a[5]);
		if (*value == UINT64_MAX)
			*error = errno;
		break;
	case OP_READ:
		return guarded(ACCESS_COPY, a[1], a[0], op->args[1].wire.size, NULL);
	case OP_WRITE:
		return guarded(ACCESS_COPY, a[0], a[1], op->args[1].wire.size, NULL);
	case OP_LOAD:
		return guarded(ACCESS_LOAD, 0, a[0], op->wire.width, value);
	case OP_STORE:
		return guarded(ACCESS_STORE, a[0], 0, op->wire.width, &a[1]);
	case OP_DELAY:
		delay(a[0] + round * a[1]);
		break;
	}
	return NULL;
}

static void run_op(struct program *program, const struct op *op, uint32_t round)
{
	uint8_t *record = program->results + round * program->round_size + op->offset;
	struct wire_result *result = (struct wire_result *)record;
	uint64_t a[MAX_ARGS] = { 0 };
	const struct fault *fault;
	uint64_t value = 0;

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
	fault = do_op(op, a, round, &value, &result->error);
	result->end = now();

	result->value = fault ? (uintptr_t)fault->address : value;
	if (fault) {
		result->signal = fault->signal;
		result->code = fault->code;
		value = UINT64_MAX;
	}
	for (int i = 0; i < op->wire.nr_args; i++)
		if (op->args[i].wire.kind == ARG_BUFFER)
			drain_buffer(program, &op->args[i], (uint8_t *)(uintptr_t)a[i],
				     fault || result->error);
	if (op->wire.reg != NO_REGISTER)
		program->registers[op->wire.reg] = value;
}

void run_list(struct program *program, const struct list *list, uint32_t round)
{
	for (uint32_t i = 0; i < list->nr; i++)
		run_op(program, &list->ops[i], round);
}
