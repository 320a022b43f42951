//go:build !(darwin || dragonfly || freebsd || linux || netbsd || openbsd)

package zeolite

const noFollow = 0
