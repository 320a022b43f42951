//go:build darwin || dragonfly || freebsd || linux || netbsd || openbsd

package zeolite

import "syscall"

// noFollow are flags to open what ought to be a regular file, and not wait if it is
// a pipe.
const noFollow = syscall.O_NOFOLLOW | syscall.O_NONBLOCK
