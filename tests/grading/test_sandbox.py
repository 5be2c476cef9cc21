"""What a box holds, and what cannot be done from inside it: real boxes, real attempts."""

import os
import platform
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from course.exercises.call import Raised
from course.grading import lock, sandbox
from course.grading.box import ROOT, Box, NotGraded

TIERS = ("strict", "landlock")
linux = pytest.mark.skipif(sys.platform != "linux", reason="the walls are Linux's")
intel = pytest.mark.skipif(platform.machine() != "x86_64", reason="numbers of x86-64")


def works(tier):
    """Skip if this machine has no such tier."""
    if tier != "none" and (reason := sandbox.why_not(tier)):
        pytest.skip(f"{tier}: {reason}")
    return tier


@pytest.fixture(scope="module", params=TIERS)
def box(request):
    """A box of each tier that isolates, for code that leaves it as it was."""
    os.environ["COURSE_TEST_TOKEN"] = "secret token"
    made = Box(works(request.param))
    yield made
    made.close()
    del os.environ["COURSE_TEST_TOKEN"]


def does(box, body, *arguments, name="answer", seconds=60):
    """Return what a function with this body gives in the box."""
    source = f"def {name}(*given):\n" + textwrap.indent(textwrap.dedent(body), "    ")
    fails = box.ask(seconds, do="load", name=name, cells=[("answer.py", source)])
    return fails or box.ask(seconds, do="call", arguments=arguments)


# ---------------------------------------------------------------- what it is


def test_a_tier_is_named_or_refused():
    assert sandbox.choose("none") == "none"
    assert sandbox.choose("auto") in (*TIERS, "none")
    with pytest.raises(NotGraded, match="there is no sandbox 'thick'"):
        sandbox.choose("thick")
    assert sandbox.tiers().keys() == set(TIERS)


@linux
def test_what_is_missing_is_said_with_its_remedy(monkeypatch):
    monkeypatch.setattr(sandbox, "BWRAP", "no-such-program")
    sandbox.why_not.cache_clear()
    try:
        with pytest.raises(NotGraded, match="sudo apt install bubblewrap"):
            sandbox.choose("strict")
        assert sandbox.choose("auto") in ("landlock", "none")
    finally:
        sandbox.why_not.cache_clear()


def test_the_image_holds_the_worker_and_no_answers():
    folder = sandbox.image().folder / "course"
    assert {p.relative_to(folder).as_posix() for p in folder.rglob("*.py")} == {
        *("__init__.py", "exercises/__init__.py", "exercises/call.py"),
        *("exercises/check.py", "exercises/numba_words.py", "grading/__init__.py"),
        *("grading/helpers.py", "grading/lock.py", "grading/wire.py", "grading/worker.py"),
    }
    assert "oracle" not in (folder / "exercises/check.py").read_text()
    assert sandbox.image().machine_code is None


def test_the_image_of_layers_holds_all_that_they_import():
    folder = sandbox.image(("course.layers",)).folder / "course"
    held = {p.relative_to(folder).as_posix() for p in folder.rglob("*.py")}
    assert {"layers/conv2d.py", "engine/cpu.py", "compiled.py"} <= held
    assert not {name for name in held if name.startswith(("viz", "exercises/mlp", "zoo"))}
    with pytest.raises(NotGraded, match=r"no module course\.nothing"):
        sandbox.image(("course.nothing",))


def test_only_what_the_answers_need_can_be_imported():
    held = {name.split("/")[0] for name in sandbox.packages()}
    assert {"numpy", "numba", "llvmlite", "matplotlib"} <= held
    assert not held & {"sklearn", "torch", "IPython", "pytest", "hypothesis", "course"}
    assert {n for n in sandbox.packages() if n.startswith("scipy/")} <= {
        name for name in sandbox.packages() if "cython_" in name or "_cyutility" in name
    }


