"""Programs that try to get out of the sandbox or to talk their way through a test.

Each defines `f(place)`, which returns "out" when it reached what it was after and otherwise raises or returns something
else. `place` describes the host: a private file, a folder, a port and a socket that listen, a process with a secret.
"""

IMPORTS = "import ctypes, os, socket, sqlite3, subprocess, sys, time\n"
C = "ctypes.CDLL(None, use_errno=True)"

ESCAPES = {
    # read
    "read a private file": "return 'out' if open(place['secret']).read() else ''",
    "read a private file by a descriptor": "d = os.open('/', os.O_RDONLY); os.close(os.open(place['secret'][1:], os.O_RDONLY, dir_fd=d)); return 'out'",
    "read the checkout": "return 'out' if 'qwenops' in open(place['checkout']).read() else ''",
    "list a folder of the host": "return 'out' if os.listdir(place['folder']) else ''",
    "stat a file of the host": "return 'out' if os.stat(place['secret']).st_size else ''",
    "read the environment of another process": "return 'out' if b'QWENOPS_SECRET' in open(f\"/proc/{place['pid']}/environ\", 'rb').read() else ''",
    "read the parent's environment": "return 'out' if open(f'/proc/{os.getppid()}/environ', 'rb').read() else ''",
    "read its own environment": "return 'out' if 'QWENOPS_SECRET' in os.environ else ''",
    "read the accounts": "return 'out' if open('/etc/passwd').read() else ''",
    "import a package of the host": "sys.path.append(place['packages']); import pydantic; return 'out'",
    "map a file by sqlite": "return 'out' if sqlite3.connect(f\"file:{place['database']}?mode=ro\", uri=True).execute('select * from t').fetchall() else ''",
    # write
    "write a file": "open(os.path.join(place['folder'], 'w'), 'w').write('x'); return 'out'",
    "write by a directory descriptor": "d = os.open(place['folder'], os.O_RDONLY); os.close(os.open('w2', os.O_CREAT | os.O_WRONLY, dir_fd=d)); return 'out'",
    "make a folder": "os.mkdir(os.path.join(place['folder'], 'd')); return 'out'",
    "make a node": "os.mknod(os.path.join(place['folder'], 'n')); return 'out'",
    "make a fifo": "os.mkfifo(os.path.join(place['folder'], 'p')); return 'out'",
    "make a link": "os.symlink('/', os.path.join(place['folder'], 'l')); return 'out'",
    "set times": "os.utime(place['secret'], (1, 1)); return 'out'",
    "set an attribute": "os.setxattr(place['secret'], 'user.x', b'x'); return 'out'",
    "change a mode": "os.chmod(place['secret'], 0o666); return 'out'",
    "truncate": "os.truncate(place['secret'], 0); return 'out'",
    "remove": "os.remove(place['extra']); return 'out'",
    "rename": "os.rename(place['extra'] + '2', place['extra'] + '3'); return 'out'",
    "write a database": "c = sqlite3.connect(os.path.join(place['folder'], 's.db')); c.execute('create table t(x)'); c.commit(); return 'out'",
    "write into shared memory": "open(place['shared'], 'w').write('x'); return 'out'",
    "write beside the interpreter": "open(os.path.join(os.path.dirname(os.__file__), 'site-packages', place['name']), 'w').write('x'); return 'out'",
    "change a setting of the kernel": "open('/proc/sys/kernel/core_pattern', 'r+').close(); return 'out'",
    # start
    "fork": "pid = os.fork()\n    if not pid: os._exit(0)\n    os.waitpid(pid, 0); return 'out'",
    "fork three hundred times": "for _ in range(300):\n        if not os.fork(): time.sleep(9); os._exit(0)\n    return 'out'",
    "start a shell": "return 'out' if subprocess.run(['/bin/sh', '-c', 'true']).returncode == 0 else ''",
    "spawn": "return 'out' if os.spawnv(os.P_WAIT, '/bin/true', ['true']) == 0 else ''",
    "spawn by posix": "os.waitpid(os.posix_spawn('/bin/true', ['true'], {}), 0); return 'out'",
    "spawn by the internal call": "import _posixsubprocess\n    r, w = os.pipe(); os.set_inheritable(w, True)\n    _posixsubprocess.fork_exec([b'/bin/sh'], [b'/bin/sh'], True, (w,), None, None, -1, -1, -1, -1, -1, -1, r, w, False, False, -1, None, None, None, -1, None, False); return 'out'",
    "leave a daemon": "if not os.fork():\n        os.setsid()\n        if not os.fork(): time.sleep(600)\n        os._exit(0)\n    return 'out'",
    "fork by the C library": f"pid = {C}.fork()\n    if pid == 0: os._exit(0)\n    return 'out' if pid > 0 else ''",
    "make a user namespace": f"return 'out' if {C}.unshare(0x10000000) == 0 else ''",
    # reach
    "reach a port": "socket.create_connection(('127.0.0.1', place['port']), 2); return 'out'",
    "reach a socket by its path": "s = socket.socket(socket.AF_UNIX); s.connect(place['socket']); return 'out'",
    "reach an abstract socket": "s = socket.socket(socket.AF_UNIX); s.connect(chr(0) + place['name']); return 'out'",
    "signal a process of the host": "os.kill(place['pid'], 0); return 'out'",
    "trace a process of the host": f"return 'out' if {C}.ptrace(16, place['pid'], 0, 0) == 0 else ''",
    "read memory of a process of the host": "open(f\"/proc/{place['pid']}/mem\", 'rb').close(); return 'out'",
    "attach shared memory of the host": f"return 'out' if {C}.shmget(place['shm_key'], 0, 0) >= 0 else ''",
}

