"""Loads at their boundaries, history, iteration, deletion, pack and copying."""
import time

import transaction
import ZODB.FileStorage
import ZODB.utils
from persistent.mapping import PersistentMapping
from persistent.TimeStamp import TimeStamp
from ZODB.blob import Blob
from ZODB.Connection import TransactionMetaData
from ZODB.POSException import POSKeyError
from ZODB.tests.StorageTestBase import zodb_pickle
from ZODB.utils import p64, u64

from harness import check, commit, equal, in_thread, main, maxtid, raises, wait_until, z64


def next_to(tid, n):
    return p64(u64(tid) + n)


def delete(storage, oid, serial):
    txn = TransactionMetaData()
    storage.tpc_begin(txn)
    storage.deleteObject(oid, serial, txn)
    storage.tpc_vote(txn)
    return storage.tpc_finish(txn)


@check
def loads_at_boundaries(t):
    server = t.start()
    writer = t.storage(server)
    oid = writer.new_oid()
    a = commit(writer, (oid, z64, b'a'))
    b = commit(writer, (oid, a, b'b'))
    c = commit(writer, (oid, b, b'c'))
    reader = t.storage(server)  # nothing in its cache
    load = lambda oid, tid: reader._call('loadBefore', oid, tid)
    equal(load(oid, maxtid), (b'c', c, None))
    equal(load(oid, next_to(c, 1)), (b'c', c, None))
    equal(load(oid, c), (b'b', b, c))
    equal(load(oid, next_to(b, 1)), (b'b', b, c))
    equal(load(oid, b), (b'a', a, b))
    equal(load(oid, next_to(a, 1)), (b'a', a, b))
    equal(load(oid, a), None, 'before the object was created')
    equal(load(oid, z64), None)
    raises(POSKeyError, load, p64(4711), maxtid)
    equal(reader._call('loadSerial', oid, b), b'b')
    for tid in next_to(b, 1), next_to(b, -1), z64:
        raises(POSKeyError, reader._call, 'loadSerial', oid, tid)
    equal(reader._call('getTid', oid), c)
    raises(POSKeyError, reader._call, 'getTid', p64(4711))
    equal(reader._call('lastTransaction'), c)


@check
def empty_record_bytes(t):
    """All byte values come back as they were."""
    storage = t.storage(t.start())
    for data in (b'\0', bytes(range(256)), b'\xff' * 255, b'\x80\x03N.' * 100):
        oid = storage.new_oid()
        tid = commit(storage, (oid, z64, data))
        equal(storage._call('loadBefore', oid, maxtid), (data, tid, None))


@check
def history(t):
    storage = t.storage(t.start())
    oid, tid = storage.new_oid(), z64
    tids = []
    for i in range(4):
        tid = commit(storage, (oid, tid, b'x' * (i + 1)), user='who', description=f'd{i}', extension={'n': i})
        tids.append(tid)
    entries = storage.history(oid, 10)
    equal([e['tid'] for e in entries], tids[::-1])
    equal([e['size'] for e in entries], [4, 3, 2, 1])
    equal([e['n'] for e in entries], [3, 2, 1, 0], 'extension')
    equal([(e['user_name'], e['description']) for e in entries[:2]], [(b'who', b'd3'), (b'who', b'd2')])
    for entry in entries:
        equal(abs(entry['time'] - TimeStamp(entry['tid']).timeTime()) < 1e-5, True, 'time')
    equal(len(storage.history(oid)), 1, 'entries without size')
    equal(len(storage.history(oid, 2)), 2)
    raises(POSKeyError, storage.history, p64(4711))


@check
def texts_of_any_kind(t):
    """User, description and extension come back, also at their limit."""
    storage = t.storage(t.start())
    oid, tid = storage.new_oid(), z64
    for user, description in [('', ''), ('ü\0€', 'zwei\nZeilen'), ('u' * 65535, 'd' * 65535)]:
        tid = commit(storage, (oid, tid, b'x'), user=user, description=description)
        entry = storage.history(oid)[0]
        equal((entry['user_name'], entry['description']), (user.encode(), description.encode()))


@check
def extensions(t):
    """The values that may stand in a transaction's extension."""
    storage = t.storage(t.start())
    oid = storage.new_oid()
    extension = {'none': None, 'yes': True, 'no': False, 'int': 7, 'big': 1 << 40, 'negative': -5,
                 'float': 0.5, 'text': 'ä', 'bytes': b'\0\xff', 'dict': {'a': {'b': 'c'}}}
    commit(storage, (oid, z64, b'x'), extension=extension)
    entry = storage.history(oid)[0]
    equal({k: entry[k] for k in extension}, extension)
    iterated = next(iter(storage.iterator()))
    equal(iterated.extension, extension)


