package interop

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
	"tailscale.com/tsnet"

	"github.com/seed94491740/tsnode/devnet"
	"github.com/seed94491740/tsnode/netmap"
	"github.com/seed94491740/tsnode/node"
)

// callByName dials a name until it is known and answers with an echo.
func callByName(t *testing.T, from dialer, name string) {
	t.Helper()
	eventually(t, routeTimeout, func(ctx context.Context) error {
		return callOnce(ctx, from, "tcp", net.JoinHostPort(name, "7"))
	})
}

// A tsnet node is reached by name from ours, and ours from it: by the first label
// and in full, in any case (SVC-46, SVC-79). The resolver for users of our library
// knows both, and the reference's knows ours (SVC-81).
func TestMagicDNSBothWays(t *testing.T) {
	for _, control := range []struct{ name, suffix string }{{"devnet", devnet.DefaultDomain}, {"reference", dnsSuffix}} {
		t.Run(control.name, func(t *testing.T) {
			t.Parallel()
			var url, key string
			if control.name == "devnet" {
				tailnet := startDevnet(t, devnet.Config{})
				url, key = tailnet.URL(), tailnet.AuthKey(devnet.KeyOptions{Reusable: true})
			} else {
				url, _ = referenceControl(t)
			}
			ours, theirs := ourNode(t, url, "ours", key), tsnetNode(t, url, "theirs", key)
			for _, n := range []dialer{ours, theirs} {
				ln, err := n.Listen("tcp", ":7")
				if err != nil {
					t.Fatal(err)
				}
				defer ln.Close()
				go serveEchoes(ln)
			}
			for _, way := range []struct {
				from dialer
				host string
			}{{ours, "theirs"}, {theirs, "ours"}} {
				for _, name := range []string{way.host, way.host + "." + control.suffix, strings.ToUpper(way.host)} {
					callByName(t, way.from, name)
				}
			}
			resolveBothWays(t, ours, theirs, control.suffix)
		})
	}
}

// resolveBothWays asks the resolvers of both nodes for the names of both.
func resolveBothWays(t *testing.T, ours *node.Node, theirs *tsnet.Server, suffix string) {
	t.Helper()
	for host, n := range map[string]dialer{"ours": ours, "theirs": theirs} {
		name := host + "." + suffix
		ip4, _ := n.TailscaleIPs()
		ctx, cancel := context.WithTimeout(context.Background(), routeTimeout)
		got, err := ours.Resolver().LookupNetIP(ctx, "ip4", name+".")
		cancel()
		if err != nil || len(got) != 1 || got[0].Unmap() != ip4 {
			t.Errorf("our resolver says of %s: %v, %v, want %v", name, got, err, ip4)
		}
		msg, err := askReference(t, theirs, "udp", dnsQuestion{name: name, typ: dnsmessage.TypeA})
		if err != nil {
			t.Errorf("the reference's resolver: %v", err)
			continue
		}
		var m dnsmessage.Message
		if err := m.Unpack(msg); err != nil || len(m.Answers) != 1 {
			t.Errorf("the reference's resolver says of %s: %v, %v", name, m.RCode, err)
			continue
		}
		if a, ok := m.Answers[0].Body.(*dnsmessage.AResource); !ok || netip.AddrFrom4(a.A) != ip4 {
			t.Errorf("the reference's resolver says of %s: %v, want %v", name, m.Answers[0].Body, ip4)
		}
	}
}

// dnsPolicy permits nothing but questions to the node with the tag, by UDP.
const dnsPolicy = `{
	"tagOwners": {"tag:dns": ["dev@"]},
	"acls": [{"action": "accept", "proto": "udp", "src": ["autogroup:member"], "dst": ["tag:dns:53"]}],
}`

// serveDNS answers on port 53 of a node's addresses, by UDP, as upstreamAnswer
// does.
func serveDNS(t *testing.T, n dialer) {
	t.Helper()
	for _, ip := range addrsOf(n) {
		pc, err := n.ListenPacket("udp", netip.AddrPortFrom(ip, 53).String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { pc.Close() })
		go answerDatagrams(pc, "192.0.2.7")
	}
}

// Under a policy that lets nobody reach the client, answers to its questions come
// back because it has asked (SVC-23, SVC-24), ours to tsnet's server and tsnet's to
// ours; nothing else reaches it.
func TestDNSUnderRestrictivePolicy(t *testing.T) {
	for _, oursAsks := range []bool{true, false} {
		t.Run(map[bool]string{true: "ours asks", false: "theirs asks"}[oursAsks], func(t *testing.T) {
			t.Parallel()
			tailnet := startDevnet(t, devnet.Config{Policy: []byte(dnsPolicy)})
			member := tailnet.AuthKey(devnet.KeyOptions{})
			tagged := tailnet.AuthKey(devnet.KeyOptions{Tags: []string{"tag:dns"}})
			var client, server dialer
			if oursAsks {
				client, server = ourNode(t, tailnet.URL(), "client", member), tsnetNode(t, tailnet.URL(), "server", tagged)
			} else {
				client, server = tsnetNode(t, tailnet.URL(), "client", member), ourNode(t, tailnet.URL(), "server", tagged)
			}
			serveDNS(t, server)
			for _, ip := range addrsOf(server) {
				if theirs, ok := client.(*tsnet.Server); ok {
					awaitPeer(t, theirs, ip)
				}
				askByUDP(t, client, netip.AddrPortFrom(ip, 53))
			}
			if ours, ok := client.(*node.Node); ok {
				asksByLibrary(t, tailnet, ours, server)
				hearsNothing(t, ours, server)
			}
		})
	}
}

