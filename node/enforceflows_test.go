package node_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"regexp"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/seed94491740/tsnode/devnet"
	"github.com/seed94491740/tsnode/node"
)

// enforced is how long a flow that a new policy denies may go on, from when the
// node has the policy.
const enforced = time.Second

// setPolicy gives the tailnet a policy and waits until a node has it. It returns
// when flows that the policy denies must have ended there.
func setPolicy(t *testing.T, tailnet *devnet.Net, n *node.Node, policy []byte) (by time.Time) {
	t.Helper()
	before, _ := n.Netmap()
	if err := tailnet.SetPolicy(policy); err != nil {
		t.Fatal(err)
	}
	for ctx := within(t, patience); ; {
		nm, changed := n.Netmap()
		if fmt.Sprint(nm.Filter) != fmt.Sprint(before.Filter) {
			return time.Now().Add(enforced)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			t.Fatal("the node does not get the policy")
		}
	}
}

// isReset wants a connection over which nothing comes to be reset.
func isReset(t *testing.T, name string, c net.Conn, by time.Time) {
	t.Helper()
	c.SetReadDeadline(by)
	if n, err := c.Read(make([]byte, 1)); n != 0 || !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("%s: %d bytes, %v; want a reset", name, n, err)
	}
}

// fallsSilent wants datagrams that came back to do so no longer.
func fallsSilent(t *testing.T, name string, c net.Conn, by time.Time) {
	t.Helper()
	for missing, buf := 0, make([]byte, 100); missing < 5; missing++ {
		c.Write([]byte("x"))
		c.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
		_, err := c.Read(buf)
		switch {
		case err == nil && time.Now().After(by):
			t.Errorf("%s goes on", name)
			return
		case err == nil:
			missing = -1
		case !errors.Is(err, os.ErrDeadlineExceeded):
			t.Errorf("%s: %v", name, err)
			return
		}
	}
}

// A counted is a flow of numbered datagrams of which each must come back. Some are
// on the way at any time, fewer than any queue holds.
type counted struct {
	conn  net.Conn
	came  atomic.Int64
	ended chan error
}

func startCounted(t *testing.T, c net.Conn) *counted {
	x := &counted{conn: c, ended: make(chan error, 1)}
	c.SetDeadline(time.Time{})
	go func() { x.ended <- x.run() }()
	t.Cleanup(func() {
		c.Close()
		select {
		case err := <-x.ended:
			if !errors.Is(err, net.ErrClosed) {
				t.Error(err)
			}
		case <-time.After(patience):
			t.Error("a flow of datagrams does not end")
		}
	})
	return x
}

func (x *counted) run() error {
	const burst = 8
	buf := make([]byte, 1000)
	for first := uint64(0); ; first += burst {
		for i := range uint64(burst) {
			if _, err := x.conn.Write(binary.BigEndian.AppendUint64(nil, first+i)); err != nil {
				return err
			}
		}
		x.conn.SetReadDeadline(time.Now().Add(patience / 2))
		for missing := uint64(1<<burst - 1); missing != 0; {
			n, err := x.conn.Read(buf)
			switch {
			case errors.Is(err, os.ErrDeadlineExceeded):
				return fmt.Errorf("of the datagrams from %d on these are lost: %b", first, missing)
			case err != nil:
				return err
			case n != 8:
				continue // of what was sent over the connection before
			}
			if i := binary.BigEndian.Uint64(buf) - first; i < burst {
				missing &^= 1 << i
			}
		}
		x.came.Add(burst)
	}
}

// goesOn waits until many more have come back.
func (x *counted) goesOn(t *testing.T, name string) {
	t.Helper()
	for ctx, before := within(t, patience), x.came.Load(); x.came.Load() < before+200; {
		select {
		case err := <-x.ended:
			x.ended <- net.ErrClosed
			t.Fatalf("%s: %v", name, err)
		case <-time.After(time.Millisecond):
		case <-ctx.Done():
			t.Fatalf("%s stands still", name)
		}
	}
}

