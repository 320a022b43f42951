package main

import (
	"context"
	"errors"
	"net"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/wrapperspb"
	"storj.io/drpc"
	"storj.io/drpc/drpcconn"
	"storj.io/drpc/drpcmux"
	"storj.io/drpc/drpcserver"
)

// protobuf is how drpc's own generator encodes messages.
type protobuf struct{}

func (protobuf) Marshal(m drpc.Message) ([]byte, error) { return proto.Marshal(m.(proto.Message)) }

func (protobuf) Unmarshal(b []byte, m drpc.Message) error {
	return proto.Unmarshal(b, m.(proto.Message))
}

// drpcService describes the service of grpc.go.
type drpcService struct{}

func (drpcService) NumMethods() int { return 2 }

func (drpcService) Method(n int) (string, drpc.Encoding, drpc.Receiver, any, bool) {
	switch n {
	case 0:
		return pingMethod, protobuf{}, func(s any, ctx context.Context, in, _ any) (drpc.Message, error) {
			return s.(*storage).Ping(ctx, in.(*emptypb.Empty))
		}, (*storage).Ping, true
	case 1:
		return loadMethod, protobuf{}, func(s any, ctx context.Context, in, _ any) (drpc.Message, error) {
			return s.(*storage).Load(ctx, in.(*wrapperspb.BytesValue))
		}, (*storage).Load, true
	}
	return "", nil, nil, nil, false
}

func drpcServe(l net.Listener, size int) error {
	mux := drpcmux.New()
	if err := mux.Register(newStorage(size), drpcService{}); err != nil {
		return err
	}
	return drpcserver.New(mux).Serve(context.Background(), l)
}

// drpcCaller is depth connections: one of drpc's carries one call at a time.
type drpcCaller struct{ idle chan *drpcconn.Conn }

func drpcDial(address string, depth int) (caller, error) {
	c := drpcCaller{make(chan *drpcconn.Conn, depth)}
	for range depth {
		nc, err := net.Dial("tcp", address)
		if err != nil {
			return nil, err
		}
		c.idle <- drpcconn.New(nc)
	}
	return c, nil
}

func (c drpcCaller) close() (err error) {
	for len(c.idle) > 0 {
		err = errors.Join(err, (<-c.idle).Close())
	}
	return err
}

func (c drpcCaller) invoke(method string, in, out proto.Message) error {
	conn := <-c.idle
	defer func() { c.idle <- conn }()
	return conn.Invoke(context.Background(), method, protobuf{}, in, out)
}

func (c drpcCaller) ping() error { return c.invoke(pingMethod, &emptypb.Empty{}, new(emptypb.Empty)) }

func (c drpcCaller) load(oid uint64) ([]byte, error) {
	out := new(wrapperspb.BytesValue)
	err := c.invoke(loadMethod, &wrapperspb.BytesValue{Value: loadRequest(oid)}, out)
	return afterSerial(out.Value), err
}
