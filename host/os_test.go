package host

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/seed94491740/tsnode/packet"
)

// pair returns two loopback sockets of one family and the address of the
// second.
func pair(t testing.TB, family string) (a, b UDPConn, to netip.AddrPort) {
	t.Helper()
	var conns [2]UDPConn
	for i := range conns {
		c, err := OS{}.ListenUDP(context.Background(), family, 0)
		if err != nil {
			t.Fatalf("listen %s: %v", family, err)
		}
		t.Cleanup(func() { c.Close() })
		conns[i] = c
	}
	loopback := netip.AddrFrom4([4]byte{127, 0, 0, 1})
	if family == "udp6" {
		loopback = netip.IPv6Loopback()
	}
	return conns[0], conns[1], netip.AddrPortFrom(loopback, conns[1].LocalAddr().Port())
}

func messages() []Message {
	ms := make([]Message, 8)
	for i := range ms {
		ms[i].Buf = make([]byte, 65535)
	}
	return ms
}

// burst returns count datagrams of size bytes, the last of them last bytes,
// each filled with its number and preceded by room bytes.
func burst(room, size, count, last int) packet.Burst {
	b := packet.Burst{Room: room, Size: size, Count: count}
	for i := range count {
		n := size
		if i == count-1 {
			n = last
		}
		b.Buf = append(b.Buf, bytes.Repeat([]byte{byte(i + 1)}, room+n)...)
	}
	return b
}

// receive reads until n datagrams have come and returns them.
func receive(t *testing.T, c UDPConn, n int) (got [][]byte, from netip.AddrPort) {
	t.Helper()
	ms := messages()
	timer := time.AfterFunc(5*time.Second, func() { c.Close() })
	defer timer.Stop()
	for len(got) < n {
		k, err := c.ReadBatch(ms)
		if err != nil {
			t.Fatalf("read after %d of %d datagrams: %v", len(got), n, err)
		}
		for _, m := range ms[:k] {
			from = m.From
			for b := m.Buf[:m.N]; len(b) > 0; {
				d := b[:min(max(m.Segment, 1), len(b))]
				b = b[len(d):]
				got = append(got, bytes.Clone(d))
			}
		}
	}
	return got, from
}

// families returns the address families this machine has on its loopback. IPv4
// is required; without IPv6 the tests of udp6 have nothing to send to.
func families(t testing.TB) []string {
	t.Helper()
	l, err := net.Listen("tcp6", "[::1]:0")
	if err != nil {
		t.Logf("IPv4 only: %v", err)
		return []string{"udp4"}
	}
	l.Close()
	return []string{"udp4", "udp6"}
}

// checkArrival fails unless c receives the datagrams of bursts in order.
func checkArrival(t *testing.T, c UDPConn, bursts []packet.Burst) (from netip.AddrPort) {
	t.Helper()
	n := 0
	for _, b := range bursts {
		n += b.Count
	}
	got, from := receive(t, c, n)
	i := 0
	for _, want := range bursts {
		stride := want.Room + want.Size
		for k := range want.Count {
			w := want.Buf[k*stride : min((k+1)*stride, len(want.Buf))]
			if !bytes.Equal(got[i], w) {
				t.Fatalf("datagram %d: %d bytes starting %#x, want %d starting %#x", i, len(got[i]), got[i][0], len(w), w[0])
			}
			i++
		}
	}
	return from
}

// sendChecked sends bursts from a and fails unless they arrive at b.
func sendChecked(t *testing.T, a, b UDPConn, to netip.AddrPort, bursts ...packet.Burst) {
	t.Helper()
	if err := a.WriteBursts(to, bursts); err != nil {
		t.Fatalf("write: %v", err)
	}
	from := checkArrival(t, b, bursts)
	if want := netip.AddrPortFrom(to.Addr(), a.LocalAddr().Port()); from != want {
		t.Errorf("sender %v, want %v", from, want)
	}
}

// TestUDPBursts: bursts arrive as the datagrams they stand for, in order, in
// both families, whether the host segments them or not (PATH-56, PATH-59).
func TestUDPBursts(t *testing.T) {
	tests := []struct {
		name   string
		bursts []packet.Burst
	}{
		{"one byte", []packet.Burst{burst(0, 1, 1, 1)}},
		{"single", []packet.Burst{burst(0, 1280, 1, 1280)}},
		{"two equal", []packet.Burst{burst(0, 1280, 2, 1280)}},
		{"short tail", []packet.Burst{burst(0, 1312, 40, 33)}},
		{"with room", []packet.Burst{burst(8, 1312, 40, 33)}},
		{"room, single", []packet.Burst{burst(8, 100, 1, 100)}},
		{"64 datagrams", []packet.Burst{burst(0, 100, 64, 100)}},
		{"more than one message holds", []packet.Burst{burst(0, 100, 150, 60)}},
		{"more bytes than one message holds", []packet.Burst{burst(0, 1472, 60, 1000)}},
		{"more bursts than one call takes", slices.Repeat([]packet.Burst{burst(0, 40, 1, 40)}, 70)},
		{"largest that shares a message", []packet.Burst{burst(0, 32000, 2, 32000)}},
		{"too long to share", []packet.Burst{burst(0, 40000, 2, 40000)}},
		{"largest", []packet.Burst{burst(0, 65507, 1, 65507)}},
		{"mixed", []packet.Burst{burst(0, 1000, 40, 500), burst(8, 100, 1, 100), burst(0, 1280, 3, 1280)}},
		{"empty between", []packet.Burst{burst(0, 100, 2, 50), {}, burst(0, 60, 2, 60)}},
	}
	for _, family := range families(t) {
		for _, offload := range []bool{true, false} {
			a, b, to := pair(t, family)
			setOffload(t, a, offload)
			setOffload(t, b, offload)
			for _, tt := range tests {
				t.Run(fmt.Sprintf("%s/offload=%v/%s", family, offload, tt.name), func(t *testing.T) {
					sendChecked(t, a, b, to, tt.bursts...)
				})
			}
		}
	}
}

