package gateway

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/zeolite-go/zeolite"
)

const (
	defaultType = "application/octet-stream"
	// forever is how long an immutable answer may be kept: a year.
	forever = 365 * 24 * time.Hour
	// maxRanges is how many ranges of a blob a request may ask for; if there
	// are more it gets the whole blob, as RFC 9110, 14.2 allows.
	maxRanges = 64
)

// wanted is what a URL names.
type wanted struct {
	storage zeolite.Storage
	oid     zeolite.OID
	tid     zeolite.TID
	// current blobs are named by the oid alone: tid is what is current now.
	current bool
}

func (v wanted) etag() string { return `"` + v.tid.String() + `"` }

// blob answers GET and HEAD.
func (h *Handler) blob(w http.ResponseWriter, r *http.Request) {
	grant, err := h.allow(r)
	if err != nil {
		h.fail(w, r, err)
		return
	}
	v, err := h.find(r)
	if err != nil {
		h.fail(w, r, err)
		return
	}
	h.describe(w.Header(), v, grant)
	if revalidates(r, v.etag()) {
		// The client has this blob, and a blob never changes: there is no
		// need to open it.
		w.WriteHeader(http.StatusNotModified)
		return
	}
	if r.Method != http.MethodHead {
		select {
		case h.streams <- struct{}{}:
			defer func() { <-h.streams }()
		default:
			w.Header().Set("Retry-After", "1")
			plain(w, http.StatusServiceUnavailable, "too many blobs are being sent")
			return
		}
	}
	blob, err := h.open(r.Context(), w, &v, grant)
	if err != nil {
		h.fail(w, r, err)
		return
	}
	h.send(w, r, v, blob)
}

// find reads the ids in the URL and looks up what is current.
func (h *Handler) find(r *http.Request) (wanted, error) {
	v := wanted{storage: h.storages[r.PathValue("storage")]}
	if v.storage == nil {
		return v, errNotFound("there is no such storage")
	}
	oid, err := parseHex(r.PathValue("oid"), 1)
	if err != nil {
		return v, errNotFound("the oid is not 1 to 16 hexadecimal digits")
	}
	v.oid = zeolite.OID(oid)
	if text := r.PathValue("tid"); text != "" {
		tid, err := parseHex(text, 16)
		if err != nil {
			return v, errNotFound("the tid is not 16 hexadecimal digits")
		}
		v.tid = zeolite.TID(tid)
		return v, nil
	}
	v.current = true
	v.tid, err = v.storage.CurrentTID(r.Context(), v.oid)
	return v, err
}

// parseHex reads at least so many and at most 16 hexadecimal digits, which may
// have 0x in front.
func parseHex(s string, least int) (uint64, error) {
	s = strings.TrimPrefix(s, "0x")
	if len(s) < least {
		return 0, strconv.ErrSyntax
	}
	if len(s) > 16 {
		return 0, strconv.ErrRange
	}
	return strconv.ParseUint(s, 16, 64)
}

// describe sets the headers that do not depend on the blob's bytes.
func (h *Handler) describe(head http.Header, v wanted, g grant) {
	head.Set("Etag", v.etag())
	head.Set("Cache-Control", h.cacheControl(v, g))
	head.Set("Content-Type", defaultType)
	head.Set("X-Content-Type-Options", "nosniff")
	if g.contentType != "" {
		head.Set("Content-Type", g.contentType)
	}
	if g.disposition != "" {
		head.Set("Content-Disposition", g.disposition)
	}
}

// cacheControl lets an immutable blob be kept for as long as the right to it
// lasts. What is current must be asked for again.
func (h *Handler) cacheControl(v wanted, g grant) string {
	scope := "public"
	if g.private {
		scope = "private"
	}
	if v.current {
		return scope + ", no-cache"
	}
	age := forever
	if !g.expires.IsZero() {
		age = max(0, min(age, g.expires.Sub(h.opt.Now())))
	}
	return fmt.Sprintf("%s, max-age=%d, immutable", scope, int64(age/time.Second))
}

