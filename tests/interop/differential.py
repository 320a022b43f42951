"""Compare zeolite with Python's FileStorage, on random histories.

usage: differential.py make DIR FIRST COUNT
       differential.py compare HOST:PORT DIR FIRST COUNT
       differential.py verify DIR FIRST COUNT

Seeds are FIRST up to FIRST + COUNT. make makes a history for each with Python:
DIR/SEED/theirs, and a copy of it, ours. compare asks the storages made-SEED and
new-SEED of a ZEO server, which are ours/Data.fs and new/Data.fs, with blobs
beside them: whether the former has all the answers that FileStorage gives about
theirs; whether the same revisions are left when both have been packed to the
same time; and it makes a history in the latter. verify opens what the server
has left with FileStorage: it must give the answers that the server gave.

What differs is printed; the exit status is 1 then.
"""
import base64
import contextlib
import io
import logging
import os
import pickle
import random
import shutil
import sys
import traceback

from ZEO.ClientStorage import ClientStorage
from ZODB.FileStorage import FileStorage
from ZODB.scripts import fsrefs, fstest
from ZODB.serialize import referencesf

sys.path.append(os.path.join(os.path.dirname(os.path.abspath(__file__)), '../../server/filestorage/testdata'))
from describe import describe, describe_more  # noqa: E402
from makedb import Maker, pack_time  # noqa: E402

logging.disable(logging.CRITICAL)
TRANSACTIONS = 14


class Differs(Exception):
    pass


def equal(got, want, what):
    """Fail with the first place where two answers differ."""
    if got == want:
        return
    if isinstance(got, dict) and isinstance(want, dict):
        for key in sorted(set(got) | set(want)):
            equal(got.get(key, 'missing'), want.get(key, 'missing'), f'{what}[{key}]')
    if isinstance(got, list) and isinstance(want, list):
        equal(len(got), len(want), f'len({what})')
        for i, (a, b) in enumerate(zip(got, want)):
            equal(a, b, f'{what}[{i}]')
    raise Differs(f'{what} is {got!r:.300}, want {want!r:.300}')


def everything(storage):
    d = describe(storage, True, sparse=True)
    for t in d['txns']:
        # Values, not bytes: on its way through ZEO a pickle is written anew.
        extension = base64.b64decode(t[4])
        t[4] = pickle.loads(extension) if extension else {}
    d.update(describe_more(storage, d))
    return d


def random_of(seed, purpose):
    return random.Random(f'{seed} {purpose}')


def make(dir, seed):
    os.makedirs(f'{dir}/theirs')
    os.makedirs(f'{dir}/new')
    storage = FileStorage(f'{dir}/theirs/Data.fs', blob_dir=f'{dir}/theirs/blobs')
    rnd = random_of(seed, 'history')
    Maker(storage, rnd, True, packs=seed % 3 == 0).run(TRANSACTIONS)
    storage.close()
    shutil.copytree(f'{dir}/theirs', f'{dir}/ours')
    if seed % 2:
        os.remove(f'{dir}/ours/Data.fs.index')


def compare(dir, seed, address):
    def client(name):
        number[0] += 1
        return contextlib.closing(ClientStorage(
            address, storage=f'{name}-{seed}', blob_dir=f'{dir}/cache{number[0]}', wait_timeout=60))
    number = [0]

    with contextlib.closing(FileStorage(f'{dir}/theirs/Data.fs', blob_dir=f'{dir}/theirs/blobs')) as theirs:
        before = everything(theirs)
        with client('made') as ours:
            equal(everything(ours), before, 'answers')
            rnd = random_of(seed, 'pack')
            tid = rnd.choice(before['txns'])[0] if rnd.random() < 0.7 else before['last']
            dangling = fsrefs_says(f'{dir}/theirs/Data.fs')
            when = pack_time(bytes.fromhex(tid))
            their_pack, refused = True, False
            try:
                theirs.pack(when, referencesf)
            except KeyError:
                their_pack, refused = False, True  # a reference leads nowhere
            except AssertionError:
                their_pack = False  # it has lost count of what it copied
            try:
                ours.pack(when)
            except KeyError as e:
                if not refused:
                    raise Differs(f'refuses to pack, where Python packs: {e}')
            else:
                if refused:
                    raise Differs('packs, where Python refuses')
        with client('made') as ours:
            packed = everything(ours)
    if refused:
        equal(packed, before, 'answers after a pack was refused')
    else:
        equal_packed(packed, everything_of(f'{dir}/theirs') if their_pack else None, before, tid)

    with client('new') as storage:
        Maker(storage, random_of(seed, 'ours'), True, packs=seed % 3 == 1).run(TRANSACTIONS)
    with client('new') as storage:
        new = everything(storage)
    with open(f'{dir}/answers', 'wb') as f:
        pickle.dump((packed, new, dangling), f)


def everything_of(dir):
    with contextlib.closing(FileStorage(f'{dir}/Data.fs', blob_dir=f'{dir}/blobs')) as storage:
        return everything(storage)


