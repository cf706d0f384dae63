package interop

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/net/dns/dnsmessage"
	"tailscale.com/tailcfg"
	"tailscale.com/tsnet"
	"tailscale.com/types/dnstype"

	"github.com/seed94491740/tsnode/node"
)

// A dnsQuestion is one that the reference's resolver and ours are asked.
type dnsQuestion struct {
	name string
	typ  dnsmessage.Type
	edns int    // bytes that the client takes over UDP; 0 = none
	why  string // why the answers differ, where doc/protocol says that they do
}

// dnsSuffix is the tailnet of the reference's control server.
const dnsSuffix = "tail-scale.ts.net"

// dnsQuestions are questions for every rule of section 7 of node-services.md.
// Names are those of the nodes ours and theirs.
func dnsQuestions() (all []dnsQuestion) {
	add := func(name string, types ...dnsmessage.Type) {
		for _, typ := range types {
			all = append(all, dnsQuestion{name: name, typ: typ})
		}
	}
	const (
		a, aaaa, ptr = dnsmessage.TypeA, dnsmessage.TypeAAAA, dnsmessage.TypePTR
		txt, anyType = dnsmessage.TypeTXT, dnsmessage.TypeALL
		ns, soa, mx  = dnsmessage.TypeNS, dnsmessage.TypeSOA, dnsmessage.TypeMX
	)
	for _, host := range []string{"ours", "theirs"} { // SVC-67, SVC-71 to SVC-73
		add(host+"."+dnsSuffix, a, aaaa, anyType, txt, mx, ns, soa, dnsmessage.TypeAXFR, dnsmessage.TypeHINFO, 65)
		add(strings.ToUpper(host)+"."+dnsSuffix, a)
		add(host, a, aaaa, ns)
		add("below."+host+"."+dnsSuffix, a, aaaa, txt)
		add("very.far.below."+host+"."+dnsSuffix, a)
	}
	add("nobody."+dnsSuffix, a, aaaa, txt, ns, anyType) // SVC-68
	add(dnsSuffix, a, soa)
	add("x."+dnsSuffix+".example", a)
	add("x.empty.example", a, txt)
	add("empty.example", a)
	add("nobody", a)
	for _, label := range []string{"192-168-1-2-via-7", "192-168-1-2-via-0x7", "1-2-3-via-7", "1-2-3-4-via-4294967296", "1-2-3-4-via-x"} { // SVC-70
		add(label+"."+dnsSuffix, a, aaaa, anyType, txt)
		add(label, aaaa)
		add(label+".corp.example", aaaa)
	}
	add("192-168-1-2-via-7.x.tailscale.net", aaaa)
	add("192-168-1-2-via-7.ts.net", aaaa)
	for _, name := range []string{"extra.corp.example", "extra." + dnsSuffix, "six.extra.example", "wrong.extra.example", "text.extra.example"} { // ExtraRecords
		add(name, a, aaaa, anyType, txt, ns)
	}
	add("magicdns.localhost-tailscale-daemon", a, aaaa)
	add("x.onion", a, txt)
	add("onion", a)
	add("x.xonion", a)
	for _, name := range []string{ // reverse names; SVC-72
		"100.100.100.100.in-addr.arpa", reverseName(netip.MustParseAddr("fd7a:115c:a1e0::53")),
		"77.99.88.100.in-addr.arpa", "1.0.0.127.in-addr.arpa", "1.2.0.192.in-addr.arpa", "1.1.63.100.in-addr.arpa",
		reverseName(netip.MustParseAddr("fd7a:115c:a1e0::77")), reverseName(netip.MustParseAddr("2001:db8::77")),
		"5.9.0.10.in-addr.arpa",
	} {
		add(name, ptr)
	}
	add("77.99.88.100.in-addr.arpa", a, txt)
	for _, first := range []string{"b", "db", "r", "dr", "lb"} { // SVC-73
		add(first+"._dns-sd._udp.0.1.168.192.in-addr.arpa", ptr)
	}
	add("b._dns-sd._udp.64.100.in-addr.arpa", ptr)
	add("b._dns-sd._udp.example", a, ptr)
	add("b._dns-sd._udp."+dnsSuffix, a)
	add("x._dns-sd._udp.example", ptr)
	for _, name := range []string{"good", "missing", "failing", "refusing", "empty"} { // SVC-75
		add(name+".corp.example", a)
		add(name+".deep.corp.example", a)
		add(name+".elsewhere.example", a)
	}
	add("xdeep.corp.example", a)
	add("xcorp.example", a)
	add(".", ns)
	for _, size := range []int{0, 512, 1232, 4096, 65535} { // SVC-74
		for _, records := range []string{"20", "60", "200"} {
			all = append(all, dnsQuestion{name: records + ".many.example", typ: a, edns: size})
		}
	}
	return append(all,
		dnsQuestion{name: "ours." + dnsSuffix, typ: ptr, why: "a PTR question for a name of the tailnet is not passed on"},
		dnsQuestion{name: "nobody." + dnsSuffix, typ: ptr, why: "a PTR question for a name of the tailnet is not passed on"},
		dnsQuestion{name: "88.100.in-addr.arpa", typ: ptr, why: "nor is one for half a reverse name of ours"},
		dnsQuestion{name: "7.7.0.e.1.a.c.5.1.1.a.7.d.f.ip6.arpa", typ: ptr, why: "nor is one for half a reverse name of ours"},
		dnsQuestion{name: "capital.extra.example", typ: a, why: "the name of an ExtraRecord counts in any case"},
		dnsQuestion{name: "x.77.99.88.100.in-addr.arpa", typ: ptr, why: "nor is one for half a reverse name of ours"},
	)
}

