"""Lock a process up: what it may still do is compute, and talk over two pipes.

`lock` is called in the box before any student's code is there, and cannot be undone:

- no capabilities, no new ones, a user of its own if the grader is root
- limits: memory, seconds of computing, threads, open files; files have no bytes
- Landlock: only the files that were named can be read, and no file can be written
- seccomp: system calls that are not in `CALLS` fail with EPERM, or ENOSYS if they are
  newer than 2019. Processes, programs, sockets and other processes' memory are not there.

`walls` then tries to get out. Linux on x86-64 and 64-bit ARM only.
"""

import contextlib
import ctypes
import os
import platform
import re
import resource
import struct
from collections.abc import Callable, Iterator
from errno import EAFNOSUPPORT, ENOSYS, EPERM
from pathlib import Path

MEMORY = 3 << 30  # bytes of address space; compiled code alone takes about 0.5 GiB
THREADS = 64  # of the user of the box, more than run now
FILES = 64  # open at once
SECONDS = 3600  # of computing, should the grader die and leave the box alone

# numbers on x86-64 and on 64-bit ARM, -1 where there is no such call
CALLS = """
read 0 63, write 1 64, readv 19 65, writev 20 66, pread64 17 67, pwrite64 18 68,
preadv 295 69, preadv2 327 286, close 3 57, lseek 8 62, open 2 -1, openat 257 56,
stat 4 -1, lstat 6 -1, fstat 5 80, newfstatat 262 79, statx 332 291, statfs 137 43,
fstatfs 138 44, access 21 -1, faccessat 269 48, readlink 89 -1, readlinkat 267 78,
getdents64 217 61, getcwd 79 17, dup 32 23, dup2 33 -1, dup3 292 24, pipe 22 -1,
pipe2 293 59, poll 7 -1, ppoll 271 73, select 23 -1, pselect6 270 72, mmap 9 222,
munmap 11 215, mprotect 10 226, mremap 25 216, madvise 28 233, brk 12 214,
mincore 27 232, msync 26 227, set_tid_address 218 96, set_robust_list 273 99,
get_robust_list 274 100, rseq 334 293, membarrier 324 283, futex 202 98,
sched_yield 24 124, sched_getaffinity 204 123, sched_getparam 143 121,
sched_getscheduler 145 120, sched_get_priority_max 146 125,
sched_get_priority_min 147 126, getcpu 309 168, arch_prctl 158 -1,
restart_syscall 219 128, exit 60 93, exit_group 231 94, rt_sigaction 13 134,
rt_sigprocmask 14 135, rt_sigreturn 15 139, rt_sigpending 127 136,
rt_sigtimedwait 128 137, rt_sigsuspend 130 133, sigaltstack 131 132, pause 34 -1,
alarm 37 -1, getitimer 36 102, setitimer 38 103, nanosleep 35 101,
clock_nanosleep 230 115, clock_gettime 228 113, clock_getres 229 114,
gettimeofday 96 169, time 201 -1, times 100 153, getpid 39 172, gettid 186 178,
getppid 110 173, getpgrp 111 -1, getuid 102 174, geteuid 107 175, getgid 104 176,
getegid 108 177, getresuid 118 148, getresgid 120 150, getgroups 115 158,
getrlimit 97 163, getrusage 98 165, sysinfo 99 179, uname 63 160, getrandom 318 278,
umask 95 166
"""
FIRST_NEW = 424  # system calls have the same number everywhere from here on

# of these only with one of some values: which argument, and what it may be
SOME = {
    "fcntl": (72, 25, 1, (0, 1, 2, 3, 4, 1030)),  # duplicate, and read and set flags
    "ioctl": (16, 29, 1, (0x5401, 0x5413, 0x541B, 0x5450, 0x5451)),  # ask; close on exec
    "prctl": (157, 167, 0, (15, 16, 0x53564D41)),  # names of threads and of memory
    "prlimit64": (302, 261, 0, (0,)),  # its own
}
KILL, TGKILL = (62, 129), (234, 131)  # only the process itself
CLONE, CLONE_THREAD = (56, 220), 0x10000  # only threads
SOCKET, EXECVE, PTRACE = (41, 198), (59, 221), (101, 117)  # to try the walls
LANDLOCK_CREATE, LANDLOCK_ADD, LANDLOCK_RESTRICT = 444, 445, 446
READ_FILE, READ_DIR, WRITE_FILE = 4, 8, 2
ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_CAPBSET_DROP = 1, 4, 24
PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS = 22, 38


