package pgtest

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/zeolite-go/zeolite/tests/peers"
)

// The cluster that all tests of this process share.
var shared struct {
	once    sync.Once
	cluster *Cluster
	err     error
}

var databases atomic.Int64

// Main runs the tests and removes the cluster that they shared. Without it the
// server still ends with the process, but its directory stays.
func Main(m *testing.M) int { return End(m.Run()) }

// End is the last part of Main: it removes the shared cluster, and returns the
// code to exit with if code was that of the tests.
func End(code int) int {
	if shared.cluster != nil {
		if err := shared.cluster.Remove(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = max(code, 1)
		}
	}
	return code
}

// Shared returns the cluster that all tests of this process share. Nobody may
// stop it.
func Shared(t testing.TB) *Cluster {
	t.Helper()
	shared.once.Do(func() { shared.cluster, shared.err = New(Options{}) })
	if shared.err != nil {
		missing(t, shared.err)
	}
	return shared.cluster
}

// Start returns a cluster for this test alone, which goes with it.
func Start(t testing.TB, opts Options) *Cluster {
	t.Helper()
	c, err := New(opts)
	if err != nil {
		missing(t, err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("PostgreSQL's log:\n%s", c.Log())
		}
		if err := c.Remove(); err != nil {
			t.Error(err)
		}
	})
	return c
}

// missing skips the test if PostgreSQL is not there, and fails it if it is but
// does not work.
func missing(t testing.TB, err error) {
	t.Helper()
	if _, none := programs(); none != nil {
		peers.Missing(t, "%v", err)
	}
	t.Fatal(err)
}

// Database makes an empty database in the shared cluster and returns its DSN.
// The database goes with the test, and whoever is still connected is thrown
// out then.
func Database(t testing.TB) string {
	t.Helper()
	return Shared(t).Database(t)
}

// Database makes an empty database and returns its DSN.
func (c *Cluster) Database(t testing.TB) string {
	t.Helper()
	return c.make(t, "")
}

// Copy makes a database with what is in another one, to which nobody may be
// connected, and returns its DSN.
func (c *Cluster) Copy(t testing.TB, dsn string) string {
	t.Helper()
	return c.make(t, " TEMPLATE "+databaseName(dsn))
}

func databaseName(dsn string) string { return dsn[strings.LastIndex(dsn, "=")+1:] }

func (c *Cluster) make(t testing.TB, template string) string {
	t.Helper()
	name := fmt.Sprintf("test%d", databases.Add(1))
	if _, err := c.SQL("postgres", "CREATE DATABASE "+name+template); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if c.server == nil {
			return // stopped by the test, and about to be removed
		}
		if _, err := c.SQL("postgres", "DROP DATABASE "+name+" WITH (FORCE)"); err != nil {
			t.Error(err)
		}
	})
	return c.DSN(name)
}

// Query runs SQL in the database of a DSN that Database returned, and returns
// its rows.
func (c *Cluster) Query(t testing.TB, dsn, script string) []string {
	t.Helper()
	out, err := c.SQL(databaseName(dsn), script)
	if err != nil {
		t.Fatal(err)
	}
	if out == "" {
		return nil
	}
	return strings.Split(out, "\n")
}

// Value is Query of a single value.
func (c *Cluster) Value(t testing.TB, dsn, script string) string {
	t.Helper()
	rows := c.Query(t, dsn, script)
	if len(rows) != 1 {
		t.Fatalf("%d rows, want one: %s", len(rows), script)
	}
	return rows[0]
}
