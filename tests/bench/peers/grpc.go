package main

import (
	"context"
	"encoding/binary"
	"net"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// The service is described by hand, with messages that protobuf brings along:
// it is what its generator would write.

const (
	pingMethod = "/zeolite.bench.Storage/Ping"
	loadMethod = "/zeolite.bench.Storage/Load"
)

// storage answers calls.
type storage struct{ answer []byte }

// newStorage returns one whose records have size bytes; a serial is in front of
// each.
func newStorage(size int) *storage {
	return &storage{append(make([]byte, 8), record(size)...)}
}

func (s *storage) Ping(context.Context, *emptypb.Empty) (*emptypb.Empty, error) {
	return &emptypb.Empty{}, nil
}

func (s *storage) Load(context.Context, *wrapperspb.BytesValue) (*wrapperspb.BytesValue, error) {
	return &wrapperspb.BytesValue{Value: s.answer}, nil
}

// loadRequest names an object and a tid.
func loadRequest(oid uint64) []byte {
	b := binary.BigEndian.AppendUint64(nil, oid)
	return binary.BigEndian.AppendUint64(b, 1<<63-1)
}

var grpcService = grpc.ServiceDesc{
	ServiceName: "zeolite.bench.Storage",
	HandlerType: (*any)(nil),
	Methods: []grpc.MethodDesc{
		{MethodName: "Ping", Handler: func(s any, ctx context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
			in := new(emptypb.Empty)
			if err := decode(in); err != nil {
				return nil, err
			}
			return s.(*storage).Ping(ctx, in)
		}},
		{MethodName: "Load", Handler: func(s any, ctx context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
			in := new(wrapperspb.BytesValue)
			if err := decode(in); err != nil {
				return nil, err
			}
			return s.(*storage).Load(ctx, in)
		}},
	},
}

func grpcServe(l net.Listener, size int) error {
	s := grpc.NewServer()
	s.RegisterService(&grpcService, newStorage(size))
	return s.Serve(l)
}

type grpcCaller struct{ conn *grpc.ClientConn }

func grpcDial(address string, _ int) (caller, error) {
	conn, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	return grpcCaller{conn}, err
}

func (c grpcCaller) close() error { return c.conn.Close() }

func (c grpcCaller) ping() error {
	return c.conn.Invoke(context.Background(), pingMethod, &emptypb.Empty{}, new(emptypb.Empty))
}

func (c grpcCaller) load(oid uint64) ([]byte, error) {
	out := new(wrapperspb.BytesValue)
	if err := c.conn.Invoke(context.Background(), loadMethod, &wrapperspb.BytesValue{Value: loadRequest(oid)}, out); err != nil {
		return nil, err
	}
	return afterSerial(out.Value), nil
}

// afterSerial returns the record of an answer to a load.
func afterSerial(answer []byte) []byte { return answer[min(8, len(answer)):] }
