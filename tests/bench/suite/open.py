"""Open a Data.fs with Python's FileStorage, from its index, and print seconds,
objects, and the growth of the memory in bytes.

usage: open.py PATH
"""
import logging
import sys
import time

from ZODB.FileStorage import FileStorage


def resident():
    with open('/proc/self/status') as f:
        for line in f:
            if line.startswith('VmRSS:'):
                return int(line.split()[1]) * 1024


logging.disable(logging.CRITICAL)
before = resident()
start = time.perf_counter()
storage = FileStorage(sys.argv[1], read_only=True)
seconds = time.perf_counter() - start
print(seconds, len(storage), resident() - before)