// revalidates tells whether a request only asks whether the blob with this ETag
// is still the one, and it is. Anything out of the ordinary is left to
// http.ServeContent.
func revalidates(r *http.Request, etag string) bool {
	if r.Header.Get("If-Match") != "" || r.Header.Get("If-Unmodified-Since") != "" {
		return false
	}
	for _, line := range r.Header.Values("If-None-Match") {
		for candidate := range strings.SplitSeq(line, ",") {
			if strings.TrimPrefix(strings.TrimSpace(candidate), "W/") == etag {
				return true
			}
		}
	}
	return false
}

// open opens the blob. If what is current was superseded and packed meanwhile,
// it goes on with what is current then.
func (h *Handler) open(ctx context.Context, w http.ResponseWriter, v *wanted, g grant) (zeolite.Blob, error) {
	blobs, ok := v.storage.(zeolite.BlobStorage)
	if !ok {
		return nil, zeolite.ErrUnsupported
	}
	for {
		blob, err := blobs.OpenBlob(ctx, v.oid, v.tid)
		if err == nil || !v.current || !errors.As(err, new(*zeolite.NotFoundError)) {
			return blob, err
		}
		tid, again := v.storage.CurrentTID(ctx, v.oid)
		if again != nil {
			return nil, again
		}
		if tid == v.tid {
			return nil, err
		}
		v.tid = tid
		h.describe(w.Header(), *v, g)
	}
}

// send sends what the request asks for of the blob, and closes it.
func (h *Handler) send(w http.ResponseWriter, r *http.Request, v wanted, blob zeolite.Blob) {
	c := newContent(blob)
	defer func() {
		if err := c.Close(); err != nil {
			h.log.Error("cannot close a blob", "oid", v.oid, "tid", v.tid, "error", err)
		}
	}()
	// The date is one of whole seconds, in which other revisions may have
	// been current: it says nothing unless the URL names the revision.
	var modified time.Time
	if t := v.tid.Time(); !v.current && !t.After(h.opt.Now()) {
		modified = t
	}
	if strings.Count(strings.Join(r.Header.Values("Range"), ","), ",") >= maxRanges {
		r.Header.Del("Range")
	}
	if r.Method != http.MethodHead {
		h.counters.streams.Inc()
		defer h.counters.streams.Dec()
	}
	out := newPaced(w, h.opt.Stall)
	http.ServeContent(out, r, "", modified, c.seeker)
	if r.Method == http.MethodHead {
		return
	}
	failure := c.failure()
	if failure != nil && r.Context().Err() == nil {
		h.log.Error("cannot read a blob", "oid", v.oid, "tid", v.tid, "file", c.path(), "error", failure)
	}
	if length, err := strconv.ParseInt(w.Header().Get("Content-Length"), 10, 64); err == nil && out.written < length {
		// The connection must end here, or the client could take a part for
		// the whole.
		if r.Context().Err() == nil && failure == nil {
			h.log.Info("a blob was not sent to its end", "oid", v.oid, "tid", v.tid, "sent", out.written, "of", length, "error", out.err)
		}
		panic(http.ErrAbortHandler)
	}
}

// errNotFound is the text of an answer 404.
type errNotFound string

func (e errNotFound) Error() string { return string(e) }

// fail answers with the status that an error stands for.
func (h *Handler) fail(w http.ResponseWriter, r *http.Request, err error) {
	var (
		forbidden errForbidden
		bad       errBadRequest
		missing   errNotFound
		gone      *zeolite.NotFoundError
	)
	switch {
	case errors.As(err, &forbidden):
		plain(w, http.StatusForbidden, forbidden.Error())
	case errors.As(err, &bad):
		plain(w, http.StatusBadRequest, bad.Error())
	case errors.As(err, &missing):
		plain(w, http.StatusNotFound, missing.Error())
	case errors.As(err, &gone):
		plain(w, http.StatusNotFound, gone.Error())
	case errors.Is(err, zeolite.ErrUnsupported):
		plain(w, http.StatusNotFound, "the storage has no blobs")
	case r.Context().Err() != nil:
		panic(http.ErrAbortHandler) // nobody waits for an answer
	case errors.Is(err, zeolite.ErrClosed):
		w.Header().Set("Retry-After", "5")
		plain(w, http.StatusServiceUnavailable, "the storage is closed")
	default:
		h.log.Error("cannot open a blob", "path", r.URL.Path, "error", err)
		plain(w, http.StatusInternalServerError, "the storage failed")
	}
}
