package derp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/seed94491740/tsnode/netmap"
)

// TestBootstrapOrder: DERP-105: six relays by their addresses, alternating
// between the families as long as both have some.
func TestBootstrapOrder(t *testing.T) {
	node := func(i int, v4, v6 bool) *netmap.DERPNode {
		n := &netmap.DERPNode{HostName: fmt.Sprint("r", i), IPv4: "none"}
		if v4 {
			n.IPv4 = fmt.Sprint("192.0.2.", i)
		}
		if v6 {
			n.IPv6 = fmt.Sprint("2001:db8::", i)
		}
		return n
	}
	families := func(nodes []*netmap.DERPNode) (s string) {
		for _, n := range nodes {
			switch {
			case n.IPv6 == "none":
				s += "4"
			case n.IPv4 == "none":
				s += "6"
			default:
				s += "?"
			}
		}
		return s
	}
	unusable := []*netmap.DERPNode{nil, {HostName: "s", IPv4: "192.0.2.9", STUNOnly: true}, {HostName: "name.test"}, {IPv4: "192.0.2.9"}}
	for want, nodes := range map[string][]*netmap.DERPNode{
		"":       unusable,
		"464646": {node(1, true, true), node(2, true, true), node(3, true, true), node(4, true, true)},
		"4644":   {node(1, true, false), node(2, true, true), node(3, true, false)},
		"66":     {node(1, false, true), node(2, false, true)},
	} {
		if got := families(bootstrapOrder(append(nodes, unusable...))); got != want {
			t.Errorf("asked in the order %q, want %q", got, want)
		}
	}
}

// TestLookupBootstrap: relays that do not answer in 3 s, or have no answer, are
// passed over.
func TestLookupBootstrap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked := make(chan string, 2)
		n := &scripted{dial: func(ctx context.Context, _, address string) (net.Conn, error) {
			switch address {
			case "192.0.2.1:3340":
				here, there := net.Pipe()
				context.AfterFunc(t.Context(), func() { there.Close() })
				return here, nil // takes nothing
			case "192.0.2.2:3340":
				return answer("HTTP/1.1 200 OK\r\n\r\n{}", asked), nil
			case "[2001:db8::3]:3340":
				return answer("HTTP/1.1 200 OK\r\n\r\n{\"c.test\": [\"203.0.113.1\", \"nonsense\", \"2001:db8::99\"]}", asked), nil
			}
			return nil, errRefused
		}}
		d := &Dialer{Network: n, PlainHTTP: true}
		start := time.Now()
		addrs, err := LookupBootstrap(t.Context(), d, []*netmap.DERPNode{{HostName: "r1", IPv4: "192.0.2.1"}}, "c.test")
		if err == nil || time.Since(start) != bootstrapWait {
			t.Errorf("%v, %v after %v", addrs, err, time.Since(start))
		}
		addrs, err = LookupBootstrap(t.Context(), d, []*netmap.DERPNode{
			{HostName: "r2", IPv4: "192.0.2.2"}, {HostName: "r3", IPv6: "2001:db8::3"}, {HostName: "r4", IPv4: "192.0.2.4"},
		}, "c.test")
		want := []netip.Addr{netip.MustParseAddr("203.0.113.1"), netip.MustParseAddr("2001:db8::99")}
		if err != nil || !cmp.Equal(addrs, want, cmpopts.EquateComparable(netip.Addr{})) {
			t.Errorf("%v, %v", addrs, err)
		}
		for len(asked) > 1 {
			<-asked
		}
		if head := <-asked; !strings.HasPrefix(head, "GET /bootstrap-dns?q=c.test HTTP/1.1\r\nHost: r") {
			t.Errorf("asked %q", head)
		}
		if n.open != 0 {
			t.Errorf("%d connections stay open", n.open)
		}
		_, err = LookupBootstrap(t.Context(), d, []*netmap.DERPNode{{HostName: "r4", IPv4: "192.0.2.4"}}, "c.test")
		if !errors.Is(err, errRefused) || !strings.Contains(err.Error(), "bootstrap DNS for c.test: relay r4") {
			t.Errorf("error %v", err)
		}
		if _, err = LookupBootstrap(t.Context(), d, nil, "c.test"); err == nil || !strings.Contains(err.Error(), "no relay with an IP address") {
			t.Errorf("error %v", err)
		}
	})
}

// FuzzBootstrap: an answer gives addresses or an error, never both or neither,
// and one without an end is refused.
func FuzzBootstrap(f *testing.F) {
	for _, s := range []string{
		"HTTP/1.1 200 OK\r\n\r\n{\"c.test\": [\"203.0.113.1\"]}", "HTTP/1.1 200 OK\r\n\r\n{\"c.test\": null}",
		"HTTP/1.1 200 OK\r\n\r\n[]", "HTTP/1.1 404 Not Found\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{}", "",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, response string) {
		addrs, err := readBootstrap(strings.NewReader(response), "c.test")
		if (err == nil) != (len(addrs) > 0) {
			t.Errorf("%v and %v", addrs, err)
		}
	})
}

// TestBootstrapBound: an answer without an end is not read for ever.
func TestBootstrapBound(t *testing.T) {
	r := &endless{head: "HTTP/1.1 200 OK\r\n\r\n{\"c.test\": [\""}
	if _, err := readBootstrap(r, "c.test"); err == nil || r.given > maxResponse+maxBootstrapBody {
		t.Errorf("%v after %d bytes", err, r.given)
	}
}
