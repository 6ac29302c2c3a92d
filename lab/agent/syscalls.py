# SPDX-License-Identifier: GPL-2.0-only
"""The system calls that tests make, by name."""

from enum import IntEnum


class Syscall(IntEnum):
    """System calls by number on x86_64 (`arch/x86/entry/syscalls/syscall_64.tbl`)."""

    READ = 0
    WRITE = 1
    OPEN = 2
    CLOSE = 3
    POLL = 7
    LSEEK = 8
    MMAP = 9
    MPROTECT = 10
    MUNMAP = 11
    IOCTL = 16
    PREAD64 = 17
    PWRITE64 = 18
    READV = 19
    WRITEV = 20
    SCHED_YIELD = 24
    MREMAP = 25
    MADVISE = 28
    DUP = 32
    DUP2 = 33
    NANOSLEEP = 35
    GETPID = 39
    SENDMSG = 46
    RECVMSG = 47
    SOCKETPAIR = 53
    FORK = 57
    EXECVE = 59
    WAIT4 = 61
    KILL = 62
    FCNTL = 72
    FTRUNCATE = 77
    TIMES = 100
    GETUID = 102
    GETGID = 104
    SETUID = 105
    SETGID = 106
    GETEUID = 107
    GETEGID = 108
    SETGROUPS = 116
    SETRESUID = 117
    SETRESGID = 119
    CAPGET = 125
    CAPSET = 126
    MLOCK = 149
    MUNLOCK = 150
    MLOCKALL = 151
    MUNLOCKALL = 152
    PRCTL = 157
    SYNC = 162
    DELETE_MODULE = 176
    GETTID = 186
    FUTEX = 202
    SCHED_SETAFFINITY = 203
    SCHED_GETAFFINITY = 204
    GETDENTS64 = 217
    CLOCK_GETRES = 229
    EXIT_GROUP = 231
    EPOLL_CTL = 233
    TGKILL = 234
    OPENAT = 257
    MKDIRAT = 258
    FCHOWNAT = 260
    NEWFSTATAT = 262
    UNLINKAT = 263
    READLINKAT = 267
    FACCESSAT = 269
    PPOLL = 271
    UNSHARE = 272
    EPOLL_PWAIT = 281
    EVENTFD2 = 290
    EPOLL_CREATE1 = 291
    DUP3 = 292
    PIPE2 = 293
    PRLIMIT64 = 302
    FINIT_MODULE = 313
    MEMFD_CREATE = 319
    STATX = 332
    PIDFD_OPEN = 434
    CLOSE_RANGE = 436
    PIDFD_GETFD = 438


def name_of(nr: int) -> str:
    """What messages call a system call."""
    try:
        return Syscall(nr).name.lower()
    except ValueError:
        return f"system call {nr}"
