package config

import (
	"fmt"
	"path/filepath"
	"time"
)

// ZEO is the section <zeo>: the server, apart from its storages. It is a value.
type ZEO struct {
	Address  Address
	ReadOnly bool // refuse writes, but not packs, whatever the storages allow
	// InvalidationQueueSize is the number of last transactions whose
	// invalidations clients that come back are told in any case, default
	// 100. It only counts beside InvalidationAge.
	InvalidationQueueSize int
	// InvalidationAge, if not 0, is how old the last transaction that a
	// client has seen may be for it to be told of more. Without it the
	// client is told of all, where ZEO tells of the queue alone.
	InvalidationAge time.Duration
	// TransactionTimeout, if not 0, is how long a client may hold the
	// commit lock before it is disconnected.
	TransactionTimeout time.Duration
	// PIDFilename is the file to write the process id to; empty for none.
	// It defaults to $INSTANCE_HOME/var/ZEO.pid if INSTANCE_HOME is set,
	// and is empty if the server is read-only.
	PIDFilename string
	// ClientConflictResolution says that clients resolve conflicts; here
	// they always do.
	ClientConflictResolution bool
	// Msgpack says to announce the msgpack encoding. It defaults to whether
	// the environment has a ZEO_MSGPACK that is not empty.
	Msgpack bool
	SSL     *SSL // nil for plain connections
}

// SSL is the section <ssl> of <zeo>. Clients must show a certificate. It is a
// value.
type SSL struct {
	Certificate string // PEM file of the server's certificate chain
	Key         string // PEM file of its key; empty if in Certificate
	// Authenticate is a PEM file with the certificates, or their issuers',
	// that clients may show; or a directory of such files, whose names are
	// those that "openssl rehash" gives. If there are revocation lists
	// (CRLs), too, each issuer of a client must have one that is in force.
	Authenticate string
}

// dynamic as authenticate names no file: nobody is trusted, until a Python
// program that runs the server in itself adds certificates. A runzeo by itself
// refuses every client then.
const dynamic = "DYNAMIC"

const reasonPassword = "it names a Python function; use a key file without a password"

// zeo decodes <zeo>. All of its keys are honoured but client-conflict-resolution:
// conflicts are always resolved by clients.
func (d *decoder) zeo(s *section) ZEO {
	z := ZEO{InvalidationQueueSize: 100}
	if v, _ := d.loader.lookupEnv("ZEO_MSGPACK"); v != "" {
		z.Msgpack = true
	}
	d.fields(s,
		field{name: "address", set: d.listenAddress(&z.Address), required: true},
		field{name: "read-only", set: boolean(&z.ReadOnly)},
		// Some ZEO servers fail at sizes below 1; 0 here means no queue.
		field{name: "invalidation-queue-size", set: integer(&z.InvalidationQueueSize, 0, 1<<24)},
		field{name: "invalidation-age", set: floatSeconds(&z.InvalidationAge)},
		// With 0 ZEO would disconnect every client that commits.
		field{name: "transaction-timeout", set: seconds(&z.TransactionTimeout, 1)},
		field{name: "pid-filename", set: d.pathInDir(&z.PIDFilename)},
		field{name: "client-conflict-resolution", set: boolean(&z.ClientConflictResolution)},
		field{name: "msgpack", set: boolean(&z.Msgpack)},
	)
	if home, _ := d.loader.lookupEnv("INSTANCE_HOME"); home != "" && z.PIDFilename == "" {
		z.PIDFilename = filepath.Join(home, "var", "ZEO.pid")
	}
	if z.ReadOnly {
		z.PIDFilename = ""
	}
	if ssl := d.only(d.subsections(s, nil, "ssl"), "ssl"); ssl != nil {
		z.SSL = d.ssl(ssl)
	}
	return z
}

// listenAddress is bindAddress with a word on what may surprise.
func (d *decoder) listenAddress(to *Address) setter {
	set := bindAddress(to)
	return func(s string) error {
		err := set(s)
		switch {
		case err != nil:
		case to.Path != "":
			d.check(true, inExistingDir, to.Path)
			d.checks[len(d.checks)-1].listening = true
		case to.Port == 0:
			d.warnf(d.key.pos, "%s: address %s has no port: the server will listen at any free one", d.owner.title(), quote(s))
		}
		return err
	}
}

// ssl decodes <ssl> of <zeo>.
func (d *decoder) ssl(s *section) *SSL {
	d.subsections(s, nil)
	t := new(SSL)
	d.fields(s,
		field{name: "certificate", set: d.pathInDir(&t.Certificate), required: true},
		field{name: "key", set: d.pathInDir(&t.Key)},
		// Ignoring it would fail later, at the encrypted key.
		field{name: "password-function", refused: reasonPassword},
		field{name: "authenticate", set: d.trusted(&t.Authenticate, "client"), required: true},
	)
	d.checkPair(s, &t.Certificate, &t.Key)
	return t
}

// trusted is a file or a directory with the certificates of peers.
func (d *decoder) trusted(to *string, peer string) setter {
	return func(s string) error {
		*to = s
		switch s {
		case dynamic:
			return strictError(fmt.Sprintf("it trusts no %s at all, unless a Python program adds certificates;"+
				" name a file or a directory with the certificates of %[1]ss, or of their issuers", peer))
		case "":
		default:
			d.check(false, exists, s)
		}
		return nil
	}
}
