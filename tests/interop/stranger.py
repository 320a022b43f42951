"""Is protocol.md enough? Checks by a client that was written from it alone.

    stranger.py ADDRESS [CHECK...]

It prints a line for each check, "ok NAME" or "failed NAME: why". The server is
to be new and empty. Where the page allows a server more than one behaviour, so
do the checks.
"""
import base64
import calendar
import json
import os
import socket
import struct
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from stranger_steps import (  # noqa: E402
    ADDRESS, BLOB_RECORD, ROOT_RECORD, Cache, Transaction, check, checks, connect, download, ends, equal, fails, load,
    new_oid, put)
from stranger_wire import MAXTID, Z64, Connection, Failed, Inert  # noqa: E402


@check
def greeting(c):
    assert c.greeting in (b'Z5', b'M5'), c.greeting
    equal(c.registered, Z64, 'register at an empty storage')


@check
def the_client_chooses_the_encoding(c):
    for letter in 'ZM':
        other = connect(letter=letter)
        equal(other.call('ping'), None)
        other.close()


@check
def ruok(c):
    for early in True, False:
        s = socket.create_connection((ADDRESS.rsplit(':', 1)[0], int(ADDRESS.rsplit(':', 1)[1])))
        f = s.makefile('rb')
        frame = lambda: f.read(struct.unpack('>I', f.read(4))[0])
        if not early:
            frame()
        s.sendall(b'\0\0\0\4ruok')
        if early:
            assert frame()[1:] == b'5'
        status = json.loads(frame().decode('ascii'))
        equal(f.read(), b'', 'after the answer')
        assert list(status) == ['1'] and status['1']['connections'] >= 1, status
        s.close()


@check
def refused_handshakes(c):
    for answer in b'X5', b'Z4':
        other = Connection(ADDRESS)
        other.frame(answer)     # a second handshake is no message, either
        ends(other)


@check
def register(c):
    other = Connection(ADDRESS)
    assert 'unknown storage' in fails('builtins.ValueError', other, 'register', 'nobody', False)[0]
    equal(len(other.call('register', '1', 0)), 8, 'register again')
    other.begin('register', '1', False)
    ends(other)


@check
def register_comes_first(c):
    other = Connection(ADDRESS)
    other.begin('lastTransaction')
    ends(other)


@check
def info(c):
    i = c.call('get_info')
    for key, kind in dict(length=int, size=int, name=str, supportsUndo=bool, supports_record_iternext=bool).items():
        assert type(i[key]) is kind, (key, i[key])
    names = {tuple(pair) for pair in i['interfaces']}
    for name in ('IStorage', 'IStorageRestoreable', 'IStorageIteration', 'IStorageUndoable',
                 'IStorageCurrentRecordIteration', 'IBlobStorage', 'IExternalGC'):
        assert ('ZODB.interfaces', name) in names, (name, names)


@check
def new_oids(c):
    some = list(c.call('new_oids'))
    equal(len(some), 100)
    some += c.call('new_oids', 7) + c.call('new_oids', 0) + c.call('new_oids', 1000)
    equal(len(some), 100 + 7 + 1 + 100, 'clamped')
    assert len(set(some)) == len(some) and all(len(oid) == 8 for oid in some) and some == sorted(some)


@check
def commit_and_load(c):
    before = time.time()
    oid, tid = put(c, b'one', description='e\u0301'.encode(), extension={'color': 'red', 'n': 3})
    [values] = c.told('info')[-1]
    assert values['length'] >= 1 and 'size' in values, values
    # The layout of a tid (1).
    high, low = struct.unpack('>II', tid)
    minute, rest = high % 60, high // 60
    hour, rest = rest % 24, rest // 24
    day, rest = rest % 31 + 1, rest // 31
    month, year = rest % 12 + 1, rest // 12 + 1900
    stamp = calendar.timegm((year, month, day, hour, minute, 0)) + low * 60 / 2**32
    assert before - 60 < stamp < time.time() + 60, stamp

    equal(load(c, oid), (b'one', tid, None))
    equal(load(c, oid, tid), None, 'before it existed')
    _, tid2 = put(c, b'two', oid, tid)
    assert tid2 > tid
    equal(load(c, oid), (b'two', tid2, None))
    equal(load(c, oid, tid2), (b'one', tid, tid2))
    equal(c.call('loadSerial', oid, tid), b'one')
    equal(c.call('getTid', oid), tid2)
    equal(c.call('lastTransaction'), tid2)
    newer, older = c.call('history', oid, 5)
    equal((older['tid'], older['user_name'], older['description']), (tid, b'stranger', 'e\u0301'.encode()))
    equal((older['color'], older['n']), ('red', 3), 'extension')
    assert abs(older['time'] - stamp) < 0.001 and older['size'] > 0, older
    equal(newer['tid'], tid2)
    equal(len(c.call('history', oid)), 1)


