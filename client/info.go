package client

import (
	"slices"
	"sync"

	"github.com/zeolite-go/zeolite"
	"github.com/zeolite-go/zeolite/zrpc"
)

// infoDict is what the server says about the storage. It is safe for
// concurrent use.
type infoDict struct {
	name string // never changes

	mu   sync.Mutex
	info zeolite.Info
}

// Info implements zeolite.Storage by what the server said last; the name is
// that of the addresses. Pack is always said to work: the protocol has no way
// to tell.
func (s *Storage) Info() zeolite.Info {
	s.info.mu.Lock()
	defer s.info.mu.Unlock()
	info := s.info.info
	info.Name = s.info.name
	return info
}

// setInfo takes down the answer to get_info.
func (s *Storage) setInfo(dict *zrpc.Dict, l *link) {
	i := &s.info
	i.mu.Lock()
	defer i.mu.Unlock()
	interfaces := interfaceNames(dict)
	undo, _ := dict.Get("supportsUndo")
	iternext, _ := dict.Get("supports_record_iternext")
	i.info = zeolite.Info{
		ReadOnly:        l.readOnly,
		Undo:            undo == true,
		Pack:            true,
		Blobs:           s.blobs != nil && slices.Contains(interfaces, "IBlobStorage"),
		RecordIteration: iternext == true || slices.Contains(interfaces, "IStorageCurrentRecordIteration"),
	}
	i.mergeLocked(dict)
	l.setExtensions(dict)
}

// mergeInfo takes down what the server says in passing: length and size.
func (s *Storage) mergeInfo(v zrpc.Value) {
	if dict, ok := v.(*zrpc.Dict); ok {
		s.info.mu.Lock()
		s.info.mergeLocked(dict)
		s.info.mu.Unlock()
	}
}

func (i *infoDict) mergeLocked(dict *zrpc.Dict) {
	if n, ok := dictInt(dict, "length"); ok {
		i.info.Objects = n
	}
	if n, ok := dictInt(dict, "size"); ok {
		i.info.Size = n
	}
}

// interfaceNames returns the names in the (module, name) pairs by which a
// server declares the abilities of its storage.
func interfaceNames(dict *zrpc.Dict) []string {
	v, _ := dict.Get("interfaces")
	var names []string
	items, _ := zrpc.Sequence(v)
	for _, item := range items {
		if pair, _ := zrpc.Sequence(item); len(pair) == 2 {
			if name, ok := pair[1].(string); ok {
				names = append(names, name)
			}
		}
	}
	return names
}

func dictInt(dict *zrpc.Dict, key string) (int64, bool) {
	v, _ := dict.Get(key)
	n, ok := v.(int64)
	return n, ok
}
