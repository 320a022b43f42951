"""Print data records with their references, one JSON object a line.

Each has the record in base64, the oids in hexadecimal that
ZODB.serialize.referencesf finds, or null where it fails, and whether it is the
record of a blob. All pickle protocols that Python can write are used.
"""
import base64
import io
import json
import pickle
import random

import ZODB.blob
from ZODB.serialize import referencesf
from ZODB.utils import p64

rnd = random.Random(1)


class Ref:
    """Stands for a persistent object in a pickle."""

    def __init__(self, pid):
        self.pid = pid


class Pickler(pickle._Pickler):
    def persistent_id(self, obj):
        return obj.pid if isinstance(obj, Ref) else None


oids = [p64(rnd.randrange(1 << rnd.choice([4, 20, 62]))) for _ in range(20)]


def ref():
    oid = rnd.choice(oids)
    return Ref(rnd.choice([
        oid, (oid, dict), (oid, ('mod', 'cls')), (oid, None),
        ['w', (oid,)], ['w', (oid, 'other')], [oid],
        ['n', ('db', oid)], ['m', ('db', oid, dict)]]))


def value(depth=0):
    kinds = [ref, ref, ref, lambda: rnd.choice([
        None, True, False, 0, 300, 70000, -1, 1 << 80, 1.5, 'text', 'ü\n\\u', b'', b'bytes\x80',
        b'x' * 300, 't' * 300, dict, complex(1, 2), range(3), bytearray(b'abc'), oids[0]])]
    if depth < 4:
        def items():
            return [value(depth + 1) for _ in range(rnd.randrange(6))]
        kinds += [items, lambda: tuple(items()), lambda: {str(i): v for i, v in enumerate(items())},
                  lambda: {1, 2}, lambda: frozenset([3])]
    return rnd.choice(kinds)()


def dump(v, protocol):
    f = io.BytesIO()
    Pickler(f, protocol).dump(v)
    return f.getvalue()


def emit(record, protocol):
    try:
        refs = [oid.hex() for oid in referencesf(record)]
    except Exception:
        refs = None
    print(json.dumps({
        'protocol': protocol,
        'record': base64.b64encode(record).decode(),
        'refs': refs,
        'blob': bool(ZODB.blob.is_blob_record(record))}))


for protocol in range(1, 6):
    emit(dump(ZODB.blob.Blob, protocol) + dump(None, protocol), protocol)
    emit(dump((ZODB.blob.Blob, None), protocol) + dump(None, protocol), protocol)
    for _ in range(300):
        v = value()
        # Shared values make use of the memo.
        shared = [v, v, value()]
        emit(dump((dict, (value(),)), protocol) + dump(shared, protocol), protocol)