// A policy that no longer permits them ends the flows that the node forwards within
// a second, connections with a reset; of the others no datagram is lost (SVC-19,
// SVC-26).
func TestPolicyEndsForwardedFlows(t *testing.T) {
	policy := func(ports string) []byte {
		return []byte(`{"acls": [{"action": "accept", "src": ["*"], "dst": ["10.7.0.0/24:` + ports + `"]}]}`)
	}
	tailnet := startDevnet(t, devnet.Config{Policy: policy("80,53,54")})
	l := newLAN(t, lanHost)
	l.hosts["udp 10.7.0.5:54"] = l.hosts["udp 10.7.0.5:53"]
	router := newRouted(t, tailnet, "router", l, func(n *node.Node) { n.AdvertiseRoutes = []netip.Prefix{behind} })
	approve(t, tailnet, "router", behind)
	client := newRouted(t, tailnet, "client", newLAN(t), func(n *node.Node) { n.AcceptRoutes = true })
	eventually(t, "route", routes(client, lanHost, "router"))
	stays := startCounted(t, datagrams(t, client, netip.AddrPortFrom(lanHost, 53)))
	tellDrops(t, client, router)

	for range 3 {
		goes := datagrams(t, client, netip.AddrPortFrom(lanHost, 54))
		idle, err := client.Dial(within(t, patience), "tcp", netip.AddrPortFrom(lanHost, 80).String())
		if err != nil {
			t.Fatal(err)
		}
		defer idle.Close()
		web := startPump(t, client, netip.AddrPortFrom(lanHost, 80).String())
		web.progresses(t, "the connection that is permitted")

		by := setPolicy(t, tailnet, router, policy("80,53"))
		fallsSilent(t, "the datagrams to port 54", goes, by)
		web.progresses(t, "the connection that is still permitted")

		by = setPolicy(t, tailnet, router, policy("53"))
		isReset(t, "the silent connection", idle, by)
		web.ends(t, "the busy connection", by)
		stays.goesOn(t, "the datagrams to port 53")
		setPolicy(t, tailnet, router, policy("80,53,54"))
	}
}

// tellDrops has a test that fails log what nodes have dropped, and why, and what
// could have lost packets elsewhere.
func tellDrops(t *testing.T, nodes ...*node.Node) {
	tells := regexp.MustCompile("dropped|relay_packets|rebinds|restarts").MatchString
	t.Cleanup(func() {
		if !t.Failed() {
			return
		}
		for _, n := range nodes {
			for _, m := range n.Metrics() {
				for _, s := range m.Samples {
					if s.Value != 0 && tells(m.Name) {
						t.Log(n.Hostname, m.Name, s.Labels, s.Value)
					}
				}
			}
		}
	})
}

// datagrams returns a flow of which one datagram has come back.
func datagrams(t *testing.T, n *node.Node, to netip.AddrPort) net.Conn {
	t.Helper()
	c, err := echoDatagram(t, n, to)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// A policy that no longer permits datagrams to a socket of the node holds from the
// next one on, but for the flows that the socket has answered: those are known as
// the node's own, and a new policy keeps them (SVC-23, SVC-26). Of a flow that is
// permitted none is lost.
func TestPolicyAndOwnDatagrams(t *testing.T) {
	tailnet := startDevnet(t, devnet.Config{Policy: policyOf("7-9")})
	server, client := newNode(t, tailnet, "server"), newNode(t, tailnet, "client")
	echoDatagrams(t, server, 7)
	echoDatagrams(t, server, 8)
	mute, err := server.ListenPacket("udp", ":9")
	if err != nil {
		t.Fatal(err)
	}
	up(t, server)
	up(t, client)
	sees(t, client, "server")
	sees(t, server, "client")
	own, _ := server.TailscaleIPs()
	stays := startCounted(t, datagrams(t, client, netip.AddrPortFrom(own, 7)))
	answered := datagrams(t, client, netip.AddrPortFrom(own, 8))
	unanswered, err := client.Dial(within(t, patience), "udp", netip.AddrPortFrom(own, 9).String())
	if err != nil {
		t.Fatal(err)
	}
	defer unanswered.Close()
	for range 3 {
		eventually(t, "a datagram that nobody answers", func() bool { return arrives(unanswered, mute) })
		by := setPolicy(t, tailnet, server, policyOf("7"))
		for arrives(unanswered, mute) {
			if time.Now().After(by) {
				t.Error("the datagrams to port 9 go on")
				break
			}
		}
		stays.goesOn(t, "the datagrams to port 7")
		answered.SetReadDeadline(time.Now().Add(patience))
		answered.Write([]byte("x"))
		if _, err := answered.Read(make([]byte, 1)); err != nil {
			t.Errorf("the datagrams that the node has answered: %v", err)
		}
		setPolicy(t, tailnet, server, policyOf("7-9"))
	}
}

// arrives reports whether a datagram comes through.
func arrives(from net.Conn, to net.PacketConn) bool {
	from.Write([]byte("x"))
	to.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	_, _, err := to.ReadFrom(make([]byte, 1))
	return err == nil
}

// echoDatagrams answers each datagram to a port with itself, until the node closes.
func echoDatagrams(t *testing.T, n *node.Node, port int) {
	t.Helper()
	pc, err := n.ListenPacket("udp", fmt.Sprintf(":%d", port))
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for b := make([]byte, 2048); ; {
			n, from, err := pc.ReadFrom(b)
			if err != nil {
				return
			}
			pc.WriteTo(b[:n], from)
		}
	}()
}
