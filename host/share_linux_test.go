package host

import (
	"errors"
	"net/netip"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed94491740/tsnode/packet"
)

// Sockets that share a port get each sender's datagrams in order, all by the
// same socket, and together they get all (WG-79).
func TestShare(t *testing.T) {
	for _, family := range families(t) {
		t.Run(family, func(t *testing.T) { testShare(t, family) })
	}
}

func testShare(t *testing.T, family string) {
	const sockets, senders, each = 4, 32, 20
	_, first, to := pair(t, family)
	conns := share(t, first, sockets)
	got := make(chan arrival)
	var readers sync.WaitGroup
	for i, c := range conns {
		readers.Go(func() { tell(c, i, got) })
	}
	for range senders {
		c, _, _ := pair(t, family)
		for k := range each {
			if err := c.WriteBursts(to, []packet.Burst{{Buf: []byte{byte(k)}, Size: 1, Count: 1}}); err != nil {
				t.Fatal(err)
			}
		}
	}
	checkShares(t, got, senders, each)
	for _, c := range conns {
		c.Close()
	}
	readers.Wait()
}

// share returns first and further sockets at its address.
func share(t *testing.T, first UDPConn, n int) []UDPConn {
	conns := []UDPConn{first}
	for len(conns) < n {
		c, err := first.(Sharer).Share(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		if c.LocalAddr() != first.LocalAddr() {
			t.Errorf("another socket at %v, want %v", c.LocalAddr(), first.LocalAddr())
		}
		conns = append(conns, c)
	}
	return conns
}

// An arrival is one datagram and the socket that it came by.
type arrival struct {
	socket int
	from   netip.AddrPort
	number byte
}

// tell reads a socket until it is closed.
func tell(c UDPConn, socket int, got chan<- arrival) {
	ms := messages()
	for {
		n, err := c.ReadBatch(ms)
		if err != nil {
			return
		}
		for _, m := range ms[:n] {
			for _, b := range m.Buf[:m.N] { // of one byte each
				got <- arrival{socket, m.From, b}
			}
		}
	}
}

func checkShares(t *testing.T, got <-chan arrival, senders, each int) {
	t.Helper()
	sockets, next := make(map[netip.AddrPort]int), make(map[netip.AddrPort]byte)
	used := make(map[int]bool)
	patience := time.After(10 * time.Second)
	for i := range senders * each {
		select {
		case a := <-got:
			if socket, known := sockets[a.from]; known && socket != a.socket {
				t.Fatalf("%v came by socket %d and then by %d", a.from, socket, a.socket)
			}
			if a.number != next[a.from] {
				t.Fatalf("%v: datagram %d, want %d", a.from, a.number, next[a.from])
			}
			sockets[a.from], used[a.socket] = a.socket, true
			next[a.from]++
		case <-patience:
			t.Fatalf("%d of %d datagrams arrived", i, senders*each)
		}
	}
	if len(used) < 2 {
		t.Errorf("%d senders met at one socket", senders) // by chance 4^-31
	}
}

// A shared port is as taken as any other, for who asks for it plainly.
func TestSharedPortIsTaken(t *testing.T) {
	_, first, to := pair(t, "udp4")
	share(t, first, 2)
	if c, err := (OS{}).ListenUDP(t.Context(), "udp4", to.Port()); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("listen at a shared port: %v, %v, want %v", c, err, syscall.EADDRINUSE)
	}
}

// A port that was not asked to be shared is not, although who asks would share.
func TestUnsharedPortIsTaken(t *testing.T) {
	_, first, to := pair(t, "udp4")
	c, err := listenUDP(t.Context(), "udp4", first.LocalAddr().String(), controlShared)
	if !errors.Is(err, unix.EADDRINUSE) {
		t.Errorf("a socket that shares port %d of one that does not: %v, %v, want %v", to.Port(), c, err, unix.EADDRINUSE)
	}
}

// A socket that is closed shares nothing.
func TestShareClosed(t *testing.T) {
	_, first, _ := pair(t, "udp4")
	first.Close()
	if c, err := first.(Sharer).Share(t.Context()); err == nil {
		c.Close()
		t.Error("a closed socket has shared its port")
	}
}
