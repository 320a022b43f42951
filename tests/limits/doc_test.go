// Package limits tests what zeolite promises about memory, and about loads
// while blobs stream, on the real program.
package limits

import (
	"os"
	"testing"

	"github.com/zeolite-go/zeolite/tests/peers"
	"github.com/zeolite-go/zeolite/tests/pgtest"
)

func TestMain(m *testing.M) { os.Exit(pgtest.End(peers.Main(m))) }
