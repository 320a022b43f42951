package main

import (
	"fmt"
	"log/slog"

	"github.com/zeolite-go/zeolite"
	"github.com/zeolite-go/zeolite/server/config"
	"github.com/zeolite-go/zeolite/server/filestorage"
	"github.com/zeolite-go/zeolite/server/memory"
)

// openStorage opens what a section of the configuration describes: the one
// place that knows all back ends.
func openStorage(spec config.Spec, readOnly bool, log *slog.Logger) (zeolite.Storage, error) {
	switch spec := spec.(type) {
	case *config.FileStorage:
		return filestorage.Open(spec.Path, filestorage.Options{
			Create:        spec.Create,
			ReadOnly:      readOnly || spec.ReadOnly,
			BlobDir:       spec.BlobDir,
			Quota:         spec.Quota,
			PackWithoutGC: !spec.PackGC,
			PackRemoveOld: !spec.PackKeepOld,
			Logger:        log,
		})
	case *config.MappingStorage:
		return memory.New(memory.Options{Name: spec.StorageName}), nil
	case *config.ClientStorage:
		return openClientStorage(spec, readOnly, log)
	case *config.BlobStorage:
		return openBlobStorage(spec, readOnly, log)
	}
	return nil, fmt.Errorf("<%s> is understood, but this version cannot serve it", spec.Kind())
}

// openBlobStorage adds blobs to the storage inside the section. Back ends keep
// blobs themselves, so it only tells them where.
func openBlobStorage(spec *config.BlobStorage, readOnly bool, log *slog.Logger) (zeolite.Storage, error) {
	switch base := spec.Base.Spec.(type) {
	case *config.FileStorage:
		if base.BlobDir != "" {
			return nil, fmt.Errorf("<blobstorage> and the <filestorage> in it both have a blob-dir")
		}
		withBlobs := *base
		withBlobs.BlobDir = spec.BlobDir
		return openStorage(&withBlobs, readOnly, log)
	case *config.MappingStorage:
		return memory.New(memory.Options{Name: base.StorageName, BlobDir: spec.BlobDir}), nil
	}
	return nil, fmt.Errorf("<blobstorage> goes around <filestorage> or <mappingstorage>, not <%s>", spec.Base.Spec.Kind())
}
