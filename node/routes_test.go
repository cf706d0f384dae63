package node_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/seed94491740/tsnode/devnet"
	"github.com/seed94491740/tsnode/host"
	"github.com/seed94491740/tsnode/node"
)

var (
	behind   = netip.MustParsePrefix("10.7.0.0/24") // a network that only one machine reaches
	lanHost  = netip.MustParseAddr("10.7.0.5")      // its host
	internet = netip.MustParseAddr("198.51.100.9")  // a host of the Internet, RFC 5737
)

// A lan is a machine's network in which there are hosts besides. What they serve
// is on the loopback.
type lan struct {
	host.OS
	hosts   map[string]string // "tcp 10.7.0.5:80" to the address on the loopback
	clients chan net.Addr     // where connections to hosts have come from; a few are kept
	on      netip.Prefix      // network that the machine is in; not valid: those it is really in
	gate    chan struct{}     // connections to hosts are made once it is closed; nil: at once

	mu     sync.Mutex
	dialed []string
}

// newLAN returns a network with echoes at port 80, TCP, and 53, UDP, of hosts.
func newLAN(t testing.TB, hosts ...netip.Addr) *lan {
	t.Helper()
	l := &lan{hosts: make(map[string]string), clients: make(chan net.Addr, 8)}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			select {
			case l.clients <- c.RemoteAddr():
			default:
			}
			go func() {
				defer c.Close()
				io.Copy(c, c)
			}()
		}
	}()
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { pc.Close() })
	go func() {
		buf := make([]byte, 2048)
		for {
			n, from, err := pc.ReadFrom(buf)
			if err != nil {
				return
			}
			pc.WriteTo(buf[:n], from)
		}
	}()
	for _, h := range hosts {
		l.hosts["tcp "+netip.AddrPortFrom(h, 80).String()] = ln.Addr().String()
		l.hosts["udp "+netip.AddrPortFrom(h, 53).String()] = pc.LocalAddr().String()
	}
	return l
}

// Dial implements host.Network. Nobody answers at addresses that are neither on
// the loopback nor of a host.
func (l *lan) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	if ap, err := netip.ParseAddrPort(address); err == nil && !ap.Addr().IsLoopback() {
		l.mu.Lock()
		l.dialed = append(l.dialed, network+" "+address)
		l.mu.Unlock()
		real, ok := l.hosts[network+" "+address]
		if !ok {
			return nil, &net.OpError{Op: "dial", Net: network, Err: syscall.ECONNREFUSED}
		}
		address = real
		if l.gate != nil {
			select {
			case <-l.gate:
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}
	}
	return l.OS.Dial(ctx, network, address)
}

// Interfaces implements host.Network.
func (l *lan) Interfaces() ([]host.Interface, error) {
	all, err := l.OS.Interfaces()
	if l.on.IsValid() {
		all = append(all, host.Interface{Name: "lan0", Addrs: []netip.Prefix{netip.PrefixFrom(l.on.Addr().Next(), l.on.Bits())}})
	}
	return all, err
}

// asked reports whether the node has dialed an address.
func (l *lan) asked(address string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.ContainsFunc(l.dialed, func(d string) bool { return strings.HasSuffix(d, " "+address) })
}

// newRouted returns a started node with preferences and a network of its own.
func newRouted(t testing.TB, tailnet *devnet.Net, name string, l *lan, edit func(*node.Node)) *node.Node {
	t.Helper()
	n := newNode(t, tailnet, name)
	n.Network = l
	if edit != nil {
		edit(n)
	}
	up(t, n)
	return n
}

// approve has the tailnet use routes through a node.
func approve(t testing.TB, tailnet *devnet.Net, name string, routes ...netip.Prefix) {
	t.Helper()
	if err := tailnet.ApproveRoutes(name, routes...); err != nil {
		t.Fatal(err)
	}
}

var internetRoutes = []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")}

// eventually waits until ok.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for ctx := within(t, patience); !ok(); {
		select {
		case <-ctx.Done():
			t.Fatal("waited in vain: " + what)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// routes reports whether n sends packets for a to the node of that name.
func routes(n *node.Node, a netip.Addr, name string) func() bool {
	return func() bool {
		p, ok := n.PeerFor(a)
		return ok && p.HostName == name
	}
}

// echoDatagram sends a datagram until it comes back.
func echoDatagram(t testing.TB, n *node.Node, to netip.AddrPort) (net.Conn, error) {
	t.Helper()
	c, err := n.Dial(within(t, patience), "udp", to.String())
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() { c.Close() })
	buf := make([]byte, 100)
	for range 50 {
		c.Write([]byte("datagram"))
		c.SetReadDeadline(time.Now().Add(time.Second))
		if n, err := c.Read(buf); err == nil && string(buf[:n]) == "datagram" {
			return c, nil
		}
	}
	return c, errors.New("no echo of 50 datagrams")
}

