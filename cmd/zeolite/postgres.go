package main

import (
	"context"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/zeolite-go/zeolite"
	"github.com/zeolite-go/zeolite/server/config"
	"github.com/zeolite-go/zeolite/server/postgres"
)

// postgresSpec stands in the configuration for --postgres, which zeo.conf has no
// section for. What every section must have it takes from one in memory.
type postgresSpec struct {
	*config.MappingStorage
	dsn string
}

// Kind implements config.Spec.
func (*postgresSpec) Kind() string { return "postgres" }

// openPostgres connects, and creates the tables if there are none. SIGINT and
// SIGTERM end the attempt.
func openPostgres(spec *postgresSpec, readOnly bool, log *slog.Logger) (zeolite.Storage, error) {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	return postgres.Open(ctx, postgres.Options{DSN: spec.dsn, ReadOnly: readOnly, Logger: log})
}
