"""Write log entries with the handlers that ZConfig makes of <logfile>.

usage: rotate.py PATH {size BYTES | WHEN INTERVAL} KEEP

Each line of the standard input is a time in seconds since 1970, and an entry.
"""
import logging
import os
import sys
import time

from ZConfig.components.logger.loghandler import RotatingFileHandler, TimedRotatingFileHandler

path, when, n, keep = sys.argv[1:]
now = None
time.time = lambda: now
handler = None
for line in sys.stdin:
    at, entry = line.rstrip('\n').split(' ', 1)
    now = float(at)
    if handler is None:
        if when == 'size':
            handler = RotatingFileHandler(path, maxBytes=int(n), backupCount=int(keep), delay=True)
        else:
            handler = TimedRotatingFileHandler(path, when=when, interval=int(n), backupCount=int(keep), delay=True)
    if entry == 'reopen':
        handler.reopen()
    else:
        handler.emit(logging.LogRecord('', 20, '', 0, entry, (), None))
    handler.flush()
