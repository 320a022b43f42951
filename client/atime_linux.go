package client

import (
	"io/fs"
	"syscall"
	"time"
)

// accessTime returns when a file was last used.
func accessTime(st fs.FileInfo) time.Time {
	if sys, ok := st.Sys().(*syscall.Stat_t); ok {
		return time.Unix(sys.Atim.Unix())
	}
	return st.ModTime()
}
