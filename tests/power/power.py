"""Is what clients were told to be committed still there after a power failure?

Python clients commit records and blobs, as many as they can, to a server whose files
are on a file system of their own, on a loop device. At a random moment that is shut
down without anything being written any more, not even its journal (FS_IOC_SHUTDOWN),
which is what the power switch would do to it. Then it is mounted again, the server
started, and everything read: each client's objects must be as of the last commit
that returned to it, or of the one it was waiting for; all in them of one commit; and
with their blobs, byte for byte. In every second round somebody packs all the time.

Usage: power.py ZEOLITE [--rounds N] [--clients N] [--serve FLAG...]
"""
import argparse
import fcntl
import logging
import os
import random
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time

import transaction
import ZEO
from persistent.mapping import PersistentMapping
from ZODB.blob import Blob

FS_IOC_SHUTDOWN = 0x8004587D
WITHOUT_THE_JOURNAL = 2
SOON = 30  # seconds in which everything happens
GONE = 3  # seconds after which a client takes a server for gone
BLOBS = 4  # of each client; each commit writes one of them anew
SIZES = [0, 1, 500, 20_000, 60_000, 150_000, 262_144, 262_145, 600_000]


def contents(client, n):
    """What is in the blob that a client's n-th commit writes."""
    pattern = b'%d of %d|' % (n, client)
    size = random.Random(client << 32 | n).choice(SIZES)
    return (pattern * (size // len(pattern) + 1))[:size]


class Disk:
    """A file system that can be cut off."""

    def __init__(self, directory):
        self.image = os.path.join(directory, 'image')
        self.path = os.path.join(directory, 'mounted')
        os.mkdir(self.path)
        with open(self.image, 'wb') as f:
            f.truncate(2 << 30)
        subprocess.run(['mkfs.ext4', '-q', '-F', self.image], check=True)
        self.mount()

    def mount(self):
        subprocess.run(['mount', '-o', 'loop', self.image, self.path], check=True)

    def unmount(self):
        def done():
            return subprocess.run(['umount', self.path], stderr=subprocess.DEVNULL).returncode == 0
        wait_until('the file system can be unmounted', done)

    def cut(self):
        f = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.ioctl(f, FS_IOC_SHUTDOWN, struct.pack('I', WITHOUT_THE_JOURNAL))
        finally:
            os.close(f)


class Server:
    """zeolite, on that file system."""

    def __init__(self, binary, disk, log, flags):
        self.data = [os.path.join(disk.path, 'Data.fs'), '-b', os.path.join(disk.path, 'blobs')]
        self.binary, self.log, self.flags = binary, log, flags
        with socket.create_server(('127.0.0.1', 0)) as s:
            self.address = s.getsockname()

    def start(self):
        with open(self.log, 'ab') as log:
            self.process = subprocess.Popen(
                [self.binary, 'serve', '-a', '%s:%d' % self.address, '-f', *self.data, *self.flags],
                stdout=subprocess.DEVNULL, stderr=log)
        wait_until('the server listens', self.listens)

    def listens(self):
        if self.process.poll() is not None:
            raise SystemExit('the server does not start:\n' + self.said())
        try:
            socket.create_connection(self.address).close()
        except OSError:
            return False
        return True

    def kill(self):
        self.process.kill()
        self.process.wait()

    def stop(self):
        self.process.terminate()
        if self.process.wait(SOON) != 0:
            raise SystemExit('the server did not end properly:\n' + self.said())

    def said(self):
        with open(self.log) as f:
            return f.read()

    def check(self):
        return subprocess.run([self.binary, 'check', *self.data], capture_output=True, text=True)

    def open(self, cache, wait=SOON):
        return ZEO.DB(self.address, blob_dir=cache, wait_timeout=wait)


def wait_until(what, condition):
    limit = time.monotonic() + SOON
    while not condition():
        if time.monotonic() > limit:
            raise SystemExit(f'not within {SOON} s: {what}')
        time.sleep(0.02)


class Client(threading.Thread):
    """Commits until the server is gone, and remembers the last commit that
    returned."""

    def __init__(self, server, number, cache, told):
        super().__init__(daemon=True)
        self.server, self.number, self.cache, self.told = server, number, cache, told

    def run(self):
        db = self.server.open(self.cache, wait=GONE)
        manager = transaction.TransactionManager()
        mine = db.open(manager).root()[str(self.number)]
        n = mine['n']
        try:
            while True:
                n += 1
                mine['n'] = n
                mine['of blob'][n % BLOBS] = n
                mine['fill'] = 'x' * (n * 997 % 30_000)
                with mine['blobs'][n % BLOBS].open('w') as f:
                    f.write(contents(self.number, n))
                manager.commit()
                self.told[self.number] = n
        except Exception:  # the server is gone, or says that its disk is
            pass
        finally:
            db.close()


class Packer(threading.Thread):
    """Packs until the server is gone."""

    def __init__(self, server):
        super().__init__(daemon=True)
        self.server, self.packed = server, 0

    def run(self):
        storage = ZEO.client(self.server.address, wait_timeout=GONE)
        try:
            while True:
                storage.pack(time.time(), wait=True)
                self.packed += 1
        except Exception:
            pass
        finally:
            storage.close()


def prepare(server, clients, cache):
    db = server.open(cache)
    with db.transaction() as connection:
        for number in range(clients):
            connection.root()[str(number)] = mine = PersistentMapping(n=0)
            mine['blobs'] = PersistentMapping({i: Blob() for i in range(BLOBS)})
            mine['of blob'] = PersistentMapping({i: 0 for i in range(BLOBS)})
    db.close()


def verify(server, cache, told):
    """Compare what is there with what clients were told."""
    db = server.open(cache)
    root = db.open().root()
    for number, last in told.items():
        mine = root[str(number)]
        n = mine['n']
        if n not in (last, last + 1):
            raise SystemExit(f'client {number} is at commit {n}; the last that returned was {last}')
        for i in range(BLOBS):
            of = mine['of blob'][i]
            if of != max(0, n - (n - i) % BLOBS):
                raise SystemExit(f'client {number} at commit {n}: blob {i} is of commit {of}')
            if of:
                with mine['blobs'][i].open() as f:
                    found = f.read()
                if found != contents(number, of):
                    raise SystemExit(f'client {number}: the blob of commit {of} has {len(found)} other bytes')
        told[number] = n
    db.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('zeolite')
    parser.add_argument('--rounds', type=int, default=10)
    parser.add_argument('--clients', type=int, default=3)
    parser.add_argument('--serve', nargs=argparse.REMAINDER, default=[])
    options = parser.parse_args()
    logging.disable()  # ZEO says at length that the server is gone
    signal.signal(signal.SIGTERM, lambda *_: sys.exit('ended by SIGTERM'))
    if os.geteuid() != 0:
        raise SystemExit('only root may mount and shut down a file system')
    with tempfile.TemporaryDirectory(prefix='zeolite-power-') as directory:
        disk = Disk(directory)
        try:
            fail(options, directory, disk)
        finally:
            disk.unmount()


def fail(options, directory, disk):
    server = Server(options.zeolite, disk, os.path.join(directory, 'log'), options.serve)
    server.start()
    try:
        prepare(server, options.clients, tempfile.mkdtemp(dir=directory))
        told = {number: 0 for number in range(options.clients)}
        for n in range(options.rounds):
            before = sum(told.values())
            clients = [Client(server, number, tempfile.mkdtemp(dir=directory), told) for number in told]
            packer = Packer(server)
            for thread in clients + [packer] * (n % 2):
                thread.start()
            moment = time.monotonic() + random.uniform(0, 3)
            wait_until('all clients commit', lambda: all(c.is_alive() for c in clients) and sum(told.values()) > before)
            time.sleep(max(0, moment - time.monotonic()))
            disk.cut()
            server.kill()
            for thread in clients + [packer] * (n % 2):
                thread.join()
            disk.unmount()
            disk.mount()
            server.start()
            verify(server, tempfile.mkdtemp(dir=directory), told)
            print(f'{n + 1}: {sum(told.values()) - before} commits are there, {packer.packed} packs', flush=True)
        server.stop()
    except BaseException:
        server.kill()
        raise
    checked = server.check()
    lines = checked.stdout.strip().splitlines()
    print('\n'.join(lines if checked.returncode else lines[-4:]))
    said = server.said()
    print('the log brought in transactions in %d rounds, blobs in %d' % (
        said.count('Data.fs lacked transactions'), said.count('lacked blobs')))
    sys.exit(checked.returncode)


main()