@check
def iteration(t):
    storage = t.storage(t.start())
    oids = [storage.new_oid() for _ in range(3)]
    tids, serials = [], dict.fromkeys(oids, z64)
    for n in range(4):
        tid = commit(storage, *[(oid, serials[oid], b'%d' % n) for oid in oids[:n % 3 + 1]],
                     user='u', description=f'{n}', extension={'n': n})
        for oid in oids[:n % 3 + 1]:
            serials[oid] = tid
        tids.append(tid)

    def all_of(*limits):
        return [(txn.tid, txn.status, txn.user, txn.description, txn.extension,
                 [(r.oid, r.tid, r.data) for r in txn]) for txn in storage.iterator(*limits)]

    expected = [(tid, ' ', b'u', b'%d' % n, {'n': n}, [(oid, tid, b'%d' % n) for oid in oids[:n % 3 + 1]])
                for n, tid in enumerate(tids)]
    equal(all_of(), expected, 'all transactions')
    equal(all_of(tids[1]), expected[1:])
    equal(all_of(tids[1], tids[2]), expected[1:3], 'both ends are included')
    equal(all_of(next_to(tids[0], 1), next_to(tids[2], -1)), expected[1:2])
    equal(all_of(None, tids[0]), expected[:1])
    equal(all_of(next_to(tids[-1], 1)), [])


@check
def iteration_over_undo_and_deletion(t):
    storage = t.storage(t.start())
    oid = storage.new_oid()
    a = commit(storage, (oid, z64, b'a'))
    b = commit(storage, (oid, a, b'b'))
    txn = TransactionMetaData()
    storage.tpc_begin(txn)
    storage.undo(storage.undoLog(0, -1)[0]['id'], txn)
    storage.tpc_vote(txn)
    undone = storage.tpc_finish(txn)
    gone = delete(storage, oid, undone)
    got = [(r.tid, r.data, r.data_txn) for txn in storage.iterator() for r in txn]
    equal(got, [(a, b'a', None), (b, b'b', None), (undone, b'a', a), (gone, None, None)])


@check
def current_records(t):
    storage = t.storage(t.start())
    oids = sorted(storage.new_oid() for _ in range(250))
    commit(storage, *[(oid, z64, b'old ' + oid) for oid in oids])
    serial = storage.load(oids[5])[1]
    commit(storage, (oids[5], serial, b'new'))
    got, cursor = {}, None
    while True:
        oid, tid, data, cursor = storage.record_iternext(cursor)
        equal(oid in got, False, 'an object came twice')
        got[oid] = data
        equal(tid, storage.load(oid)[1])
        if cursor is None:
            break
    equal(got, {oid: b'new' if oid == oids[5] else b'old ' + oid for oid in oids})


@check
def deletion(t):
    server = t.start()
    storage = t.storage(server)
    oid, other = storage.new_oid(), storage.new_oid()
    created = commit(storage, (oid, z64, b'x'), (other, z64, b'y'))
    gone = delete(storage, oid, created)
    reader = t.storage(server)
    raises(POSKeyError, reader.load, oid)
    raises(POSKeyError, reader.loadBefore, oid, next_to(gone, 1))
    equal(reader.loadBefore(oid, gone), (b'x', created, gone))
    equal(reader.load(other), (b'y', created))


@check
def oids_are_unique(t):
    """No oid is handed out twice: by several clients, and across a restart."""
    server = t.start()
    clients = [t.storage(server) for _ in range(4)]
    results = [in_thread(lambda c=c: [c.new_oid() for _ in range(500)]) for c in clients]
    oids = [oid for result in results for oid in result()]
    equal(len(set(oids)), 2000, 'different oids')
    last = max(oids)
    commit(clients[0], (last, z64, b'the last one'))
    server.restart()
    more = [t.storage(server).new_oid() for _ in range(3)]
    equal(min(more) > last, True, 'oids after a restart follow')
    for count, want in ((1, 1), (7, 7), (100, 100), (1000, 100), (0, 1)):
        equal(len(clients[0]._call('new_oids', count)), want, f'new_oids({count})')


