package floor

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"

	"github.com/zeolite-go/zeolite/tests/bench/load"
)

const buffer = 256 << 10

// send sends a file for each byte that comes. net.TCPConn and net.UnixConn do
// it by sendfile.
func send(c net.Conn, dir string, size int64) error {
	name := filepath.Join(dir, fmt.Sprint("send-", size))
	if err := makeFile(name, size); err != nil {
		return err
	}
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	var one [1]byte
	for {
		if _, err := io.ReadFull(c, one[:]); err != nil {
			return err
		}
		if _, err := f.Seek(0, io.SeekStart); err != nil {
			return err
		}
		if _, err := io.Copy(c, f); err != nil {
			return err
		}
	}
}

// makeFile makes a file with the content of a blob, unless it is there.
func makeFile(name string, size int64) error {
	if _, err := os.Stat(name); err == nil {
		return nil
	}
	f, err := os.CreateTemp(filepath.Dir(name), "made-")
	if err != nil {
		return err
	}
	defer f.Close()
	for at := int64(0); at < size; {
		piece := load.BlobPiece(at, int(min(buffer, size-at)))
		if _, err := f.Write(piece); err != nil {
			return err
		}
		at += int64(len(piece))
	}
	return os.Rename(f.Name(), name)
}

// Send measures files of Size bytes that the server sends. They are compared
// as blobs are.
func Send(o load.Options) (*load.Result, error) {
	conns, err := dialAll(o, order{Do: doSend, A: uint64(o.Size)})
	if err != nil {
		return nil, err
	}
	defer closeAll(conns)
	var ops []func() (int64, error)
	for _, c := range conns {
		in := make([]byte, buffer)
		ops = append(ops, func() (int64, error) {
			if _, err := c.Write([]byte{1}); err != nil {
				return 0, err
			}
			return o.Size, compare(c, in, o.Size)
		})
	}
	return load.Repeat(o, ops, func() { closeAll(conns) })
}

func compare(c net.Conn, in []byte, size int64) error {
	for at := int64(0); at < size; {
		n, err := c.Read(in[:min(int64(len(in)), size-at)])
		if err != nil {
			return err
		}
		if !bytes.Equal(in[:n], load.BlobPiece(at, n)) {
			return errors.New("the file differs from what was sent")
		}
		at += int64(n)
	}
	return nil
}

// receive writes what comes to a file, syncs it, answers, and goes on with a
// new file. As with blobs all stay: memory and disk that are free again at once
// are cheaper than others. They are removed in the end.
func receive(c net.Conn, dir string, size int64) error {
	dir, err := os.MkdirTemp(dir, "received-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	in := make([]byte, buffer)
	for {
		if err := receiveOne(c, dir, in, size); err != nil {
			return err
		}
		if _, err := c.Write([]byte{1}); err != nil {
			return err
		}
	}
}

func receiveOne(c net.Conn, dir string, in []byte, size int64) error {
	f, err := os.CreateTemp(dir, "")
	if err != nil {
		return err
	}
	defer f.Close()
	for left := size; left > 0; {
		n, err := c.Read(in[:min(int64(len(in)), left)])
		if err != nil {
			return err
		}
		if _, err := f.Write(in[:n]); err != nil {
			return err
		}
		left -= int64(n)
	}
	return f.Sync()
}

// Receive measures files of Size bytes that the server writes and syncs.
func Receive(o load.Options) (*load.Result, error) {
	conns, err := dialAll(o, order{Do: doReceive, A: uint64(o.Size)})
	if err != nil {
		return nil, err
	}
	defer closeAll(conns)
	var ops []func() (int64, error)
	for _, c := range conns {
		ops = append(ops, func() (int64, error) {
			for at := int64(0); at < o.Size; {
				n := int(min(buffer, o.Size-at))
				if _, err := c.Write(load.BlobPiece(at, n)); err != nil {
					return 0, err
				}
				at += int64(n)
			}
			_, err := io.ReadFull(c, make([]byte, 1))
			return o.Size, err
		})
	}
	return load.Repeat(o, ops, func() { closeAll(conns) })
}
