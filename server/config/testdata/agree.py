"""Say what runzeo makes of configuration files.

For each file named on standard input, with values for -X behind it and tabs
between, print a line of JSON: whether runzeo
accepts the file, and what it reads from it, in the form that agree_test.go
gives its own result.
"""
import contextlib
import io
import json
import os
import sys

import ZConfig
from ZEO.runzeo import ZEOOptions


class Options(ZEOOptions):
    """runzeo's options; the log is configured but not started."""

    # Read once: it takes longer than the files. One that has %import gets a copy
    # of its own.
    schema = ZConfig.loadSchema(os.path.join(ZEOOptions.schemadir, ZEOOptions.schemafile))

    def load_logconf(self, sectname="eventlog"):
        self.config_logger = self.configroot.eventlog


def address(family_address):
    if isinstance(family_address, str):
        return family_address
    host, port = family_address
    return "%s|%d" % (host, port or 0)


def client(c):
    path = ""
    if c.client:
        path = os.path.join(c.var or "", "%s-%s.zec" % (c.client, c.storage))
    return {
        "servers": [address(s.address) for s in c.server],
        "storage": c.storage,
        "title": c.name,
        "label": c.client_label or "",
        "readonly": c.read_only,
        "fallback": c.read_only_fallback,
        "cachesize": c.cache_size,
        "cachepath": path,
        "blobdir": c.blob_dir or "",
        "shared": c.shared_blob_dir,
        "blobcache": c.blob_cache_size or 0,
        "blobcheck": 10 if c.blob_cache_size_check is None else c.blob_cache_size_check,
        "wait": c.wait,
    }


def storage(opener, name):
    c = opener.config
    kind = c.getSectionType()
    out = {"kind": kind, "name": name or ""}
    if kind == "filestorage":
        out.update(
            path=c.path, blobdir=c.blob_dir or "", create=bool(c.create),
            readonly=bool(c.read_only), quota=c.quota or 0, gc=c.pack_gc,
            keep=c.pack_keep_old)
    elif kind == "mappingstorage":
        out.update(title=c.name)
    elif kind == "blobstorage":
        out.update(blobdir=c.blob_dir)
        if c.base is not None:
            out["base"] = storage(c.base, c.base.name)
    elif kind == "demostorage":
        out.update(title=c.name or "")
        for f in c.factories:
            role = "changes" if f.name == "changes" else "base"
            out[role] = storage(f, f.name)
    elif kind == "zeoclient":
        out.update(client(c))
    return out


def eventlog(log):
    if log is None:
        return None
    handlers = []
    for h in log.handler_factories:
        s = h.section
        if s.getSectionType() == "logfile":
            handlers.append({
                "path": s.path, "level": s.level, "format": s.format,
                "dateformat": s.dateformat, "oldfiles": s.old_files,
                "maxsize": s.max_size, "when": s.when.upper(),
                "interval": s.interval or (1 if s.when else 0),
                "delay": s.delay})
    return {"level": log.level, "handlers": handlers}


def read(path, overrides):
    o = Options()
    args = ["-C", path]
    for spec in overrides:
        args += ["-X", spec]
    o.realize(args)
    msgpack = o.msgpack
    if not isinstance(msgpack, bool):
        msgpack = bool(os.environ.get("ZEO_MSGPACK"))
    return {
        "address": address(o.address),
        "readonly": bool(o.read_only),
        "queue": o.invalidation_queue_size,
        "age": o.invalidation_age or 0,
        "timeout": o.transaction_timeout or 0,
        "pid": (o.pid_file or "") if not o.read_only else "",
        "resolve": bool(o.client_conflict_resolution),
        "msgpack": msgpack,
        "ssl": o.ssl is not None,
        "storages": [storage(s, s.name) for s in o.storages],
        "eventlog": eventlog(o.config_logger),
    }


def main():
    for line in sys.stdin:
        path, *overrides = line.rstrip("\n").split("\t")
        err = io.StringIO()
        answer = {"file": path}
        try:
            with contextlib.redirect_stderr(err):
                answer["value"] = read(path, overrides)
            answer["accepted"] = True
        except SystemExit:
            answer["accepted"] = False
            answer["error"] = err.getvalue().split("\nFor help")[0]
        except Exception as e:
            answer["accepted"] = False
            answer["error"] = "%s: %s" % (type(e).__name__, e)
        print(json.dumps(answer))


main()
