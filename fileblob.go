package zeolite

import (
	"errors"
	"io/fs"
	"os"
)

// FileBlob is a Blob that is a file. It is used by one goroutine at a time.
type FileBlob struct {
	file *os.File
	size int64
}

// OpenFileBlob opens the file of a blob. Its errors are those of os.Open; and it is
// an error if the file is not a regular one. A symbolic link is not followed where
// that can be told the system: others who may write to the directory could show
// anything by it that the process may read.
func OpenFileBlob(path string) (*FileBlob, error) {
	file, err := os.OpenFile(path, os.O_RDONLY|noFollow, 0)
	if err != nil {
		return nil, err
	}
	st, err := file.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = &fs.PathError{Op: "open", Path: path, Err: errors.New("not a regular file")}
	}
	if err != nil {
		file.Close()
		return nil, err
	}
	return &FileBlob{file, st.Size()}, nil
}

// ReadAt implements io.ReaderAt.
func (b *FileBlob) ReadAt(p []byte, off int64) (int, error) { return b.file.ReadAt(p, off) }

// Size returns the number of bytes.
func (b *FileBlob) Size() int64 { return b.size }

// Close closes the file.
func (b *FileBlob) Close() error { return b.file.Close() }

// File returns the file, to be read by offset until Close.
func (b *FileBlob) File() *os.File { return b.file }
