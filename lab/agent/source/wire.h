/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What goes over the wire. protocol.py is the other half, describes the frames,
 * and changes with this file. Integers are little-endian, and everything is
 * padded to 8 bytes.
 */
#ifndef AGENT_WIRE_H
#define AGENT_WIRE_H

#include <stdint.h>

#define PROTOCOL_VERSION 1
#define MAX_PAYLOAD (64u << 20)
#define NO_REGISTER 0xff

enum frame_kind { FRAME_HELLO = 1, FRAME_PROGRAM, FRAME_RESULTS, FRAME_ERROR };
enum op_code { OP_CALL = 1, OP_READ, OP_WRITE, OP_LOAD, OP_STORE, OP_DELAY };
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

#endif
