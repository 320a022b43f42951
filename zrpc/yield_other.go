//go:build !linux

package zrpc

import "runtime"

// yield lets others go first.
func yield() { runtime.Gosched() }