// dnsConfig is the tailnet's configuration; the servers are at two addresses.
func dnsConfig(near, far string) *tailcfg.DNSConfig {
	return &tailcfg.DNSConfig{
		Proxied: true,
		Domains: []string{dnsSuffix},
		ExtraRecords: []tailcfg.DNSRecord{
			{Name: "extra.corp.example", Value: "10.0.9.5"},
			{Name: "extra." + dnsSuffix + ".", Type: "A", Value: "10.0.9.6"},
			{Name: "six.extra.example", Type: "AAAA", Value: "2001:db8::7"},
			{Name: "Capital.extra.example", Value: "10.0.9.7"},
			{Name: "wrong.extra.example", Value: "nowhere"},
			{Name: "text.extra.example", Type: "TXT", Value: "text"},
		},
		Routes: map[string][]*dnstype.Resolver{
			"corp.example":       {{Addr: near}},
			"deep.corp.example.": {{Addr: far}},
			"empty.example":      {},
		},
		Resolvers: []*dnstype.Resolver{{Addr: far}},
	}
}

// TestDNSDifferential asks the reference's resolver, as its node has configured
// it, and ours the same, over UDP and TCP, and compares the answers field by
// field.
func TestDNSDifferential(t *testing.T) {
	t.Parallel()
	control, c := referenceControl(t)
	c.DNSConfig = dnsConfig(upstreamDNS(t, "192.0.2.1"), upstreamDNS(t, "192.0.2.2"))
	theirs := tsnetNode(t, control, "theirs", "")
	lc, err := theirs.LocalClient()
	if err != nil {
		t.Fatal(err)
	}
	st, err := lc.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	c.SetNodeCapMap(st.Self.PublicKey, tailcfg.NodeCapMap{"dns-subdomain-resolve": nil})
	ours := ourNode(t, control, "ours", "")
	awaitSame(t, ours, theirs)
	questions := dnsQuestions()
	for _, n := range []dialer{ours, theirs} {
		for _, ip := range addrsOf(n) {
			questions = append(questions, dnsQuestion{name: reverseName(ip), typ: dnsmessage.TypePTR})
		}
	}
	t.Logf("%d questions over UDP and TCP", len(questions))
	for _, network := range []string{"udp", "tcp"} {
		for _, q := range questions {
			want, err := askReference(t, theirs, network, q)
			if err != nil {
				t.Errorf("%s %s %v: the reference: %v", network, q.name, q.typ, err)
				continue
			}
			got := askOurs(t, ours, network, q)
			diff := cmp.Diff(fieldsOf(t, want), fieldsOf(t, got))
			switch {
			case diff != "" && q.why == "":
				t.Errorf("%s %s %v (-reference +ours):\n%s", network, q.name, q.typ, diff)
			case diff == "" && q.why != "":
				t.Errorf("%s %s %v: no difference, though %s", network, q.name, q.typ, q.why)
			}
		}
	}
}

// awaitSame waits until both nodes know each other, and the attribute that lets
// names below one's own resolve.
func awaitSame(t *testing.T, ours *node.Node, theirs *tsnet.Server) {
	t.Helper()
	for _, q := range []dnsQuestion{{name: "ours." + dnsSuffix, typ: dnsmessage.TypeA}, {name: "below.theirs." + dnsSuffix, typ: dnsmessage.TypeA}} {
		eventually(t, upTimeout, func(context.Context) error {
			want, err := askReference(t, theirs, "tcp", q)
			got := askOurs(t, ours, "tcp", q)
			if err != nil || rcodeOf(want) != dnsmessage.RCodeSuccess || rcodeOf(got) != dnsmessage.RCodeSuccess {
				return fmt.Errorf("%s: the reference says %v, %v, ours %v", q.name, rcodeOf(want), err, rcodeOf(got))
			}
			return nil
		})
	}
}

