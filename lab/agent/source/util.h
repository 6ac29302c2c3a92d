/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef AGENT_UTIL_H
#define AGENT_UTIL_H

#include <stddef.h>
#include <stdint.h>

/* Grows, never shrinks. Zeroes are a valid start. */
struct memory {
	uint8_t *data;
	size_t size;
};

/* Tells what failed, and why as errno has it. */
void __attribute__((noreturn)) die(const char *what);

/* What the memory held it still holds; it may have moved. */
void reserve(struct memory *memory, size_t size);

#endif
