package config

import "strings"

// Config is what a configuration file says. It has no secrets. Nobody changes
// it after it was read, except a caller that owns it (to apply flags).
type Config struct {
	// File is the name of the file, as it was opened.
	File string
	ZEO  ZEO
	// Storages are those to serve, at least one, in the order of the file.
	// Their names differ.
	Storages []Storage
	EventLog EventLog
	// Warnings tell what has no effect, in the order of the file.
	Warnings []Warning

	checks []check
}

// Storage is a storage section. It is a value.
type Storage struct {
	// Name is, for a storage to serve, what clients call it: the name of
	// the section in lower case, or "1" if it has none. Within another
	// storage it may be empty.
	Name string
	Pos  Position
	// Spec says how to open it: *FileStorage, *BlobStorage,
	// *MappingStorage, *DemoStorage or *ClientStorage.
	Spec Spec
}

// Spec is one of the kinds of storage.
type Spec interface {
	// Kind is the type of the section, "filestorage".
	Kind() string
	describe() string
}

// Sections of ZEO's and ZODB's schemas that have no place in a server's file,
// and sections that come from packages people use with ZEO.
var refusedSections = map[string]string{
	"fullstorage":    reasonBerkeley,
	"minimalstorage": reasonBerkeley,
	"zlibstorage":    "with it the server compresses and inflates records; let clients do that, by <zlibstorage> around their storage, and write <serverzlibstorage> here",
	"relstorage":     "it is Python code",
	"zodb":           "that is for applications; put the storage within it here",
	"zodb_db":        "that is for applications; put the storage within it here",
	"logger":         "there is one log; use <eventlog>",
	"environment":    "set the environment where the server is started",
}

const reasonBerkeley = "Berkeley DB storages no longer exist"

// config decodes the whole file.
func (d *decoder) config(root *section) *Config {
	c := &Config{File: root.pos.File}
	d.fields(root)
	accepted := append([]string{"zeo", "runner", "eventlog"}, storageKinds...)
	list := d.subsections(root, refusedSections, accepted...)

	if s := d.only(list, "zeo"); s != nil {
		c.ZEO = d.zeo(s)
	} else {
		d.errorf(root.pos, "section <zeo> is missing")
	}
	c.EventLog = d.eventLog(d.only(list, "eventlog"))
	if s := d.only(list, "runner"); s != nil {
		// Harmless: it tells zdaemon how to start the server.
		d.warnf(s.pos, "%s is ignored: it is for zdaemon", s.title())
	}
	c.Storages = d.storages(root, list)
	return c
}

// storages decodes the storages to serve, and names them.
func (d *decoder) storages(root *section, list []*section) []Storage {
	var out []Storage
	var unnamed, one *section
	for _, s := range list {
		if !isStorage(s) {
			continue
		}
		st := d.storage(s)
		switch s.name {
		case "":
			if unnamed != nil {
				d.errorf(s.pos, "%s: one storage at most may have no name, and the one in line %d has none (write <%s 2>)",
					s.title(), unnamed.pos.Line, s.kind)
			}
			unnamed = s
			st.Name = "1"
		case "1":
			one = s
		}
		out = append(out, st)
	}
	if unnamed != nil && one != nil {
		d.errorf(unnamed.pos, "%s: a storage without name is called 1, and so is %s of line %d",
			unnamed.title(), one.title(), one.pos.Line)
	}
	if len(out) == 0 {
		// Unless what was meant to be one has been reported.
		if len(list) == len(root.sections) {
			d.errorf(root.pos, "no storage; accepted: <%s>", strings.Join(storageKinds, ">, <"))
		}
		return nil
	}
	d.sharedFiles(out)
	return out
}

// sharedFiles reports storages that would write to the same file or blob
// directory: FileStorage's lock prevents the first, nothing the second.
func (d *decoder) sharedFiles(list []Storage) {
	used := map[string]Position{}
	claim := func(pos Position, what, path string) {
		if path == "" {
			return
		}
		id := what + " " + identity(path)
		if first, ok := used[id]; ok {
			d.strictf(pos, "%s %s is used by the storage in %v already", what, quote(path), first)
			return
		}
		used[id] = pos
	}
	for st := range walk(list) {
		switch s := st.Spec.(type) {
		case *FileStorage:
			claim(st.Pos, "path", s.Path)
			claim(st.Pos, "blob-dir", s.BlobDir)
		case *BlobStorage:
			claim(st.Pos, "blob-dir", s.BlobDir)
		}
	}
}
