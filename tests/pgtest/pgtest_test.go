package pgtest

import (
	"os"
	"testing"
)

func TestMain(m *testing.M) { os.Exit(Main(m)) }

func TestDatabasesAreSeparate(t *testing.T) {
	c := Shared(t)
	one, two := Database(t), Database(t)
	c.Query(t, one, "CREATE TABLE here (n int); INSERT INTO here VALUES (7)")
	if got := c.Value(t, one, "SELECT n FROM here"); got != "7" {
		t.Errorf("got %q", got)
	}
	if got := c.Value(t, two, "SELECT count(*) FROM pg_tables WHERE tablename = 'here'"); got != "0" {
		t.Errorf("a table of one database is in the other")
	}
	if got := c.Value(t, one, "SELECT 'on ' || current_setting('listen_addresses')"); got != "on " {
		t.Errorf("the server listens %q", got)
	}
	if got := c.Value(t, one, "SHOW fsync"); got != "off" {
		t.Errorf("fsync is %s", got)
	}
}

// A cluster that was stopped, or crashed, goes on with what was committed.
func TestStartAgain(t *testing.T) {
	c := Start(t, Options{Sync: true})
	dsn := c.Database(t)
	c.Query(t, dsn, "CREATE TABLE kept (n int)")
	for _, end := range []func() error{c.Stop, c.Crash} {
		c.Query(t, dsn, "INSERT INTO kept VALUES (1)")
		if err := end(); err != nil {
			t.Fatal(err)
		}
		if _, err := c.SQL("postgres", "SELECT 1"); err == nil {
			t.Error("the server was ended and still answers")
		}
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
	}
	if got := c.Value(t, dsn, "SELECT count(*) FROM kept"); got != "2" {
		t.Errorf("%s rows are left", got)
	}
	if _, err := os.Stat(c.dir); err != nil {
		t.Error(err)
	}
}