// refuses wants a dial to fail with an error.
func refuses(t testing.TB, n *node.Node, address string, want error) {
	t.Helper()
	c, err := n.Dial(within(t, patience), "tcp", address)
	if err == nil {
		c.Close()
	}
	if !errors.Is(err, want) {
		t.Errorf("%s dials %s: %v, want %v", n.Hostname, address, err, want)
	}
}

// SVC-40, SVC-45, SVC-47, SVC-53: a node routes to a network of its machine for
// those that accept routes, in IPv4 and by 4via6.
func TestSubnetRouter(t *testing.T) {
	tailnet := startDevnet(t, devnet.Config{})
	via, err := node.Via(7, behind)
	if err != nil {
		t.Fatal(err)
	}
	l := newLAN(t, lanHost)
	router := newRouted(t, tailnet, "router", l, func(n *node.Node) { n.AdvertiseRoutes = []netip.Prefix{behind, via} })
	client := newRouted(t, tailnet, "client", newLAN(t), nil)
	web := netip.AddrPortFrom(lanHost, 80).String()
	refuses(t, client, web, node.ErrNoRoute)
	if h := router.Status().Health; len(h) != 2 || !strings.Contains(h[0], "approve") {
		t.Errorf("before the approval the router says %q", h)
	}
	approve(t, tailnet, "router", behind, via)
	sees(t, client, "router")
	eventually(t, "approval", func() bool { return len(router.Status().Health) == 0 })
	refuses(t, client, web, node.ErrNoRoute) // SVC-45: not by default
	if err := client.EditPreferences(func(p *node.Preferences) { p.AcceptRoutes = true }); err != nil {
		t.Fatal(err)
	}
	eventually(t, "route", routes(client, lanHost, "router"))
	if err := echo(client, web, 1<<20); err != nil {
		t.Errorf("TCP through the router: %v", err)
	}
	c, err := client.Dial(within(t, patience), "tcp", web)
	if err != nil {
		t.Fatal(err)
	}
	<-l.clients // of the transfer before
	if w, err := router.WhoIs(within(t, patience), (<-l.clients).String()); err != nil || w.Node.HostName != "client" {
		t.Errorf("SVC-54: who is behind the forwarded connection: %+v, %v", w, err)
	}
	c.Close()
	if _, err := echoDatagram(t, client, netip.AddrPortFrom(lanHost, 53)); err != nil {
		t.Errorf("UDP through the router: %v", err)
	}
	b := via.Addr().As16()
	copy(b[12:], lanHost.AsSlice())
	if err := echo(client, netip.AddrPortFrom(netip.AddrFrom16(b), 80).String(), 1000); err != nil {
		t.Errorf("TCP by 4via6: %v", err)
	}
	refuses(t, client, netip.AddrPortFrom(lanHost, 81).String(), node.ErrRefused)

	if err := router.EditPreferences(func(p *node.Preferences) { p.AdvertiseRoutes = nil }); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the route to go", func() bool { _, ok := client.PeerFor(lanHost); return !ok })
}

