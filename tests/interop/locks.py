"""Who may commit: turns, time limits, and clients that vanish."""
import socket
import struct
import time

import ZODB.utils
from ZEO.Exceptions import ClientDisconnected
from ZODB.Connection import TransactionMetaData
from ZODB.tests.StorageTestBase import zodb_pickle

from harness import check, commit, equal, in_thread, main, raises, wait_until, z64


def object_in(storage):
    oid = storage.new_oid()
    return oid, commit(storage, (oid, z64, zodb_pickle(0)))


def voted(storage, oid, serial, data=b'voted'):
    """A transaction that has voted, so it holds what it needs to finish."""
    txn = TransactionMetaData()
    storage.tpc_begin(txn)
    storage.store(oid, serial, data, '', txn)
    storage.tpc_vote(txn)
    return txn


@check
def writers_take_turns(t):
    """A vote for the same object waits until the first transaction is over."""
    server = t.start(client_conflict_resolution=True)
    one, two = t.storage(server), t.storage(server)
    oid, serial = object_in(one)
    first = voted(one, oid, serial)
    txn = TransactionMetaData()
    two.tpc_begin(txn)
    two.store(oid, serial, b'other', '', txn)
    waiting = in_thread(two.tpc_vote, txn)
    two_again = t.storage(server)
    wait_until('two transactions are open', lambda: status(two_again)['active_txns'] == 2)
    equal(waiting.done(), False, 'second vote is answered')
    one.tpc_abort(first)
    waiting()
    tid = two.tpc_finish(txn)
    equal(one._call('loadBefore', oid, ZODB.utils.maxtid), (b'other', tid, None))


def status(storage):
    return storage.server_status()


@check
def loads_go_on_while_somebody_votes(t):
    server = t.start()
    one, two = t.storage(server), t.storage(server)
    oid, serial = object_in(one)
    txn = voted(one, oid, serial)
    equal(two.load(oid)[1], serial)
    equal(one._call('loadBefore', oid, ZODB.utils.maxtid)[1], serial, 'load by the voter itself')
    tid = one.tpc_finish(txn)
    wait_until('invalidation arrives', lambda: two.lastTransaction() == tid)
    equal(two.load(oid), (b'voted', tid))


@check
def transaction_timeout(t):
    """Who votes and then stalls is disconnected; others commit."""
    server = t.start(transaction_timeout=1)
    stalling, other = t.storage(server), t.storage(server)
    oid, serial = object_in(stalling)
    generation = stalling._connection_generation
    txn = voted(stalling, oid, serial)
    tid = in_thread(commit, other, (oid, serial, b'other'))(20)
    wait_until('who stalled is disconnected', lambda: stalling._connection_generation > generation)
    raises(ClientDisconnected, stalling.tpc_finish, txn)
    stalling.tpc_abort(txn)
    wait_until('connected again', stalling.is_connected)
    equal(stalling.load(oid), (b'other', tid))
    commit(stalling, (oid, tid, b'again'))


@check
def no_timeout_for_idle_clients(t):
    """The limit counts from the vote; open transactions may take long."""
    server = t.start(transaction_timeout=1)
    storage = t.storage(server)
    oid, serial = object_in(storage)
    txn = TransactionMetaData()
    storage.tpc_begin(txn)
    storage.store(oid, serial, b'late', '', txn)
    time.sleep(2)  # twice the limit is the point of this check
    storage.tpc_vote(txn)
    storage.tpc_finish(txn)
    equal(storage.load(oid)[0], b'late')


def vanishing(phase):
    """Make a check: a client vanishes at a message, and others go on."""
    def check_it(t):
        server = t.start()
        proxy = server.proxy()
        client = t.storage(proxy, wait_timeout=5, blob_dir=t.new_dir())
        other = t.storage(server)
        oid, serial = object_in(other)
        method, when = phase
        proxy.cut(method, when)
        outcome = in_thread(write_blob, client, oid, serial)
        try:
            outcome()
        except ClientDisconnected:
            pass
        else:
            raise AssertionError(f'the client was not cut {when} {method}')
        committed = wait_until('the other client commits', lambda: try_commit(other, oid), 20)
        equal(other.load(oid)[1], committed)
        wait_until('no transaction is open', lambda: status(other)['active_txns'] == 0)
        history = [entry['description'] for entry in other.history(oid, 9)]
        if (method, when) != ('tpc_finish', 'after'):
            equal(b'cut' in history, False, 'the cut transaction was committed')

    check_it.__name__ = 'vanish_%s_%s' % (phase[1], phase[0])
    check(check_it)


def write_blob(storage, oid, serial):
    txn = TransactionMetaData('', 'cut')
    storage.tpc_begin(txn)
    try:
        storage.store(oid, serial, b'cut', '', txn)
        storage.checkCurrentSerialInTransaction(oid, serial, txn)
        with open('blob', 'wb') as f:
            f.write(b'x' * 150000)
        storage.storeBlob(storage.new_oid(), z64, zodb_pickle('blob'), 'blob', '', txn)
        storage.tpc_vote(txn)
        return storage.tpc_finish(txn)
    except BaseException:
        storage.tpc_abort(txn)
        raise


def try_commit(storage, oid):
    serial = storage._call('getTid', oid)
    return in_thread(commit, storage, (oid, serial, b'other'))(10)


for phase in [('tpc_begin', 'before'), ('tpc_begin', 'after'), ('storea', 'before'), ('storea', 'after'),
              ('storeBlobStart', 'after'), ('storeBlobChunk', 'after'), ('storeBlobEnd', 'before'),
              ('storeBlobEnd', 'after'), ('vote', 'before'), ('vote', 'after'),
              ('tpc_finish', 'before'), ('tpc_finish', 'after')]:
    vanishing(phase)


@check
def vanish_while_waiting_for_the_lock(t):
    server = t.start()
    holder, other = t.storage(server), t.storage(server)
    oid, serial = object_in(holder)
    txn = voted(holder, oid, serial)
    proxy = server.proxy()
    waiting = t.storage(proxy, wait_timeout=5)
    second = TransactionMetaData()
    waiting.tpc_begin(second)
    waiting.store(oid, serial, b'never', '', second)
    vote = in_thread(waiting.tpc_vote, second)
    wait_until('two transactions are open', lambda: status(other)['active_txns'] == 2)
    proxy.drop()
    raises(ClientDisconnected, vote)
    waiting.tpc_abort(second)
    wait_until('one transaction is open', lambda: status(other)['active_txns'] == 1)
    tid = holder.tpc_finish(txn)
    equal(in_thread(commit, other, (oid, tid, b'x'))(20) > tid, True)


@check
def connect_and_vanish(t):
    """Connections that are reset at once, or say nothing, harm nobody."""
    server = t.start()
    silent = [socket.create_connection(server.address) for _ in range(20)]
    for _ in range(20):
        s = socket.create_connection(server.address)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
        s.close()
    for i, garbage in enumerate([b'', b'GET / HTTP/1.0\r\n\r\n', b'\xff' * 64, b'\0\0\0\2Z9', b'\0\0\0\0',
                                 b'\0\0\0\2Z5\0\0\0\4abcd', b'\0\0\0\2M5\0\0\0\5\xdd\xff\xff\xff\xff']):
        with socket.create_connection(server.address) as s:
            s.sendall(garbage)
    commit(t.storage(server), (ZODB.utils.p64(1), z64, b'x'))
    for s in silent:
        s.close()


if __name__ == '__main__':
    main()