// awaitPeer waits until a tsnet node knows who has an address. Until then its Dial goes
// out by this machine's own network, where somebody else may answer on port 53.
func awaitPeer(t *testing.T, theirs *tsnet.Server, ip netip.Addr) {
	t.Helper()
	lc, err := theirs.LocalClient()
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, routeTimeout, func(ctx context.Context) error {
		st, err := lc.Status(ctx)
		if err != nil {
			return err
		}
		for _, peer := range st.Peer {
			if slices.Contains(peer.TailscaleIPs, ip) {
				return nil
			}
		}
		return fmt.Errorf("the reference knows no peer %v", ip)
	})
}

// askByUDP asks a server until it answers.
func askByUDP(t *testing.T, from dialer, to netip.AddrPort) {
	t.Helper()
	q := dnsQuestion{name: "good.corp.example", typ: dnsmessage.TypeA}
	eventually(t, routeTimeout, func(ctx context.Context) error {
		answer, err := askOnce(ctx, from, to, q.pack(t))
		if err == nil && (rcodeOf(answer) != dnsmessage.RCodeSuccess || answer[2]&0x80 == 0) {
			t.Errorf("%v answers %x", to, answer)
		}
		return err
	})
}

func askOnce(ctx context.Context, from dialer, to netip.AddrPort, question []byte) ([]byte, error) {
	c, err := from.Dial(ctx, "udp", to.String())
	if err != nil {
		return nil, err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(3 * time.Second))
	if _, err := c.Write(question); err != nil {
		return nil, err
	}
	answer := make([]byte, 4096)
	n, err := c.Read(answer)
	return answer[:n], err
}

// asksByLibrary has the server answer for a suffix, and resolves and dials names of
// it.
func asksByLibrary(t *testing.T, tailnet *devnet.Net, ours *node.Node, server dialer) {
	t.Helper()
	ip4, _ := server.TailscaleIPs()
	err := tailnet.SetDNS(netmap.DNSConfig{Proxied: true, Routes: map[string][]netmap.Resolver{"corp.example": {{Addr: ip4.String()}}}})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, routeTimeout, func(context.Context) error {
		if len(ours.DNSStatus().Routes["corp.example"]) == 0 {
			return errors.New("the route does not come")
		}
		return nil
	})
	ctx, cancel := context.WithTimeout(t.Context(), routeTimeout)
	defer cancel()
	want := netip.MustParseAddr("192.0.2.7")
	if got, err := ours.Resolver().LookupNetIP(ctx, "ip4", "good.corp.example."); err != nil || len(got) != 1 || got[0].Unmap() != want {
		t.Errorf("the resolver says %v, %v", got, err)
	}
	if a, err := ours.QueryDNS(ctx, "good.corp.example", "A"); err != nil || a.Local || a.Code != "NOERROR" {
		t.Errorf("the node's DNS says %+v, %v", a, err)
	}
	if _, err := ours.Dial(ctx, "tcp", "good.corp.example:80"); !errors.Is(err, node.ErrNoRoute) {
		t.Errorf("dial: %v, want no route to the address that the name has", err)
	}
}

// hearsNothing wants what nobody has asked for to be dropped.
func hearsNothing(t *testing.T, ours *node.Node, server dialer) {
	t.Helper()
	own, _ := ours.TailscaleIPs()
	ip4, _ := server.TailscaleIPs()
	pc, err := ours.ListenPacket("udp", netip.AddrPortFrom(own, 5353).String())
	if err != nil {
		t.Fatal(err)
	}
	defer pc.Close()
	v, err := ours.ExplainPacket(node.PacketQuery{Inbound: true, Protocol: 17, Src: netip.AddrPortFrom(ip4, 53), Dst: netip.AddrPortFrom(own, 5353)})
	if err != nil || v.Passes {
		t.Errorf("ours says of a datagram that it has not asked for: %+v, %v", v, err)
	}
	unasked := dialWhenKnown(t, server, "udp", netip.AddrPortFrom(own, 5353))
	defer unasked.Close()
	if _, err := unasked.Write([]byte("unasked")); err != nil {
		t.Fatal(err)
	}
	askByUDP(t, ours, netip.AddrPortFrom(ip4, 53)) // what was sent before is there by now
	pc.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
	if n, from, err := pc.ReadFrom(make([]byte, 100)); err == nil {
		t.Errorf("%d bytes of %v came through", n, from)
	}
}
