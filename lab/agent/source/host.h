/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef AGENT_HOST_H
#define AGENT_HOST_H

#include <stddef.h>

#include "util.h"

/* From now on the process ends when its host hangs up, whatever it is blocked in. */
void watch_host(void);

/* The agent's first word. */
void send_hello(void);

/* All of it. */
void send_bytes(const void *data, size_t size);

/* A frame that says what is wrong with one of the host's. */
void send_error(const char *text);

/* What came from the host and was not used yet. */
struct input {
	struct memory memory;
	size_t held;
};

/* At least @size bytes are held when this returns. */
void receive(struct input *input, size_t size);

/* The first @size bytes were used. */
void drop(struct input *input, size_t size);

#endif
