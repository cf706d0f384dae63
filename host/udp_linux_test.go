package host

import (
	"errors"
	"net"
	"net/netip"
	"strconv"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/seed94491740/tsnode/packet"
)

// refuse makes the sends of u fail as the kernel would say e, when the message
// at hand is one that when names. It returns how often that was.
func refuse(u *batchUDP, e syscall.Errno, when func(segmented bool) bool) *int {
	n := new(int)
	for _, w := range []*writer{&u.wr, u.forPlain()} {
		w.transmit = func(fd uintptr) {
			if when(w.sizes[w.sent] > 0) {
				*n++
				w.errno = e
				return
			}
			w.sendOne(fd)
		}
	}
	return n
}

// TestUDPSegmentationRefused: what the kernel will not segment goes out one
// datagram at a time, in order. EIO is for good, a route's MTU only for this
// message (PATH-59).
func TestUDPSegmentationRefused(t *testing.T) {
	tests := []struct {
		errno syscall.Errno
		keeps bool // tries segmentation again
	}{
		{unix.EIO, false},
		{unix.EINVAL, true},
		{unix.EMSGSIZE, true},
	}
	bursts := []packet.Burst{burst(0, 100, 100, 60), burst(0, 70, 1, 70), burst(8, 200, 3, 200)}
	for _, tt := range tests {
		t.Run(tt.errno.Error(), func(t *testing.T) {
			a, b, to := pair(t, "udp4")
			u := a.(*batchUDP)
			refuse(u, tt.errno, func(segmented bool) bool { return segmented })
			sendChecked(t, a, b, to, bursts...)
			if got := u.segmentation.Load(); got != tt.keeps {
				t.Errorf("segmentation is %v afterwards, want %v", got, tt.keeps)
			}
			sendChecked(t, a, b, to, bursts...)
		})
	}
}

// TestUDPFailedBurst: a burst that fails is lost, the others arrive, and the
// error is the first (host.UDPConn, PATH-105).
func TestUDPFailedBurst(t *testing.T) {
	a, b, to := pair(t, "udp4")
	u := a.(*batchUDP)
	u.wr.proven = true
	n := 0
	refuse(u, unix.EPERM, func(bool) bool { n++; return n == 2 })
	bursts := []packet.Burst{burst(0, 10, 1, 10), burst(0, 20, 1, 20), burst(0, 30, 2, 30)}
	if err := a.WriteBursts(to, bursts); !errors.Is(err, unix.EPERM) {
		t.Errorf("error %v, want EPERM", err)
	}
	checkArrival(t, b, []packet.Burst{bursts[0], bursts[2]})
}

// TestUDPSandbox: where seccomp refuses the batch calls single ones do the
// work, and a firewall's EPERM is not taken for a sandbox.
func TestUDPSandbox(t *testing.T) {
	bursts := []packet.Burst{burst(0, 100, 5, 50), burst(0, 200, 2, 200), burst(0, 9, 1, 9)}
	for _, e := range []syscall.Errno{unix.ENOSYS, unix.EPERM} {
		a, b, to := pair(t, "udp4")
		u := a.(*batchUDP)
		u.wr.transmit = func(uintptr) { u.wr.errno = e }
		b.(*batchUDP).single.Store(true)
		sendChecked(t, a, b, to, bursts...)
		if !u.single.Load() {
			t.Errorf("%v: the batch call is tried again", e)
		}
		sendChecked(t, a, b, to, bursts...)
	}
	a, _, to := pair(t, "udp4")
	u := a.(*batchUDP)
	u.wr.proven = true
	u.wr.transmit = func(uintptr) { u.wr.errno = unix.EPERM }
	if err := a.WriteBursts(to, bursts[:1]); !errors.Is(err, unix.EPERM) {
		t.Errorf("firewall: %v, want EPERM", err)
	}
	if u.single.Load() {
		t.Error("a firewall's EPERM switched the batch calls off")
	}
}

