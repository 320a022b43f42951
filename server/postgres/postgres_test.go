package postgres

import (
	"log/slog"
	"os"
	"testing"

	"github.com/zeolite-go/zeolite"
	"github.com/zeolite-go/zeolite/server/storagetest"
	"github.com/zeolite-go/zeolite/tests/pgtest"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

// opened opens a storage, which the caller closes.
func opened(t testing.TB, opts Options) *Storage {
	t.Helper()
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	s, err := Open(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// storage opens a storage that is closed with the test.
func storage(t testing.TB, opts Options) *Storage {
	t.Helper()
	s := opened(t, opts)
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return s
}

func TestConformance(t *testing.T) {
	storagetest.Run(t, func(t *testing.T) storagetest.Harness {
		dsn := pgtest.Database(t)
		reopen := func(opts Options) func(t *testing.T) zeolite.Storage {
			return func(t *testing.T) zeolite.Storage { return opened(t, opts) }
		}
		return storagetest.Harness{
			Storage:        opened(t, Options{DSN: dsn}),
			ConcurrentTxns: true,
			Reopen:         reopen(Options{DSN: dsn}),
			ReopenReadOnly: reopen(Options{DSN: dsn, ReadOnly: true}),
		}
	})
}
