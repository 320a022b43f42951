package memory

import "github.com/zeolite-go/zeolite"

func findReferences([]byte) ([]zeolite.OID, error) { return nil, zeolite.ErrUnsupported }
