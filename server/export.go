package server

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/zeolite-go/zeolite"
)

// export is a storage as it is offered to clients: what its sessions share.
// It is safe for concurrent use.
type export struct {
	name         string
	storage      zeolite.Storage
	undoer       zeolite.Undoer            // the abilities, nil if missing
	packer       zeolite.Packer            //
	blobs        zeolite.BlobStorage       //
	shared       zeolite.SharedBlobStorage //
	quick        zeolite.QuickLoader       //
	quickCommits zeolite.QuickCommitter    //
	follower     zeolite.Follower          //
	readOnly     bool
	opt          *Options
	log          *slog.Logger

	locks     commitLocks
	publisher publisher
	counters  counters

	// What goes on without a client waiting for it: packing. It ends with
	// the server.
	ctx        context.Context
	cancel     context.CancelFunc
	background sync.WaitGroup
	packing    atomic.Bool
}

func newExport(s *Server, name string, storage zeolite.Storage) *export {
	info := storage.Info()
	e := &export{
		name:     name,
		storage:  storage,
		readOnly: s.opt.ReadOnly || info.ReadOnly,
		opt:      &s.opt,
		log:      s.log.With("storage", name),
	}
	e.ctx, e.cancel = context.WithCancel(context.Background())
	// This is the one place where the optional abilities are looked up.
	if info.Undo {
		e.undoer, _ = storage.(zeolite.Undoer)
	}
	if info.Pack {
		e.packer, _ = storage.(zeolite.Packer)
	}
	if info.Blobs {
		e.blobs, _ = storage.(zeolite.BlobStorage)
		e.shared, _ = storage.(zeolite.SharedBlobStorage)
	}
	e.quick, _ = storage.(zeolite.QuickLoader)
	e.quickCommits, _ = storage.(zeolite.QuickCommitter)
	e.locks.init()
	e.counters.start = time.Now()
	e.publisher.init()
	if w, ok := storage.(zeolite.Watcher); ok {
		w.Watch(func(tid zeolite.TID, oids []zeolite.OID, visible func()) {
			e.publish(nil, tid, oids, visible, func() {})
		}, e.publisher.lost)
		e.follower, _ = storage.(zeolite.Follower)
	}
	// Only now, since what others commit from here on is published.
	e.publisher.reached(storage.LastTID())
	return e
}
