package zrpc

import (
	"errors"
	"fmt"
	"io"
	"net"
	"time"
)

// ProtocolVersion is the version of ZEO's protocol that this package speaks.
const ProtocolVersion = '5'

// maxHandshakeFrame bounds the frames of the handshake; real ones have a few
// bytes.
const maxHandshakeFrame = 256

// ErrRuok is what AcceptHandshake returns after it answered a monitor that
// asked "ruok" instead of shaking hands. The connection can be closed.
var ErrRuok = errors.New("zrpc: answered ruok")

// HandshakeError says that the peer does not speak our protocol.
type HandshakeError struct{ Reason string }

func (e *HandshakeError) Error() string { return "zrpc: handshake: " + e.Reason }

// AcceptHandshake performs the server's half of the handshake: it announces an
// encoding and the version, and returns the encoding that the client chose. If
// the peer asks "ruok", the text that ruok returns is sent back and the error
// is ErrRuok. The whole exchange must end within timeout.
func AcceptHandshake(nc net.Conn, announce Encoding, timeout time.Duration, ruok func() []byte) (Encoding, error) {
	if err := nc.SetDeadline(time.Now().Add(timeout)); err != nil {
		return 0, err
	}
	if err := writeFrame(nc, []byte{byte(announce), ProtocolVersion}); err != nil {
		return 0, err
	}
	answer, err := readFrameExactly(nc, maxHandshakeFrame)
	if err != nil {
		return 0, err
	}
	if string(answer) == "ruok" {
		if err := writeFrame(nc, ruok()); err != nil {
			return 0, err
		}
		return 0, ErrRuok
	}
	enc, err := parseVersion(answer)
	if err != nil {
		return 0, err
	}
	return enc, nc.SetDeadline(time.Time{})
}

// ClientHandshake performs the client's half: it waits for the server's
// announcement and agrees to its encoding.
func ClientHandshake(nc net.Conn, timeout time.Duration) (Encoding, error) {
	if err := nc.SetDeadline(time.Now().Add(timeout)); err != nil {
		return 0, err
	}
	announced, err := readFrameExactly(nc, maxHandshakeFrame)
	if err != nil {
		return 0, err
	}
	if len(announced) >= 2 && string(announced[1:]) > string(rune(ProtocolVersion)) {
		// A newer server speaks the older versions too.
		announced = []byte{announced[0], ProtocolVersion}
	}
	enc, err := parseVersion(announced)
	if err != nil {
		return 0, err
	}
	if err := writeFrame(nc, []byte{byte(enc), ProtocolVersion}); err != nil {
		return 0, err
	}
	return enc, nc.SetDeadline(time.Time{})
}

// Ruok asks a server how it is, over a fresh connection, and returns its
// answer: JSON, keyed by storage name.
func Ruok(nc net.Conn, timeout time.Duration) ([]byte, error) {
	if err := nc.SetDeadline(time.Now().Add(timeout)); err != nil {
		return nil, err
	}
	if _, err := readFrameExactly(nc, maxHandshakeFrame); err != nil {
		return nil, err
	}
	if err := writeFrame(nc, []byte("ruok")); err != nil {
		return nil, err
	}
	return readFrameExactly(nc, 1<<20)
}

func parseVersion(frame []byte) (Encoding, error) {
	if len(frame) != 2 || frame[1] != ProtocolVersion {
		return 0, &HandshakeError{fmt.Sprintf("version %.20q is not supported (want Z%c or M%[2]c)", frame, ProtocolVersion)}
	}
	switch enc := Encoding(frame[0]); enc {
	case Pickle, Msgpack:
		return enc, nil
	}
	return 0, &HandshakeError{fmt.Sprintf("encoding %q is not supported (want Z or M)", frame[:1])}
}

func writeFrame(w io.Writer, payload []byte) error {
	_, err := w.Write(append(AppendFrameHeader(nil, len(payload)), payload...))
	return err
}

// readFrameExactly reads one frame and not a byte more.
func readFrameExactly(r io.Reader, limit int) ([]byte, error) {
	var header [4]byte
	if _, err := io.ReadFull(r, header[:]); err != nil {
		return nil, err
	}
	n, err := ParseFrameHeader(header[:], limit)
	if err != nil {
		return nil, err
	}
	payload := make([]byte, n)
	_, err = io.ReadFull(r, payload)
	return payload, err
}
