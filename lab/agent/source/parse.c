// SPDX-License-Identifier: GPL-2.0-only
/* Reading a program. Each parse_*() returns NULL, or what is wrong. */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "access.h"
#include "program.h"

struct cursor {
	uint8_t *at;
	uint8_t *end;
};

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
	    guarded(ACCESS_TOUCH, wire->barrier, 0, sizeof(uint32_t), NULL))
		return "the barrier is not at a mapped and aligned address";
	return NULL;
}

const char *parse_program(struct program *program, void *payload, size_t size)
{
	struct cursor cursor = { .at = payload, .end = (uint8_t *)payload + size };
	struct wire_program *wire = take(&cursor, sizeof(*wire));
	const char *wrong;

	if (!wire)
		return "the program is cut short";
	program->wire = *wire;
	if (!wire->rounds)
		return "a program runs at least once";
	if (wire->nr_threads > MAX_THREADS)
		return "the program has too many threads";
	wrong = parse_lists(&cursor, program);
	if (!wrong)
		wrong = parse_barrier(program);
	if (wrong)
		return wrong;
	if (program->round_size > MAX_PAYLOAD ||
	    (uint64_t)program->round_size * wire->rounds > MAX_PAYLOAD)
		return "the results would not fit into a frame";
	return NULL;
}
