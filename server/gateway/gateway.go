package gateway

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/pprof"
	"slices"
	"sync/atomic"
	"time"

	"github.com/zeolite-go/zeolite"
)

// Options are the settings of a Handler. The zero value serves nothing.
type Options struct {
	// Blobs, Health, Metrics and Profiles switch on what is below /blobs/,
	// /livez and /readyz, /metrics, and what is below /debug/pprof/.
	Blobs, Health, Metrics, Profiles bool

	// Loopback lets programs on this machine read blobs by plain URLs. It is
	// not for a server behind a proxy, whose requests come from here too.
	Loopback bool
	// Keys check signed URLs. Without them no URL may have a query.
	Keys *Keys
	// ClientCertificates lets those read blobs by plain URLs who have shown a
	// certificate that the listener's TLS configuration verified.
	ClientCertificates bool

	// Collect, if set, is called for each request to /metrics, by several
	// goroutines perhaps, and adds numbers to its answer.
	Collect func(add func(Metric))

	// MaxStreams is how many blobs are sent at once; further requests are
	// answered 503 (256).
	MaxStreams int
	// Stall is how long a client may take for 512 KiB of a blob, or of the
	// metrics, before it is disconnected (2 minutes). For the body of a
	// request, which none needs, it has 10 seconds at most.
	Stall time.Duration
	// Logger gets what goes wrong; slog.Default by default.
	Logger *slog.Logger
	// Now is the clock that signed URLs expire by; time.Now by default.
	Now func() time.Time
}

// Handler answers HTTP requests for the blobs of storages, and for the health
// of the process. It is safe for concurrent use.
type Handler struct {
	opt      Options
	log      *slog.Logger
	storages map[string]zeolite.Storage
	names    []string
	mux      *http.ServeMux
	streams  chan struct{} // a slot for each blob being sent
	draining atomic.Bool
	counters *counters
}

// New makes a handler for storages by their names. They remain the caller's.
func New(storages map[string]zeolite.Storage, opt Options) *Handler {
	if opt.MaxStreams == 0 {
		opt.MaxStreams = 256
	}
	if opt.Stall == 0 {
		opt.Stall = 2 * time.Minute
	}
	if opt.Logger == nil {
		opt.Logger = slog.Default()
	}
	if opt.Now == nil {
		opt.Now = time.Now
	}
	h := &Handler{
		opt:      opt,
		log:      opt.Logger,
		storages: maps.Clone(storages),
		names:    slices.Sorted(maps.Keys(storages)),
		mux:      http.NewServeMux(),
		streams:  make(chan struct{}, opt.MaxStreams),
		counters: newCounters(),
	}
	if opt.Blobs {
		h.mux.HandleFunc("GET /blobs/{storage}/{oid}", h.blob)
		h.mux.HandleFunc("GET /blobs/{storage}/{oid}/{tid}", h.blob)
	}
	if opt.Health {
		h.mux.HandleFunc("GET /livez", livez)
		h.mux.HandleFunc("GET /readyz", h.readyz)
	}
	if opt.Metrics {
		h.mux.Handle("GET /metrics", h.metrics())
	}
	if opt.Profiles {
		// Not the command line: there may be a password in it.
		h.mux.Handle("/debug/pprof/", localOnly(pprof.Index))
		h.mux.Handle("/debug/pprof/profile", localOnly(pprof.Profile))
		h.mux.Handle("/debug/pprof/symbol", localOnly(pprof.Symbol))
		h.mux.Handle("/debug/pprof/trace", localOnly(pprof.Trace))
	}
	return h
}

// bodyTime bounds how long a client may take to send the body of a request.
const bodyTime = 10 * time.Second

// ServeHTTP answers a request.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	rec := newRecorder(w)
	if r.ContentLength != 0 {
		// Before it answers, net/http reads what is left of the body, and
		// would wait for it for ever, whatever the request holds meanwhile.
		// At the end of the body it takes the deadline away again. What
		// cannot have one, in a test perhaps, goes without.
		_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(min(bodyTime, h.opt.Stall)))
	}
	defer func() { h.counters.answered(r, rec) }()
	h.mux.ServeHTTP(rec, r)
}

// Drain makes /readyz say that the server is about to end.
func (h *Handler) Drain() { h.draining.Store(true) }

// livez says that the process answers.
func livez(w http.ResponseWriter, _ *http.Request) { plain(w, http.StatusOK, "ok") }

// readyTime bounds how long /readyz waits for a storage.
const readyTime = 5 * time.Second

// readyz asks every storage for the root object, and for its serial, which no
// storage has in a cache. That there is none yet is an answer, too.
func (h *Handler) readyz(w http.ResponseWriter, r *http.Request) {
	if h.draining.Load() {
		plain(w, http.StatusServiceUnavailable, "shutting down")
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), readyTime)
	defer cancel()
	for _, name := range h.names {
		_, err := h.storages[name].LoadBefore(ctx, zeolite.RootOID, zeolite.MaxTID)
		if err == nil {
			_, err = h.storages[name].CurrentTID(ctx, zeolite.RootOID)
		}
		if err != nil && !errors.As(err, new(*zeolite.NotFoundError)) && !errors.Is(err, zeolite.ErrNotYet) {
			// The cause may name machines and files: it is for the log.
			h.log.Warn("a storage is not ready", "storage", name, "error", err)
			plain(w, http.StatusServiceUnavailable, "a storage is not ready")
			return
		}
	}
	plain(w, http.StatusOK, "ok")
}

// localOnly keeps profiles, which show much of the process, to this machine
// and to holders of certificates.
func localOnly(next http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !local(r) && !certified(r) {
			plain(w, http.StatusForbidden, "profiles are for this machine only")
			return
		}
		next(w, r)
	})
}

// plain answers with a line of text that nobody keeps.
func plain(w http.ResponseWriter, code int, text string) {
	head := w.Header()
	for _, name := range []string{"Content-Length", "Content-Disposition", "Etag", "Last-Modified"} {
		head.Del(name)
	}
	head.Set("Cache-Control", "no-store")
	head.Set("Content-Type", "text/plain; charset=utf-8")
	head.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(code)
	_, _ = io.WriteString(w, text+"\n") // a client that has gone needs no answer
}
