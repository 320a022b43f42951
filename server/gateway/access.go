package gateway

import (
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"
)

// grant is what a request may have, and how it is to be presented.
type grant struct {
	// private blobs are not for shared caches; expires, if not zero, ends
	// the right to have the blob.
	private bool
	expires time.Time
	// contentType and disposition are headers; empty means the default.
	contentType, disposition string
}

// errBadRequest is the text of an answer 400.
type errBadRequest string

func (e errBadRequest) Error() string { return string(e) }

// allow decides whether a request may have the blob that its URL names. A URL
// with a query must be signed properly, whoever asks: else what the query says
// about type and file name could be anybody's.
func (h *Handler) allow(r *http.Request) (grant, error) {
	if r.URL.RawQuery != "" {
		if h.opt.Keys == nil {
			return grant{}, errForbidden("the URL has parameters, and there is no key to check their signature with")
		}
		// EscapedPath is the path as it was sent.
		return h.opt.Keys.verify(r.URL.EscapedPath(), r.URL.RawQuery, h.opt.Now())
	}
	switch {
	case h.opt.ClientCertificates && certified(r):
		return grant{private: true}, nil
	case h.opt.Loopback && local(r):
		return grant{}, nil
	}
	return grant{}, errForbidden("a signed URL is needed")
}

// certified tells whether the client has shown a certificate that was checked.
func certified(r *http.Request) bool { return r.TLS != nil && len(r.TLS.VerifiedChains) > 0 }

// local tells whether a request comes from a program on this machine that
// asks for itself. What a proxy passes on does not; nor does what a web page
// elsewhere makes a browser ask for, by a name that resolves to this machine.
func local(r *http.Request) bool {
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil || !peer.Addr().Unmap().IsLoopback() {
		return false
	}
	for _, name := range []string{"Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Real-Ip", "Via"} {
		if r.Header.Get(name) != "" {
			return false
		}
	}
	host := r.Host
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	if strings.EqualFold(host, "localhost") {
		return true
	}
	addr, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return err == nil && addr.Unmap().IsLoopback()
}
