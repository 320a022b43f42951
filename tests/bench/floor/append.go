package floor

import (
	"os"

	"github.com/zeolite-go/zeolite/tests/bench/load"
)

// Append measures records of Size bytes that are appended to a file in dir, one
// at a time, each made durable (fdatasync, where there is one).
func Append(o load.Options, dir string) (*load.Result, error) {
	f, err := os.CreateTemp(dir, "append-")
	if err != nil {
		return nil, err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	record := load.BlobPiece(0, int(o.Size))
	return load.Repeat(o, []func() (int64, error){func() (int64, error) {
		if _, err := f.Write(record); err != nil {
			return 0, err
		}
		return o.Size, datasync(f)
	}}, func() {})
}
