package server

import (
	"context"
	"errors"
	"math"
	"time"

	"github.com/zeolite-go/zeolite"
	"github.com/zeolite-go/zeolite/stubs"
)

// Pack follows stubs.StorageServer. When it is done all clients are told the
// new size.
func (s *session) Pack(ctx context.Context, seconds float64, wait bool) error {
	if s.packer == nil {
		return zeolite.ErrUnsupported
	}
	tid, err := tidFromSeconds(seconds)
	if err != nil {
		return err
	}
	if !s.packing.CompareAndSwap(false, true) {
		return &zeolite.StorageError{Class: "ZODB.FileStorage.FileStorage.FileStorageError", Message: "Already packing"}
	}
	e, log := s.export, s.log
	done := make(chan error, 1)
	// The pack is the storage's, not the client's, who may leave meanwhile.
	e.background.Go(func() {
		log.Info("pack started", "to", tid.Time())
		e.counters.packs.begin()
		err := e.packer.Pack(e.ctx, tid, zeolite.PackOptions{Progress: e.counters.packs.step})
		e.counters.packs.end(err)
		// Before anybody is told: who hears of it may pack again.
		e.packing.Store(false)
		if err != nil {
			log.Error("pack failed", "error", err)
		} else {
			log.Info("pack finished", "size", e.storage.Info().Size)
			size := e.size()
			e.publisher.each(func(client *session) {
				_ = stubs.NewClientStorageStub(client.conn).Info(client.ctx, size)
			})
		}
		done <- err
	})
	if !wait {
		return nil
	}
	select {
	case err := <-done:
		if missing := new(zeolite.NotFoundError); errors.As(err, &missing) {
			// As in ZODB, if there is no root object.
			return stubs.Exception(stubs.ClassKeyError, missing.OID.Bytes())
		}
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// tidFromSeconds converts a moment in seconds since 1970.
func tidFromSeconds(seconds float64) (zeolite.TID, error) {
	if !(seconds > -1e11 && seconds < 1e11) {
		return 0, stubs.Exception(stubs.ClassValueError, "pack: the time is out of range")
	}
	whole := math.Floor(seconds)
	return zeolite.TIDFromTime(time.Unix(int64(whole), int64((seconds-whole)*1e9))), nil
}
