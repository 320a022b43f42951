"""A client of one server: does what is asked on standard input, a line of JSON
at a time, and answers each with a line of JSON."""

import json
import os
import sys
import time

import transaction
import ZEO
from BTrees.Length import Length
from persistent import Persistent
from persistent.mapping import PersistentMapping
from ZODB.blob import Blob
from ZODB.POSException import ConflictError


class Total(Persistent):
    """Numbers that are added up, whoever was faster."""

    def __init__(self):
        self.total = 0
        self.log = ()

    def add(self, n, who):
        self.total += n
        self.log += (who,)

    def _p_resolveConflict(self, old, committed, mine):
        mine["total"] += committed["total"] - old["total"]
        mine["log"] = committed["log"] + mine["log"][len(old["log"]):]
        return mine


# The pickles name this module, as every client finds it.
Total.__module__ = "client"
sys.modules["client"] = sys.modules["__main__"]


class Client:
    def __init__(self, host, port, cache):
        self.db = ZEO.DB((host, int(port)), blob_dir=cache, wait_timeout=60)
        self.manager = transaction.TransactionManager()
        self.connection = self.db.open(self.manager)

    @property
    def root(self):
        return self.connection.root()

    def fill(self, names):
        for name in names:
            self.root[name] = Total()
        self.root["length"] = Length()
        self.root["plain"] = PersistentMapping()
        self.manager.commit()

    def sync(self):
        """Begin anew; the answer is the last transaction that is known."""
        self.manager.begin()
        self.connection.sync()
        return self.db.lastTransaction().hex()

    def load(self, names):
        return [self.root[name].total for name in names]

    def logs(self, name):
        return list(self.root[name].log)

    def add(self, name, n, who):
        self.root[name].add(n, who)

    def put(self, key, value):
        self.root["plain"][key] = value

    def commit(self):
        try:
            self.manager.commit()
        except ConflictError as error:
            self.manager.abort()
            return "conflict: %s" % error
        return "ok"

    def many(self, name, count, who):
        """Adds one, so often; the answer is how often it had to try again."""
        again = 0
        done = 0
        while done < count:
            self.manager.begin()
            self.root[name].add(1, "%s-%d" % (who, done))
            self.root["length"].change(1)
            try:
                self.manager.commit()
                done += 1
            except ConflictError:
                self.manager.abort()
                again += 1
        return again

    def length(self):
        return self.root["length"]()

    def blob(self, key, size):
        self.root[key] = Blob(os.urandom(1000) * (size // 1000))
        self.manager.commit()

    def read_blob(self, key):
        with self.root[key].open() as f:
            return len(f.read())

    def wait(self, name, total):
        """Waits until an object has a value, by what others commit."""
        deadline = time.time() + 60
        while time.time() < deadline:
            self.manager.begin()
            if self.root[name].total == total:
                return True
            time.sleep(0.005)
        return False


def main():
    client = Client(*sys.argv[1:])
    for line in sys.stdin:
        name, *args = json.loads(line)
        print(json.dumps(getattr(client, name)(*args)), flush=True)
    client.db.close()


if __name__ == "__main__":
    main()
