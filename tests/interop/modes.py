"""Read-only servers and clients, unknown storages, and what tools ask for."""
import json
import os
import socket
import struct
import subprocess
import sys
import time

import ZODB.interfaces
from ZEO.Exceptions import ClientDisconnected
from zc.lockfile import LockError
from ZODB.FileStorage import FileStorage
from ZODB.POSException import ReadOnlyError
from ZODB.tests.StorageTestBase import zodb_pickle

from harness import ENCODING, SOON, check, commit, equal, main, raises, wait_until, z64

SCRIPTS = os.path.dirname(sys.executable)


def with_one_object(t):
    """A server that was stopped after one commit, and what it holds."""
    server = t.start()
    storage = t.storage(server)
    oid = storage.new_oid()
    tid = commit(storage, (oid, z64, b'x'))
    storage.close()
    return server, oid, tid


@check
def read_only_client(t):
    server, oid, tid = with_one_object(t)
    storage = t.storage(server, read_only=True)
    equal(storage.isReadOnly(), True)
    equal(storage.load(oid), (b'x', tid))
    raises(ReadOnlyError, commit, storage, (oid, tid, b'y'))
    # It learns of what others commit.
    new = commit(t.storage(server), (oid, tid, b'y'))
    wait_until('invalidation arrives', lambda: storage.lastTransaction() == new)
    equal(storage.load(oid), (b'y', new))


@check
def read_only_server(t):
    server, oid, tid = with_one_object(t)
    server.stop()
    server = t.start(path=server.path, blob_dir=server.blob_dir, read_only=True)
    raises(ClientDisconnected, t.storage, server, wait_timeout=2)
    storage = t.storage(server, read_only=True)
    equal(storage.load(oid), (b'x', tid))
    raises(ReadOnlyError, storage.new_oid)


