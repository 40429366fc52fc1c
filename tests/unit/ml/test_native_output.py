"""Native code's lines leave standard output alone."""

from __future__ import annotations

import json
import subprocess
import sys

NATIVE = """
import ctypes, os, threading
from e2i.ml.allocation.quiet import output_aside

libc = ctypes.CDLL(None)
first, second = threading.Event(), threading.Event()

def early():
    with output_aside():
        libc.printf(b"early\\n")
        first.set()
        second.wait(10)

def late():
    first.wait(10)
    with output_aside():
        second.set()
        thread.join()
        libc.printf(b"late\\n")

libc.printf(b"[1,")
thread = threading.Thread(target=early)
thread.start()
late()
os.write(1, b" 2]")
"""

CLOSED = """
import os
from e2i.ml.allocation.quiet import output_aside

os.close({descriptor})
with output_aside():
    pass
"""


def test_what_native_code_prints_in_several_threads_goes_to_standard_error() -> None:
    done = subprocess.run([sys.executable, "-c", NATIVE], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [1, 2]
    assert done.stderr.split() == ["early", "late"]


def test_a_process_without_one_of_the_two_goes_on() -> None:
    for descriptor in (1, 2):
        done = subprocess.run([sys.executable, "-c", CLOSED.format(descriptor=descriptor)], capture_output=True, check=False)
        assert done.returncode in (0, 120), done.stderr  # 120: the interpreter itself cannot flush a closed stream
