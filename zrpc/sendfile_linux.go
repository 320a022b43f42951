package zrpc

import (
	"io"
	"net"
	"syscall"
)

// sendfileFrom is the size from which on a body in a file is sent by sendfile:
// below, copying it costs less than the calls that are saved.
const sendfileFrom = 32 << 10

// fileSender writes messages whose body is in a file to a socket. The body goes
// from the file's cache to the socket without being copied. It is used by the
// writing goroutine.
type fileSender struct {
	nc   net.Conn
	raw  syscall.RawConn
	step func(fd uintptr) bool

	head []byte
	in   int // the file
	off  int64
	left int // of the body
	call string
	err  error // of call
}

// newFileSender returns nil if nc is not a socket of its own, as with TLS.
func newFileSender(nc net.Conn) *fileSender {
	raw := rawSocket(nc)
	if raw == nil {
		return nil
	}
	s := &fileSender{nc: nc, raw: raw}
	s.step = s.send
	return s
}

// write sends head and the body of m, which is in a file.
func (s *fileSender) write(head []byte, m *Message) error {
	s.head = head
	s.in, s.off, s.left = int(m.body.File.Fd()), m.body.Off, m.body.Len()
	s.err = nil
	err := s.raw.Write(s.step)
	inBody := len(s.head) == 0
	s.head = nil
	if err != nil || s.err == nil {
		return err
	}
	if inBody {
		// The system does not say whether the file or the socket failed. To
		// read tells.
		if err := m.body.readAt(make([]byte, 1), s.off); err != nil {
			return err
		}
	}
	return sendError(s.nc, s.call, s.err)
}

// send sends until all is sent, something fails, or the socket takes no more:
// then it answers false, and is called again when the socket does.
func (s *fileSender) send(fd uintptr) bool {
	out := int(fd)
	for {
		var err error
		switch {
		case len(s.head) > 0:
			// More follows: the kernel need not send a packet for the head.
			var n int
			s.call = "sendmsg"
			n, err = syscall.SendmsgN(out, s.head, nil, nil, syscall.MSG_MORE|syscall.MSG_NOSIGNAL)
			s.head = s.head[max(n, 0):]
		case s.left > 0:
			var n int
			s.call = "sendfile"
			n, err = syscall.Sendfile(out, s.in, &s.off, s.left)
			s.left -= max(n, 0)
			if n == 0 && err == nil {
				s.err = io.ErrUnexpectedEOF
				return true
			}
		default:
			return true
		}
		switch err {
		case nil, syscall.EINTR:
		case syscall.EAGAIN:
			return false
		default:
			s.err = err
			return true
		}
	}
}
