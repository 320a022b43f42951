// Package pgtest runs a real PostgreSQL server for tests.
//
// Nothing has to be prepared: a cluster is made in a temporary directory, with
// the programs of the distribution's package, and listens on a Unix socket in
// that directory only. One cluster serves all tests of a process and goes with
// it, however it ends; each test gets a database of its own.
//
//	func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }
//
//	func TestSomething(t *testing.T) {
//		dsn := pgtest.Database(t)
//		...
//	}
//
// A test that stops or kills the server makes a cluster of its own with
// [Start]. Where PostgreSQL is missing, tests are skipped, or fail if nothing
// may be skipped (see package peers).
package pgtest