GREED = {
    "memory": "x = bytearray(3 * 10**9); return 'out'",
    "memory in many parts": "x = [bytearray(10**7) for _ in range(300)]; return 'out'",
    "memory files": "d = [os.memfd_create('x') for _ in range(40)]\n    for i in d: os.write(i, bytes(10**7))\n    return 'out'",
    "a large file": "open('big', 'wb').write(bytes(40 * 10**6)); return 'out'",
    "many megabytes on disk": "for i in range(375): open(str(i), 'wb').write(bytes(10**6))\n    return 'out'",
    "many descriptors": "d = [os.open('/dev/null', 0) for _ in range(2000)]; return 'out'",
    "raise its own limits": "import resource; resource.setrlimit(resource.RLIMIT_AS, (2**40, 2**40)); return 'out'",
}

# Source at the top level; the tests ask for the cube of x, and none of these computes it.
FORGERIES = {
    "leave with status 0": "import os\nos._exit(0)",
    "leave politely": "raise SystemExit(0)",
    "leave in the call": "import sys\ndef f(x): sys.exit(0)",
    "print the expected output": "print('[true]')\nprint('passed')\ndef f(x): print(4); print('[\"passed\"]')",
    "write the verdict": 'import os\nfor d in range(64):\n    try: os.write(d, b\'["passed", "passed"]\\n\' * 3)\n    except OSError: pass\ndef f(x): return x',
    "write replies ahead": "import os\nfor d in range(64):\n    try: os.write(d, b'[\"value\", 4, [null]]\\n' * 9)\n    except OSError: pass\ndef f(x): return x",
    "read the status of success": "import os, sys\ndef f(x): os._exit(int(sys.argv[-1]) if sys.argv[1:] else 0)",
    "search the caller's frames": "import sys\ndef f(x):\n    frame = sys._getframe()\n    while frame:\n        for value in (*frame.f_locals.values(), *frame.f_globals.values()):\n            if value == 4: return value\n        frame = frame.f_back",
    "search the heap": "import gc\ndef f(x):\n    for o in gc.get_objects():\n        if isinstance(o, dict) and 'tests' in o: return o['tests']",
    "equal to everything": "class Any:\n    def __eq__(self, other): return True\n    def __ne__(self, other): return False\n    __hash__ = None\ndef f(x): return Any()",
    "a list equal to everything": "class L(list):\n    def __eq__(self, other): return True\ndef f(x): return L()",
    "a number equal to everything": "class I(int):\n    def __eq__(self, other): return True\n    def __hash__(self): return 4\ndef f(x): return I(5)",
    "a class that claims another": "class Any:\n    __class__ = int\n    def __eq__(self, other): return True\ndef f(x): return Any()",
    "an object with every operation": "class Any:\n    def __getattr__(self, name): return lambda *a: True\n    def __sub__(self, other): return 0\n    __rsub__ = __abs__ = __lt__ = __gt__ = __eq__ = __contains__ = lambda *a: True\ndef f(x): return Any()",
    "replace the builtins": "import builtins\nbuiltins.abs = builtins.len = builtins.all = lambda *a: True\ndef abs(x): return 0\ndef f(x): return None",
    "replace the assertion": "import builtins, sys\nclass AssertionError(Exception): pass\nbuiltins.AssertionError = AssertionError\nsys.excepthook = lambda *a: None\ndef f(x): return None",
    "patch the modules of the tests": "import math, json, operator\nmath.isclose = operator.eq = lambda *a, **k: True\njson.loads = lambda *a: ['passed', 'passed']\ndef f(x): return None",
    "patch the guest": "import sys\nfor name, m in list(sys.modules.items()):\n    for key, value in list(vars(m).items()):\n        if key in ('encode', 'send'): setattr(m, key, lambda *a: ['list', 4])\ndef f(x): return None",
    "replace the guest's code": "import sys\nfor m in list(sys.modules.values()):\n    g = getattr(m, 'decode', None)\n    if getattr(g, '__module__', '').endswith('border'): g.__code__ = (lambda tree, find: 4).__code__\ndef f(x): return None",
    "define the tests' own names": "check = compare = lambda *a: True\ndef f(x): return None",
    "raise a passing exception": "class Passed(BaseException): pass\ndef f(x): raise Passed",
    "change the arguments": "def f(x):\n    if isinstance(x, list): x.clear()\n    return x",
    "end at exit": "import atexit, os\natexit.register(lambda: os._exit(0))\ndef f(x): return None",
    "kill the group": "import os, signal\nos.killpg(0, signal.SIGKILL)",
    "stop itself": "import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)",
    "send what is no message": "import os\ndef f(x):\n    for d in range(3, 64):\n        try: os.write(d, b'[[[[\\n')\n        except OSError: pass",
    "nest without an end": "def f(x):\n    r = []\n    for _ in range(100000): r = [r]\n    return r",
    "hold itself": "def f(x):\n    r = []\n    r.append(r)\n    return r",
}
