// Package postgres tests zeolite on PostgreSQL as a whole: several servers on
// one database, with real clients, and the built program.
package postgres

import (
	"context"
	"log/slog"
	"os"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/zeolite-go/zeolite/server/postgres"
	"github.com/zeolite-go/zeolite/tests/peers"
	"github.com/zeolite-go/zeolite/tests/pgtest"
)

func TestMain(m *testing.M) { os.Exit(pgtest.End(peers.Main(m))) }

// opened opens a storage that is closed with the test.
func opened(t *testing.T, opts postgres.Options) *postgres.Storage {
	t.Helper()
	opts.Logger = slog.New(slog.DiscardHandler)
	s, err := postgres.Open(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return s
}

// connected returns a connection to a database, beside all servers.
func connected(t *testing.T, dsn string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(context.Background()) })
	return conn
}

// eventually waits for a condition.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !is(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never happened: %s", what)
		}
	}
}
