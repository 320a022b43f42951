// Package faults stands between ZEO peers and misbehaves as networks do: it
// counts the frames that pass, and cuts connections at a chosen one.
//
// It reads frames with its own few lines and not with package zrpc, so that a
// mistake there cannot hide itself here.
package faults
