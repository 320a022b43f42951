package zeolite

import "os"

// FileBlob is a Blob that is a file. It is used by one goroutine at a time.
type FileBlob struct {
	file *os.File
	size int64
}

// OpenFileBlob opens the file of a committed blob. Its errors are those of
// os.Open.
func OpenFileBlob(path string) (*FileBlob, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	st, err := file.Stat()
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