@check
def pack(t):
    server = t.start()
    connection = t.connection(server)
    tm, root, storage = connection.transaction_manager, connection.root(), connection.db().storage
    root['kept'], root['lost'] = PersistentMapping(), PersistentMapping()
    root['blob'], root['lost blob'] = Blob(b'1'), Blob(b'lost')
    tm.commit()
    lost = [(root[name]._p_oid, root[name]._p_serial) for name in ('lost', 'lost blob')]
    for i in range(20):
        root['kept'][i] = 'x' * 1000
        with root['blob'].open('w') as f:
            f.write(b'%d' % i)
        tm.commit()
    old = storage.history(root['kept']._p_oid, 99)[-1]['tid']
    old_blob = storage.history(root['blob']._p_oid, 99)[-1]['tid']
    del root['lost'], root['lost blob']
    tm.commit()
    size = storage.getSize()
    storage.pack(time.time() + 1, None, wait=True)
    wait_until('size is smaller after pack', lambda: storage.getSize() < size)

    fresh = t.connection(server)
    equal(dict(fresh.root()['kept']), {i: 'x' * 1000 for i in range(20)})
    equal(open(fresh.root()['blob'].committed(), 'rb').read(), b'19')
    raw = fresh.db().storage
    equal(len(raw.history(root['kept']._p_oid, 99)), 1, 'revisions after pack')
    raises(POSKeyError, raw.loadSerial, root['kept']._p_oid, old)
    raises(POSKeyError, raw.loadBlob, root['blob']._p_oid, old_blob)
    for oid, serial in lost:
        raises(POSKeyError, raw._call, 'loadBefore', oid, maxtid)
    raises(POSKeyError, raw.loadBlob, *lost[1])
    equal(list(raw.undoLog(0, -10)), [], 'nothing can be undone')

    # Writing goes on, and a second pack does nothing bad.
    root['more'] = 1
    tm.commit()
    storage.pack(time.time() - 3600, None, wait=True)
    equal(t.connection(server).root()['more'], 1)
    server.restart()
    equal(len(t.connection(server).root()['kept']), 20)


@check
def pack_while_committing(t):
    server = t.start()
    connection = t.connection(server)
    root = connection.root()
    for i in range(300):
        root[i] = PersistentMapping(n=0, fill='x' * 2000)
    connection.transaction_manager.commit()
    stop = []

    def write():
        n = 0
        while not stop:
            n += 1
            for i in range(0, 300, 17):
                root[i]['n'] = n
            connection.transaction_manager.commit()
        return n

    writer = in_thread(write)
    packer = t.storage(server)
    for _ in range(3):
        packer.pack(time.time(), None, wait=True)
    stop.append(True)
    n = writer()
    server.restart()
    fresh = t.connection(server).root()
    equal({fresh[i]['n'] for i in range(0, 300, 17)}, {n})
    equal({fresh[i]['n'] for i in range(1, 300, 17)}, {0})


@check
def copy_transactions(t):
    """copyTransactionsFrom keeps tids, metadata and undo records.

    ZEO has no call that would copy a blob with its tid.
    """
    source = ZODB.FileStorage.FileStorage('source.fs')
    t.defer(source.close)
    db = ZODB.DB(source)
    with db.transaction() as connection:
        connection.root()['x'], connection.root()['map'] = 1, PersistentMapping()
    with db.transaction() as connection:
        connection.root()['x'] = 2
        connection.root()['map']['y'] = 2
    db.undo(db.undoLog(0, 1)[0]['id'])
    transaction.commit()

    server = t.start()
    storage = t.storage(server)
    storage.copyTransactionsFrom(source)
    equal(contents(storage), contents(source), 'copied transactions')
    equal(storage._call('lastTransaction'), source.lastTransaction())
    connection = t.connection(server)
    equal(connection.root()['x'], 1)
    connection.root()['x'] = 3
    connection.transaction_manager.commit()
    equal(connection.root()._p_serial > source.lastTransaction(), True, 'tids go on after a copy')
    server.restart()
    equal(t.connection(server).root()['x'], 3)


def contents(storage):
    return [(txn.tid, txn.status, txn.user, txn.description, txn.extension,
             [(r.oid, r.tid, r.data) for r in txn]) for txn in storage.iterator()]


@check
def tids_grow(t):
    """Tids are moments, each later than the one before."""
    storage = t.storage(t.start())
    oid, serial, tids = storage.new_oid(), z64, []
    before = time.time()
    for _ in range(200):
        serial = commit(storage, (oid, serial, b'x'))
        tids.append(serial)
    equal(tids, sorted(set(tids)), 'order of tids')
    for tid in tids[0], tids[-1]:
        moment = TimeStamp(tid).timeTime()
        equal(before - 1 < moment < time.time() + 1, True, 'a tid is the time')


if __name__ == '__main__':
    main()
