//go:build unix

package carry

import (
	"errors"
	"net"
	"os"
	"testing"
	"time"
)

// A wrapped is a connection that counts, or tells when it is closed.
type wrapped struct{ net.Conn }

func (w wrapped) NetConn() net.Conn { return w.Conn }

// A flow has no memory while it waits, whatever stands before its socket.
func TestAwaiterOfWrappedConnection(t *testing.T) {
	pc, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer pc.Close()
	c, err := net.Dial("udp", pc.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetReadDeadline(time.Now().Add(time.Millisecond))
	if err := awaiter(wrapped{wrapped{c}})(); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("waited for nothing: %v", err)
	}
}
