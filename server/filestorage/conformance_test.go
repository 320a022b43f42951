package filestorage

import (
	"path/filepath"
	"testing"

	"github.com/zeolite-go/zeolite"
	"github.com/zeolite-go/zeolite/server/storagetest"
)

func TestConformance(t *testing.T) {
	for _, layout := range []string{"none", layoutBushy, layoutLawn} {
		t.Run(layout, func(t *testing.T) {
			storagetest.Run(t, func(t *testing.T) storagetest.Harness {
				path := filepath.Join(t.TempDir(), "Data.fs")
				opts, lacks := Options{}, []string{"blobs"}
				if layout != "none" {
					lacks = nil
					opts.BlobDir, opts.BlobLayout = path+".blobs", layout
				}
				open := func(t *testing.T, opts Options) zeolite.Storage {
					t.Helper()
					s, err := Open(path, opts)
					if err != nil {
						t.Fatal(err)
					}
					return s
				}
				return storagetest.Harness{
					Storage:        open(t, opts),
					Lacks:          lacks,
					ConcurrentTxns: true,
					Reopen:         func(t *testing.T) zeolite.Storage { return open(t, opts) },
					ReopenReadOnly: func(t *testing.T) zeolite.Storage {
						readOnly := opts
						readOnly.ReadOnly = true
						return open(t, readOnly)
					},
				}
			})
		})
	}
}
