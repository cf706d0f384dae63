package host

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed94491740/tsnode/internal/ownnet"
	"github.com/seed94491740/tsnode/packet"
)

// inNamespace is ownnet.Again for a test that runs beside others.
func inNamespace(t *testing.T) bool {
	t.Helper()
	t.Parallel()
	return ownnet.Again(t)
}

// ip runs ip(8) with each line of commands, and returns when it began the last.
func ip(t *testing.T, commands string) (began time.Time) {
	t.Helper()
	for line := range strings.Lines(commands) {
		began = time.Now()
		ownnet.IP(t, line)
	}
	return began
}

// await waits until the monitor knows what ok asks for.
func await(t *testing.T, m *Monitor, what string, ok func(Link) bool) Link {
	t.Helper()
	deadline := time.NewTimer(10 * time.Second)
	defer deadline.Stop()
	for {
		l, changed := m.Link().Load()
		if ok(l) {
			return l
		}
		select {
		case <-changed:
		case <-deadline.C:
			t.Fatalf("%s: not seen; the last Link is %+v", what, l)
		}
	}
}

// TestMonitorOnKernel: the kernel's own messages become Links: an address at
// once, then another uplink with its route, and none (PATH-63).
func TestMonitorOnKernel(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	ip(t, "link add e0 type veth peer name e1\nlink add w0 type veth peer name w1")
	for _, name := range []string{"e0", "e1", "w0", "w1"} { // without link-local addresses, whose messages come late
		ip(t, "link set "+name+" addrgenmode none\nlink set "+name+" up")
	}
	m := NewMonitor(OS{}, nil)
	defer serve(t, m)()
	await(t, m, "the first look", func(l Link) bool { return l.Interfaces != nil && !l.Up })

	began := ip(t, "addr add 192.168.1.5/24 dev e0")
	l := await(t, m, "address", func(l Link) bool { return l.Up })
	t.Logf("an address was published %v after ip(8) was begun", time.Since(began))
	wantCounts(t, l, 1, 0, 0)

	ip(t, "route add default via 192.168.1.1 dev e0 metric 100")
	ip(t, "addr add 192.168.7.9/24 dev w0\nroute add default via 192.168.7.1 dev w0 metric 50")
	l = await(t, m, "another uplink", func(l Link) bool { return l.Default.Interface == "w0" })
	want := Route{Interface: "w0", Gateway: netip.MustParseAddr("192.168.7.1"), Source: netip.MustParseAddr("192.168.7.9")}
	if l.Default != want {
		t.Errorf("default route %+v, want %+v", l.Default, want)
	}
	if l.Major < 2 || l.Minor > 0 { // more than two when ip(8) takes its time
		t.Errorf("another uplink: major %d, minor %d", l.Major, l.Minor)
	}

	ip(t, "link set w0 down\nlink set e0 down")
	l = await(t, m, "down", func(l Link) bool { return !l.Up && l.Default == Route{} })
	if l.Minor == 0 {
		t.Errorf("down: major %d, minor %d; want a minor change", l.Major, l.Minor)
	}
}

// TestWatch: Watch calls at once, again for a change of the kernel, not for a
// route to one network, and ends with its context.
func TestWatch(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	calls, done := make(chan time.Time, 100), make(chan error, 1)
	go func() { done <- OS{}.Watch(ctx, func() { calls <- time.Now() }) }()
	<-calls
	began := ip(t, "link set lo up")
	t.Logf("a change was told %v after ip(8) was begun", (<-calls).Sub(began))
	ip(t, "addr add 192.0.2.1/32 dev lo")
	drain := func() (n int) {
		for {
			select {
			case <-calls:
				n++
			case <-time.After(200 * time.Millisecond):
				return n
			}
		}
	}
	if drain() == 0 {
		t.Error("an address was not told")
	}
	ip(t, "route add 198.51.100.0/24 dev lo")
	if n := drain(); n > 0 {
		t.Errorf("a route to one network was told %d times", n)
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("Watch returned %v", err)
	}
}