class NoLock(OSError):
    """This machine has no such lock; says why."""


def lock(readable: list[str], listable: list[str], user: int | None, owner: int) -> None:
    """Lock this process up. Raises NoLock, and OSError, if that cannot be done.

    Beneath the paths `readable` files can be read; of `listable` only the names of what
    is in them. If `user` is not None the process has the rights of root so far. It goes
    on as that user, to whom its threads are counted, and reads files as `owner` does.
    """
    machine = platform.machine()
    if machine not in ARCHITECTURES:
        raise NoLock(f"there is no lock for processors of the kind {machine}")
    if len(os.listdir("/proc/self/task")) > 1:
        raise NoLock("a second thread runs already")
    column, architecture = ARCHITECTURES[machine]
    libc = ctypes.CDLL(None, use_errno=True)
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write("1000")  # if the machine has too little memory, this process goes first
    rules = landlock_rules(libc, readable, listable)
    drop_rights(libc, user, owner)
    limit_resources()
    for option, value in (
        (PR_SET_PDEATHSIG, 9),
        (PR_SET_DUMPABLE, 0),
        (PR_SET_NO_NEW_PRIVS, 1),
    ):
        prctl(libc, option, value)
    syscall(libc, LANDLOCK_RESTRICT, rules, 0)
    os.close(rules)
    code = program(column, architecture, os.getpid())
    buffer = ctypes.create_string_buffer(code)
    filters = struct.pack("HxxxxxxQ", len(code) // 8, ctypes.addressof(buffer))
    prctl(libc, PR_SET_SECCOMP, 2, ctypes.create_string_buffer(filters))


def drop_rights(libc: ctypes.CDLL, user: int | None, owner: int) -> None:
    """Give up root, and every capability."""
    if user is not None:
        for capability in range(64):
            with contextlib.suppress(OSError):  # there are fewer
                prctl(libc, PR_CAPBSET_DROP, capability)
        os.setgroups([])
        os.setresgid(user, owner, owner)
        os.setresuid(user, owner, owner)
    head, none = struct.pack("Ii", 0x20080522, 0), bytes(24)
    if libc.capset(ctypes.c_char_p(head), ctypes.c_char_p(none)):
        raise OSError(ctypes.get_errno(), "capabilities cannot be dropped")


def limit_resources() -> None:
    """Set the limits."""
    for kind, limit in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_AS, MEMORY),
        (resource.RLIMIT_CPU, SECONDS),
        (resource.RLIMIT_NOFILE, FILES),
        (resource.RLIMIT_MSGQUEUE, 0),
        (resource.RLIMIT_NPROC, threads_of(os.getuid()) + THREADS),
    ):
        hard = resource.getrlimit(kind)[1]
        limit = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        resource.setrlimit(kind, (limit, limit))


def threads_of(user: int) -> int:
    """Return how many threads this user runs, as far as one can see from here."""
    count = 0
    for process in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            status = Path(f"/proc/{process}/status").read_text(errors="replace")
            if re.search(rf"^Uid:\t{user}\t", status, re.MULTILINE):
                count += int(re.search(r"^Threads:\t(\d+)", status, re.MULTILINE)[1])
    return count


def landlock_rules(libc: ctypes.CDLL, readable: list[str], listable: list[str]) -> int:
    """Return the file descriptor of the rules: what is not named is forbidden."""
    try:
        version = syscall(libc, LANDLOCK_CREATE, None, 0, 1)
    except OSError:
        says = "this kernel has no Landlock: 5.13 and later have it, unless switched off"
        raise NoLock(says) from None
    files = 13 + (version >= 2) + (version >= 3) + (version >= 5)  # kinds of access
    attributes = struct.pack(
        "QQQ", (1 << files) - 1, 3 * (version >= 4), 3 * (version >= 6)
    )
    size = 8 if version < 4 else 16 if version < 6 else 24
    rules = syscall(libc, LANDLOCK_CREATE, ctypes.c_char_p(attributes), size, 0)
    named = [(path, READ_FILE | READ_DIR) for path in readable]
    named += [(path, READ_DIR) for path in listable]
    for path, access in [*named, ("/dev/null", READ_FILE | WRITE_FILE)]:
        try:
            place = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except OSError:
            continue
        access &= READ_FILE | WRITE_FILE if not os.path.isdir(path) else access
        rule = struct.pack("=Qi", access, place)
        syscall(libc, LANDLOCK_ADD, rules, 1, ctypes.c_char_p(rule), 0)
        os.close(place)
    return rules