func rcodeOf(msg []byte) dnsmessage.RCode {
	if len(msg) < 12 {
		return dnsmessage.RCodeServerFailure
	}
	return dnsmessage.RCode(msg[3] & 15)
}

func addrsOf(n dialer) []netip.Addr {
	ip4, ip6 := n.TailscaleIPs()
	return []netip.Addr{ip4, ip6}
}

// reverseName returns the name that maps an address back.
func reverseName(a netip.Addr) string {
	b := a.AsSlice()
	slices.Reverse(b)
	var s strings.Builder
	for _, x := range b {
		if a.Is4() {
			fmt.Fprintf(&s, "%d.", x)
		} else {
			fmt.Fprintf(&s, "%x.%x.", x&15, x>>4)
		}
	}
	if a.Is4() {
		return s.String() + "in-addr.arpa"
	}
	return s.String() + "ip6.arpa"
}

// pack returns a question as a message.
func (q *dnsQuestion) pack(t *testing.T) []byte {
	t.Helper()
	b := dnsmessage.NewBuilder(nil, dnsmessage.Header{ID: 4711, RecursionDesired: true})
	name, err := dnsmessage.NewName(strings.TrimSuffix(q.name, ".") + ".")
	if err != nil {
		t.Fatal(err)
	}
	errs := []error{b.StartQuestions(), b.Question(dnsmessage.Question{Name: name, Type: q.typ, Class: dnsmessage.ClassINET})}
	if q.edns > 0 {
		var h dnsmessage.ResourceHeader
		errs = append(errs, h.SetEDNS0(q.edns, dnsmessage.RCodeSuccess, false), b.StartAdditionals(), b.OPTResource(h, dnsmessage.OPTResource{}))
	}
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	msg, err := b.Finish()
	if err != nil {
		t.Fatal(err)
	}
	return msg
}

// askReference asks the resolver of a reference node.
func askReference(t *testing.T, n *tsnet.Server, network string, q dnsQuestion) ([]byte, error) {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	return n.Sys().DNSManager.Get().Resolver().Query(ctx, q.pack(t), network, netip.MustParseAddrPort("127.0.0.1:1"))
}

// askOurs asks our node on its service address.
func askOurs(t *testing.T, n *node.Node, network string, q dnsQuestion) []byte {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	c, err := n.Dial(ctx, network, "100.100.100.100:53")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	deadline, _ := ctx.Deadline()
	c.SetDeadline(deadline)
	msg := q.pack(t)
	if network == "tcp" {
		msg = append(binary.BigEndian.AppendUint16(nil, uint16(len(msg))), msg...)
	}
	if _, err := c.Write(msg); err != nil {
		t.Fatal(err)
	}
	answer := make([]byte, 65535)
	if network == "udp" {
		size, err := c.Read(answer)
		if err != nil {
			t.Fatalf("%s %v over UDP: %v", q.name, q.typ, err)
		}
		return answer[:size]
	}
	if _, err := io.ReadFull(c, answer[:2]); err != nil {
		t.Fatalf("%s %v over TCP: %v", q.name, q.typ, err)
	}
	answer = answer[:binary.BigEndian.Uint16(answer)]
	if _, err := io.ReadFull(c, answer); err != nil {
		t.Fatal(err)
	}
	return answer
}

// fieldsOf returns all fields of a message but the serial number of a zone,
// which is the time in both.
func fieldsOf(t *testing.T, msg []byte) string {
	t.Helper()
	var m dnsmessage.Message
	if err := m.Unpack(msg); err != nil {
		t.Errorf("%x: %v", msg, err)
	}
	for _, r := range m.Authorities {
		if soa, ok := r.Body.(*dnsmessage.SOAResource); ok {
			soa.Serial = 0
		}
	}
	lines := []string{m.Header.GoString()}
	for _, q := range m.Questions {
		lines = append(lines, q.GoString())
	}
	for _, section := range [][]dnsmessage.Resource{m.Answers, m.Authorities, m.Additionals} {
		lines = append(lines, "--")
		for i := range section {
			section[i].Header.Length = 0 // of the compressed form
			lines = append(lines, section[i].GoString())
		}
	}
	return strings.Join(lines, "\n")
}
