package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/zeolite-go/zeolite"
	"github.com/zeolite-go/zeolite/server/config"
	"github.com/zeolite-go/zeolite/server/demostorage"
	"github.com/zeolite-go/zeolite/server/filestorage"
	"github.com/zeolite-go/zeolite/server/memory"
)

// howToOpen is what the command line says about all storages, and what was read
// for those at other servers.
type howToOpen struct {
	readOnly, noWAL bool
	certificates    *allCertificates
}

// openStorage opens what a section of the configuration describes: the one
// place that knows all back ends. ctx can end it; what has been opened does not
// depend on it.
func openStorage(ctx context.Context, spec config.Spec, how howToOpen, log *slog.Logger) (zeolite.Storage, error) {
	readOnly := how.readOnly
	switch spec := spec.(type) {
	case *config.FileStorage:
		if err := needDirectory(spec.Path); err != nil {
			return nil, &configError{err}
		}
		return filestorage.OpenContext(ctx, spec.Path, filestorage.Options{
			Create:        spec.Create,
			ReadOnly:      readOnly || spec.ReadOnly,
			BlobDir:       spec.BlobDir,
			Quota:         spec.Quota,
			PackWithoutGC: !spec.PackGC,
			PackRemoveOld: !spec.PackKeepOld,
			WithoutLog:    how.noWAL,
			Logger:        log,
		})
	case *config.MappingStorage:
		return memory.New(memory.Options{Name: spec.StorageName}), nil
	case *config.ClientStorage:
		return openClientStorage(ctx, spec, how, log)
	case *config.BlobStorage:
		return openBlobStorage(ctx, spec, how, log)
	case *config.DemoStorage:
		return openDemoStorage(ctx, spec, how, log)
	case *postgresSpec:
		return openPostgres(ctx, spec, readOnly, log)
	}
	return nil, fmt.Errorf("<%s> is understood, but this version cannot serve it", spec.Kind())
}

// openBlobStorage adds blobs to the storage inside the section. Back ends keep
// blobs themselves, so it only tells them where; the configuration was checked for
// one that can be told.
func openBlobStorage(ctx context.Context, spec *config.BlobStorage, how howToOpen, log *slog.Logger) (zeolite.Storage, error) {
	switch base := spec.Base.Spec.(type) {
	case *config.FileStorage:
		withBlobs := *base
		withBlobs.BlobDir = spec.BlobDir
		return openStorage(ctx, &withBlobs, how, log)
	case *config.MappingStorage:
		return memory.New(memory.Options{Name: base.StorageName, BlobDir: spec.BlobDir}), nil
	}
	return nil, fmt.Errorf("<blobstorage> around <%s> cannot be served", spec.Base.Spec.Kind())
}

// openDemoStorage opens both parts, and closes them again if they do not go
// together. What is missing is in memory.
func openDemoStorage(ctx context.Context, spec *config.DemoStorage, how howToOpen, log *slog.Logger) (zeolite.Storage, error) {
	part := func(st *config.Storage, name string) (zeolite.Storage, error) {
		if st == nil {
			return memory.New(memory.Options{Name: name}), nil
		}
		s, err := openStorage(ctx, st.Spec, how, log)
		if err != nil {
			return nil, fmt.Errorf("%s of <demostorage>: %w", name, err)
		}
		return s, nil
	}
	base, err := part(spec.Base, "base")
	if err != nil {
		return nil, err
	}
	changes, err := part(spec.Changes, "changes")
	if err != nil {
		return nil, errors.Join(err, base.Close())
	}
	if spec.Base != nil {
		if _, remote := spec.Base.Spec.(*config.ClientStorage); remote {
			log.Warn("the base of <demostorage> belongs to another server: nothing may be committed there meanwhile", "base", base.Info().Name)
		}
	}
	demo, err := demostorage.New(base, changes, demostorage.Options{Name: spec.StorageName})
	if err != nil {
		return nil, errors.Join(err, changes.Close(), base.Close())
	}
	return demo, nil
}
