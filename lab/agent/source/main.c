// SPDX-License-Identifier: GPL-2.0-only
/*
 * agent - makes system calls and memory accesses on behalf of a test.
 *
 * One agent is one process under test. It reads frames from stdin, each of
 * which holds a program, runs the program, and writes the results to stdout.
 * wire.h has the frames, host.c carries them; parse.c makes a program of one,
 * which ops.c runs op by op, threads.c in several threads at once.
 *
 * It leaves when its host does, whatever it is blocked in: see watch_host().
 */
#include <signal.h>
#include <string.h>

#include "access.h"
#include "host.h"
#include "program.h"
#include "util.h"
#include "wire.h"

static void serve(struct program *program, void *payload, size_t length, struct memory *output)
{
	const char *wrong = parse_program(program, payload, length);
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
	static struct program program;
	struct memory output = { 0 };
	struct input input = { 0 };
	struct frame frame;

	signal(SIGPIPE, SIG_IGN);
	catch_faults();
	watch_host();
	reserve(&input.memory, 1 << 16);
	send_hello();

	for (;;) {
		receive(&input, sizeof(frame));
		memcpy(&frame, input.memory.data, sizeof(frame));
		if (frame.kind != FRAME_PROGRAM || frame.length > MAX_PAYLOAD || frame.length % 8) {
			/* Where the next frame starts is unknown. */
			send_error("this is no frame of a program");
			return 1;
		}
		receive(&input, sizeof(frame) + frame.length);
		serve(&program, input.memory.data + sizeof(frame), frame.length, &output);
		drop(&input, sizeof(frame) + frame.length);
	}
}
