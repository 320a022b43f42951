// Package serving has a server in the process of a test.
package serving

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"testing"
	"time"

	"github.com/zeolite-go/zeolite"
	"github.com/zeolite-go/zeolite/server"
)

// Start serves a storage as "1" until the test ends, and returns the server and
// its address. Its caller closes the storage, in a cleanup that was registered
// before.
func Start(t testing.TB, storage zeolite.Storage) (*server.Server, string) {
	t.Helper()
	srv := server.New(server.Options{Logger: slog.New(slog.DiscardHandler)})
	if err := srv.AddStorage("1", storage); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- srv.Serve(l) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := srv.Shutdown(ctx); err != nil {
			t.Errorf("Shutdown: %v", err)
		}
		if err := <-done; !errors.Is(err, server.ErrServerClosed) {
			t.Errorf("Serve: %v", err)
		}
	})
	return srv, l.Addr().String()
}
