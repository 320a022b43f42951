"""Do one thing with Python's FileStorage and print the seconds it took.

usage: bench.py open|iterate|pack PATH
"""
import logging
import sys
import time

from ZODB.FileStorage import FileStorage
from ZODB.serialize import referencesf

logging.disable(logging.CRITICAL)
what, path = sys.argv[1:]
start = time.perf_counter()
storage = FileStorage(path, read_only=what != 'pack')
if what == 'open':
    print(time.perf_counter() - start, len(storage))
elif what == 'iterate':
    start = time.perf_counter()
    n = 0
    for transaction in storage.iterator():
        for record in transaction:
            n += len(record.data or b'')
    print(time.perf_counter() - start, n)
elif what == 'pack':
    start = time.perf_counter()
    storage.pack(time.time(), referencesf)
    print(time.perf_counter() - start, storage.getSize())
