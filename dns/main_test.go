package dns

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"

	"go.uber.org/goleak"
	"golang.org/x/net/dns/dnsmessage"

	"github.com/seed94491740/tsnode/netmap"
)

func TestMain(m *testing.M) {
	// Package net makes channels on first use, which must not belong to a bubble.
	broken := func(context.Context, string, string) (net.Conn, error) { return nil, net.ErrClosed }
	(&net.Resolver{PreferGo: true, Dial: broken}).LookupHost(context.Background(), "first.example.")
	goleak.VerifyTestMain(m)
}

// newPeer returns a node with addresses.
func newPeer(id int, name string, addrs ...string) *netmap.Peer {
	p := &netmap.Peer{ID: netmap.NodeID(id), StableID: netmap.StableID(fmt.Sprintf("n%d", id)), Name: name, Authorized: true}
	for _, a := range addrs {
		ip := netip.MustParseAddr(a)
		p.Addresses = append(p.Addresses, netip.PrefixFrom(ip, ip.BitLen()))
	}
	return p
}

// newNetmap returns the tailnet of most tests: tail.ts.net with MagicDNS.
func newNetmap() *netmap.Netmap {
	sub := newPeer(4, "sub.tail.ts.net.", "100.64.0.4")
	sub.CapMap = netmap.CapMap{attrSubdomain: nil}
	exit := newPeer(5, "exit.tail.ts.net.", "100.64.0.5", "fd7a:115c:a1e0::5")
	exit.PeerAPIDNS, exit.PeerAPI4, exit.PeerAPI6 = true, 4000, 6000
	return &netmap.Netmap{
		Self: newPeer(1, "me.tail.ts.net.", "100.64.0.1", "fd7a:115c:a1e0::1"),
		Peers: []*netmap.Peer{
			newPeer(2, "Both.tail.ts.net.", "100.64.0.2", "fd7a:115c:a1e0::2"),
			newPeer(3, "six.tail.ts.net.", "fd7a:115c:a1e0::3"),
			sub, exit,
			newPeer(6, "shared.other.ts.net.", "100.64.0.6"),
			newPeer(7, "bare.tail.ts.net."),
			{ID: 8},
		},
		DNS: &netmap.DNSConfig{
			Proxied: true,
			Domains: []string{"tail.ts.net", "corp.example"},
			ExtraRecords: []netmap.DNSRecord{
				{Name: "Extra.corp.example", Value: "100.64.9.9"},
				{Name: "extra.corp.example.", Type: "AAAA", Value: "fd7a:115c:a1e0::99"},
				{Name: "extra.tail.ts.net", Type: "A", Value: "100.64.9.8"},
				{Name: "text.tail.ts.net", Type: "TXT", Value: "hello"},
				{Name: "bad.tail.ts.net", Value: "nowhere"},
			},
			Routes: map[string][]netmap.Resolver{
				"corp.example":       {{Addr: "10.0.0.53"}, {Addr: "10.0.0.54:5353", UseWithExitNode: true}},
				"deep.corp.example.": {{Addr: "10.0.0.55"}},
				"empty.example":      nil,
			},
			Resolvers:         []netmap.Resolver{{Addr: "192.0.2.53"}},
			FallbackResolvers: []netmap.Resolver{{Addr: "192.0.2.99"}},
		},
	}
}

var accept = Preferences{AcceptDNS: true}

// message returns a client's question.
func message(t testing.TB, name string, typ dnsmessage.Type) []byte {
	t.Helper()
	msg, err := newQuery(77, strings.TrimSuffix(name, "."), typ)
	if err != nil {
		t.Fatal(err)
	}
	return msg
}

// ask returns what a table says of a question, as text.
func ask(t testing.TB, table *Table, name string, typ dnsmessage.Type) string {
	t.Helper()
	q, err := parseQuery(message(t, name, typ), false)
	if err != nil {
		t.Fatal(err)
	}
	d := table.Decide(q.name, typ)
	if d.Verdict == Forward {
		s := "-> " + d.Route + "."
		for _, u := range d.Upstreams {
			s += " " + u.String()
			if u.Delay > 0 {
				s += fmt.Sprintf("+%v", u.Delay)
			}
		}
		return s
	}
	return text(t, q.answer(&d, 1))
}

// text shows what clients look at in a message.
func text(t testing.TB, msg []byte) string {
	t.Helper()
	var m dnsmessage.Message
	if err := m.Unpack(msg); err != nil {
		return fmt.Sprintf("%x: %v", msg, err)
	}
	words := []string{strings.TrimPrefix(m.RCode.String(), "RCode")}
	if m.Truncated {
		words = append(words, "truncated")
	}
	for _, r := range m.Answers {
		words = append(words, fmt.Sprintf("%s/%d", recordText(r.Body), r.Header.TTL))
	}
	for _, r := range m.Authorities {
		if soa, ok := r.Body.(*dnsmessage.SOAResource); ok {
			words = append(words, fmt.Sprintf("SOA %v %d/%d", r.Header.Name, soa.MinTTL, r.Header.TTL))
		}
	}
	return strings.Join(words, " ")
}

func recordText(body dnsmessage.ResourceBody) string {
	switch r := body.(type) {
	case *dnsmessage.AResource:
		return netip.AddrFrom4(r.A).String()
	case *dnsmessage.AAAAResource:
		return netip.AddrFrom16(r.AAAA).String()
	case *dnsmessage.PTRResource:
		return r.PTR.String()
	case *dnsmessage.TXTResource:
		return fmt.Sprint(r.TXT)
	}
	return fmt.Sprintf("%T", body)
}

// reply returns what a server answers to a message.
func replyTo(t testing.TB, question []byte, code dnsmessage.RCode, addrs ...netip.Addr) []byte {
	t.Helper()
	q, err := parseQuery(question, false)
	if err != nil {
		t.Error(err)
		return nil
	}
	msg := q.addrs(addrs)
	msg[3] = msg[3]&^maskRCode | byte(code)
	return msg
}

// A row is one question and what is to become of it.
type row struct {
	name string
	typ  dnsmessage.Type
	want string
}

func check(t *testing.T, table *Table, rows []row) {
	t.Helper()
	for _, r := range rows {
		if got := ask(t, table, r.name, r.typ); got != r.want {
			t.Errorf("%s %v: %s, want %s", r.name, r.typ, got, r.want)
		}
	}
}

// Types of questions.
const (
	a    = dnsmessage.TypeA
	aaaa = dnsmessage.TypeAAAA
	anyT = dnsmessage.TypeALL
	ptr  = dnsmessage.TypePTR
	txt  = dnsmessage.TypeTXT
)
