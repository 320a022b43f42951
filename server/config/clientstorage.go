package config

import (
	"math"
	"path/filepath"
	"time"
)

// ClientStorage is the section <clientstorage> (of ZEO) or <zeoclient> (of
// ZODB): a storage that another ZEO server serves. It is a value.
type ClientStorage struct {
	Section string // "clientstorage" or "zeoclient"
	// Servers are the addresses to try, at least one.
	Servers     []Address
	Storage     string // its name at the server, default "1"
	StorageName string // for people; empty for the addresses
	ClientLabel string // for the server's log; may be empty
	// ReadOnly asks for a connection without writes; ReadOnlyFallback
	// accepts one if no server offers more. At most one is set.
	ReadOnly, ReadOnlyFallback bool

	CacheSize int64 // bytes, default 20 MiB
	// CachePath is the file of the object cache; empty for a temporary one.
	// In <zeoclient> it comes from client, var and storage.
	CachePath string
	BlobDir   string // empty for no blobs
	// SharedBlobDir says that BlobDir is the blob directory of the server.
	SharedBlobDir bool
	// BlobCacheSize, if not 0, is what the blob cache is cut down to, in
	// bytes, each time BlobCacheSizeCheck percent of it (default 10) were
	// loaded.
	BlobCacheSize      int64
	BlobCacheSizeCheck int

	// ServerSync says that sync waits for the server.
	ServerSync bool
	// WaitTimeout is how long calls wait for a connection, default 30 s.
	WaitTimeout time.Duration
	// Wait says that opening waits for a connection, default true. A server has
	// to wait in any case, and a warning says so.
	Wait bool
	SSL  *ClientSSL // nil for plain connections
}

// ClientSSL is the section <ssl> of <clientstorage>. It is a value.
type ClientSSL struct {
	Certificate string // PEM file of the client's certificate chain
	Key         string // PEM file of its key; empty if in Certificate
	// Authenticate is a PEM file or directory with the certificates of
	// servers or their issuers, and revocation lists, as in SSL; empty for
	// those the system trusts.
	Authenticate string
	// CheckHostname compares the host of the address, or ServerHostname if
	// it is not empty, with the certificate; default true.
	CheckHostname  bool
	ServerHostname string
}

// Kind implements Spec.
func (c *ClientStorage) Kind() string { return c.Section }

const reasonClient = "ZEO does not use it either"

// clientStorage decodes <clientstorage> and <zeoclient>.
func (d *decoder) clientStorage(s *section) *ClientStorage {
	c := &ClientStorage{
		Section: s.kind, Storage: "1", CacheSize: 20 << 20, BlobCacheSizeCheck: 10,
		WaitTimeout: 30 * time.Second, Wait: true,
	}
	list := []field{
		{name: "server", set: connectAddress(&c.Servers), required: true, multi: true},
		{name: "storage", set: text(&c.Storage)},
		{name: "name", set: d.idle(text(&c.StorageName), "what people are shown are the servers")},
		{name: "client-label", set: text(&c.ClientLabel)},
		{name: "read-only", set: boolean(&c.ReadOnly)},
		{name: "read-only-fallback", set: boolean(&c.ReadOnlyFallback)},
		{name: "cache-size", set: byteSize(&c.CacheSize, 0)},
		{name: "blob-dir", set: text(&c.BlobDir)},
		{name: "shared-blob-dir", set: boolean(&c.SharedBlobDir)},
		// With 0 ZEO would remove each blob again at once.
		{name: "blob-cache-size", set: byteSize(&c.BlobCacheSize, 1)},
		// ZEO fails an assertion at 100.
		{name: "blob-cache-size-check", set: integer(&c.BlobCacheSizeCheck, 0, 99)},
	}
	var client, dir string
	if s.kind == "clientstorage" {
		list = append(list,
			field{name: "cache-path", set: text(&c.CachePath)},
			field{name: "server-sync", set: boolean(&c.ServerSync)},
			field{name: "wait-timeout", set: seconds(&c.WaitTimeout, 0)})
		if ssl := d.only(d.subsections(s, refusedSections, "ssl"), "ssl"); ssl != nil {
			c.SSL = d.clientSSL(ssl)
		}
	} else {
		d.subsections(s, refusedSections)
		var unused bool
		var poll int
		list = append(list,
			field{name: "client", set: text(&client)},
			field{name: "var", set: text(&dir)},
			field{name: "wait", set: d.wait(&c.Wait)},
			// These must be well formed, but do nothing in ZEO 5 and 6.
			field{name: "min-disconnect-poll", set: d.idle(integer(&poll, 0, math.MaxInt32), reasonClient)},
			field{name: "max-disconnect-poll", set: d.idle(integer(&poll, 0, math.MaxInt32), reasonClient)},
			field{name: "drop-cache-rather-verify", set: d.idle(boolean(&unused), reasonClient)},
			field{name: "username", ignored: reasonClient},
			field{name: "password", ignored: reasonClient},
			field{name: "realm", ignored: reasonClient})
	}
	d.fields(s, list...)
	if client != "" {
		c.CachePath = filepath.Join(dir, client+"-"+c.Storage+".zec")
	}
	if c.WaitTimeout == 0 {
		c.WaitTimeout = 30 * time.Second
	}
	if c.ServerSync {
		d.warnf(s.pos, "%s: server-sync is ignored: a client's sync asks this server only", s.title())
	}
	if c.ReadOnly && c.ReadOnlyFallback {
		d.strictf(s.pos, "%s: read-only and read-only-fallback contradict each other", s.title())
	}
	return c
}

// idle is a setter for a key whose value has no effect.
func (d *decoder) idle(set setter, reason string) setter {
	return func(s string) error {
		err := set(s)
		if err == nil {
			d.warnf(d.key.pos, "%s: %s is ignored: %s", d.owner.title(), d.key.name, reason)
		}
		return err
	}
}

// wait is boolean, with a word on what has no effect.
func (d *decoder) wait(to *bool) setter {
	set := boolean(to)
	return func(s string) error {
		err := set(s)
		if err == nil && !*to {
			d.warnf(d.key.pos, "%s: wait %s is ignored: what is to be served must be known before clients come", d.owner.title(), s)
		}
		return err
	}
}

func (d *decoder) clientSSL(s *section) *ClientSSL {
	d.subsections(s, nil)
	t := &ClientSSL{CheckHostname: true}
	d.fields(s,
		field{name: "certificate", set: d.pathInDir(&t.Certificate), required: true},
		field{name: "key", set: d.pathInDir(&t.Key)},
		field{name: "password-function", refused: reasonPassword},
		field{name: "authenticate", set: d.trusted(&t.Authenticate, "server")},
		field{name: "check-hostname", set: boolean(&t.CheckHostname)},
		field{name: "server-hostname", set: text(&t.ServerHostname)},
	)
	d.checkPair(s, &t.Certificate, &t.Key)
	return t
}
