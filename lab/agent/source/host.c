// SPDX-License-Identifier: GPL-2.0-only
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "host.h"
#include "wire.h"

static void *wait_for_hangup(void *unused)
{
	/* Without POLLIN: only a hang-up is of interest, and it is always told. */
	struct pollfd host = { .fd = STDIN_FILENO, .events = POLLRDHUP };

	(void)unused;
	while (poll(&host, 1, -1) <= 0)
		;
	_exit(0);
}

void watch_host(void)
{
	pthread_t watcher;

	errno = pthread_create(&watcher, NULL, wait_for_hangup, NULL);
	if (errno)
		die("agent: cannot create a thread");
}

void send_bytes(const void *data, size_t size)
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

void send_hello(void)
{
	struct hello hello = {
		.frame = { .length = sizeof(hello) - sizeof(hello.frame), .kind = FRAME_HELLO },
		.version = PROTOCOL_VERSION,
		.pid = getpid(),
		.page_size = sysconf(_SC_PAGESIZE),
	};

	send_bytes(&hello, sizeof(hello));
}

void send_error(const char *text)
{
	struct { struct frame frame; char text[128]; } error;

	snprintf(error.text, sizeof(error.text), "%s", text);
	error.frame = (struct frame){ .length = strlen(error.text), .kind = FRAME_ERROR };
	send_bytes(&error, sizeof(error.frame) + error.frame.length);
}

void receive(struct input *input, size_t size)
{
	struct memory *memory = &input->memory;

	reserve(memory, size);
	while (input->held < size) {
		ssize_t got = read(STDIN_FILENO, memory->data + input->held,
				   memory->size - input->held);

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			die("agent: cannot read from the host");
		if (!got)
			_exit(0);
		input->held += got;
	}
}

void drop(struct input *input, size_t size)
{
	input->held -= size;
	memmove(input->memory.data, input->memory.data + size, input->held);
}