@check
def pack_a_read_only_server(t):
    """A pack is no write."""
    server = t.start()
    connection = t.connection(server)
    for i in range(20):
        connection.root()['x'] = 'y' * 5000 + str(i)
        connection.transaction_manager.commit()
    server.stop()
    before = os.path.getsize(server.path)
    server = t.start(path=server.path, blob_dir=server.blob_dir, read_only=True)
    raises(LockError, FileStorage, server.path)
    storage = t.storage(server, read_only=True)
    storage.pack(time.time() + 1, wait=True)
    equal(os.path.getsize(server.path) < before // 5, True, 'size after the pack')
    equal(len(storage.history(z64, 9)), 1, 'revisions after the pack')
    raises(ReadOnlyError, storage.new_oid)


@check
def read_only_fallback(t):
    server, oid, tid = with_one_object(t)
    writable = t.storage(server, read_only_fallback=True)
    equal(writable.isReadOnly(), False)
    tid = commit(writable, (oid, tid, b'y'))
    writable.close()
    server.stop()
    server = t.start(path=server.path, blob_dir=server.blob_dir, read_only=True)
    storage = t.storage(server, read_only_fallback=True)
    equal(storage.isReadOnly(), True)
    equal(storage.load(oid), (b'y', tid))
    raises(ReadOnlyError, commit, storage, (oid, tid, b'z'))


@check
def unknown_storage(t):
    server = t.start()
    raises(ClientDisconnected, t.storage, server, storage='2', wait_timeout=2)
    equal(t.storage(server, storage='1').is_connected(), True)


@check
def what_get_info_says(t):
    storage = t.storage(t.start(), blob_dir=t.new_dir())
    info = storage._call('get_info')
    for key in 'length', 'size', 'name', 'supportsUndo', 'supports_record_iternext', 'interfaces':
        equal(key in info, True, key)
    equal(storage.supportsUndo(), True)
    for interface in (ZODB.interfaces.IBlobStorage, ZODB.interfaces.IStorageUndoable,
                      ZODB.interfaces.IStorageIteration, ZODB.interfaces.IStorageRestoreable,
                      ZODB.interfaces.IStorageCurrentRecordIteration, ZODB.interfaces.IExternalGC):
        equal(interface.providedBy(storage), True, interface.__name__)
    commit(storage, *[(storage.new_oid(), z64, b'x' * 1000) for _ in range(5)])
    equal(len(storage), 5, 'number of objects')
    equal(storage.getSize() > 5000, True, 'size')


@check
def encoding(t):
    equal(t.storage(t.start()).protocol_version.decode(), ENCODING)


def ruok(address):
    with socket.create_connection(address, SOON) as s:
        s.sendall(struct.pack('>I', 4) + b'ruok')
        data = b''
        while part := s.recv(10000):
            data += part
    frames = []
    while data:
        n, = struct.unpack('>I', data[:4])
        frames.append(data[4:4 + n])
        data = data[4 + n:]
    return frames


STATUS = {'connections', 'loads', 'stores', 'commits', 'aborts', 'active_txns', 'lock_time', 'conflicts',
          'conflicts_resolved', 'start', 'waiting', 'timeout-thread-is-alive', 'last-transaction'}


@check
def are_you_ok(t):
    server = t.start()
    greeting, answer = ruok(server.address)
    equal(greeting.decode(), ENCODING)
    status = json.loads(answer)
    equal(list(status), ['1'], 'storages')
    equal(set(status['1']) >= STATUS, True, f'keys {sorted(status["1"])}')
    equal(status['1']['last-transaction'], '0' * 16)
    storage = t.storage(server)
    oid = storage.new_oid()
    tid = commit(storage, (oid, z64, b'x'))
    t.storage(server).load(oid)
    status = json.loads(ruok(server.address)[1])['1']
    equal({k: status[k] for k in ('connections', 'commits', 'stores', 'loads', 'aborts', 'active_txns', 'waiting')},
          {'connections': 2, 'commits': 1, 'stores': 1, 'loads': 1, 'aborts': 0, 'active_txns': 0, 'waiting': 0})
    equal(status['last-transaction'], tid.hex())
    equal(set(storage.server_status()) >= STATUS, True)


def script(name, *args):
    return subprocess.run([sys.executable, os.path.join(SCRIPTS, name), *args],
                          capture_output=True, text=True, timeout=SOON)


@check
def zeo_nagios(t):
    server = t.start()
    address = '%s:%d' % server.address
    run = script('zeo-nagios', address)
    equal((run.returncode, run.stdout.split('|')[0].strip()), (1, "Empty storage '1'"), run.stderr)
    commit(t.storage(server), (b'\0' * 7 + b'\1', z64, b'x'))
    run = script('zeo-nagios', address)
    equal((run.returncode, run.stdout.split('|')[0].strip()), (0, 'OK'), run.stderr)
    run = script('zeo-nagios', '-m', '-s', 'status-file', '-u', 'seconds', address)
    equal(run.returncode, 0, run.stdout + run.stderr)
    server.stop()
    equal(script('zeo-nagios', address).returncode, 2, 'status without a server')


@check
def zeopack(t):
    server = t.start()
    connection = t.connection(server)
    for i in range(50):
        connection.root()['x'] = 'y' * 5000 + str(i)
        connection.transaction_manager.commit()
    before = os.path.getsize(server.path)
    run = script('zeopack', '%s:%d' % server.address)
    equal(run.returncode, 0, run.stdout + run.stderr)
    # It packs to the second in which it started.
    equal(os.path.getsize(server.path) <= before, True, 'size after zeopack')
    equal(t.connection(server).root()['x'], 'y' * 5000 + '49')
    server.stop()
    # One that cannot connect waits for a minute; only the usage error is quick.
    equal(script('zeopack', '-d').returncode != 0, True, 'status of a bad command line')


@check
def clean_end_with_clients(t):
    """The server ends in good order while clients are connected."""
    server = t.start()
    storages = [t.storage(server) for _ in range(5)]
    tid = commit(storages[0], (b'\0' * 7 + b'\1', z64, zodb_pickle(1)))
    server.stop()
    for storage in storages:
        wait_until('disconnected', lambda: not storage.is_connected())
    server.restart()
    equal(t.storage(server).lastTransaction(), tid)


if __name__ == '__main__':
    main()
