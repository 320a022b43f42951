package postgres

import (
	"errors"
	"strings"
	"sync"
	"testing"

	"github.com/zeolite-go/zeolite"
	"github.com/zeolite-go/zeolite/tests/pgtest"
)

// everything lists what is in a database, by name.
const everything = `SELECT c.relname || ' ' || c.relkind::text || ' ' || coalesce(string_agg(a.attname || ':' || format_type(a.atttypid, a.atttypmod), ',' ORDER BY a.attnum), '')
	FROM pg_class c LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0
	WHERE c.relnamespace = 'public'::regnamespace GROUP BY c.oid, c.relname, c.relkind ORDER BY 1`

// A database that is not ours is left as it is, and the error says what is
// wrong.
func TestForeignDatabases(t *testing.T) {
	const transaction = `CREATE TABLE transaction (tid bigint PRIMARY KEY, packed boolean, is_empty boolean, username bytea, description bytea, extension bytea);`
	for name, test := range map[string]struct {
		setup string
		opts  Options
		says  string
	}{
		"empty and read-only": {"", Options{ReadOnly: true}, "no tables of a ZODB database"},
		"empty and not to be": {"", Options{MustExist: true}, "no tables of a ZODB database"},
		"somebody else's": {`CREATE TABLE transaction (id serial, amount numeric, tid text)`, Options{},
			"there is no zoid_seq, transaction has no column description"},
		"history-free": {`CREATE TABLE object_state (zoid bigint PRIMARY KEY, tid bigint, state_size bigint, state bytea);
			CREATE TABLE blob_chunk (zoid bigint, chunk_num bigint, tid bigint, chunk oid); CREATE SEQUENCE zoid_seq`, Options{}, "history-free"},
		"RelStorage 2": {`CREATE TABLE transaction (tid bigint PRIMARY KEY, packed boolean, empty boolean, username bytea, description bytea, extension bytea)`,
			Options{}, "RelStorage 3 or later"},
		"wrong type":            {strings.Replace(transaction, "tid bigint", "tid integer", 1), Options{}, "transaction.tid is integer instead of bigint"},
		"incomplete":            {transaction, Options{}, "there is no zoid_seq"},
		"without transaction 0": {schemaSQL + "; DELETE FROM transaction", Options{}, "transaction 0"},
		"chunked blobs": {schemaSQL + `; INSERT INTO transaction (tid, username, description) VALUES (1, '', '');
			INSERT INTO object_state VALUES (1, 1, 0, NULL, 0, NULL); INSERT INTO blob_chunk VALUES (1, 1, 0, 1), (1, 1, 1, 2)`, Options{}, "several chunks"},
	} {
		t.Run(name, func(t *testing.T) {
			dsn := pgtest.Database(t)
			c := pgtest.Shared(t)
			c.Query(t, dsn, test.setup)
			before := strings.Join(c.Query(t, dsn, everything), "\n")
			test.opts.DSN = dsn
			s, err := Open(t.Context(), test.opts)
			if err == nil {
				s.Close()
			}
			if !errors.As(err, new(*zeolite.StorageError)) || !strings.Contains(err.Error(), test.says) {
				t.Errorf("Open: %v, want an error with %q", err, test.says)
			}
			if after := strings.Join(c.Query(t, dsn, everything), "\n"); after != before {
				t.Errorf("the database was changed:\n%s\nwas:\n%s", after, before)
			}
		})
	}
}

// Servers that are started together create one set of tables.
func TestCreateTogether(t *testing.T) {
	dsn := pgtest.Database(t)
	var wg sync.WaitGroup
	for range 6 {
		wg.Go(func() {
			s, err := Open(t.Context(), Options{DSN: dsn})
			if err != nil {
				t.Error(err)
				return
			}
			s.Close()
		})
	}
	wg.Wait()
	// Opened again, nothing is created any more.
	a := newAdmin(t, dsn)
	before := a.number("SELECT max(oid::bigint) FROM pg_class")
	storage(t, Options{DSN: dsn})
	if after := a.number("SELECT max(oid::bigint) FROM pg_class"); after != before {
		t.Error("opening an existing database created something")
	}
}

// A role that may only read can serve read-only.
func TestReadOnlyRole(t *testing.T) {
	dsn := pgtest.Database(t)
	s, a := storage(t, Options{DSN: dsn}), newAdmin(t, dsn)
	tid := putBlob(t, s, 1, []byte("blob"))
	a.exec("CREATE ROLE reader LOGIN")
	t.Cleanup(func() { pgtest.Shared(t).Query(t, dsn, "DROP OWNED BY reader; DROP ROLE reader") })
	a.exec("GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader")
	reader := strings.Replace(dsn, "user=zeolite", "user=reader", 1)
	r := storage(t, Options{DSN: reader, ReadOnly: true})
	if rev, err := r.LoadBefore(t.Context(), 1, zeolite.MaxTID); err != nil || rev.TID != tid {
		t.Errorf("loaded %v, %v", rev, err)
	}
	next := put(t, s, store(t.Context(), 2, 0, "more"))
	eventually(t, "the commit is published", func() bool { return r.LastTID() == next })
	if _, err := r.CreateBlob(t.Context()); !errors.Is(err, zeolite.ErrReadOnly) {
		t.Errorf("CreateBlob: %v", err)
	}
	if err := r.Pack(t.Context(), next, zeolite.PackOptions{}); !errors.Is(err, zeolite.ErrReadOnly) {
		t.Errorf("Pack: %v", err)
	}
	if _, err := Open(t.Context(), Options{DSN: strings.Replace(pgtest.Database(t), "user=zeolite", "user=reader", 1)}); err == nil ||
		!strings.Contains(err.Error(), "privilege") {
		t.Errorf("creating tables without the privilege: %v", err)
	}
}

// What connects is checked before anything else, and passwords are not shown.
func TestBadDSN(t *testing.T) {
	for _, dsn := range []string{"postgres://u:hunter2@[", "host=/nonexistent password=hunter2 dbname=x"} {
		s, err := Open(t.Context(), Options{DSN: dsn})
		if err == nil {
			s.Close()
		}
		if !errors.As(err, new(*zeolite.StorageError)) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v", dsn, err)
		}
	}
}
