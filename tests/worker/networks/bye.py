"""Prints at import, at exit, from C and to the terminal's channel itself."""

import atexit
import ctypes
import os

from tiny import Net

atexit.register(lambda: print("bye bye"))
print("hello", flush=True)
os.write(1, b"straight to the file descriptor\n")
ctypes.CDLL(None).puts(b"from C")


def make():
    print("{}", flush=True)
    return Net()
