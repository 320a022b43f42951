//go:build !linux

package gateway

import (
	"errors"
	"os"
)

// reopen cannot be done by descriptor here; blobs are copied.
func reopen(*os.File) (*os.File, error) { return nil, errors.ErrUnsupported }
