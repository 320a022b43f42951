"""The server is killed at random moments while several clients commit.

Each committer works on objects of its own and notes every tid that a commit
returned. After the kill the files are looked at twice: by Python's own
FileStorage before the server starts again, and through the server after it.
Every noted commit must be there, whole, with its blob; of each committer at
most one more may be there, whose answer was lost with the server.

Usage: crash.py ROUNDS
"""
import hashlib
import multiprocessing
import os
import random
import shutil
import sys
import time

import transaction
import ZEO
import ZODB.FileStorage
from persistent.mapping import PersistentMapping
from ZEO.Exceptions import ClientDisconnected
from ZODB.blob import Blob

import harness
from harness import SOON, equal

COMMITTERS = 3


def blob_bytes(me, n):
    return b'%d %d|' % (me, n) * (n % 7 * 5000)


def committer(me, address, blob_dir, pipe):
    """Commit again and again; report each number that was acknowledged."""
    db = ZEO.DB(address, blob_dir=blob_dir, wait_timeout=SOON)
    tm = transaction.TransactionManager()
    connection = db.open(tm)
    mine = connection.root()[me]
    n = mine['first']['n']
    pipe.send(n)
    try:
        while True:
            n += 1
            mine['first']['n'] = n
            mine['second']['n'] = n
            mine['first']['fill'] = 'x' * (n * 997 % 20000)
            if n % 3 == 0:
                with mine['blob'].open('w') as f:
                    f.write(blob_bytes(me, n))
                mine['second']['blob'] = n
            tm.commit()
            pipe.send(n)
    except ClientDisconnected:
        os._exit(0)  # as expected
    except BaseException as error:
        pipe.send(f'committer {me} failed: {error!r}')
        os._exit(1)


def prepare(t, server):
    connection = t.connection(server)
    for me in range(COMMITTERS):
        connection.root()[me] = PersistentMapping(
            first=PersistentMapping(n=0), second=PersistentMapping(n=0, blob=0), blob=Blob(b''))
    connection.transaction_manager.commit()
    connection.db().close()


def run_and_kill(t, server, delay):
    """Let the committers work, kill the server; return what each was told."""
    # Not by fork: this process has threads, and a lock that one of them holds
    # (the resolver's, say) would stay locked in the child for ever.
    context = multiprocessing.get_context('forkserver')
    context.set_forkserver_preload(['ZEO', 'ZODB', 'ZODB.blob', 'harness'])
    pipes, processes = [], []
    for me in range(COMMITTERS):
        ours, theirs = context.Pipe()
        process = context.Process(target=committer, args=(me, server.address, t.new_dir(), theirs), daemon=True)
        process.start()
        theirs.close()
        t.defer(process.kill)
        pipes.append(ours)
        processes.append(process)
    told = [receive(pipe) for pipe in pipes]  # all are connected
    time.sleep(delay)  # the moment of the kill is what varies
    server.kill()
    for process in processes:
        process.kill()  # it would wait for the server to come back
        process.join(SOON)
    for me, pipe in enumerate(pipes):
        while True:
            try:
                told[me] = pipe.recv()
            except EOFError:
                break
            if not isinstance(told[me], int):
                raise AssertionError(told[me])
    return told


def receive(pipe):
    if not pipe.poll(60):
        raise AssertionError('a committer says nothing')
    number = pipe.recv()
    equal(isinstance(number, int), True, f'{number}')
    return number


def verify(root, told, who):
    """Compare a database with what the committers were told; return what it has."""
    found = []
    for me, acknowledged in enumerate(told):
        first, second = root[me]['first'], root[me]['second']
        n = first['n']
        equal(second['n'], n, f'{who}: the two objects of one transaction of committer {me}')
        if not acknowledged <= n <= acknowledged + 1:
            raise AssertionError(f'{who}: committer {me} was told {acknowledged}, the database has {n}')
        equal(len(first.get('fill', '')), n * 997 % 20000 if n else 0, f'{who}: data of committer {me}')
        equal(second['blob'], n - n % 3, f'{who}: blob number of committer {me}')
        with open(root[me]['blob'].committed(), 'rb') as f:
            equal(hashlib.sha256(f.read()).hexdigest(), hashlib.sha256(blob_bytes(me, second['blob'])).hexdigest(),
                  f'{who}: blob of committer {me}')
        found.append(n)
    return found


def verify_files(t, server, told):
    """Python's FileStorage reads a copy of what the dead server left."""
    copy = os.path.join(t.new_dir(), 'Data.fs')
    shutil.copyfile(server.path, copy)
    db = ZODB.DB(ZODB.FileStorage.FileStorage(copy, blob_dir=server.blob_dir))
    try:
        with db.transaction() as connection:
            found = verify(connection.root(), told, 'FileStorage')
        for txn in db.storage.iterator():  # every transaction can be read
            for record in txn:
                record.data
    finally:
        db.close()
    return found


def crash_round(t, server, dice):
    told = run_and_kill(t, server, dice.uniform(0, 0.4))
    found = verify_files(t, server, told)
    server.restart()
    db = t.db(server)
    with db.transaction() as connection:
        # Of what nobody was told yet, the server's own log may have more.
        now = verify(connection.root(), told, 'server')
        equal([max(pair) for pair in zip(found, now)], now, 'what the server finds, not less than FileStorage')
    db.close()


def check(rounds):
    def kills(t):
        seed = int(os.environ.get('ZEOLITE_SEED') or time.time_ns())
        print('ZEOLITE_SEED', seed, file=sys.stderr)
        dice = random.Random(seed)
        server = t.start()
        prepare(t, server)
        for number in range(rounds):
            print('round', number, file=sys.stderr)
            crash_round(t, server, dice)
        server.stop()
    return kills


def killed_upload(t):
    """What a killed server left of an upload is removed when it starts again."""
    server = t.start()
    storage = t.storage(server)
    storage._async('tpc_begin', 1, b'', b'', {}, None, ' ')
    storage._async('storeBlobStart')
    storage._async('storeBlobChunk', b'x' * 100000)
    storage.server_status()  # the server has handled the chunk
    server.kill()
    server.restart()
    left = [name for d, _, names in os.walk(server.blob_dir) for name in names if name != '.layout']
    equal(left, [], 'files in the blob directory')


if __name__ == '__main__':
    rounds = int(sys.argv[1])
    harness.run_check('kills', check(rounds), 60 + 20 * rounds)
    harness.run_check('killed_upload', killed_upload, 60)
    os._exit(0)