@pytest.mark.parametrize("tier", ["none", *TIERS])
def test_numba_numpy_and_matplotlib_work(tier):
    box = Box(works(tier))
    body = """
        import numba
        from matplotlib.figure import Figure
        figure = Figure()
        figure.subplots().plot([1, 2], [3, 4])
        figure.canvas.draw()
        return numba.njit(lambda a: a @ a)(given[0])
    """
    product = does(box, body, np.ones((2, 2)), seconds=120)
    box.close()
    np.testing.assert_array_equal(product, 2)


@pytest.mark.parametrize("tier", ["none", *TIERS])
def test_layers_are_there_if_they_are_needed_with_their_machine_code(tier):
    from course.layers import relu_forward

    if sandbox.FOLDER is None:
        pytest.skip("machine code is not kept here")
    relu_forward(np.array([-1.0, 2.0]))  # compiled and kept, if it was not
    box = Box(works(tier), ("course.layers",))
    body = """
        from course.compiled import Cache
        from course.layers import relu_forward
        return relu_forward(given[0]), Cache.misses
    """
    y, misses = does(box, body, np.array([-1.0, 2.0]))
    box.close()
    np.testing.assert_array_equal(y, [0, 2])
    assert misses == 0


# ---------------------------------------------------------------- what cannot be done

REFUSED = {
    "read a file of the system": "open('/etc/passwd').close()",
    "read the questions": f"open({str(ROOT / 'course/exercises/mlp.py')!r}).close()",
    "read a solution": f"open({str(ROOT / 'solutions/07_mlp.ipynb')!r}).close()",
    "list the course": f"os.listdir({str(ROOT)!r})",
    "list what is here": "os.listdir('/home')",
    "read what is beside the image": f"open({str(sandbox.image().secret)!r}).close()",
    "read the grader's variables": "open(f'/proc/{os.getppid()}/environ').read()",
    "read the grader's memory": "open(f'/proc/{os.getppid()}/mem', 'rb').close()",
    "read its own memory as a file": "open('/proc/self/mem', 'rb').close()",
    "read a disk": "open('/dev/sda').close()",
    "write here": "open('file', 'w').close()",
    "write into /tmp": "open('/tmp/file', 'w').close()",
    "write into shared memory": "open('/dev/shm/file', 'w').close()",
    "write into the image": "open(os.path.join(here, 'wire.py'), 'a').close()",
    "make a folder": "os.mkdir('/tmp/folder')",
    "make a folder in the image": "os.mkdir(os.path.join(here, 'folder'))",
    "make a link": "os.symlink('/etc/passwd', '/tmp/link')",
    "remove a file": "os.remove(os.path.join(here, 'wire.py'))",
    "change a mode": "os.chmod(os.path.join(here, 'wire.py'), 0o777)",
    "open a socket": "socket.socket()",
    "open a datagram socket": "socket.socket(type=socket.SOCK_DGRAM)",
    "open a local socket": "socket.socket(socket.AF_UNIX)",
    "open two sockets": "socket.socketpair()",
    "ask for a name": "socket.create_connection(('localhost', 80), 1)",
    "fork": "os.fork() or os._exit(0)",
    "run a program": "subprocess.run([sys.executable, '-c', ''])",
    "spawn a program": "os.posix_spawn('/bin/true', ['true'], {})",
    "become a program": "os.execv('/proc/self/exe', ['python', '-c', ''])",
    "kill the first process": "os.kill(1, 9)",
    "kill the grader": "os.kill(os.getppid(), 9)",
    "kill all": "os.kill(-1, 9)",
    "kill its group": "os.killpg(0, 9)",
    "lead a session": "os.setsid()",
    "become root": "os.setuid(0)",
    "change its root": "os.chroot('/')",
    "be more important": "os.nice(-5)",
    "make a file of memory": "os.memfd_create('file')",
    "have a signal sent": "fcntl.fcntl(0, fcntl.F_SETOWN, os.getppid())",
    "type on the terminal": "fcntl.ioctl(0, 0x5412, b'x')",
    "lift a limit": "resource.setrlimit(resource.RLIMIT_AS, (-1, -1))",
    "wait for a lock": "multiprocessing.Lock()",
    "have many files": "[open('/dev/null') for _ in range(100)]",
}