// TestUDPReadInterrupted: EINTR is no error of a read.
func TestUDPReadInterrupted(t *testing.T) {
	a, b, to := pair(t, "udp4")
	r := &b.(*batchUDP).rd
	call, interrupted := r.call, false
	r.call = func(fd uintptr) bool {
		if !interrupted {
			interrupted = true
			r.errno = unix.EINTR
			return true
		}
		return call(fd)
	}
	sendChecked(t, a, b, to, burst(0, 100, 2, 100))
}

// TestUDPReadControl: lengths in control messages are not trusted.
func TestUDPReadControl(t *testing.T) {
	u := new(batchUDP)
	cmsg := func(level, typ int32, length uint64, v uint32) (oob [8]uint64) {
		c := (*unix.Cmsghdr)(unsafe.Pointer(&oob))
		c.Level, c.Type = level, typ
		c.SetLen(int(length))
		oob[2] = uint64(v)
		return oob
	}
	full := uint64(unix.CmsgLen(4))
	tests := []struct {
		name     string
		oob      [8]uint64
		length   int
		segment  int
		overflow uint32
	}{
		{"none", [8]uint64{}, 0, 1000, 0},
		{"coalesced", cmsg(unix.IPPROTO_UDP, unix.UDP_GRO, full, 300), unix.CmsgSpace(4), 300, 0},
		{"longer than the read", cmsg(unix.IPPROTO_UDP, unix.UDP_GRO, full, 5000), unix.CmsgSpace(4), 1000, 0},
		{"zero", cmsg(unix.IPPROTO_UDP, unix.UDP_GRO, full, 0), unix.CmsgSpace(4), 1000, 0},
		{"cut off", cmsg(unix.IPPROTO_UDP, unix.UDP_GRO, full, 300), unix.CmsgLen(2), 1000, 0},
		{"length 0", cmsg(unix.IPPROTO_UDP, unix.UDP_GRO, 0, 300), unix.CmsgSpace(4), 1000, 0},
		{"length too long", cmsg(unix.IPPROTO_UDP, unix.UDP_GRO, 1<<20, 300), unix.CmsgSpace(4), 1000, 0},
		{"no value", cmsg(unix.IPPROTO_UDP, unix.UDP_GRO, uint64(unix.CmsgLen(0)), 300), unix.CmsgSpace(4), 1000, 0},
		{"another", cmsg(unix.SOL_SOCKET, unix.SO_TIMESTAMP, full, 300), unix.CmsgSpace(4), 1000, 0},
		{"overflow", cmsg(unix.SOL_SOCKET, unix.SO_RXQ_OVFL, full, 17), unix.CmsgSpace(4), 1000, 17},
	}
	for _, tt := range tests {
		u.overflows.Store(0)
		u.rd.oobs[0] = tt.oob
		u.rd.hdrs[0].n = 1000
		u.rd.hdrs[0].hdr.SetControllen(tt.length)
		var m Message
		u.finish(&m, 0)
		if m.N != 1000 || m.Segment != tt.segment || u.Overflows() != tt.overflow {
			t.Errorf("%s: N %d, segment %d, overflows %d; want 1000, %d, %d", tt.name, m.N, m.Segment, u.Overflows(), tt.segment, tt.overflow)
		}
	}
}

// TestUDPOverflow: what the kernel drops is counted (PATH-55).
func TestUDPOverflow(t *testing.T) {
	a, b, to := pair(t, "udp4")
	u := b.(*batchUDP)
	if err := u.c.SetReadBuffer(1); err != nil { // the kernel's least, some KiB
		t.Fatal(err)
	}
	for range 64 {
		if err := a.WriteBursts(to, []packet.Burst{burst(0, 1000, 1, 1000)}); err != nil {
			t.Fatal(err)
		}
	}
	ms := messages()
	if _, err := b.ReadBatch(ms); err != nil {
		t.Fatal(err)
	}
	if err := a.WriteBursts(to, []packet.Burst{burst(0, 1000, 1, 1000)}); err != nil {
		t.Fatal(err)
	}
	if _, err := b.ReadBatch(ms); err != nil { // carries the count
		t.Fatal(err)
	}
	if u.Overflows() == 0 {
		t.Error("64 datagrams fitted in the smallest buffer")
	}
}

