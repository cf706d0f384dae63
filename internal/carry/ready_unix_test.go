//go:build unix

package carry

import (
	"net"
	"testing"
)

// A connection of the kernel with nothing to read leaves no buffer behind, so that
// a silent one holds none.
func TestNothingToReadTakesNoBuffer(t *testing.T) {
	client, server := tcpPair(t)
	raw, err := client.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	r, over := new(readyReader), true
	raw.Control(func(fd uintptr) { over = r.try(fd) })
	if over || r.buf != nil {
		t.Errorf("nothing to read: over %v, with a buffer %v", over, r.buf != nil)
	}
	server.Close()
	raw.Read(r.try)
	if r.n != 0 || r.err != nil || r.buf != nil {
		t.Errorf("at the end: %d bytes, %v, with a buffer %v", r.n, r.err, r.buf != nil)
	}
}