@linux
@pytest.mark.parametrize("attempt", REFUSED.values(), ids=REFUSED)
def test_it_is_refused(box, attempt):
    body = f"""
        import fcntl, multiprocessing, os, resource, socket, subprocess, sys
        import course.grading.wire
        here = os.path.dirname(course.grading.wire.__file__)
        try:
            {attempt}
        except (OSError, ValueError) as error:
            return "refused"
        return "done"
    """
    assert does(box, body) == "refused"


CALLS = {  # numbers of x86-64
    **{"socket": 41, "connect": 42, "sendto": 44, "clone3": 435, "fork": 57, "vfork": 58},
    **{"execve": 59, "execveat": 322, "ptrace": 101, "process_vm_readv": 310},
    **{"process_vm_writev": 311, "mount": 165, "umount2": 166, "fsmount": 432},
    **{"unshare": 272, "setns": 308, "pivot_root": 155, "chroot": 161, "bpf": 321},
    **{"perf_event_open": 298, "userfaultfd": 323, "keyctl": 250, "add_key": 248},
    **{"request_key": 249, "io_uring_setup": 425, "io_uring_enter": 426, "kexec_load": 246},
    **{"init_module": 175, "open_by_handle_at": 304, "setsid": 112, "setpgid": 109},
    **{"pidfd_open": 434, "pidfd_getfd": 438, "pidfd_send_signal": 424},
    **{"memfd_create": 319, "shmget": 29, "msgget": 68, "semget": 64, "mq_open": 240},
    **{"setresuid": 117, "setfsuid": 122, "personality": 135, "seccomp": 317},
    **{"syslog": 103, "reboot": 169, "mknod": 133, "link": 86, "rename": 82, "unlink": 87},
    **{"truncate": 76, "inotify_init": 253, "fanotify_init": 300, "eventfd2": 290},
    **{"signalfd4": 289, "rt_sigqueueinfo": 129, "tkill": 200, "sched_setaffinity": 203},
    **{"setpriority": 141, "ioprio_set": 251, "move_pages": 279, "mbind": 237},
    **{"acct": 163, "swapon": 167, "settimeofday": 164, "iopl": 172, "modify_ldt": 154},
    **{"capset": 126, "landlock_create_ruleset": 444, "memfd_secret": 447},
    **{"x32 execve": 0x40000000 + 520, "x32 read": 0x40000000, "no such call": 9999},
}


@linux
@intel
def test_system_calls_that_are_refused(box):
    body = """
        import ctypes
        libc = ctypes.CDLL(None, use_errno=True)
        found = {}
        for name, number in given[0].items():
            result = libc.syscall(ctypes.c_long(number), *[ctypes.c_long(0)] * 6)
            found[name] = ctypes.get_errno() if result < 0 else 0
        return found
    """
    found = does(box, body, CALLS)
    assert {name for name, error in found.items() if error not in (1, 38)} == set()


@linux
@intel
def test_calls_of_32_bit_programs_are_refused(box):
    body = """
        import ctypes, mmap
        code = bytes.fromhex("b814000000cd80c3")  # getpid by interrupt 80
        memory = mmap.mmap(-1, 4096, prot=7)
        memory.write(code)
        address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
        return ctypes.CFUNCTYPE(ctypes.c_int)(address)()
    """
    assert does(box, body) == -1


@linux
def test_nothing_of_the_teacher_is_there(box):
    body = """
        import os, sys
        pipes = []
        for descriptor in range(64):
            try:
                os.fstat(descriptor)
            except OSError:
                continue
            pipes.append(descriptor)
        return dict(os.environ), sys.argv, sys.path, pipes
    """
    variables, arguments, path, descriptors = does(box, body)
    assert "COURSE_TEST_TOKEN" not in variables
    assert set(variables) <= {*sandbox.environment("/"), "PWD", "LC_CTYPE"}
    assert descriptors == [0, 1, 2, 3, 4]
    seen = f"{arguments} {path} {variables}"
    assert str(ROOT) not in seen
    assert "site-packages" not in seen