@check
def unknown_objects(c):
    nobody = b'\0\0\1' + bytes(5)
    for call in ('loadBefore', nobody, MAXTID), ('loadSerial', nobody, MAXTID), ('getTid', nobody), ('history', nobody):
        equal(fails('ZODB.POSException.POSKeyError', c, *call)[0], nobody)
    equal(tuple(fails('ZODB.POSException.POSKeyError', c, 'sendBlob', nobody, MAXTID)[1:]), (nobody, MAXTID))


@check
def ids_are_echoed(c):
    oid, tid = put(c, b'echo')
    for id in (oid, MAXTID), 'text', b'bytes', 1 << 62, (1, ('nested', None)):
        equal(c.end(c.begin('loadBefore', oid, MAXTID, id=id)), (b'echo', tid, None), 'id %r' % (id,))


@check
def many_calls_before_the_first_reply(c):
    oid, tid = put(c, b'many')
    for id in [c.begin('loadBefore', oid, MAXTID) for _ in range(200)]:
        equal(c.end(id), (b'many', tid, None))


@check
def odd_but_allowed(c):
    c.frame(c.encode((-1, 0, '.reply', None)))              # a keep-alive
    c.one_way('set_client_label', 'a stranger')
    c.one_way('ping')
    c.frame(c.encode((4711, 0, 'ping', ())))                # flags go by truth
    equal(c.end(4711), None)
    equal(c.call('ping'), None)


@check
def wrong_arguments(c):
    for call in ('loadBefore',), ('ping', 1), ('loadBefore', Z64, MAXTID, 3):
        assert type(fails('builtins.TypeError', c, *call)[0]) is str


@check
def what_ends_a_connection(c):
    for payload in (b'', b'\xff\xff', c.encode((1, False, 'no_such_method', ())), c.encode((1, False, b'ping', ())),
                    c.encode(('too', 'short')), c.encode((1, False, 'ping', ()))[:-3]):
        other = connect(letter=c.letter)
        other.frame(payload)
        ends(other)
    equal(c.call('ping'), None, 'others do not notice')


@check
def invalidations(c):
    oid, tid = put(c, b'0')
    other = connect(letter='Z' if c.letter == 'M' else 'M')
    equal(other.registered, tid)
    cache = Cache(other)
    equal(cache.load(oid), b'0')
    other.told('invalidateTransaction')
    tids = [tid]
    for n in range(1, 6):
        tids.append(put(c, b'%d' % n, oid, tids[-1])[1])
    equal(other.call('ping'), None)     # behind all invalidations (9.1, 3)
    cache.hear()
    equal(cache.last, tids[-1])
    equal(cache.load(oid), b'5')
    equal(cache.load(oid, tids[1]), b'0', 'the entry that ended')
    equal(c.told('invalidateTransaction'), [], 'the committer gets none')
    other.close()


@check
def verification(c):
    oid, tid = put(c, b'verify')
    equal(c.call('getInvalidations', tid), (tid, c.call('getInvalidations', tid)[1]))
    equal(len(c.call('getInvalidations', tid)[1]), 0, 'nothing changed')
    oid2, tid2 = put(c, b'verify')
    last, oids = c.call('getInvalidations', tid)
    equal((last, list(oids)), (tid2, [oid2]))


def conflict(c, *, blob=None):
    """Two clients change an object. Return it, its current serial, and what
    became of the second one's transaction: the reply to vote, or the error."""
    oid, tid = put(c, b'base')
    _, theirs = put(c, b'theirs', oid, tid)
    t = Transaction(c)
    if blob:
        t.blob(blob, Z64, BLOB_RECORD, b'beside a conflict')
    t.store(oid, tid, b'mine')
    try:
        return oid, tid, theirs, t, t.vote()
    except Failed as e:
        return oid, tid, theirs, t, e


