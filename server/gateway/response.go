package gateway

import (
	"io"
	"net/http"
	"time"
)

// recorder is a ResponseWriter that remembers what was answered. It belongs to
// the goroutine of its request.
type recorder struct {
	http.ResponseWriter
	status  int
	written int64
}

func newRecorder(w http.ResponseWriter) *recorder { return &recorder{ResponseWriter: w} }

// Unwrap is for http.ResponseController.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

func (r *recorder) WriteHeader(status int) {
	if r.status == 0 && status >= 200 {
		r.status = status
	}
	r.ResponseWriter.WriteHeader(status)
}

func (r *recorder) Write(p []byte) (int, error) {
	if r.status == 0 {
		r.status = http.StatusOK
	}
	n, err := r.ResponseWriter.Write(p)
	r.written += int64(n)
	return n, err
}

// Flush is for profiles, which are sent as they are made.
func (r *recorder) Flush() { _ = http.NewResponseController(r.ResponseWriter).Flush() }

// ReadFrom keeps sendfile possible.
func (r *recorder) ReadFrom(src io.Reader) (int64, error) {
	if r.status == 0 {
		r.status = http.StatusOK
	}
	n, err := io.Copy(r.ResponseWriter, src)
	r.written += n
	return n, err
}

// pace is how many bytes a client must take in the time that Options.Stall
// gives it.
const pace = 512 << 10

// paced is a ResponseWriter whose client is given some time for each piece,
// however many there are. It belongs to the goroutine of its request.
type paced struct {
	http.ResponseWriter
	control *http.ResponseController
	stall   time.Duration
	written int64
	due     int64 // written when the time starts anew
	err     error // the first of writing
}

func newPaced(w http.ResponseWriter, stall time.Duration) *paced {
	return &paced{ResponseWriter: w, control: http.NewResponseController(w), stall: stall}
}

var _ io.ReaderFrom = (*paced)(nil)

// Unwrap is for http.ResponseController.
func (p *paced) Unwrap() http.ResponseWriter { return p.ResponseWriter }

// more gives the client time for the next piece, if it took the last.
func (p *paced) more() {
	if p.written >= p.due {
		p.due = p.written + pace
		// What cannot have a deadline, in a test perhaps, goes without.
		_ = p.control.SetWriteDeadline(time.Now().Add(p.stall))
	}
}

func (p *paced) wrote(n int64, err error) {
	p.written += n
	if p.err == nil {
		p.err = err
	}
}

func (p *paced) Write(b []byte) (int, error) {
	p.more()
	n, err := p.ResponseWriter.Write(b)
	p.wrote(int64(n), err)
	return n, err
}

// ReadFrom sends piece by piece. Each is an io.LimitedReader over the source
// itself: net sends that by sendfile if the source is a file.
func (p *paced) ReadFrom(src io.Reader) (total int64, err error) {
	left := int64(-1)
	if limited, ok := src.(*io.LimitedReader); ok {
		src, left = limited.R, limited.N
		defer func() { limited.N -= total }()
	}
	for left != 0 {
		p.more()
		piece := io.LimitedReader{R: src, N: pace}
		if left > 0 {
			piece.N = min(left, pace)
		}
		want := piece.N
		n, err := io.Copy(p.ResponseWriter, &piece)
		p.wrote(n, err)
		total += n
		if left > 0 {
			left -= n
		}
		if err != nil || n < want {
			return total, err
		}
	}
	return total, nil
}
