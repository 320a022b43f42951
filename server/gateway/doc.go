// Package gateway serves the blobs of storages over HTTP, and tells how the
// process is. It works with any zeolite.Storage.
//
// # Blobs
//
// GET and HEAD of
//
//	/blobs/STORAGE/OID
//	/blobs/STORAGE/OID/TID
//
// answer with the blob of the current revision of an object, or with that of
// the revision that a transaction wrote. STORAGE is the name under which the
// storage is served ("1" by default), OID 1 to 16 and TID exactly 16
// hexadecimal digits, both with or without 0x in front. In Python,
// obj._p_oid.hex() and obj._p_serial.hex() are what is needed.
//
// The ETag is the TID. What (OID, TID) names never changes and may be kept for
// good (Cache-Control: immutable); what OID alone names has to be asked for
// again each time (no-cache), which costs no more than an answer 304. Ranges,
// several of them too, If-Range and the other conditions are as in RFC 9110.
// Only the URL with a TID has a Last-Modified: a date of whole seconds cannot
// tell revisions apart. A blob that the client has is not opened, and a HEAD
// reads nothing of it. A request for more than 64 ranges is answered with
// the whole blob.
//
// A blob is never in memory: if it is a file, it is sent by sendfile(2), on
// Linux and without TLS. A client that stops reading is disconnected
// (Options.Stall). An error in the middle of a blob ends the connection before
// Content-Length is reached.
//
// # Who may read
//
// Whoever has a signed URL. A program on this machine may do without, if
// Options.Loopback allows it, and so may a client with a certificate, if
// Options.ClientCertificates does. Everybody else is answered 403, whatever
// there is at the URL.
//
// Loopback means: the connection comes from a loopback address, the Host is
// localhost or one too, and there is no header that proxies add. But a proxy
// need not add any: behind one, use keys, and not Loopback.
//
// # Signed URLs
//
// A signed URL has these parameters:
//
//	expires    when it ends to be valid: seconds since 1970, by the server's clock
//	type       the Content-Type; application/octet-stream if absent
//	filename   the name to save the blob under, in UTF-8; sent as attachment
//	signature  HMAC-SHA256, 64 hexadecimal digits
//
// expires and signature are required, signature is the last, and others are not
// allowed. What is signed is the path and the query of the URL, from /blobs/
// up to and without &signature=, byte by byte as they are sent. So a URL is
// valid for GET and for HEAD, under any host name, and for nothing else that
// differs. The key is a line of the key file, as text. In Python:
//
//	query = urlencode({"expires": int(time.time()) + 300, "type": "image/png", "filename": "cat.png"})
//	url = f"/blobs/1/{obj._p_oid.hex()}/{obj._p_serial.hex()}?{query}"
//	url += "&signature=" + hmac.new(key, url.encode(), "sha256").hexdigest()
//
// with key = open("http.key", "rb").readline().strip(). In Go:
//
//	target := "/blobs/1/" + oid + "?" + url.Values{"expires": {expires}, "type": {"image/png"}}.Encode()
//	mac := hmac.New(sha256.New, key)
//	mac.Write([]byte(target))
//	target += "&signature=" + hex.EncodeToString(mac.Sum(nil))
//
// or [Keys.Sign] of this package. A key has at least 32 bytes; "openssl rand
// -hex 32" makes one. Put a new key in front of the old one and reload
// ([Keys.Reload]; SIGHUP, of zeolite serve): both are accepted until the old
// line is removed. Servers that should not accept each other's URLs have
// different keys, since the host is not signed.
//
// The type and the name are signed because whoever chooses them decides what a
// browser does with the blob: one of text/html runs its scripts in the origin
// that the URL is served from.
//
// # The process
//
//	/livez          200 as long as the process answers
//	/readyz         200 if every storage answers a load; 503 if not, and from
//	                the beginning of the shutdown ([Handler.Drain])
//	/metrics        numbers, for Prometheus
//	/debug/pprof/   profiles, as in net/http/pprof, but for the command line
//
// A storage that takes no more transactions because a write failed is ready
// still: its clients go on reading, and there is no better server for them to be
// sent to. What tells is the metric zeolite_storage_read_only, of zeolite serve.
//
// Each has its switch in [Options]. The first three are for whoever reaches the
// listener. Profiles are for this machine, as above, and for holders of
// certificates.
package gateway
