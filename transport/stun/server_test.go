package stun

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/seed94491740/tsnode/host"
	"github.com/seed94491740/tsnode/packet"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestServer asks a server over loopback; junk before the request gets no
// answer.
func TestServer(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	server, err := host.OS{}.ListenUDP(ctx, "udp4", 0)
	if err != nil {
		t.Fatal(err)
	}
	s := NewServer(server, nil)
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ctx) }()
	stop := sync.OnceFunc(func() {
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("Serve returned %v", err)
		}
	})
	defer stop()

	client, err := net.Dial("udp4", netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), server.LocalAddr().Port()).String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	client.SetDeadline(time.Now().Add(5 * time.Second))
	id := NewTxID()
	for _, b := range [][]byte{[]byte("junk"), AppendResponse(nil, id, netip.MustParseAddrPort("192.0.2.1:1")), AppendRequest(nil, id)} {
		if _, err := client.Write(b); err != nil {
			t.Fatal(err)
		}
	}
	buf := make([]byte, 1500)
	n, err := client.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	got, addr, err := ParseResponse(buf[:n])
	if err != nil || got != id || addr.String() != client.LocalAddr().String() {
		t.Errorf("answer %x %v, %v; want %x %v", got, addr, err, id, client.LocalAddr())
	}
	stop()
	st := s.Stats()
	if st.Success.Load() != 1 || st.NotSTUN.Load() != 2 || st.IPv4.Load() != 1 {
		t.Errorf("success %d, not STUN %d, IPv4 %d; want 1, 2, 1", st.Success.Load(), st.NotSTUN.Load(), st.IPv4.Load())
	}
}

// brokenUDP fails reads with each error in turn, then is closed.
type brokenUDP struct {
	host.UDPConn
	errs []error
}

func (c *brokenUDP) ReadBatch(ms []host.Message) (int, error) {
	err := c.errs[0]
	c.errs = c.errs[1:]
	if err == nil {
		ms[0].N = copy(ms[0].Buf, append(AppendRequest(nil, testID), AppendRequest(nil, testID)...))
		ms[0].Segment, ms[0].From = RequestSize, netip.MustParseAddrPort("[2001:db8::1]:9")
		return 1, nil
	}
	return 0, err
}

func (*brokenUDP) WriteBursts(netip.AddrPort, []packet.Burst) error { return errors.New("no buffer") }
func (*brokenUDP) Close() error                                     { return nil }

// TestServerErrors: failed reads and writes are counted, a failed read is
// followed by a pause, joined datagrams are taken apart, a closed socket ends
// Serve.
func TestServerErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewServer(&brokenUDP{errs: []error{errors.New("network is down"), nil, net.ErrClosed}}, nil)
		start := time.Now()
		if err := s.Serve(t.Context()); !errors.Is(err, net.ErrClosed) {
			t.Errorf("Serve returned %v", err)
		}
		if d := time.Since(start); d != readPause {
			t.Errorf("Serve took %v, want a pause of %v after the failed read", d, readPause)
		}
		if r, w := s.Stats().ReadErrors.Load(), s.Stats().WriteErrors.Load(); r != 1 || w != 2 {
			t.Errorf("%d read and %d write errors, want 1 and 2", r, w)
		}
	})
}
