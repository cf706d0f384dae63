package node_test

import (
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/seed94491740/tsnode/devnet"
	"github.com/seed94491740/tsnode/node"
)

// A told is a machine that tells which nameservers it asks.
type told struct {
	*lan
	servers []netip.AddrPort
}

func (n told) Nameservers() ([]netip.AddrPort, error) { return n.servers, nil }

// serveNames answers on the loopback: a TXT record for TXT, an MX record for MX, no
// record for other types, and NXDOMAIN for names that begin with missing.
func serveNames(t *testing.T) netip.AddrPort {
	t.Helper()
	pc, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { pc.Close() })
	go func() {
		for b := make([]byte, 4096); ; {
			n, from, err := pc.ReadFrom(b)
			if err != nil {
				return
			}
			if answer := nameAnswer(b[:n]); answer != nil {
				pc.WriteTo(answer, from)
			}
		}
	}()
	return netip.MustParseAddrPort(pc.LocalAddr().String())
}

func nameAnswer(question []byte) []byte {
	var m dnsmessage.Message
	if m.Unpack(question) != nil || len(m.Questions) != 1 {
		return nil
	}
	q := m.Questions[0]
	m.Response, m.Additionals = true, nil
	header := dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class, TTL: 60}
	switch {
	case strings.HasPrefix(q.Name.String(), "missing."):
		m.RCode = dnsmessage.RCodeNameError
	case q.Type == dnsmessage.TypeTXT:
		m.Answers = []dnsmessage.Resource{{Header: header, Body: &dnsmessage.TXTResource{TXT: []string{"of the host"}}}}
	case q.Type == dnsmessage.TypeMX:
		m.Answers = []dnsmessage.Resource{{Header: header, Body: &dnsmessage.MXResource{Pref: 7, MX: dnsmessage.MustNewName("mail.example.")}}}
	}
	b, _ := m.Pack()
	return b
}

// SVC-88: without a global resolver, an exit node answers its users as the servers
// of its host do, whatever type they ask for, and so does Resolver.
func TestDNSOfTheHostsServers(t *testing.T) {
	tailnet := startDevnet(t, devnet.Config{})
	exit := newNode(t, tailnet, "exit")
	exit.AdvertiseExitNode = true
	exit.Network = told{newLAN(t), []netip.AddrPort{netip.MustParseAddrPort("100.100.100.100:53"), serveNames(t)}}
	up(t, exit)
	approve(t, tailnet, "exit", internetRoutes...)
	client := newRouted(t, tailnet, "client", newLAN(t), func(n *node.Node) { n.ExitNode = "exit" })
	eventually(t, "exit node", routes(client, internet, "exit"))
	eventually(t, "its DNS", func() bool { return len(client.DNSStatus().Routes["."]) == 1 })
	for name, n := range map[string]*node.Node{"a user": client, "the exit node": exit} {
		r := n.Resolver()
		if got, err := r.LookupTXT(within(t, patience), "www.example."); err != nil || !slices.Equal(got, []string{"of the host"}) {
			t.Errorf("%s: TXT %q, %v", name, got, err)
		}
		if got, err := r.LookupMX(within(t, patience), "www.example."); err != nil || len(got) != 1 || got[0].Host != "mail.example." {
			t.Errorf("%s: MX %v, %v", name, got, err)
		}
		missing, _ := errors.AsType[*net.DNSError](func() error {
			_, err := r.LookupTXT(within(t, patience), "missing.example.")
			return err
		}())
		if missing == nil || !missing.IsNotFound {
			t.Errorf("%s: a name that does not exist: %v", name, missing)
		}
	}
	for name, want := range map[string]string{"www.example": "NOERROR", "missing.example": "NXDOMAIN"} {
		if got, err := client.QueryDNS(within(t, patience), name, "TYPE65"); err != nil || got.Code != want {
			t.Errorf("HTTPS record of %s: %+v, %v; want %s", name, got, err, want)
		}
	}
}

// SVC-43: while a node has not got the exit node that it wants, the servers of its
// host are not asked either.
func TestDNSWithoutTheExitNode(t *testing.T) {
	tailnet := startDevnet(t, devnet.Config{})
	n := newNode(t, tailnet, "alone")
	n.ExitNode = "exit"
	n.Network = told{newLAN(t), []netip.AddrPort{serveNames(t)}}
	up(t, n)
	if got, err := n.Resolver().LookupTXT(within(t, patience), "www.example."); err == nil {
		t.Errorf("got %q", got)
	}
	if err := n.EditPreferences(func(p *node.Preferences) { p.ExitNode = "" }); err != nil {
		t.Fatal(err)
	}
	if got, err := n.Resolver().LookupTXT(within(t, patience), "www.example."); err != nil || len(got) != 1 {
		t.Errorf("without the wish: %q, %v", got, err)
	}
}
