"""Clients that lose the server and find it again, with what they have cached."""
import ZODB.utils
from persistent.mapping import PersistentMapping
from ZODB.tests.StorageTestBase import zodb_pickle
from ZODB.utils import p64, u64

from harness import check, commit, equal, main, up_to_date, wait_until, z64


def objects(storage, n=20):
    oids = [storage.new_oid() for _ in range(n)]
    return oids, commit(storage, *[(oid, z64, b'old') for oid in oids])


@check
def server_restarts(t):
    """A client lives through restarts and sees what others commit between."""
    server = t.start()
    one, two = t.connection(server), t.connection(server)
    one.root()['map'] = PersistentMapping()
    one.transaction_manager.commit()
    for n in range(3):
        server.restart()
        wait_until('first client is back', one.db().storage.is_connected)
        up_to_date(one)
        one.root()['map'][n] = n
        one.transaction_manager.commit()
        wait_until('second client is back', two.db().storage.is_connected)
        up_to_date(two)
        equal(dict(two.root()['map']), {i: i for i in range(n + 1)})


@check
def persistent_cache_is_verified_quickly(t):
    """A cache from yesterday asks what changed, and loads only that."""
    server = t.start()
    storage = t.storage(server, client='cache', var='.')
    oids, tid = objects(storage)
    for oid in oids:
        storage.load(oid)
    storage.close()
    other = t.storage(server)
    changed = commit(other, (oids[3], tid, b'new'), (oids[4], tid, b'new'))
    server.restart()

    proxy = server.proxy()
    storage = t.storage(proxy, client='cache', var='.')
    equal(storage.lastTransaction(), changed)
    equal(proxy.sent().get('getInvalidations'), 1, 'getInvalidations')
    proxy.reset()
    for i, oid in enumerate(oids):
        equal(storage.load(oid), (b'new', changed) if i in (3, 4) else (b'old', tid))
    equal(proxy.sent().get('loadBefore'), 2, 'loads: only what changed')


@check
def unchanged_cache(t):
    server = t.start()
    storage = t.storage(server, client='cache', var='.')
    oids, tid = objects(storage)
    storage.close()
    proxy = server.proxy()
    storage = t.storage(proxy, client='cache', var='.')
    for oid in oids:
        equal(storage.load(oid), (b'old', tid))
    equal(proxy.sent().get('loadBefore'), None, 'loads')


@check
def cut_connections(t):
    """The network drops; commits of others meanwhile are not missed."""
    server = t.start()
    proxy = server.proxy()
    reader, writer = t.connection(proxy), t.connection(server)
    root = writer.root()
    for i in range(10):
        root[i] = PersistentMapping(n=0)
    writer.transaction_manager.commit()
    up_to_date(reader)
    for round in range(1, 6):
        for i in range(10):
            equal(reader.root()[i]['n'], round - 1)
        proxy.drop()
        for i in range(10):
            root[i]['n'] = round
            writer.transaction_manager.commit()
        wait_until('reader is back', reader.db().storage.is_connected)
        up_to_date(reader)
        for i in range(10):
            equal(reader.root()[i]['n'], round, f'object {i}')


@check
def get_invalidations(t):
    server = t.start()
    storage = t.storage(server)
    oids, first = objects(storage, 5)
    tids, serial = [], dict.fromkeys(oids, first)
    for n in range(10):
        oid = oids[n % 5]
        serial[oid] = commit(storage, (oid, serial[oid], b'%d' % n))
        tids.append(serial[oid])

    def ask(tid):
        answer = storage._call('getInvalidations', tid)
        return answer and (answer[0], sorted(answer[1]))

    equal(ask(tids[-1]), (tids[-1], []))
    equal(ask(tids[-2]), (tids[-1], [oids[4]]))
    equal(ask(tids[-3]), (tids[-1], sorted(oids[3:])))
    equal(ask(p64(u64(tids[-2]) + 1)), (tids[-1], [oids[4]]), 'between two tids')
    equal(ask(first), (tids[-1], sorted(oids)))
    server.restart()
    wait_until('client is back', storage.is_connected)
    equal(ask(tids[-3]), (tids[-1], sorted(oids[3:])), 'after a restart')


@check
def cache_that_is_newer_than_the_server(t):
    """The server was put back to an older state: clients must not connect."""
    import ZEO.Exceptions
    server = t.start()
    storage = t.storage(server, client='cache', var='.')
    objects(storage)
    storage.close()
    try:
        t.storage(t.start(), client='cache', var='.', wait_timeout=3)
    except ZEO.Exceptions.ClientDisconnected:
        return
    raise AssertionError('a client with a cache from the future was let in')


@check
def long_absence(t):
    """After thousands of commits a cache is right, whatever it costs."""
    server = t.start()
    storage = t.storage(server, client='cache', var='.')
    oids, tid = objects(storage, 50)
    for oid in oids:
        storage.load(oid)
    storage.close()
    other = t.storage(server)
    want = {oid: (b'old', tid) for oid in oids}
    for n in range(600):
        oid = oids[n % 25]
        data = b'%d' % n
        want[oid] = data, commit(other, (oid, want[oid][1], data))
    storage = t.storage(server, client='cache', var='.')
    equal({oid: storage.load(oid) for oid in oids}, want)


if __name__ == '__main__':
    main()
