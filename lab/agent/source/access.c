// SPDX-License-Identifier: GPL-2.0-only
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <string.h>

#include "access.h"

static _Thread_local struct {
	sigjmp_buf env;
	volatile sig_atomic_t armed;
	struct fault fault;
} guard;

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
	guard.fault = (struct fault){ signal, info->si_code, info->si_addr };
	siglongjmp(guard.env, 1);
}

void catch_faults(void)
{
	/* SA_NODEFER: siglongjmp() need not restore a mask then, which costs a system call. */
	struct sigaction action = { .sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_NODEFER };

	sigaction(SIGSEGV, &action, NULL);
	sigaction(SIGBUS, &action, NULL);
}

#define MOVE(type)                                       \
	do {                                             \
		if (access == ACCESS_STORE)              \
			*(volatile type *)to = *value;   \
		else                                     \
			*value = *(volatile type *)from; \
	} while (0)

static void do_access(enum access access, void *to, const void *from, size_t size,
		      uint64_t *value)
{
	if (access == ACCESS_COPY)
		memcpy(to, from, size);
	else if (access == ACCESS_TOUCH)
		atomic_fetch_add((_Atomic uint32_t *)to, 0);
	else if (size == 1)
		MOVE(uint8_t);
	else if (size == 2)
		MOVE(uint16_t);
	else if (size == 4)
		MOVE(uint32_t);
	else
		MOVE(uint64_t);
}

const struct fault *guarded(enum access access, uint64_t to, uint64_t from, size_t size,
			    uint64_t *value)
{
	if (sigsetjmp(guard.env, 0))
		return &guard.fault;
	guard.armed = 1;
	atomic_signal_fence(memory_order_seq_cst);
	do_access(access, (void *)(uintptr_t)to, (void *)(uintptr_t)from, size, value);
	atomic_signal_fence(memory_order_seq_cst);
	guard.armed = 0;
	return NULL;
}
