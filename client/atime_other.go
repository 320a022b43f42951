//go:build !linux

package client

import (
	"io/fs"
	"time"
)

// accessTime returns when a file was written, where there is no other way to
// say when it was used.
func accessTime(st fs.FileInfo) time.Time { return st.ModTime() }
