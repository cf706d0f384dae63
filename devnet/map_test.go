package devnet

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/seed94491740/tsnode/control"
	"github.com/seed94491740/tsnode/key"
	"github.com/seed94491740/tsnode/netmap"
)

// The first frame is complete (CTL-33, control.md section 8.4).
func TestFirstFrame(t *testing.T) {
	n := New(t, Config{Relays: 2})
	b := newRawNode(t, n, "b").join(KeyOptions{User: "bob"})
	b.report(func(r *control.MapRequest) { r.Endpoints = []netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:5")} })
	a := newRawNode(t, n, "a").join(KeyOptions{})
	s := a.poll()
	m, self := s.state, s.self
	if self.Name != "a.tailnet.test." || self.Key != a.key.Public() || !self.MachineAuthorized || len(self.Addresses) != 2 || self.Hostinfo.Hostname != "a" {
		t.Errorf("self %+v", self)
	}
	p := s.peer("b")
	if len(m.Peers) != 1 || p == nil || p.HomeDERP != 1 || p.DERP != "127.3.3.40:1" || p.DiscoKey != b.disco || len(p.Endpoints) != 1 || *p.Online || p.Cap != b.version {
		t.Errorf("peers %+v", p)
	}
	if p.Hostinfo.NetInfo != nil || p.Hostinfo.OS != "linux" {
		t.Errorf("peers see %+v", p.Hostinfo)
	}
	if len(m.UserProfiles) != 2 || m.Domain != "tailnet.test" || m.ControlTime.IsZero() || m.Health == nil || m.CollectServices != control.False {
		t.Errorf("frame %+v", m)
	}
	if d := m.DNSConfig; d == nil || !d.Proxied || !slices.Equal(d.Domains, []string{"tailnet.test"}) || d.Routes["tailnet.test"] == nil || d.Routes["100.100.in-addr.arpa"] == nil {
		t.Errorf("DNS %+v", m.DNSConfig)
	}
	if m.DERPMap == nil || len(m.DERPMap.Regions) != 2 || m.DERPMap.Regions[2].Nodes[0].HostName != "127.0.0.1" {
		t.Errorf("DERP map %+v", m.DERPMap)
	}
	if len(m.PacketFilter) != 1 || m.PacketFilters != nil {
		t.Errorf("filter %+v, %+v", m.PacketFilter, m.PacketFilters)
	}
	if m.MapSessionHandle == "" || m.Seq != 1 {
		t.Errorf("session %q, %d", m.MapSessionHandle, m.Seq)
	}
}

// What changes at a peer comes as the smallest change that says it (CTL-35).
func TestDeltas(t *testing.T) {
	n := New(t, Config{Relays: 3})
	a := newRawNode(t, n, "a").join(KeyOptions{})
	s := a.poll()
	b := newRawNode(t, n, "b").join(KeyOptions{})
	m := s.next()
	if len(m.PeersChanged) != 1 || len(m.Peers) != 0 || m.Node != nil || m.DERPMap != nil || m.DNSConfig != nil || m.PacketFilter != nil || m.UserProfiles != nil {
		t.Errorf("a peer comes: %+v", m)
	}
	patch := func(what string) *control.PeerChange {
		t.Helper()
		m := s.next()
		if len(m.PeersChangedPatch) != 1 || m.PeersChanged != nil || m.Node != nil {
			t.Fatalf("%s: %+v", what, m)
		}
		return m.PeersChangedPatch[0]
	}
	b.report()
	if c := patch("first report"); c.DERPRegion != 1 || *c.DiscoKey != b.disco || c.Cap != b.version || c.Endpoints != nil || c.Online != nil {
		t.Errorf("first report: %+v", c)
	}
	ep := netip.MustParseAddrPort("192.0.2.1:5")
	b.report(func(r *control.MapRequest) {
		r.Endpoints = []netip.AddrPort{ep, netip.MustParseAddrPort("[fe80::1%eth0]:5")}
	})
	if c := patch("endpoints"); !slices.Equal(c.Endpoints, []netip.AddrPort{ep}) || c.DERPRegion != 0 || c.DiscoKey != nil {
		t.Errorf("endpoints: %+v", c)
	}
	b.report()
	if c := patch("no endpoints"); c.Endpoints == nil || len(c.Endpoints) != 0 {
		t.Errorf("no endpoints: %+v", c)
	}
	sb := b.poll()
	if c := patch("online"); !*c.Online || c.LastSeen != nil {
		t.Errorf("online: %+v", c)
	}
	sb.cancel()
	if c := patch("offline"); *c.Online || c.LastSeen == nil {
		t.Errorf("offline: %+v", c)
	}
	b.report(func(r *control.MapRequest) { r.DiscoKey = key.DiscoPublic{} })
	if m := s.next(); len(m.PeersChanged) != 1 || m.PeersChangedPatch != nil {
		t.Errorf("a disco key that is gone cannot be patched: %+v", m)
	}
	b.name = "c"
	b.report(func(r *control.MapRequest) { r.Hostinfo = b.hostinfo() })
	s.until("new name", func() bool { return s.peer("c") != nil && s.peer("b") == nil })
	if err := n.Remove("c"); err != nil {
		t.Fatal(err)
	}
	if m := s.next(); len(m.PeersRemoved) != 1 || m.PeersChanged != nil {
		t.Errorf("a peer goes: %+v", m)
	}
	if len(s.peers) != 0 {
		t.Errorf("peers %v", s.peers)
	}
}

// A report that changes nothing is told to nobody.
func TestReportWithoutChange(t *testing.T) {
	n := New(t, Config{})
	a := newRawNode(t, n, "a").join(KeyOptions{})
	b := newRawNode(t, n, "b").join(KeyOptions{})
	b.report()
	s := a.poll()
	for range 3 {
		b.report()
	}
	if err := n.SetOnline("b", true); err != nil {
		t.Fatal(err)
	}
	if m := s.next(); len(m.PeersChangedPatch) != 1 || m.PeersChangedPatch[0].Online == nil {
		t.Errorf("frame %+v, want the one of SetOnline", m)
	}
	if s.seq != 2 {
		t.Errorf("seq %d, want 2", s.seq)
	}
}

// A new policy reaches everyone at once: filters and peers.
func TestSetPolicy(t *testing.T) {
	n := New(t, Config{})
	a := newRawNode(t, n, "a").join(KeyOptions{User: "alice"})
	b := newRawNode(t, n, "b").join(KeyOptions{User: "bob"})
	sa, sb := a.poll(), b.poll()
	sa.until("b online", func() bool { return *sa.peer("b").Online })
	if err := n.SetPolicy([]byte(`{"acls": [`)); err == nil {
		t.Error("a policy with an error is taken")
	}
	if err := n.SetPolicy([]byte(`{"acls": []}`)); err != nil {
		t.Fatal(err)
	}
	m := sa.next()
	if m.PacketFilter == nil || len(m.PacketFilter) != 0 || len(m.PeersRemoved) != 1 {
		t.Errorf("nothing allowed: %+v", m)
	}
	sb.until("a gone", func() bool { return sb.peer("a") == nil })
	if err := n.SetPolicy([]byte(`{"acls": [{"action": "accept", "src": ["alice@"], "dst": ["bob@:22"]}]}`)); err != nil {
		t.Fatal(err)
	}
	m = sa.next()
	if len(m.PeersChanged) != 1 || m.PacketFilter != nil {
		t.Errorf("a may reach b: a gets %+v", m)
	}
	for m = sb.next(); len(m.PacketFilter) == 0 || len(m.PeersChanged) == 0; m = sb.next() {
		if len(m.PacketFilter)+len(m.PeersChanged) > 0 {
			t.Errorf("rule and peer come apart: %+v", m)
		}
	}
}

// Routes lead to a node when it offers them and they are approved.
func TestApproveRoutes(t *testing.T) {
	n := New(t, Config{})
	route := netip.MustParsePrefix("10.2.0.0/16")
	a := newRawNode(t, n, "a").join(KeyOptions{})
	b := newRawNode(t, n, "b").join(KeyOptions{})
	s := a.poll()
	if err := n.ApproveRoutes("b", route); err != nil {
		t.Fatal(err)
	}
	if err := n.ApproveRoutes("b", netip.PrefixFrom(route.Addr().Next(), 16)); err == nil {
		t.Error("a route with host bits is taken")
	}
	b.report(func(r *control.MapRequest) { r.Hostinfo.RoutableIPs = []netip.Prefix{route} })
	s.until("route", func() bool {
		p := s.peer("b")
		return slices.Contains(p.AllowedIPs, route) && slices.Contains(p.PrimaryRoutes, route)
	})
	if info, _ := n.Node("b"); !slices.Equal(info.Routes, []netip.Prefix{route}) || !slices.Equal(info.Offers, []netip.Prefix{route}) {
		t.Errorf("member %+v", info)
	}
	if err := n.ApproveRoutes("b"); err != nil {
		t.Fatal(err)
	}
	s.until("no route", func() bool { return !slices.Contains(s.peer("b").AllowedIPs, route) })
}

// Names, tags, attributes, DNS and expiry reach those whom they concern.
func TestAdministration(t *testing.T) {
	n := New(t, Config{})
	a := newRawNode(t, n, "a").join(KeyOptions{})
	newRawNode(t, n, "b").join(KeyOptions{})
	s := a.poll()
	for _, step := range []struct {
		name string
		do   func() error
		seen func() bool
	}{
		{"rename", func() error { return n.Rename("b", "c") }, func() bool { return s.peer("c") != nil }},
		{"tags", func() error { return n.SetTags("c", "tag:x") }, func() bool {
			p := s.peer("c")
			return slices.Equal(p.Tags, []string{"tag:x"}) && p.User == taggedDevices
		}},
		{"attributes", func() error { return n.SetAttributes("a", netmap.CapMap{"funnel": nil}) }, func() bool { return s.self.CapMap.Has("funnel") }},
		{"expiry", func() error { return n.ExpireKey("c") }, func() bool { return s.peer("c").Expired }},
		{"own expiry", func() error { return n.ExpireKey("a") }, func() bool { return s.self.Expired && !s.self.KeyExpiry.IsZero() }},
	} {
		if err := step.do(); err != nil {
			t.Fatalf("%s: %v", step.name, err)
		}
		s.until(step.name, step.seen)
	}
	if err := n.SetDNS(netmap.DNSConfig{Domains: []string{"other.test"}}); err != nil {
		t.Fatal(err)
	}
	if m := s.next(); m.DNSConfig == nil || m.DNSConfig.Domains[0] != "other.test" {
		t.Errorf("DNS: %+v", m)
	}
	for what, err := range map[string]error{
		"no node": n.Rename("none", "x"), "taken name": n.Rename("a", "c"), "bad name": n.Rename("a", "A b"), "bad tag": n.SetTags("a", "x"),
	} {
		if err == nil || !strings.HasPrefix(err.Error(), "devnet: ") {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// A map without a stream comes once, and in no session.
func TestSingleMap(t *testing.T) {
	n := New(t, Config{})
	a := newRawNode(t, n, "a").join(KeyOptions{})
	b := a.call(control.PathMap, a.mapRequest(), http.StatusOK)
	m, err := readFrame(strings.NewReader(string(b)))
	if err != nil || m.Node == nil || m.MapSessionHandle != "" || len(b) < 100 {
		t.Errorf("map %+v, %v", m, err)
	}
	if info, _ := n.Node("a"); info.Online {
		t.Error("one map makes a node online")
	}
}

// The newest stream of a node replaces the one before (control.md section 8.1).
func TestSecondStream(t *testing.T) {
	n := New(t, Config{})
	a := newRawNode(t, n, "a").join(KeyOptions{})
	first := a.poll()
	second := a.poll()
	first.ended()
	if info, _ := n.Node("a"); !info.Online {
		t.Error("the end of the first stream makes the node offline")
	}
	newRawNode(t, n, "b").join(KeyOptions{})
	second.until("peer b", func() bool { return second.peer("b") != nil })
}

// A stream goes on where one before it has ended, if nothing was lost (control.md
// section 8.8).
func TestResume(t *testing.T) {
	n := New(t, Config{})
	a := newRawNode(t, n, "a").join(KeyOptions{})
	newRawNode(t, n, "b").join(KeyOptions{})
	s := a.poll()
	s.cancel()
	awaitOnline(t, n, "a", false)
	resume := func(handle string, seq int64) func(*control.MapRequest) {
		return func(r *control.MapRequest) { r.MapSessionHandle, r.MapSessionSeq = handle, seq }
	}
	newRawNode(t, n, "c").join(KeyOptions{})
	again := a.poll(resume(s.handle, s.seq))
	m := again.state
	if m.MapSessionHandle != s.handle || m.Seq != s.seq+1 || m.Peers != nil || len(m.PeersChanged) != 1 || m.DERPMap != nil || m.DNSConfig != nil {
		t.Errorf("resumed: %+v", m)
	}
	for what, change := range map[string]func(*control.MapRequest){
		"older": resume(s.handle, s.seq), "unknown": resume("x", again.seq), "none": func(*control.MapRequest) {},
	} {
		if m := a.poll(change).state; m.MapSessionHandle == s.handle || len(m.Peers) != 2 || m.Node == nil {
			t.Errorf("%s session: %+v", what, m)
		}
	}
}

// awaitOnline waits until a member has a stream, or has none.
func awaitOnline(t *testing.T, n *Net, name string, online bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	err := n.Await(ctx, func(all []NodeInfo) bool {
		return slices.ContainsFunc(all, func(i NodeInfo) bool { return i.Name == name && i.Online == online })
	})
	if err != nil {
		t.Fatal(err)
	}
}

// Map requests for a node that is not there, or of another machine, get 404
// (CTL-44).
func TestUnknownNode(t *testing.T) {
	n := New(t, Config{})
	a := newRawNode(t, n, "a").join(KeyOptions{})
	eve := newRawNode(t, n, "eve")
	eve.call(control.PathMap, eve.mapRequest(), http.StatusNotFound)
	eve.call(control.PathMap, a.mapRequest(), http.StatusNotFound)
	s := a.poll()
	if err := n.Remove("a"); err != nil {
		t.Fatal(err)
	}
	s.ended()
	a.call(control.PathMap, a.mapRequest(), http.StatusNotFound)
	bad := a.mapRequest()
	bad.Compress = "gzip"
	a.join(KeyOptions{})
	a.call(control.PathMap, bad, http.StatusBadRequest)
}

// Nodes may set records below the tailnet's names (CTL-19).
func TestSetDNSRecord(t *testing.T) {
	n := New(t, Config{})
	a := newRawNode(t, n, "a").join(KeyOptions{})
	req := control.SetDNSRequest{Version: 130, NodeKey: a.key.Public(), Name: "_acme-challenge.a.tailnet.test", Type: "TXT", Value: "v"}
	if b := a.call(control.PathSetDNS, req, http.StatusOK); strings.TrimSpace(string(b)) != "{}" {
		t.Errorf("answer %q", b)
	}
	want := []netmap.DNSRecord{{Name: req.Name, Type: "TXT", Value: "v"}}
	if diff := cmp.Diff(want, n.DNSRecords()); diff != "" {
		t.Errorf("records (-want +got):\n%s", diff)
	}
	req.Name = "example.com"
	a.call(control.PathSetDNS, req, http.StatusBadRequest)
	req.Name, req.NodeKey = "x.tailnet.test", key.NewNode().Public()
	a.call(control.PathSetDNS, req, http.StatusNotFound)
}

// Very many peers come in several frames, none of them too long; one of them
// that changes costs one patch.
func TestManyPeers(t *testing.T) {
	n := newTestTailnet(t, "")
	const count = 2*peersPerFrame + 10
	for i := range count {
		addrs, _, err := addressesFor(uint32(syntheticAddr + i))
		if err != nil {
			t.Fatal(err)
		}
		n.faults.synthetic = append(n.faults.synthetic, syntheticPeer(i, addrs, n.members[1].Created))
	}
	m := n.byName("alice-1")
	v := newView(n, m.ID, loopback)
	seen, frames := 0, 0
	for more := true; more; frames++ {
		var resp *control.MapResponse
		resp, more = v.next(n, m, m.Created)
		nodes := append(resp.Peers, resp.PeersChanged...)
		seen += len(nodes)
		b, err := json.Marshal(nodes[0])
		if size := len(b) * len(nodes); err != nil || size > 48<<20 {
			t.Errorf("frame %d: about %d bytes, %v", frames, size, err)
		}
	}
	if want := count + 5; seen != want || frames != 3 {
		t.Errorf("%d peers in %d frames, want %d in 3", seen, frames, want)
	}
	l := *n.faults.synthetic[7].live
	l.HomeDERP = 2
	n.faults.synthetic[7].live = &l
	resp, more := v.next(n, m, m.Created)
	if len(resp.PeersChangedPatch) != 1 || resp.PeersChanged != nil || more {
		t.Errorf("one change: %d patches, %d nodes", len(resp.PeersChangedPatch), len(resp.PeersChanged))
	}
	n.faults.synthetic = n.faults.synthetic[:5]
	resp, _ = v.next(n, m, m.Created)
	if len(resp.PeersRemoved) != count-5 || !slices.IsSorted(resp.PeersRemoved) {
		t.Errorf("%d peers removed", len(resp.PeersRemoved))
	}
	if resp, more := v.next(n, m, m.Created); resp != nil || more {
		t.Errorf("nothing has changed, but %+v", resp)
	}
}

// BenchmarkNext is the cost of a look at 100,000 peers of which one has changed.
func BenchmarkNext(b *testing.B) {
	n := newTestTailnet(b, "")
	for i := range 100_000 {
		addrs, _, _ := addressesFor(uint32(syntheticAddr + i))
		n.faults.synthetic = append(n.faults.synthetic, syntheticPeer(i, addrs, n.members[1].Created))
	}
	m := n.byName("alice-1")
	v := newView(n, m.ID, loopback)
	for more := true; more; {
		_, more = v.next(n, m, m.Created)
	}
	p := n.faults.synthetic[5]
	for i := 0; b.Loop(); i++ {
		l := *p.live
		l.HomeDERP = 1 + (i+1)%2
		p.live = &l
		if resp, _ := v.next(n, m, m.Created); resp == nil && i > 0 {
			b.Fatal(fmt.Errorf("no frame at %d", i))
		}
	}
}