func TestZones(t *testing.T) {
	lo, err := net.InterfaceByName("lo")
	if err != nil {
		t.Fatal(err)
	}
	var z zones
	const gone = 1 << 30 // no interface has that number
	for range 2 {        // asked, then remembered
		if got := z.name(uint32(lo.Index)); got != "lo" {
			t.Errorf("name(%d) = %q, want lo", lo.Index, got)
		}
		if got := z.name(gone); got != strconv.Itoa(gone) {
			t.Errorf("name(%d) = %q, want the number", gone, got)
		}
		if got, err := z.index("lo"); err != nil || got != uint32(lo.Index) {
			t.Errorf("index(lo) = %d, %v; want %d", got, err, lo.Index)
		}
		if got, err := z.index("77"); err != nil || got != 77 {
			t.Errorf("index(77) = %d, %v", got, err)
		}
	}
	if _, err := z.index("no such"); err == nil {
		t.Error("an unknown zone has an index")
	}
	for i := range uint32(2 * maxZones) {
		z.name(gone + i)
	}
	if len(z.names) > maxZones {
		t.Errorf("%d names are kept, want at most %d", len(z.names), maxZones)
	}
}

// TestUDPZone: the zone of a link-local address finds its interface, and an
// unknown one is an error that names the address.
func TestUDPZone(t *testing.T) {
	for _, family := range families(t) {
		if family != "udp6" {
			continue
		}
		a, b, _ := pair(t, "udp6")
		to := netip.AddrPortFrom(netip.MustParseAddr("::1").WithZone("lo"), b.LocalAddr().Port())
		if err := a.WriteBursts(to, []packet.Burst{burst(0, 10, 1, 10)}); err != nil {
			t.Errorf("to %v: %v", to, err)
		}
		checkArrival(t, b, []packet.Burst{burst(0, 10, 1, 10)})
		bad := netip.MustParseAddrPort("[fe80::1%nosuch]:9")
		if err := a.WriteBursts(bad, []packet.Burst{burst(0, 10, 1, 10)}); err == nil {
			t.Errorf("sent to %v", bad)
		}
	}
	u := new(batchUDP)
	sa := unix.RawSockaddrInet6{Family: unix.AF_INET6, Addr: netip.MustParseAddr("fe80::1").As16(), Scope_id: 1 << 30}
	if got := u.sender(&sa).Addr().Zone(); got != strconv.Itoa(1<<30) {
		t.Errorf("zone %q of an interface that is gone", got)
	}
}

// TestUDPWaitRead: a datagram, and Close, end the wait.
func TestUDPWaitRead(t *testing.T) {
	a, b, to := pair(t, "udp4")
	ms := []Message{{Buf: make([]byte, 1<<16)}}
	for _, size := range []int{1, 1200} {
		woken := make(chan error)
		go func() { woken <- b.(Waiter).WaitRead() }()
		if err := a.WriteBursts(to, []packet.Burst{burst(0, size, 1, size)}); err != nil {
			t.Fatal(err)
		}
		if err := <-woken; err != nil {
			t.Fatal(err)
		}
		if n, err := b.ReadBatch(ms); n != 1 || err != nil || ms[0].N != size {
			t.Errorf("%d messages, %v, of %d bytes; want %d", n, err, ms[0].N, size)
		}
	}
	ended := make(chan error)
	go func() { ended <- b.(Waiter).WaitRead() }()
	b.Close()
	if err := <-ended; !errors.Is(err, net.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}