@check
def conflicts(c):
    oid, tid, theirs, t, result = conflict(c)
    if isinstance(result, Failed):      # a server that merges by itself, in vain
        equal(result.name, 'ZODB.POSException.ConflictError')
        equal((result.state['oid'], tuple(result.state['serials'])), (oid, (theirs, tid)))
        assert type(result.state['message']) is str
    else:
        [entry] = result
        equal((entry['oid'], tuple(entry['serials']), entry['data']), (oid, (theirs, tid), b'mine'))
    equal(c.call('tpc_abort', t.id), None)
    equal(load(c, oid), (b'theirs', theirs, None))


@check
def conflicts_resolved(c):
    blob = new_oid(c)
    oid, tid, theirs, t, result = conflict(c, blob=blob)
    if isinstance(result, Failed):
        return                          # not with this server
    equal(c.call('loadSerial', oid, tid), b'base')
    equal(c.call('loadSerial', oid, theirs), b'theirs')
    t.store(oid, theirs, b'merged')
    done = t.commit()
    equal(load(c, oid), (b'merged', done, None))
    if 'extensions' in c.call('get_info'):      # 12: Python's server loses the blob
        equal(download(c, blob, done), b'beside a conflict')


@check
def read_conflicts(c):
    oid, tid = put(c, b'read')
    other, _ = put(c, b'other')
    put(c, b'read again', oid, tid)
    t = Transaction(c)
    c.one_way('checkCurrentSerialInTransaction', oid, tid, t.id)
    t.store(new_oid(c), Z64, b'x')
    state = fails('ZODB.POSException.ReadConflictError', c, 'vote', t.id)
    equal(state['oid'], oid)
    equal(c.call('tpc_abort', t.id), None, 'after the error')
    t = Transaction(c)
    c.one_way('checkCurrentSerialInTransaction', other, c.call('getTid', other), t.id)
    t.commit()


@check
def transactions_that_do_not_fit(c):
    equal(tuple(fails('ZODB.POSException.StorageTransactionError', c, 'vote', 99)), (None, 99))
    equal(c.call('tpc_finish', 99), None)
    equal(c.call('tpc_abort', 99), None)
    t = Transaction(c)
    equal(tuple(fails('ZODB.POSException.StorageTransactionError', c, 'vote', 99)), (t.id, 99))
    fails('builtins.AssertionError', c, 'tpc_finish', t.id)
    equal(c.call('tpc_abort', t.id), None)
    t = Transaction(c)
    t.vote()
    fails('ZODB.POSException.StorageTransactionError', c, 'vote', t.id)
    equal(c.call('tpc_abort', t.id), None)


@check
def a_lost_client_lets_go(c):
    oid, tid = put(c, b'lost')
    other = connect()
    t = Transaction(other)
    t.store(oid, tid, b'never')
    t.vote()
    mine = Transaction(c)
    mine.store(oid, tid, b'mine')
    voting = c.begin('vote', mine.id)
    other.close()
    equal(list(c.end(voting)), [])
    equal(load(c, oid)[0], b'lost', 'meanwhile')
    equal(load(c, oid), (b'lost', tid, None))
    done = mine.finish()
    equal(load(c, oid), (b'mine', done, None))


@check
def read_only_connections(c):
    oid, tid = put(c, b'read only')
    r = connect(read_only=True)
    equal(load(r, oid), (b'read only', tid, None))
    for call in ('new_oids',), ('vote', 1), ('tpc_finish', 1), ('tpc_abort', 1):
        equal(len(fails('ZODB.POSException.ReadOnlyError', r, *call)), 0)
    r.close()


@check
def blobs(c):
    contents = b'', b'x', bytes(range(256)) * 1000
    oids = c.call('new_oids', len(contents))
    for oid, content in zip(oids, contents):
        t = Transaction(c)
        t.blob(oid, Z64, BLOB_RECORD, content)
        tid = t.commit()
        equal(load(c, oid), (BLOB_RECORD, tid, None))
        equal(download(c, oid, tid), content)
    # Loads between the chunks of an upload, and of two downloads.
    t = Transaction(c)
    c.one_way('storeBlobStart')
    c.one_way('storeBlobChunk', b'before ')
    assert load(c, oids[0])
    c.one_way('storeBlobChunk', b'after')
    c.one_way('storeBlobEnd', oids[0], c.call('getTid', oids[0]), BLOB_RECORD, t.id)
    tid0 = t.commit()
    first, second = c.begin('sendBlob', oids[2], tid), c.begin('sendBlob', oids[0], tid0)
    assert load(c, oids[1])
    c.end(second), c.end(first)
    equal([c.blobs.pop(key)[1].getvalue() for key in ((oids[2], tid), (oids[0], tid0))], [contents[2], b'before after'])
    fails('ZODB.POSException.POSKeyError', c, 'sendBlob', oids[0], tid)


