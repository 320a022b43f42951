// Package limits tests what zeolite promises about memory, and about loads
// while blobs stream, on the real program.
package limits

import (
	"os"
	"testing"

	"github.com/zeolite-go/zeolite/tests/peers"
)

func TestMain(m *testing.M) { os.Exit(peers.Main(m)) }
