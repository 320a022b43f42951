package postgres

import (
	"context"
	_ "embed"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/zeolite-go/zeolite"
)

//go:embed schema.sql
var schemaSQL string

// uploadTable is the one table that we add to RelStorage's: the large objects
// of uploads that are not committed, each with the server it belongs to.
const uploadTable = `CREATE TABLE IF NOT EXISTS zeolite_upload (
    loid    oid PRIMARY KEY,
    owner   bigint NOT NULL,
    started timestamptz NOT NULL DEFAULT now()
)`

// shared is what must be there, by table, for a database to be ours to use.
var shared = map[string]map[string]string{
	"transaction": {"tid": "bigint", "packed": "boolean", "is_empty": "boolean",
		"username": "bytea", "description": "bytea", "extension": "bytea"},
	"object_state": {"zoid": "bigint", "tid": "bigint", "prev_tid": "bigint",
		"md5": "character", "state_size": "bigint", "state": "bytea"},
	"current_object": {"zoid": "bigint", "tid": "bigint"},
	"blob_chunk":     {"zoid": "bigint", "tid": "bigint", "chunk_num": "bigint", "chunk": "oid"},
	"zoid_seq":       {},
}

// names are all the relations of schema.sql.
var names = []string{"transaction", "object_state", "current_object", "blob_chunk", "zoid_seq", "current_object_state",
	"commit_row_lock", "object_ref", "object_refs_added", "pack_object", "pack_state", "pack_state_tid"}

// oldest is the first version of PostgreSQL that has what is used here.
const oldest = 120000

// Keys of advisory locks. Those of objects are their oids; RelStorage uses -1
// and -2 as we do.
const (
	commitLock = -1
	packLock   = -2
	schemaLock = -3
	oidLock    = -4
)

// prepareSchema creates the tables in a database that has none of them, and
// else checks that they are what they must be.
func (s *Storage) prepareSchema(ctx context.Context) error {
	conn, err := s.connect(ctx, appSchema)
	if err != nil {
		return &zeolite.StorageError{Message: "postgres: cannot connect to " + s.name, Err: err}
	}
	defer disconnect(conn)
	return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error { return s.checkOrCreate(ctx, tx) })
}

func (s *Storage) checkOrCreate(ctx context.Context, tx pgx.Tx) error {
	complain := func(format string, args ...any) error {
		return &zeolite.StorageError{Message: "postgres: " + s.name + ": " + fmt.Sprintf(format, args...)}
	}
	var version int
	if err := tx.QueryRow(ctx, "SELECT current_setting('server_version_num')::int").Scan(&version); err != nil {
		return err
	}
	if version < oldest {
		return complain("PostgreSQL %d or later is needed, this is %d.%d", oldest/10000, version/10000, version%10000)
	}
	if !s.opts.ReadOnly {
		// Servers that start together must not create together.
		if _, err := tx.Exec(ctx, "SELECT pg_advisory_xact_lock($1)", schemaLock); err != nil {
			return err
		}
	}
	found, err := relations(ctx, tx)
	if err != nil {
		return err
	}
	switch {
	case len(found) > 0:
		if problem := compare(found); problem != "" {
			return complain("%s; nothing was changed", problem)
		}
	case s.opts.ReadOnly:
		return complain("there are no tables of a ZODB database, and read-only none can be created")
	case s.opts.MustExist:
		return complain("there are no tables of a ZODB database")
	default:
		if _, err := tx.Exec(ctx, schemaSQL); err != nil {
			return s.refused("create the tables", err)
		}
		s.log.Info("created the tables", "storage", s.name)
	}
	var zero, chunks bool
	err = tx.QueryRow(ctx, `SELECT EXISTS (SELECT FROM transaction WHERE tid = 0),
		EXISTS (SELECT FROM blob_chunk WHERE chunk_num > 0)`).Scan(&zero, &chunks)
	switch {
	case err != nil:
		return err
	case !zero:
		return complain("the transaction 0, which RelStorage puts there, is missing; nothing was changed")
	case chunks:
		return complain("it has blobs in several chunks, as RelStorage 2 wrote them: " +
			"open it with RelStorage 3 or later once, which merges them")
	case s.opts.ReadOnly:
		return nil
	}
	var ours bool
	if err := tx.QueryRow(ctx, "SELECT to_regclass('zeolite_upload') IS NOT NULL").Scan(&ours); err != nil {
		return err
	}
	if !ours {
		if _, err := tx.Exec(ctx, uploadTable); err != nil {
			return s.refused("create the table zeolite_upload", err)
		}
	}
	return nil
}

func (s *Storage) refused(what string, err error) error {
	message := "postgres: " + s.name + ": cannot " + what
	if sqlState(err) == codeNoPrivilege {
		message += ": the role lacks the privilege (let the owner of the database open it once, or GRANT CREATE ON SCHEMA)"
	}
	return &zeolite.StorageError{Message: message, Err: err}
}

// relations returns what the database has of names, each with the types of its
// columns.
func relations(ctx context.Context, tx pgx.Tx) (map[string]map[string]string, error) {
	rows, err := tx.Query(ctx, `SELECT c.relname, coalesce(a.attname, ''), coalesce(format_type(a.atttypid, NULL), '')
		FROM pg_class c
		LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND c.relkind <> 'S'
		WHERE pg_table_is_visible(c.oid) AND c.relname = ANY($1) AND c.relkind IN ('r', 'p', 'v', 'm', 'S', 'f')`, names)
	if err != nil {
		return nil, err
	}
	found := map[string]map[string]string{}
	var table, column, kind string
	_, err = pgx.ForEachRow(rows, []any{&table, &column, &kind}, func() error {
		if found[table] == nil {
			found[table] = map[string]string{}
		}
		if column != "" {
			found[table][column] = kind
		}
		return nil
	})
	return found, err
}

// compare says in words what is wrong with a schema, and nothing if it will do.
func compare(found map[string]map[string]string) string {
	if object := found["object_state"]; object != nil && found["transaction"] == nil && found["current_object"] == nil {
		return "it is a history-free RelStorage database, and this needs a history-preserving one (zodbconvert makes one)"
	}
	if txn := found["transaction"]; txn["empty"] != "" && txn["is_empty"] == "" {
		return "its schema is that of RelStorage 2: open it with RelStorage 3 or later once, which brings it up to date"
	}
	var wrong []string
	for table, columns := range shared {
		have, ok := found[table]
		if !ok {
			wrong = append(wrong, "there is no "+table)
			continue
		}
		for column, kind := range columns {
			switch have[column] {
			case kind:
			case "":
				wrong = append(wrong, fmt.Sprintf("%s has no column %s", table, column))
			default:
				wrong = append(wrong, fmt.Sprintf("%s.%s is %s instead of %s", table, column, have[column], kind))
			}
		}
	}
	if wrong == nil {
		return ""
	}
	slices.Sort(wrong)
	return "it has some tables with the names that are needed, but they are not those of a history-preserving RelStorage: " +
		strings.Join(wrong, ", ")
}