def program(column: int, architecture: int, process: int) -> bytes:
    """Return the filter of system calls, in the kernel's little language (BPF)."""
    load, equal, any_bit, give, at_least = 0x20, 0x15, 0x45, 0x06, 0x35
    allow, refuse, unknown = 0x7FFF0000, 0x50000 | EPERM, 0x50000 | ENOSYS
    code: list[bytes] = []

    def add(operation: int, value: int, if_so: int = 0, if_not: int = 0) -> None:
        code.append(struct.pack("HBBI", operation, if_so, if_not, value))

    def if_call(number: int, then: Callable[[], None]) -> None:
        """For this system call do `then`, which ends with an answer."""
        if number >= 0:
            at = len(code)
            code.append(b"")
            then()
            code[at] = struct.pack("HBBI", equal, 0, len(code) - at - 1, number)

    def only(argument: int, values: tuple[int, ...]) -> None:
        add(load, 16 + 8 * argument)  # its low 32 bits, as the kernel reads these
        for value in values:
            add(equal, value, 0, 1)
            add(give, allow)
        add(give, refuse)

    def threads_only() -> None:
        add(load, 16)
        add(any_bit, CLONE_THREAD, 1, 0)
        add(give, refuse)
        add(give, allow)

    add(load, 4)
    add(equal, architecture, 1, 0)
    add(give, refuse)  # as 32-bit programs do
    add(load, 0)
    for call in CALLS.split(","):
        if_call(int(call.split()[1 + column]), lambda: add(give, allow))
    for *numbers, argument, values in SOME.values():
        if_call(numbers[column], lambda a=argument, v=values: only(a, v))
    for call in (KILL, TGKILL):
        if_call(call[column], lambda: only(0, (process,)))
    if_call(CLONE[column], threads_only)
    add(at_least, FIRST_NEW, 0, 1)  # the C library knows what to do without these
    add(give, unknown)
    add(give, refuse)
    return b"".join(code)


def syscall(libc: ctypes.CDLL, number: int, *arguments: object) -> int:
    """Make a system call. Raises OSError."""
    wide = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    result = libc.syscall(ctypes.c_long(number), *wide)
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error), f"system call {number}")
    return result


def prctl(libc: ctypes.CDLL, option: int, value: int, pointer: object = None) -> None:
    """Set something about this process. Raises OSError."""
    if libc.prctl(option, ctypes.c_ulong(value), pointer, None, None):
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error), f"prctl {option}")


def walls(secret: str) -> Iterator[str]:
    """Try to get out; yield what succeeded.

    `secret` is a file that may not be read. Where a wall stands each of these fails, and
    with the error of the wall.
    """
    column = ARCHITECTURES[platform.machine()][0]
    libc = ctypes.CDLL(None, use_errno=True)

    def call(number: tuple[int, int], *arguments: object) -> None:
        syscall(libc, number[column], *arguments)

    def child() -> None:
        if os.fork() == 0:
            os._exit(0)

    nothing = ctypes.c_char_p(b"/nothing/there")
    for name, attempt, errors in (
        ("read a file", lambda: open(secret).close(), ()),
        ("list a folder", lambda: os.listdir("/tmp"), ()),
        ("write a file", lambda: os.close(os.open(__file__, os.O_WRONLY)), ()),
        ("open a socket", lambda: call(SOCKET, 2, 1, 0), (EPERM, EAFNOSUPPORT)),
        ("start a process", child, (EPERM,)),
        ("start a program", lambda: call(EXECVE, nothing, None, None), (EPERM,)),
        ("send a signal", lambda: os.kill(os.getppid(), 0), (EPERM,)),
        ("trace a process", lambda: call(PTRACE, 16, 0, 0, 0), (EPERM,)),
        ("become root", lambda: os.setresuid(0, 0, 0), (EPERM,)),
        ("have more memory", _more_memory, ()),
    ):
        try:
            attempt()
        except (OSError, ValueError) as error:
            if not errors or getattr(error, "errno", None) in errors:
                continue
        yield name


def _more_memory() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY,) * 2)
