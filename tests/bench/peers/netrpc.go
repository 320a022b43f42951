package main

import (
	"net"
	"net/rpc"
)

// Request and Answer are a load; they are exported because gob asks for it.
type (
	Request struct{ Names []byte } // oid and tid
	Answer  struct{ SerialAndRecord []byte }
	Empty   struct{}
)

// Storage is the service.
type Storage struct{ answer []byte }

// Ping does nothing.
func (*Storage) Ping(Empty, *Empty) error { return nil }

// Load returns a record.
func (s *Storage) Load(_ Request, a *Answer) error {
	a.SerialAndRecord = s.answer
	return nil
}

func netrpcServe(l net.Listener, size int) error {
	s := rpc.NewServer()
	if err := s.Register(&Storage{newStorage(size).answer}); err != nil {
		return err
	}
	s.Accept(l)
	return nil
}

type netrpcCaller struct{ client *rpc.Client }

func netrpcDial(address string, _ int) (caller, error) {
	client, err := rpc.Dial("tcp", address)
	return netrpcCaller{client}, err
}

func (c netrpcCaller) close() error { return c.client.Close() }

func (c netrpcCaller) ping() error { return c.client.Call("Storage.Ping", Empty{}, new(Empty)) }

func (c netrpcCaller) load(oid uint64) ([]byte, error) {
	var a Answer
	err := c.client.Call("Storage.Load", Request{loadRequest(oid)}, &a)
	return afterSerial(a.SerialAndRecord), err
}
