"""One arena for all threads: what one frees another takes."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from histofold.allocator import one_arena

SOURCE = Path(__file__).resolve().parents[1] / "src"
ARENAS = """
import ctypes, re, sys, tempfile, threading
from histofold.allocator import one_arena
if {wanted}:
    assert one_arena()
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.fopen.restype = ctypes.c_void_p
ready = threading.Barrier(4)
def work():
    libc.malloc(1 << 16)
    ready.wait()
threads = [threading.Thread(target=work) for _ in range(4)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
with tempfile.NamedTemporaryFile() as file:
    stream = ctypes.c_void_p(libc.fopen(file.name.encode(), b"w"))
    libc.malloc_info(0, stream)
    libc.fclose(stream)
    print(len(re.findall("<heap nr=", open(file.name).read())))
"""


def arenas(*, wanted: bool) -> int:
    """Arenas of a fresh process whose four threads take memory."""
    text = ARENAS.format(wanted=wanted)
    environment = os.environ | {"PYTHONPATH": str(SOURCE)}
    done = subprocess.run([sys.executable, "-c", text], env=environment, capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has arenas")
def test_threads_share_one_arena() -> None:
    assert arenas(wanted=True) == 1
    assert arenas(wanted=False) > 1


def test_asking_twice_is_fine() -> None:
    assert one_arena() == one_arena()
