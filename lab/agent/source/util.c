// SPDX-License-Identifier: GPL-2.0-only
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "util.h"

void __attribute__((noreturn)) die(const char *what)
{
	perror(what);
	_exit(1);
}

void reserve(struct memory *memory, size_t size)
{
	if (size <= memory->size)
		return;
	memory->data = realloc(memory->data, size);
	if (!memory->data)
		die("agent: out of memory");
	memory->size = size;
}
