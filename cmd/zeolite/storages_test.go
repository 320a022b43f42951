package main

import (
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/zeolite-go/zeolite/server/config"
	"github.com/zeolite-go/zeolite/tests/peers"
)

// TestDemoStorageWaitsForItsBase: a base that is not connected is not taken for
// an empty one, though <zeoclient> says not to wait.
func TestDemoStorageWaitsForItsBase(t *testing.T) {
	server, err := config.ParseServer(peers.FreeAddress(t))
	if err != nil {
		t.Fatal(err)
	}
	base := &config.Storage{Spec: &config.ClientStorage{Section: "zeoclient", Storage: "1",
		Servers: []config.Address{server}, WaitTimeout: 10 * time.Millisecond}}
	s, err := openStorage(t.Context(), &config.DemoStorage{Base: base}, howToOpen{}, slog.New(slog.DiscardHandler))
	if err == nil {
		s.Close()
	}
	if err == nil || !strings.Contains(err.Error(), "base of <demostorage>") {
		t.Errorf("it said: %v", err)
	}
}
