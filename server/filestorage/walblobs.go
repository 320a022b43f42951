package filestorage

import (
	"bytes"
	"errors"
	"path/filepath"
)

// restore writes blobs that a log has into the directory, durably, also those that
// seem to be there: that may be so in memory only. lacked is how many were not.
func (d *blobDir) restore(blobs []walBlob) (lacked int, err error) {
	if len(blobs) == 0 {
		return 0, nil
	}
	lacked = d.lacks(blobs)
	y := syncs{dir: d}
	for _, b := range blobs {
		name, err := d.restoreOne(b)
		if err != nil {
			return 0, err
		}
		y.addDir(filepath.Dir(name))
	}
	y.start()
	return lacked, y.wait()
}

func (d *blobDir) restoreOne(b walBlob) (name string, err error) {
	tmp := d.newUploadName()
	if err = writeWhole(d.fs, tmp, 0o600, b.data); err == nil {
		name, err = d.place(tmp, b.oid, b.tid)
	}
	if err != nil {
		return "", errors.Join(err, d.fs.Remove(tmp))
	}
	return name, nil
}

// lacks counts the blobs that are not there as a log has them.
func (d *blobDir) lacks(blobs []walBlob) (n int) {
	if d == nil {
		return 0
	}
	for _, b := range blobs {
		have := make([]byte, len(b.data))
		if readWhole(d.file(b.oid, b.tid), have) != nil || !bytes.Equal(have, b.data) {
			n++
		}
	}
	return n
}

// restoreKnown restores blobs from a log that does not fit Data.fs: those of
// revisions that it has nevertheless.
func (s *Storage) restoreKnown(g *generation, blobs []walBlob) error {
	var known []walBlob
	for _, b := range blobs {
		var buf [recHdrLen + backLen]byte
		h, _, err := g.revision(b.oid, b.tid, buf[:])
		if err != nil {
			return err
		}
		if h.pos != 0 {
			known = append(known, b)
		}
	}
	_, err := s.blobs.restore(known)
	return blobError("cannot write the blobs that are in the write-ahead log", err)
}