@check
def blobs_that_come_to_nothing(c):
    oid = new_oid(c)
    t = Transaction(c)
    t.blob(oid, Z64, BLOB_RECORD, b'aborted')
    t.vote()
    equal(c.call('tpc_abort', t.id), None)
    fails('ZODB.POSException.POSKeyError', c, 'loadBefore', oid, MAXTID)
    # A second start, called so that the error can be seen.
    t = Transaction(c)
    c.one_way('storeBlobStart')
    fails('builtins.AssertionError', c, 'storeBlobStart')
    equal(c.call('tpc_abort', t.id), None)
    # A chunk without a start: there is no way to say so.
    other = connect()
    other.one_way('storeBlobChunk', b'lost')
    ends(other)


@check
def undo(c):
    oid, tid = put(c, b'good')
    _, bad = put(c, b'bad', oid, tid, description=b'to be undone', user=b'joe')
    last = c.call('undoLog', 0, -5)
    entry = last[0]
    equal((base64.b64decode(entry['id']), entry['user_name'], entry['description']), (bad, b'joe', b'to be undone'))
    assert entry['time'] > 0 and len(last) == 5
    equal(c.call('undoLog', 1, 3), last[1:3])
    found = c.call('undoInfo', 0, -20, {'description': b'to be undone'})
    equal([e['id'] for e in found], [entry['id']])
    t = Transaction(c)
    c.one_way('undoa', entry['id'], t.id)
    equal(list(t.vote()), [oid])
    done = t.finish()
    equal(load(c, oid), (b'good', done, None))

    _, later = put(c, b'later', oid, done)
    t = Transaction(c)
    c.one_way('undoa', base64.b64encode(bad), t.id)
    try:
        # 10.8: the server may leave the merge to the client.
        [entry] = [entry for entry in t.vote() if isinstance(entry, dict)]
    except ValueError:
        raise AssertionError('an undo that cannot be succeeded')
    except Failed as e:
        assert e.name in ('ZODB.POSException.UndoError', 'ZODB.POSException.MultipleUndoErrors'), e.name
        if 'Multiple' in e.name:
            [[of, why]] = e.state['_errs']
            equal(of, oid)
            # 6: text, a pair, or an inert value; whichever it is, it says why.
            if isinstance(why, Inert):
                equal(why.arguments[0].name, 'ZODB.POSException.UndoError')
                why = why.arguments[1]['_reason']
            elif not isinstance(why, str):
                equal(why[0], 'ZODB.POSException.UndoError')
                why = why[1]['_reason']
            assert type(why) is str
    else:
        equal((entry['oid'], tuple(entry['serials']), entry['data']), (oid, (later, bad), b'good'))
        t.store(oid, later, b'merged')
        equal(list(t.vote()), [oid])
        done = t.finish()
        equal(load(c, oid), (b'merged', done, None))


@check
def deletion(c):
    oid, tid = put(c, b'to go')
    other = connect()
    t = Transaction(c)
    c.one_way('deleteObject', oid, tid, t.id)
    done = t.commit()
    equal(list(fails('ZODB.POSException.POSKeyError', c, 'loadBefore', oid, MAXTID)), [oid])
    equal(load(c, oid, done), (b'to go', tid, done))
    other.call('ping')
    [(told, oids)] = other.told('invalidateTransaction')
    equal(told, done)
    assert list(oids) in ([], [oid])    # 12: Python's server does not name it
    other.close()


@check
def iterators(c):
    oid, tid = put(c, b'iterated', description=b'third')
    i = c.call('iterator_start', tid, None)
    equal(c.call('iterator_next', i), (tid, ' ', b'stranger', b'third', {}))
    r = c.call('iterator_record_start', i, tid)
    equal(c.call('iterator_record_next', r), (oid, tid, b'iterated', None))
    equal(c.call('iterator_record_next', r), None)
    equal(list(fails('builtins.KeyError', c, 'iterator_record_next', r)), [r])
    equal(c.call('iterator_next', i), None)
    equal(list(fails('builtins.KeyError', c, 'iterator_next', i)), [i])
    i = c.call('iterator_start', None, None)
    tids = []
    while (found := c.call('iterator_next', i)) is not None:
        tids.append(found[0])
    assert tids == sorted(set(tids)) and tids[-1] == tid and len(tids) > 10
    i = c.call('iterator_start', tids[2], tids[4])
    equal([c.call('iterator_next', i)[0] for _ in range(3)], tids[2:5])
    c.one_way('iterator_gc', [i])
    fails('builtins.KeyError', c, 'iterator_next', i)