// TestWatchHere: Watch needs no privilege on the machine at hand.
func TestWatchHere(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	if err := (OS{}).Watch(ctx, cancel); !errors.Is(err, context.Canceled) && !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("Watch returned %v", err)
	}
}

// TestEchoUnprivileged: a user whom net.ipv4.ping_group_range admits asks
// through a datagram socket (NC-34).
func TestEchoUnprivileged(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	ip(t, "link set lo up")
	if err := os.WriteFile("/proc/sys/net/ipv4/ping_group_range", []byte("0 0"), 0); err != nil {
		t.Fatal(err)
	}
	for _, to := range loopbacks(t)[:len(families(t))] {
		c, err := openEcho(t.Context(), to.Is6())
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
		if _, ok := c.(*net.UDPConn); !ok {
			t.Errorf("%v: a %T asks", to, c)
		}
		d, err := OS{}.Echo(t.Context(), to, []byte("node 1a"))
		if err != nil || d <= 0 {
			t.Errorf("%v: %v, %v", to, d, err)
		}
	}
}

// TestDontFragment: while it is on, a datagram beyond the MTU fails and smaller
// ones pass; off, it arrives in fragments (PATH-48).
func TestDontFragment(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	ip(t, "link set lo mtu 1400\nlink set lo up")
	for _, family := range families(t) {
		a, b, to := pair(t, family)
		long, short := burst(0, 1500, 1, 1500), burst(0, 1300, 1, 1300)
		f := a.(Fragmenter)
		if err := f.DontFragment(true); err != nil {
			t.Fatal(err)
		}
		if err := a.WriteBursts(to, []packet.Burst{long, short}); !errors.Is(err, unix.EMSGSIZE) {
			t.Errorf("%s: 1500 bytes over an MTU of 1400: %v, want EMSGSIZE", family, err)
		}
		checkArrival(t, b, []packet.Burst{short})
		if err := f.DontFragment(false); err != nil {
			t.Fatal(err)
		}
		sendChecked(t, a, b, to, long, short)
		a.Close()
		if err := f.DontFragment(true); !errors.Is(err, net.ErrClosed) {
			t.Errorf("%s: after Close: %v, want net.ErrClosed", family, err)
		}
	}
}

// TestTentativeAddress: an IPv6 address counts once the kernel uses it, and its
// coming is a change of its own.
func TestTentativeAddress(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	ip(t, "link set lo up")
	if len(families(t)) == 1 {
		return
	}
	ip(t, "link add e0 type veth peer name e1\nlink set e0 addrgenmode none\nlink set e1 up\nlink set e0 up")
	m := NewMonitor(OS{}, nil)
	defer serve(t, m)()
	await(t, m, "the first look", func(l Link) bool { return l.Interfaces != nil })
	ip(t, "-6 addr add 2001:db8::5/64 dev e0")
	l := await(t, m, "address", func(l Link) bool { return l.HasV6 })
	out, err := exec.CommandContext(t.Context(), "ip", "-6", "addr", "show", "tentative").Output()
	if err != nil || strings.Contains(string(out), "2001:db8::5") {
		t.Errorf("published while the kernel does not use it: %v\n%s", err, out)
	}
	wantCounts(t, l, 1, 0, 0)
}

// TestIPv6Only: a host without IPv4 addresses has its default route and sockets
// of IPv6.
func TestIPv6Only(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	ip(t, "link set lo up")
	if len(families(t)) == 1 {
		return
	}
	ip(t, "link add e0 type veth peer name e1\nlink set e1 up\nlink set e0 up\n-6 addr add 2001:db8::5/64 dev e0 nodad\n-6 route add default via fe80::1 dev e0")
	want := Route{Interface: "e0", Gateway: netip.MustParseAddr("fe80::1%e0"), Source: netip.MustParseAddr("2001:db8::5")}
	if got, err := (OS{}).DefaultRoute(); err != nil || got != want {
		t.Errorf("default route %+v, %v; want %+v", got, err, want)
	}
	c, err := OS{}.ListenUDP(t.Context(), "udp6", 0)
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
}