def surviving(before, tid):
    """What must be left of the records up to tid, and what was current then.

    The former is the newest record of each object as of tid that can be reached from
    the root, or is used by something later: later records of the object itself,
    or their references.
    """
    current, reached, todo = {}, set(), ['0' * 16]  # the root
    for t, _, _, _, _, records in before['txns']:
        for oid, serial, data, _ in records:
            if t <= tid:
                current[oid] = serial, data
            else:
                todo.append(oid)
                if data is not None:
                    todo += [o.hex() for o in referencesf(base64.b64decode(data))]
    current = {oid: c for oid, c in current.items() if c[1] is not None}
    while todo:
        oid = todo.pop()
        if oid in current and oid not in reached:
            reached.add(oid)
            todo += [o.hex() for o in referencesf(base64.b64decode(current[oid][1]))]
    every = {(oid, serial, data) for oid, (serial, data) in current.items()}
    return {r for r in every if r[0] in reached}, every


def equal_packed(ours, theirs, before, tid):
    """Compare what was packed to tid with what must be left, and with Python's.

    The package comment of filestorage says what may differ.
    """
    def split(d):
        packed, later = set(), []
        for t in d['txns']:
            if t[0] <= tid:
                packed.update((oid, serial, data) for oid, serial, data, _ in t[5])
            else:
                # Where the data comes from may differ: it may have been packed.
                later.append(t[:5] + [[r[:3] for r in t[5]]])
        return packed, later

    packed, later = split(ours)
    must, current = surviving(before, tid)
    if not must:
        return
    if {t[1] for t in ours['txns'] if t[0] <= tid} == {'p'}:
        equal(sorted(packed), sorted(must), 'packed records')
    equal(later, split(before)[1], 'later transactions, as before')
    equal(ours['last'], before['last'], 'last transaction')
    if theirs is None:
        return
    their_packed, their_later = split(theirs)
    damaged = damaged_by_python(their_later, later)
    equal(without(later, damaged), without(their_later, damaged), 'later transactions')
    both = their_packed & current
    equal(sorted(both - packed), [], 'current records that only Python keeps')
    known = {oid for oid, _, _ in both} | {oid for t in later for oid, _, _ in t[5]} - {oid for oid, _, _ in packed | their_packed}
    for oid, loads in ours['loads'].items():
        for at, answer in loads.items():
            if at > tid and oid in known and oid not in damaged and at in theirs['loads'][oid]:
                equal(answer, theirs['loads'][oid][at], f'load of {oid} before {at}')
    for name, blob in theirs.get('blobs', {}).items():
        if name[16:] > tid or any((name[:16], name[16:]) == r[:2] for r in both):
            equal(ours.get('blobs', {}).get(name), blob, f'blob {name}')
    equal(*([u[:1] + u[2:] for u in d['undolog'] if u[0] > tid] for d in (ours, theirs)), 'undo log')


def damaged_by_python(theirs, before):
    """The oids of later records whose data Python's pack has changed.

    Where a later transaction has two records of an object, as after two undos, Python
    takes a back pointer to the second for one to the first.
    """
    changed, twice = set(), set()
    for t, b in zip(theirs, before):
        oids = [oid for oid, _, _ in b[5]]
        twice.update(oid for oid in oids if oids.count(oid) > 1)
        changed.update(was[0] for is_, was in zip(t[5], b[5]) if is_[:2] == was[:2] and is_[2] != was[2])
    return changed & twice


def without(txns, oids):
    """Transactions without the data of some objects."""
    return [t[:5] + [[r[:2] + [r[2] if r[0] not in oids else None] for r in t[5]]] for t in txns]


def fsrefs_says(path):
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        fsrefs.main(path)
    return out.getvalue()


def verify(dir, seed):
    with open(f'{dir}/answers', 'rb') as f:
        packed, new, dangling = pickle.load(f)
    for name, want in ('ours', packed), ('new', new):
        path = f'{dir}/{name}/Data.fs'
        fstest.check(path)
        said = fsrefs_says(path)
        if name == 'ours' and not dangling and said:
            raise Differs(f'fsrefs says {said:.500}')
        equal(everything_of(f'{dir}/{name}'), want, f'{name}, opened by Python')
        os.remove(path + '.index')
        equal(everything_of(f'{dir}/{name}'), want, f'{name}, without the index')


def main():
    what, args = sys.argv[1], sys.argv[2:]
    if what == 'compare':
        host, port = args.pop(0).rsplit(':', 1)
    dir, first, count = args[0], int(args[1]), int(args[2])
    os.fsync = lambda fd: None  # nothing here has to survive a crash
    failed = False
    for seed in range(first, first + count):
        extra = [(host, int(port))] if what == 'compare' else []
        try:
            globals()[what](f'{dir}/{seed}', seed, *extra)
        except Exception as e:
            failed = True
            reason = str(e) if isinstance(e, Differs) else traceback.format_exc()
            print(f'seed {seed}: {what}: {reason}', flush=True)
    sys.stdout.flush()
    os._exit(failed)


if __name__ == '__main__':
    main()