@linux
@pytest.mark.parametrize(
    "module",
    ["scipy.signal", "sklearn", "torch", "IPython", "pytest", "pip", "course_secrets"],
)
def test_modules_that_are_not_there(box, module):
    found = does(box, f"import {module}")
    assert isinstance(found, Raised)
    assert found.kind == "ModuleNotFoundError"


@linux
@pytest.mark.parametrize("where", ["/", "/usr", "/root", "/work", str(Path.home())])
def test_no_walk_through_the_files_finds_an_answer(box, where):
    """Whatever can be read on the way down is of Python, or of the libraries."""
    body = """
        import os
        found = []
        for folder, _, files in os.walk(given[0]):
            if folder.startswith("/proc"):
                continue
            for name in files:
                if name.endswith((".ipynb", ".json", ".toml", ".nbc", ".nbi", ".git")):
                    try:
                        open(os.path.join(folder, name)).close()
                    except OSError:
                        continue
                    found.append(os.path.join(folder, name))
        return found
    """
    found = does(box, body, where)
    assert not [name for name in found if "course" in name or name.endswith("ipynb")]


@linux
def test_strict_has_a_world_of_its_own():
    box = Box(works("strict"))
    body = """
        import os
        processes = [name for name in os.listdir("/proc") if name.isdigit()]
        devices = open("/proc/net/dev").read()
        return len(processes), os.listdir("/"), os.getuid(), devices
    """
    count, top, user, devices = does(box, body)
    box.close()
    assert count == 2
    assert set(top) <= {"box", "dev", "etc", "lib", "lib64", "proc", "sys", "usr"} | {
        sandbox.interpreter().parts[1]
    }
    assert user in sandbox.USERS
    assert [line.split(":")[0].strip() for line in devices.splitlines()[2:]] == ["lo"]


@linux
def test_threads_end_at_a_limit_and_memory_too(box):
    body = """
        import threading, time
        import numpy as np
        stop, started = threading.Event(), 0
        try:
            for _ in range(1000):
                threading.Thread(target=stop.wait).start()
                started += 1
        except RuntimeError:
            pass
        stop.set()
        try:
            np.ones(1 << 29)
        except MemoryError:
            return started, "no memory"
        return started, "memory"
    """
    started, memory = does(box, body)
    assert 4 <= started <= lock.THREADS
    assert memory == "no memory"


@linux
def test_each_box_is_another_user():
    if not sandbox.is_root():
        pytest.skip("only root can become other users")
    boxes = [Box(works("strict")) for _ in range(3)]
    users = {does(box, "import os\nreturn os.getuid()") for box in boxes}
    for box in boxes:
        box.close()
    assert len(users) == 3
    assert users <= set(sandbox.USERS)


@linux
@pytest.mark.parametrize("tier", TIERS)
def test_an_ordinary_user_has_the_tier_too(tier):
    """In a user namespace of our own we are what an ordinary user is."""
    works(tier)
    program = f"from course.grading import sandbox; print([sandbox.why_not({tier!r})])"
    try:
        done = subprocess.run(
            ["unshare", "--user", "--map-root-user", sys.executable, "-c", program],
            capture_output=True,
            text=True,
            cwd=ROOT,
            timeout=120,
        )
    except FileNotFoundError:
        pytest.skip("no `unshare` here")
    if "Operation not permitted" in done.stderr:
        pytest.skip("no user namespaces here")
    assert done.stdout.strip() == "['']", done.stderr


@linux
def test_a_missing_wall_is_seen():
    """Outside of a box every attempt succeeds that an ordinary process can make."""
    program = "from course.grading.lock import *; print(*walls('/etc/passwd'), sep='|')"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT
    )
    found = done.stdout.strip().split("|")
    assert {"read a file", "open a socket", "start a process", "start a program"} <= set(
        found
    )
