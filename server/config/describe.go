package config

import (
	"fmt"
	"strings"
	"time"
)

// Describe is a summary of the configuration for people, some lines of text.
// Values that are as usual are left out.
func (c *Config) Describe() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: ", c.File)
	z := &c.ZEO
	switch {
	case z.Address.Path != "":
		fmt.Fprintf(&b, "listen at Unix socket %s", z.Address.Path)
	case z.Address.Port == 0:
		fmt.Fprintf(&b, "listen at a free port of %s", orAll(z.Address.Host))
	default:
		fmt.Fprintf(&b, "listen at port %d of %s", z.Address.Port, orAll(z.Address.Host))
	}
	var words words
	words.add(z.SSL != nil, "with SSL")
	words.add(z.ReadOnly, "read-only")
	words.add(z.Msgpack, "msgpack")
	words.add(z.ClientConflictResolution, "clients resolve conflicts")
	words.add(z.TransactionTimeout != 0, "commits time out after %v", z.TransactionTimeout)
	words.add(z.InvalidationQueueSize != 100, "invalidation queue of %d", z.InvalidationQueueSize)
	words.add(z.InvalidationAge != 0, "invalidations of the last %v", z.InvalidationAge)
	words.add(z.PIDFilename != "", "process id in %s", z.PIDFilename)
	b.WriteString(words.tail())

	for _, st := range c.Storages {
		fmt.Fprintf(&b, "\n  storage %s: %s", st.Name, st.describe())
	}
	for _, l := range c.EventLog.Handlers {
		fmt.Fprintf(&b, "\n  log: %s, level %v", l.Path, max(c.EventLog.Level, l.Level))
		if l.OldFiles > 0 {
			fmt.Fprintf(&b, ", rotated, %d old files", l.OldFiles)
		}
	}
	if len(c.EventLog.Handlers) == 0 {
		b.WriteString("\n  log: none")
	}
	b.WriteByte('\n')
	return b.String()
}

// words is a list of remarks.
type words []string

func (w *words) add(ok bool, format string, args ...any) {
	if ok {
		*w = append(*w, fmt.Sprintf(format, args...))
	}
}

func (w words) tail() string {
	if len(w) == 0 {
		return ""
	}
	return ", " + strings.Join(w, ", ")
}

func orAll(host string) string {
	if host == "" {
		return "all interfaces"
	}
	return host
}

func (st *Storage) describe() string { return st.Spec.Kind() + " " + st.Spec.describe() }

func (s *FileStorage) describe() string {
	var w words
	w.add(s.BlobDir != "", "blobs in %s", s.BlobDir)
	w.add(s.Create, "created anew")
	w.add(s.ReadOnly, "read-only")
	w.add(s.Quota != 0, "quota %s", bytesText(s.Quota))
	w.add(!s.PackGC, "pack without garbage collection")
	w.add(!s.PackKeepOld, "pack keeps no old file")
	return s.Path + w.tail()
}

func (s *BlobStorage) describe() string {
	return fmt.Sprintf("with blobs in %s over %s", s.BlobDir, s.Base.describe())
}

func (s *MappingStorage) describe() string { return "in memory" }

func (s *DemoStorage) describe() string {
	base, changes := "nothing", "memory"
	if s.Base != nil {
		base = s.Base.describe()
	}
	if s.Changes != nil {
		changes = s.Changes.describe()
	}
	return fmt.Sprintf("over (%s) with changes in (%s)", base, changes)
}

func (c *ClientStorage) describe() string {
	servers := make([]string, len(c.Servers))
	for i, a := range c.Servers {
		servers[i] = a.String()
	}
	var w words
	w.add(c.Storage != "1", "storage %s", c.Storage)
	w.add(c.SSL != nil, "with SSL")
	w.add(c.ReadOnly, "read-only")
	w.add(c.ReadOnlyFallback, "read-only if it must be")
	w.add(c.CachePath != "", "cache of %s in %s", bytesText(c.CacheSize), c.CachePath)
	w.add(c.BlobDir != "" && !c.SharedBlobDir, "blob cache in %s", c.BlobDir)
	w.add(c.BlobDir != "" && c.SharedBlobDir, "shares blobs in %s", c.BlobDir)
	w.add(c.WaitTimeout != 30*time.Second, "waits %v", c.WaitTimeout)
	return "of " + strings.Join(servers, " or ") + w.tail()
}

// String is the name of the level, or its number if it has none.
func (l Level) String() string {
	for _, name := range []string{"critical", "error", "warning", "info", "blather", "debug", "trace", "all", "notset"} {
		if levels[name] == l {
			return name
		}
	}
	return fmt.Sprint(int(l))
}

// bytesText writes a size as byte-size reads it.
func bytesText(n int64) string {
	units := []string{"", "KB", "MB", "GB"}
	i := 0
	for i < len(units)-1 && n >= 1024 && n%1024 == 0 {
		n >>= 10
		i++
	}
	return fmt.Sprint(n, units[i])
}
