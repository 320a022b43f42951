package config

import (
	"iter"
	"slices"
)

var storageKinds = []string{
	"filestorage", "blobstorage", "mappingstorage", "demostorage", "zeoclient", "clientstorage", "serverzlibstorage",
}

func isStorage(s *section) bool { return slices.Contains(storageKinds, s.kind) }

// FileStorage is the section <filestorage>. It is a value.
type FileStorage struct {
	Path    string // the Data.fs
	BlobDir string // empty for no blobs
	Create  bool   // truncate what exists
	// ReadOnly refuses writes, and packs, too.
	ReadOnly bool
	// Quota, if not 0, is the size in bytes that the file must not exceed.
	Quota int64
	// PackGC says that pack removes unreachable objects, default true.
	PackGC bool
	// PackKeepOld says that pack keeps the file of before as .old, default
	// true.
	PackKeepOld bool
}

// BlobStorage is the section <blobstorage>: it adds blobs to another storage.
// It is a value.
type BlobStorage struct {
	BlobDir string
	Base    Storage
}

// MappingStorage is the section <mappingstorage>: a storage in memory. It is a
// value.
type MappingStorage struct {
	StorageName string // for people, default "Mapping Storage"
}

// DemoStorage is the section <demostorage>: changes are kept in one storage
// and leave the other as it is. It is a value.
type DemoStorage struct {
	StorageName string // for people, may be empty
	// Base is nil for an empty one, Changes nil for one in memory.
	Base, Changes *Storage
}

// Kind implements Spec.
func (*FileStorage) Kind() string { return "filestorage" }

// Kind implements Spec.
func (*BlobStorage) Kind() string { return "blobstorage" }

// Kind implements Spec.
func (*MappingStorage) Kind() string { return "mappingstorage" }

// Kind implements Spec.
func (*DemoStorage) Kind() string { return "demostorage" }

// storage decodes a section for which isStorage is true.
func (d *decoder) storage(s *section) Storage {
	st := Storage{Name: s.name, Pos: s.pos}
	switch s.kind {
	case "filestorage":
		st.Spec = d.fileStorage(s)
	case "blobstorage":
		st.Spec = d.blobStorage(s)
	case "mappingstorage":
		st.Spec = d.mappingStorage(s)
	case "demostorage":
		st.Spec = d.demoStorage(s)
	case "serverzlibstorage":
		st.Spec = d.serverZlibStorage(s)
	default:
		st.Spec = d.clientStorage(s)
	}
	return st
}

func (d *decoder) fileStorage(s *section) *FileStorage {
	d.subsections(s, refusedSections)
	fs := &FileStorage{PackGC: true, PackKeepOld: true}
	d.fields(s,
		field{name: "path", set: d.pathInDir(&fs.Path), required: true},
		field{name: "blob-dir", set: d.pathInDir(&fs.BlobDir)},
		field{name: "create", set: boolean(&fs.Create)},
		field{name: "read-only", set: boolean(&fs.ReadOnly)},
		// With 0 FileStorage would refuse every commit.
		field{name: "quota", set: byteSize(&fs.Quota, 1)},
		// Ignoring it would pack by rules that were not asked for: packers
		// exist that never collect garbage, for the sake of references
		// from other databases.
		field{name: "packer", refused: "it names Python code; leave it out, and set pack-gc no if that packer collected no garbage"},
		field{name: "pack-gc", set: boolean(&fs.PackGC)},
		field{name: "pack-keep-old", set: boolean(&fs.PackKeepOld)},
	)
	switch {
	case fs.Create && fs.ReadOnly:
		d.strictf(s.pos, "%s: create and read-only contradict each other", s.title())
	case fs.ReadOnly && fs.Path != "":
		d.checks = append(d.checks, check{pos: s.pos, title: s.title() + ": read-only", path: fs.Path, test: exists, strict: true})
	}
	return fs
}

func (d *decoder) blobStorage(s *section) *BlobStorage {
	bs := new(BlobStorage)
	d.fields(s, field{name: "blob-dir", set: text(&bs.BlobDir), required: true})
	bs.Base = d.within(s, func(sub *section, spec Spec) {
		// Back ends keep blobs themselves: those that can be told where.
		switch base := spec.(type) {
		case *MappingStorage:
		case *FileStorage:
			if base.BlobDir != "" {
				d.strictf(sub.pos, "%s: it and the %s around it both have a blob-dir", sub.title(), s.title())
			}
		default:
			d.strictf(sub.pos, "%s: %s goes around <filestorage> or <mappingstorage> only", sub.title(), s.title())
		}
	})
	return bs
}

// serverZlibStorage decodes the section by which zc.zlibstorage tells a server
// that clients compress records. Packing finds out by itself, so what is served
// is the storage within it.
func (d *decoder) serverZlibStorage(s *section) Spec {
	var compress bool // runzeo's server stores records as they come, too
	d.fields(s, field{name: "compress", set: boolean(&compress)})
	return d.within(s, nil).Spec
}

// within decodes the one storage within another, and checks it, if there is a check.
func (d *decoder) within(s *section, check func(sub *section, spec Spec)) (base Storage) {
	for i, sub := range d.subsections(s, refusedSections, storageKinds...) {
		st := d.storage(sub)
		if i > 0 {
			d.errorf(sub.pos, "%s: there can be one storage within %s only", sub.title(), s.title())
			continue
		}
		if base = st; check != nil {
			check(sub, st.Spec)
		}
	}
	if len(s.sections) == 0 {
		d.strictf(s.pos, "%s: the storage within it is missing", s.title())
	}
	return base
}

func (d *decoder) mappingStorage(s *section) *MappingStorage {
	d.subsections(s, refusedSections)
	ms := &MappingStorage{StorageName: "Mapping Storage"}
	d.fields(s, field{name: "name", set: text(&ms.StorageName)})
	return ms
}

func (d *decoder) demoStorage(s *section) *DemoStorage {
	ds := new(DemoStorage)
	d.fields(s, field{name: "name", set: text(&ds.StorageName)})
	for _, sub := range d.subsections(s, refusedSections, storageKinds...) {
		st := d.storage(sub)
		switch {
		case sub.name == "changes":
			ds.Changes = &st
			// It could not be told to delete what it does not have, and does
			// not tell what was undone before the vote.
			if _, remote := st.Spec.(*ClientStorage); remote {
				d.strictf(sub.pos, "%s: the changes of %s cannot be kept by another server", sub.title(), s.title())
			}
		case ds.Base == nil:
			ds.Base = &st
		default:
			d.strictf(sub.pos, "%s: %s has a base in line %d already (the storage for changes is the one named changes)",
				sub.title(), s.title(), ds.Base.Pos.Line)
		}
	}
	return ds
}

// AllStorages yields the storages to serve and those within them, outer ones
// first.
func (c *Config) AllStorages() iter.Seq[Storage] { return walk(c.Storages) }

// walk yields storages and those within them, outer ones first.
func walk(list []Storage) iter.Seq[Storage] {
	return func(yield func(Storage) bool) {
		for _, st := range list {
			if !walkOne(st, yield) {
				return
			}
		}
	}
}

func walkOne(st Storage, yield func(Storage) bool) bool {
	if !yield(st) {
		return false
	}
	switch s := st.Spec.(type) {
	case *BlobStorage:
		return walkOne(s.Base, yield)
	case *DemoStorage:
		return (s.Base == nil || walkOne(*s.Base, yield)) && (s.Changes == nil || walkOne(*s.Changes, yield))
	}
	return true
}
