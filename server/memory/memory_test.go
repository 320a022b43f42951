package memory_test

import (
	"testing"

	"github.com/zeolite-go/zeolite/server/memory"
	"github.com/zeolite-go/zeolite/server/storagetest"
)

func TestConformance(t *testing.T) {
	storagetest.Run(t, func(t *testing.T) storagetest.Harness {
		return storagetest.Harness{
			Storage:        memory.New(memory.Options{BlobDir: t.TempDir()}),
			ConcurrentTxns: true,
		}
	})
}