func setOffload(t *testing.T, c UDPConn, on bool) {
	t.Helper()
	if c, ok := c.(Offloader); ok {
		if err := c.SetOffload(on, on); err != nil {
			t.Fatalf("SetOffload(%v): %v", on, err)
		}
	}
}

func TestUDPNothingToSend(t *testing.T) {
	a, b, to := pair(t, "udp4")
	for _, bursts := range [][]packet.Burst{nil, {}, {{}}} {
		if err := a.WriteBursts(to, bursts); err != nil {
			t.Errorf("WriteBursts(%v): %v", bursts, err)
		}
	}
	sendChecked(t, a, b, to, burst(0, 9, 1, 9)) // the first thing that arrives
}

// TestUDPZeroLength: a datagram without payload is read as such (PATH-62).
func TestUDPZeroLength(t *testing.T) {
	_, b, to := pair(t, "udp4")
	c, err := net.Dial("udp4", to.String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write(nil); err != nil {
		t.Fatal(err)
	}
	n, err := b.ReadBatch(messages())
	if n != 1 || err != nil {
		t.Fatalf("ReadBatch = %d, %v; want one message", n, err)
	}
}

func TestUDPClose(t *testing.T) {
	for _, family := range families(t) {
		a, _, to := pair(t, family)
		done := make(chan error, 1)
		go func() {
			_, err := a.ReadBatch(messages())
			done <- err
		}()
		for range 2 {
			if err := a.Close(); err != nil {
				t.Errorf("%s: close: %v", family, err)
			}
		}
		select {
		case err := <-done:
			if !errors.Is(err, net.ErrClosed) {
				t.Errorf("%s: read after close: %v, want net.ErrClosed", family, err)
			}
		case <-time.After(5 * time.Second):
			t.Fatalf("%s: ReadBatch still waits after Close", family)
		}
		if err := a.WriteBursts(to, []packet.Burst{burst(0, 10, 1, 10)}); !errors.Is(err, net.ErrClosed) {
			t.Errorf("%s: write after close: %v, want net.ErrClosed", family, err)
		}
	}
}

func TestUDPErrors(t *testing.T) {
	a, _, to := pair(t, "udp4")
	one := []packet.Burst{burst(0, 10, 1, 10)}
	for _, bad := range []netip.AddrPort{netip.MustParseAddrPort("[::1]:9"), {}} {
		if err := a.WriteBursts(bad, one); !errors.Is(err, errFamily) {
			t.Errorf("an IPv4 socket, to %v: %v, want errFamily", bad, err)
		}
	}
	mapped := netip.AddrPortFrom(netip.AddrFrom16(to.Addr().As16()), to.Port())
	if err := a.WriteBursts(mapped, one); err != nil {
		t.Errorf("to %v: %v", mapped, err)
	}
	if err := a.WriteBursts(to, []packet.Burst{burst(0, 65535, 1, 65535)}); err == nil {
		t.Error("a datagram beyond 65507 bytes was accepted")
	}
	if _, err := (OS{}).ListenUDP(t.Context(), "udp", 0); err == nil {
		t.Error("family udp was accepted")
	}
	if c, err := (OS{}).ListenUDP(t.Context(), "udp4", a.LocalAddr().Port()); err == nil {
		c.Close()
		t.Error("a port in use was bound again")
	}
}

// TestUDPFamiliesShareAPort: the IPv6 socket is for IPv6 alone (PATH-53).
func TestUDPFamiliesShareAPort(t *testing.T) {
	for _, family := range families(t) {
		if family != "udp6" {
			continue
		}
		a, _, _ := pair(t, "udp6")
		c, err := OS{}.ListenUDP(t.Context(), "udp4", a.LocalAddr().Port())
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
	}
}

// TestUDPConcurrentWrites: writers of several goroutines do not mix their
// bursts (host.UDPConn).
func TestUDPConcurrentWrites(t *testing.T) {
	a, b, to := pair(t, "udp4")
	const writers, each = 4, 20
	errs := make(chan error, writers)
	for w := range writers {
		go func() {
			d := packet.Burst{Buf: bytes.Repeat([]byte{byte(w)}, 3*(100+w)), Size: 100 + w, Count: 3}
			for range each {
				if err := a.WriteBursts(to, []packet.Burst{d}); err != nil {
					errs <- err
					return
				}
			}
			errs <- nil
		}()
	}
	got, _ := receive(t, b, writers*each*3)
	for _, d := range got {
		if w := d[0]; len(d) != 100+int(w) || !bytes.Equal(d, bytes.Repeat([]byte{w}, len(d))) {
			t.Fatalf("a datagram of %d bytes is not one of writer %d", len(d), w)
		}
	}
	for range writers {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
}

// TestUDPAllocs: neither direction allocates (PATH-104).
func TestUDPAllocs(t *testing.T) {
	for _, family := range families(t) {
		a, b, to := pair(t, family)
		bursts := []packet.Burst{burst(0, 1280, 16, 1280), burst(0, 100, 1, 100)}
		ms := messages()
		size := len(bursts[0].Buf) + len(bursts[1].Buf)
		if n := testing.AllocsPerRun(100, func() {
			if err := a.WriteBursts(to, bursts); err != nil {
				t.Fatal(err)
			}
			for got := 0; got < size; {
				k, err := b.ReadBatch(ms)
				if err != nil {
					t.Fatal(err)
				}
				for _, m := range ms[:k] {
					got += m.N
				}
			}
		}); n != 0 {
			t.Errorf("%s: %v allocations for a write and its reads, want none", family, n)
		}
	}
}

func BenchmarkUDP(b *testing.B) {
	for _, count := range []int{1, 48} {
		b.Run(fmt.Sprintf("burst=%d", count), func(b *testing.B) {
			x, y, to := pair(b, "udp4")
			bursts := []packet.Burst{burst(0, 1312, count, 1312)}
			ms := messages()
			b.SetBytes(int64(len(bursts[0].Buf)))
			b.ReportAllocs()
			for b.Loop() {
				if err := x.WriteBursts(to, bursts); err != nil {
					b.Fatal(err)
				}
				for got := 0; got < len(bursts[0].Buf); {
					k, err := y.ReadBatch(ms)
					if err != nil {
						b.Fatal(err)
					}
					for _, m := range ms[:k] {
						got += m.N
					}
				}
			}
		})
	}
}

func TestInterfaces(t *testing.T) {
	all, err := OS{}.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range all {
		if i.Loopback && len(i.Addrs) > 0 {
			return
		}
	}
	t.Errorf("no loopback interface with an address in %v", all)
}

func TestDialAndListen(t *testing.T) {
	var n Network = OS{}
	for network, addr := range map[string]string{
		"tcp":  "127.0.0.1:0",
		"tcp4": "127.0.0.1:0",
		"unix": filepath.Join(t.TempDir(), "s"),
	} {
		l, err := n.Listen(t.Context(), network, addr)
		if err != nil {
			t.Errorf("listen %s: %v", network, err)
			continue
		}
		defer l.Close()
		c, err := n.Dial(t.Context(), network, l.Addr().String())
		if err != nil {
			t.Errorf("dial %s: %v", network, err)
			continue
		}
		c.Close()
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := n.Dial(ctx, "tcp", "127.0.0.1:9"); !errors.Is(err, context.Canceled) {
		t.Errorf("dial with a cancelled context: %v", err)
	}
}

// TestLookup: literals come back unmapped, without asking anybody (SVC-03).
func TestLookup(t *testing.T) {
	for in, want := range map[string]string{
		"127.0.0.1":         "127.0.0.1",
		"::ffff:192.0.2.7":  "192.0.2.7",
		"2001:db8::7":       "2001:db8::7",
		"64:ff9b::c000:207": "64:ff9b::c000:207", // NAT64's (RFC 6052) is an IPv6 address, not IPv4
	} {
		got, err := OS{}.LookupNetIP(t.Context(), "ip", in)
		if err != nil || len(got) != 1 || got[0] != netip.MustParseAddr(want) {
			t.Errorf("lookup %s: %v, %v; want %s", in, got, err, want)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := (OS{}).LookupNetIP(ctx, "ip", "name.invalid"); err == nil {
		t.Error("lookup with a cancelled context succeeded")
	}
}

// TestInterfacesAgree: the addresses are those that package net finds.
func TestInterfacesAgree(t *testing.T) {
	all, err := OS{}.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range all {
		ifi, err := net.InterfaceByName(i.Name)
		if err != nil {
			t.Fatal(err)
		}
		addrs, err := ifi.Addrs()
		if err != nil {
			t.Fatal(err)
		}
		var got, want []string
		for _, p := range i.Addrs {
			got = append(got, p.String())
		}
		for _, a := range addrs {
			want = append(want, a.String())
		}
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("%s has %q, want %q", i.Name, got, want)
		}
	}
}

func BenchmarkLook(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if _, err := (OS{}).Interfaces(); err != nil {
			b.Fatal(err)
		}
		OS{}.DefaultRoute()
	}
}
