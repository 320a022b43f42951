//go:build !unix

package filestorage

const openNow, noFollow = 0, 0

func notDirectory(error) bool { return false }

func otherFileSystem(error) bool { return false }
