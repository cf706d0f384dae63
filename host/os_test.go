package host

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/netip"
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
				d := b[:min(m.Segment, len(b))]
				b = b[len(d):]
				got = append(got, bytes.Clone(d))
			}
		}
	}
	return got, from
}

// TestUDPBursts: bursts arrive as the datagrams they stand for, in order, in
// both families, segmented by the kernel or not (PATH-56, PATH-59).
func TestUDPBursts(t *testing.T) {
	for _, family := range []string{"udp4", "udp6"} {
		for _, offload := range []bool{true, false} {
			a, b, to := pair(t, family)
			if !offload && !withoutOffload(a) {
				continue
			}
			bursts := []packet.Burst{burst(0, 1000, 40, 500), burst(8, 100, 1, 100), burst(0, 1280, 3, 1280)}
			if err := a.WriteBursts(to, bursts); err != nil {
				t.Fatalf("%s offload %v: %v", family, offload, err)
			}
			got, from := receive(t, b, 44)
			if from.Port() != a.LocalAddr().Port() || from.Addr() != to.Addr() {
				t.Errorf("%s: from %v, want port %d of %v", family, from, a.LocalAddr().Port(), to.Addr())
			}
			i := 0
			for _, want := range bursts {
				stride := want.Room + want.Size
				for k := range want.Count {
					w := want.Buf[k*stride : min((k+1)*stride, len(want.Buf))]
					if !bytes.Equal(got[i], w) {
						t.Fatalf("%s offload %v: datagram %d: %d bytes of %d, want %d", family, offload, i, len(got[i]), got[i][0], len(w))
					}
					i++
				}
			}
		}
	}
}

func TestUDPCloseUnblocksRead(t *testing.T) {
	a, _, _ := pair(t, "udp4")
	done := make(chan error, 1)
	go func() {
		_, err := a.ReadBatch(messages())
		done <- err
	}()
	a.Close()
	select {
	case err := <-done:
		if !errors.Is(err, net.ErrClosed) {
			t.Errorf("read after close: %v, want net.ErrClosed", err)
		}
	case <-time.After(5 * time.Second):
		t.Fatal("ReadBatch still waits after Close")
	}
	if err := a.WriteBursts(netip.MustParseAddrPort("127.0.0.1:9"), []packet.Burst{burst(0, 10, 1, 10)}); err == nil {
		t.Error("write after close succeeded")
	}
}

func TestUDPWrongFamily(t *testing.T) {
	a, _, _ := pair(t, "udp4")
	if err := a.WriteBursts(netip.MustParseAddrPort("[::1]:9"), []packet.Burst{burst(0, 10, 1, 10)}); err == nil {
		t.Error("an IPv4 socket sent to an IPv6 address")
	}
	if _, err := (OS{}).ListenUDP(context.Background(), "udp", 0); err == nil {
		t.Error("family udp was accepted")
	}
}

// TestUDPAllocs: neither direction allocates per packet (PATH-104).
func TestUDPAllocs(t *testing.T) {
	a, b, to := pair(t, "udp4")
	bursts := []packet.Burst{burst(0, 1280, 16, 1280)}
	ms := messages()
	got := 0
	if n := testing.AllocsPerRun(100, func() {
		if err := a.WriteBursts(to, bursts); err != nil {
			t.Fatal(err)
		}
		for got = 0; got < len(bursts[0].Buf); {
			k, err := b.ReadBatch(ms)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range ms[:k] {
				got += m.N
			}
		}
	}); n > maxAllocs {
		t.Errorf("%v allocations per batch, want at most %d", n, maxAllocs)
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
