// Package zrpc is ZEO's remote procedure call protocol: frames, the two
// encodings, the handshake, and the connection that calls, replies and blob
// streams share. It knows no method of ZEO; package stubs declares those.
//
// # Layers
//
// A frame is a length and a payload (frame.go). A payload is one value in one
// of two encodings, pickle or msgpack, chosen by the client in the handshake
// (codec.go, handshake.go). The value of a message is a tuple of four: message
// id, flag, method name, arguments (header.go). A [Conn] has one goroutine that
// reads messages, which another one replaces if it is away for long (relief.go),
// and one that writes them (conn.go, outbox.go). Whoever posts a reply, or pushes
// what was queued, writes it itself, as far as the socket takes it at once
// (push.go, direct_unix.go). Bodies in files go by sendfile (sendfile_linux.go).
//
// # Order
//
// Ordinary messages (calls, one-way calls, replies) leave in the order in which
// they were queued. Streams, which carry blobs, are made by a [MessageIterator]
// that is asked for its next message only when the one before was written and
// one batch of whatever ordinary messages waited has been written too. So an
// ordinary message waits for one message of a stream at most, and a stream of
// any length costs the memory of one message.
//
// Incoming calls are handed to the [Handler] one after another by the reading
// goroutine; replies complete the calls that wait for them, also in order. A
// handler that may have to wait says so (Conn.MayBlock), and is not waited for
// for long (relief.go).
//
// # Buffers
//
// A received payload lives in a pooled [Buffer] that belongs to the [Call] or
// [Reply] it came with; what decoders return aliases it. Whoever holds the Call
// or Reply releases it once, when nothing refers to the bytes any more. A
// [Message] belongs to whoever fills it until it is sent.
package zrpc
