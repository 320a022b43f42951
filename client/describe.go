package client

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"iter"
	"math"
	"time"

	"github.com/zeolite-go/zeolite"
	"github.com/zeolite-go/zeolite/stubs"
	"github.com/zeolite-go/zeolite/zrpc"
)

// History implements zeolite.Storage, of the revisions up to LastTID. The server
// may have later ones, which are still to be published here: it is asked again
// for as many more.
func (s *Storage) History(ctx context.Context, oid zeolite.OID, n int) ([]zeolite.TransactionInfo, error) {
	if err := s.started(ctx); err != nil {
		return nil, err
	}
	for later := 0; ; {
		var v zrpc.Value
		asked := int64(n) + int64(later)
		err := s.read(ctx, func(l *link) (err error) {
			v, err = l.stub.History(ctx, oid, asked)
			return err
		})
		if err != nil {
			return nil, err
		}
		entries, _ := zrpc.Sequence(v)
		last := s.LastTID()
		infos := []zeolite.TransactionInfo{}
		for _, item := range entries {
			info, err := infoFrom(item)
			if err != nil {
				return nil, fmt.Errorf("history: %w", err)
			}
			if info.TID <= last && len(infos) < n {
				infos = append(infos, *info)
			}
		}
		switch {
		case len(infos) < n && int64(len(entries)) >= asked:
			later = len(entries) - len(infos)
		case len(infos) == 0 && len(entries) > 0 && n > 0:
			return nil, &zeolite.NotFoundError{OID: oid} // as of LastTID
		default:
			return infos, nil
		}
	}
}

// undoBatch is how many entries of the undo log are asked for at once.
const undoBatch = 100

// UndoLog implements zeolite.Undoer.
func (s *Storage) UndoLog(ctx context.Context) iter.Seq2[*zeolite.TransactionInfo, error] {
	return func(yield func(*zeolite.TransactionInfo, error) bool) {
		err := s.started(ctx)
		if err == nil {
			err = s.canUndo(ctx)
		}
		if err != nil {
			yield(nil, err)
			return
		}
		older := s.LastTID() + 1
		for first := int64(0); ; first += undoBatch {
			var v zrpc.Value
			err := s.read(ctx, func(l *link) (err error) {
				v, err = l.stub.UndoLog(ctx, first, -undoBatch)
				return err
			})
			if err != nil {
				yield(nil, err)
				return
			}
			batch, _ := zrpc.Sequence(v)
			for _, item := range batch {
				info, err := infoFrom(item)
				if err != nil {
					yield(nil, fmt.Errorf("undoLog: %w", err))
					return
				}
				// Commits meanwhile move entries down into the next batch.
				if info.TID >= older {
					continue
				}
				older = info.TID
				if !yield(info, nil) {
					return
				}
			}
			if len(batch) < undoBatch {
				return
			}
		}
	}
}

// canUndo tells whether the server can undo, which is not known before the first
// connection.
func (s *Storage) canUndo(ctx context.Context) error {
	if s.Info().Undo {
		return nil
	}
	if _, err := s.connection(ctx); err != nil {
		return err
	}
	if !s.Info().Undo {
		return zeolite.ErrUnsupported
	}
	return nil
}

// infoFrom reads an entry of history or undoLog: a dict with what the server
// says and, beside it, what is in the transaction's extension.
func infoFrom(v zrpc.Value) (*zeolite.TransactionInfo, error) {
	dict, ok := v.(*zrpc.Dict)
	if !ok {
		return nil, fmt.Errorf("an entry is not a dict: %T", v)
	}
	info := &zeolite.TransactionInfo{Status: ' '}
	extension := &zrpc.Dict{}
	found := false
	for _, pair := range dict.Pairs {
		key, _ := pair.Key.(string)
		raw, _ := pair.Val.([]byte)
		switch key {
		case "tid":
			tid, err := zeolite.TIDFromBytes(raw)
			if err != nil {
				return nil, err
			}
			info.TID, found = tid, true
		case "id":
			id, err := base64.StdEncoding.DecodeString(string(raw))
			if err != nil {
				return nil, err
			}
			tid, err := zeolite.TIDFromBytes(id)
			if err != nil {
				return nil, err
			}
			info.TID, found = tid, true
		case "user_name":
			info.User = append([]byte(nil), raw...)
		case "description":
			info.Description = append([]byte(nil), raw...)
		case "size":
			info.Size, _ = pair.Val.(int64)
		case "time", "serial":
		default:
			extension.Set(pair.Key, pair.Val)
		}
	}
	if !found {
		return nil, errors.New("an entry without a tid")
	}
	var err error
	info.Extension, err = pickledExtension(extension)
	return info, err
}

// Pack implements zeolite.Packer: the server packs, and Pack waits for it. A
// pack goes on at the server when the context ends. So it does if the connection
// is lost: it is not asked for again, and if it was sent the *DisconnectedError
// says that this is not safe. Whether garbage is collected is the server's setting,
// which the protocol cannot change: a PackOptions.GC that is not nil gives
// ErrUnsupported. There is no progress.
//
// The protocol tells moments in seconds as a floating-point number, so tid is
// rounded up, by less than a microsecond. This client's object cache is
// emptied; the blob cache keeps what it has.
func (s *Storage) Pack(ctx context.Context, tid zeolite.TID, opts zeolite.PackOptions) error {
	if opts.GC != nil {
		return fmt.Errorf("packing over the network with a choice about garbage collection: %w", zeolite.ErrUnsupported)
	}
	const endOfTime = 9e10 // the year 4821: more than that servers refuse
	seconds := min(tid.UnixSeconds(), endOfTime)
	for seconds < endOfTime && tidFromSeconds(seconds) < tid {
		seconds = math.Nextafter(seconds, math.Inf(1))
	}
	l, err := s.connection(ctx)
	if err != nil {
		return err
	}
	err = s.asError(l.stub.Pack(ctx, seconds, true), false)
	s.cache.mu.Lock()
	s.cache.clearLocked(s.cache.tid)
	s.cache.mu.Unlock()
	return err
}

// tidFromSeconds is how servers understand the time to pack to.
func tidFromSeconds(seconds float64) zeolite.TID {
	whole := math.Floor(seconds)
	return zeolite.TIDFromTime(time.Unix(int64(whole), int64((seconds-whole)*1e9)))
}

// Undo ids on the wire are the tid in base64.
func undoID(tid zeolite.TID) []byte {
	return []byte(base64.StdEncoding.EncodeToString(tid.Bytes()))
}

// ServerStatus returns the counters of the server for this storage.
func (s *Storage) ServerStatus(ctx context.Context) (zrpc.Value, error) {
	var v zrpc.Value
	err := s.read(ctx, func(l *link) (err error) {
		v, err = l.stub.ServerStatus(ctx)
		return err
	})
	return v, err
}

var _ stubs.ClientStorage = (*link)(nil)