@check
def current_records(c):
    put(c, b'the last')
    seen, next = [], None
    while True:
        try:
            oid, tid, data, next = c.call('record_iternext', next)
        except Failed as e:             # Python's server announces deleted objects
            equal((e.name, list(e.state)), ('ZODB.POSException.POSKeyError', [next]))
            next = struct.pack('>Q', struct.unpack('>Q', next)[0] + 1)
            continue
        equal(load(c, oid), (data, tid, None))
        seen.append(oid)
        if next is None:
            break
    assert seen == sorted(seen) and len(seen) > 10
    fails('builtins.ValueError', c, 'record_iternext', b'\x7f' + bytes(7))


@check
def restore(c):
    source, tid = put(c, b'copied')
    later = struct.pack('>Q', struct.unpack('>Q', tid)[0] + (1 << 36))     # some 16 minutes
    oid = new_oid(c)
    t = Transaction(c, b'user', b'copy', {'from': 'elsewhere'}, later, ' ')
    c.one_way('restorea', oid, later, b'restored', None, t.id)
    c.one_way('restorea', source, later, None, None, t.id)
    equal(list(t.vote()), [])
    equal(t.finish(), later)
    equal(load(c, oid), (b'restored', later, None))
    fails('ZODB.POSException.POSKeyError', c, 'loadBefore', source, MAXTID)
    assert put(c, b'after')[1] > later, 'tids grow all the same'


@check
def pack(c):
    put(c, ROOT_RECORD, Z64)
    oid, tid = put(c, b'old')
    _, newer = put(c, b'new', oid, tid)
    other = connect()
    c.told('info')
    equal(c.call('pack', time.time() + 7200, True), None)
    [[values]] = c.told('info')         # before the reply
    assert 'length' in values and 'size' in values
    fails('ZODB.POSException.POSKeyError', c, 'loadBefore', oid, newer)
    other.call('ping')
    equal(len(other.told('info')), 1, 'to every client')
    other.close()


@check
def status(c):
    s = c.call('server_status')
    for key in ('connections', 'loads', 'stores', 'commits', 'aborts', 'active_txns', 'conflicts',
                'conflicts_resolved', 'waiting'):
        assert type(s[key]) is int, key
    equal(s['last-transaction'], c.call('lastTransaction').hex())
    assert s['commits'] > 10 and s['connections'] >= 1 and type(s['start']) is str


@check
def extensions(c):
    names = c.call('get_info').get('extensions', ())
    oid, tid = put(c, b'ext')
    gone = b'\0\0\1' + bytes(5)
    if 'loadMany' in names:
        equal(list(c.call('loadMany', [oid, gone], MAXTID)), [(b'ext', tid, None), None])
    if 'blobInfo' in names:
        import hashlib
        blob = new_oid(c)
        t = Transaction(c)
        content = b'0123456789' * 9000
        t.blob(blob, Z64, BLOB_RECORD, content)
        tid = t.commit()
        equal(c.call('blobInfo', blob, tid), (len(content), hashlib.sha256(content).digest()))
        equal(c.call('sendBlobFrom', blob, tid, 5), None)
        equal(c.blobs.pop((blob, tid))[1].getvalue(), content[5:])
        fails('builtins.ValueError', c, 'sendBlobFrom', blob, tid, -1)
        # 14
        t = Transaction(c)
        empty = new_oid(c)
        c.one_way('storeEmptyBlob', empty, Z64, BLOB_RECORD, t.id)
        equal(download(c, empty, t.commit()), b'')


def main():
    for name in sys.modules:
        assert name.split('.')[0] not in ('ZEO', 'ZODB', 'pickle', 'msgpack', 'zodbpickle'), name
    status, c = 0, None
    for f in checks:
        if sys.argv[2:] and f.__name__ not in sys.argv[2:]:
            continue
        try:
            if c is None:
                c = connect()
            f(c)
            print('ok', f.__name__, flush=True)
        except Exception as e:
            status = 1
            at = e.__traceback__
            lines = []
            while at:
                lines.append(at.tb_lineno)
                at = at.tb_next
            print('failed %s: %s: %s (lines %s)' % (f.__name__, type(e).__name__, e, lines), flush=True)
            c = None                    # whatever it was, begin anew
    sys.exit(status)


if __name__ == '__main__':
    main()