// SVC-53: a peer's connection is not there before the one to the host is.
func TestRouterConnectsFirst(t *testing.T) {
	tailnet := startDevnet(t, devnet.Config{})
	l := newLAN(t, lanHost)
	l.gate = make(chan struct{})
	newRouted(t, tailnet, "router", l, func(n *node.Node) { n.AdvertiseRoutes = []netip.Prefix{behind} })
	approve(t, tailnet, "router", behind)
	client := newRouted(t, tailnet, "client", newLAN(t), func(n *node.Node) { n.AcceptRoutes = true })
	eventually(t, "route", routes(client, lanHost, "router"))
	web, ended := netip.AddrPortFrom(lanHost, 80).String(), make(chan error, 1)
	go func() { ended <- echo(client, web, 1000) }()
	eventually(t, "the router to dial", func() bool { return l.asked(web) })
	select {
	case err := <-ended:
		t.Fatalf("the dial has ended before that of the router: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	close(l.gate)
	if err := <-ended; err != nil {
		t.Errorf("after that of the router: %v", err)
	}
}

// AcceptRoutesFrom chooses among routes by network, and by node.
func TestAcceptRoutesFrom(t *testing.T) {
	tailnet := startDevnet(t, devnet.Config{})
	other, otherHost := netip.MustParsePrefix("10.8.0.0/24"), netip.MustParseAddr("10.8.0.1")
	newRouted(t, tailnet, "router", newLAN(t), func(n *node.Node) { n.AdvertiseRoutes = []netip.Prefix{behind} })
	newRouted(t, tailnet, "second", newLAN(t), func(n *node.Node) { n.AdvertiseRoutes = []netip.Prefix{other} })
	approve(t, tailnet, "router", behind)
	approve(t, tailnet, "second", other)
	client := newRouted(t, tailnet, "client", newLAN(t), func(n *node.Node) { n.AcceptRoutes = true })
	eventually(t, "both routes", func() bool { return routes(client, lanHost, "router")() && routes(client, otherHost, "second")() })
	for _, test := range []struct {
		from          []string
		first, second bool
	}{
		{[]string{"10.7.0.0/16"}, true, false},
		{[]string{"second"}, false, true},
		{[]string{"10.7.0.0/16", "second"}, true, true},
		{[]string{"nobody"}, false, false},
		{nil, true, true},
	} {
		if err := client.EditPreferences(func(p *node.Preferences) { p.AcceptRoutesFrom = test.from }); err != nil {
			t.Fatal(err)
		}
		eventually(t, "routes of "+strings.Join(test.from, " "), func() bool {
			return routes(client, lanHost, "router")() == test.first && routes(client, otherHost, "second")() == test.second
		})
		nm, _ := client.Netmap()
		router, _ := nm.PeerByName("router")
		if got := client.Routes(behind, router); got != test.first {
			t.Errorf("routes of %q: Routes says %v of the first", test.from, got)
		}
	}
}

// SVC-43, SVC-44: traffic to the Internet goes through the exit node, named in any
// way; when it is gone, nothing goes another way.
func TestExitNode(t *testing.T) {
	tailnet := startDevnet(t, devnet.Config{})
	exit := newRouted(t, tailnet, "exit", newLAN(t, internet), func(n *node.Node) { n.AdvertiseExitNode = true })
	approve(t, tailnet, "exit", internetRoutes...)
	web := netip.AddrPortFrom(internet, 80).String()
	ownLAN := newLAN(t, internet)
	client := newRouted(t, tailnet, "client", ownLAN, func(n *node.Node) { n.DialMode = node.DialTailnetElseHost })
	sees(t, client, "exit")
	if err := echo(client, web, 1000); err != nil || !ownLAN.asked(web) {
		t.Errorf("without an exit node the host's network: %v", err)
	}
	refuses(t, client, "100.64.200.200:80", node.ErrNoRoute) // of no node, and never the host's
	if ownLAN.asked("100.64.200.200:80") {
		t.Error("the host's network was asked for an address of the tailnet")
	}
	ownLAN.hosts = nil // from now on only the exit node reaches it
	if _, err := client.DialBy(within(t, patience), node.DialViaExitNode, "tcp", web); !errors.Is(err, node.ErrNoExitNode) {
		t.Errorf("dial by an exit node that is not wanted: %v", err)
	}
	ip4, _ := exit.TailscaleIPs()
	resolvers := client.DNSStatus().Routes["."]
	for _, name := range []string{"exit", ip4.String(), string(exit.Status().Self.ID), "auto", "auto:any"} {
		if err := client.EditPreferences(func(p *node.Preferences) { p.ExitNode = name }); err != nil {
			t.Fatal(err)
		}
		eventually(t, "exit node "+name, routes(client, internet, "exit"))
		if err := echo(client, web, 1000); err != nil {
			t.Errorf("through the exit node %s: %v", name, err)
		}
		if dns := client.DNSStatus().Routes["."]; len(dns) != 1 || !strings.HasPrefix(dns[0].URL, "http://"+ip4.String()+":") {
			t.Errorf("SVC-69: with an exit node names are resolved by %+v", dns)
		}
		if _, err := client.DialBy(within(t, patience), node.DialTailnet, "tcp", "127.0.0.1:80"); !errors.Is(err, node.ErrNoRoute) {
			t.Errorf("the loopback address behind the exit node %s: %v", name, err)
		}
		if got := client.Status().ExitNode; !strings.HasPrefix(got, "exit.") {
			t.Errorf("exit node %s is %q", name, got)
		}
		if err := client.EditPreferences(func(p *node.Preferences) { p.ExitNode = "" }); err != nil {
			t.Fatal(err)
		}
		eventually(t, "no exit node", func() bool { return client.Status().ExitNode == "" && !routes(client, internet, "exit")() })
		if dns := client.DNSStatus().Routes["."]; len(dns) != len(resolvers) {
			t.Errorf("without one names are resolved by %+v", dns)
		}
	}
	if err := client.EditPreferences(func(p *node.Preferences) { p.ExitNode = "exit" }); err != nil {
		t.Fatal(err)
	}
	eventually(t, "exit node", routes(client, internet, "exit"))
	ownLAN.mu.Lock()
	ownLAN.dialed = nil
	ownLAN.mu.Unlock()
	exit.Close()
	eventually(t, "the exit node to go", func() bool { return client.Status().ExitNode == "" })
	refuses(t, client, web, node.ErrNoExitNode)
	refuses(t, client, "name.example:80", node.ErrNoExitNode)
	if ownLAN.asked(web) {
		t.Error("the host's network was asked instead of an exit node")
	}
	if h := client.Status().Health; !slices.ContainsFunc(h, func(s string) bool { return strings.HasPrefix(s, "exit node: ") }) {
		t.Errorf("health says %q", h)
	}
}

// ExitNodeAllowLANAccess: networks that the host is in are reached past the exit
// node, the Internet is not.
func TestExitNodeAllowLANAccess(t *testing.T) {
	tailnet := startDevnet(t, devnet.Config{})
	newRouted(t, tailnet, "exit", newLAN(t, internet), func(n *node.Node) { n.AdvertiseExitNode = true })
	approve(t, tailnet, "exit", internetRoutes...)
	near := newLAN(t, lanHost, internet)
	near.on = behind
	client := newRouted(t, tailnet, "client", near, func(n *node.Node) {
		n.ExitNode, n.DialMode = "exit", node.DialTailnetElseHost
	})
	eventually(t, "exit node", routes(client, internet, "exit"))
	web, far := netip.AddrPortFrom(lanHost, 80).String(), netip.AddrPortFrom(internet, 80).String()
	ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
	defer cancel()
	if c, err := client.Dial(ctx, "tcp", web); err == nil || near.asked(web) {
		t.Errorf("without the switch: %v, %v", c, err)
	}
	if err := client.EditPreferences(func(p *node.Preferences) { p.ExitNodeAllowLANAccess = true }); err != nil {
		t.Fatal(err)
	}
	if err := echo(client, web, 1000); err != nil {
		t.Errorf("with the switch: %v", err)
	}
	if err := echo(client, far, 1000); err != nil || near.asked(far) || !near.asked(web) {
		t.Errorf("with it the Internet: %v; the host's network was asked for %v", err, near.dialed)
	}
}

// SVC-43: an automatic exit node is chosen anew when it goes offline, and only
// then.
func TestAutoExitNode(t *testing.T) {
	tailnet := startDevnet(t, devnet.Config{})
	for _, name := range []string{"one", "two"} {
		newRouted(t, tailnet, name, newLAN(t), func(n *node.Node) { n.AdvertiseExitNode = true })
		approve(t, tailnet, name, internetRoutes...)
	}
	client := newRouted(t, tailnet, "client", newLAN(t), func(n *node.Node) { n.ExitNode = "auto" })
	eventually(t, "the first", routes(client, internet, "one"))
	for _, step := range []struct {
		name   string
		online bool
		want   string
	}{{"two", false, "one"}, {"two", true, "one"}, {"one", false, "two"}, {"one", true, "two"}} {
		if err := tailnet.SetOnline(step.name, step.online); err != nil {
			t.Fatal(err)
		}
		eventually(t, "word of it", func() bool {
			p, ok := client.Peer(step.name)
			return ok && p.Online == step.online
		})
		eventually(t, step.want, routes(client, internet, step.want))
	}
}

// Preferences that make no sense are refused, and nothing changes.
func TestPreferencesThatMakeNoSense(t *testing.T) {
	tailnet := startDevnet(t, devnet.Config{})
	n := newRouted(t, tailnet, "node", newLAN(t), func(n *node.Node) { n.AdvertiseRoutes = []netip.Prefix{behind} })
	before := n.Preferences()
	for want, edit := range map[string]func(*node.Preferences){
		"AcceptRoutes":      func(p *node.Preferences) { p.AcceptRoutesFrom = []string{"router"} },
		"AdvertiseExitNode": func(p *node.Preferences) { p.AdvertiseExitNode, p.ExitNode = true, "auto" },
		"10.7.0.0/24":       func(p *node.Preferences) { p.AdvertiseRoutes[0] = netip.PrefixFrom(lanHost, 24) },
	} {
		if err := n.EditPreferences(edit); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v does not say %s", err, want)
		}
	}
	if after := n.Preferences(); len(after.AdvertiseRoutes) != 1 || after.AdvertiseRoutes[0] != behind || after.ExitNode != before.ExitNode {
		t.Errorf("preferences are %+v", after)
	}
}
