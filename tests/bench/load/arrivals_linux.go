package load

import (
	"encoding/binary"
	"io"
	"net"
	"os"
	"syscall"
	"time"
	"unsafe"
)

// arrivals reads a TCP connection and tells when what it reads arrived, by the
// kernel's time stamps. It belongs to the goroutine that reads.
type arrivals struct {
	raw syscall.RawConn
	oob [64]byte
}

// newArrivals returns nil for what is no TCP connection.
func newArrivals(nc net.Conn) (*arrivals, error) {
	tcp, ok := nc.(*net.TCPConn)
	if !ok {
		return nil, nil
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return nil, err
	}
	var failed error
	err = raw.Control(func(fd uintptr) {
		failed = os.NewSyscallError("setsockopt", syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_TIMESTAMPNS, 1))
	})
	if err == nil {
		err = failed
	}
	return &arrivals{raw: raw}, err
}

// read reads what there is, and at least a byte.
func (a *arrivals) read(b []byte) (n int, at time.Time, err error) {
	var failed error
	oobn := 0
	err = a.raw.Read(func(fd uintptr) bool {
		n, oobn, _, _, failed = syscall.Recvmsg(int(fd), b, a.oob[:], 0)
		return failed != syscall.EAGAIN && failed != syscall.EINTR
	})
	if err == nil {
		err = os.NewSyscallError("recvmsg", failed)
	}
	if err != nil {
		return 0, time.Time{}, err
	}
	if n == 0 {
		return 0, time.Time{}, io.EOF
	}
	messages, err := syscall.ParseSocketControlMessage(a.oob[:oobn])
	for _, m := range messages {
		const seconds = unsafe.Sizeof(syscall.Timespec{}.Sec)
		if m.Header.Level != syscall.SOL_SOCKET || m.Header.Type != syscall.SO_TIMESTAMPNS || len(m.Data) < int(2*seconds) {
			continue
		}
		if seconds == 4 {
			return n, time.Unix(int64(binary.NativeEndian.Uint32(m.Data)), int64(binary.NativeEndian.Uint32(m.Data[4:]))), nil
		}
		return n, time.Unix(int64(binary.NativeEndian.Uint64(m.Data)), int64(binary.NativeEndian.Uint64(m.Data[8:]))), nil
	}
	return n, time.Now(), err // it came before the kernel began to note it
}
