package devnet

import (
	"context"
	"net/http"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/seed94491740/tsnode/control"
	"github.com/seed94491740/tsnode/key"
)

// Each row of control.md section 16 in which Headscale differs.
func TestHeadscale(t *testing.T) {
	n := New(t, Config{Headscale: true, NeedApproval: true})
	a := newRawNode(t, n, "a")
	k := n.AuthKey(KeyOptions{Reusable: true})
	if resp := a.register(k, func(r *control.RegisterRequest) { r.Ephemeral = true }); !resp.MachineAuthorized || resp.Error != "" {
		t.Errorf("device approval: %+v", resp)
	}
	if info, _ := n.Node("a"); info.Ephemeral {
		t.Error("the node decides that it is ephemeral")
	}
	if b := a.call(control.PathMap, a.mapRequest(), http.StatusOK); len(b) != 0 {
		t.Errorf("single map: %q", b)
	}
	a.call(control.PathSetDNS, control.SetDNSRequest{}, http.StatusNotImplemented)
	if resp := a.register("", func(r *control.RegisterRequest) { r.Expiry = time.Now().Add(time.Hour) }); resp.Error == "" {
		t.Errorf("shortened expiry: %+v", resp)
	}
	unnamed := newRawNode(t, n, "")
	unnamed.register(k)
	if _, err := n.Node("node"); err == nil {
		t.Error("a node without a host name gets the name of the hosted service")
	}
}

func TestHeadscaleMap(t *testing.T) {
	n := New(t, Config{Headscale: true})
	a := newRawNode(t, n, "a").join(KeyOptions{})
	b := newRawNode(t, n, "b").join(KeyOptions{})
	s := a.poll()
	if s.state.MapSessionHandle != "" || s.state.Seq != 0 || s.state.PacketFilter != nil || len(s.state.PacketFilters["base"]) != 1 || s.state.Domain != "127.0.0.1" {
		t.Errorf("first frame %+v", s.state)
	}
	// A poll is a report, and two may run side by side.
	ep := netip.MustParseAddrPort("192.0.2.1:5")
	withEndpoint := func(r *control.MapRequest) { r.Endpoints = []netip.AddrPort{ep} }
	first := b.poll(withEndpoint)
	s.until("endpoint of b", func() bool { p := s.peer("b"); return slices.Contains(p.Endpoints, ep) && *p.Online && p.HomeDERP == 1 })
	var more []*rawStream
	for range maxStreams {
		more = append(more, b.poll())
	}
	first.ended() // one too many
	for _, m := range more {
		m.cancel()
	}
	s.until("b offline", func() bool { return !*s.peer("b").Online })
	if p := s.peer("b"); !slices.Contains(p.Endpoints, ep) {
		t.Error("endpoints that a poll leaves out are forgotten")
	}
}

// A node is found by machine and user; the old key does not count.
func TestHeadscaleRenews(t *testing.T) {
	n := New(t, Config{Headscale: true})
	a := newRawNode(t, n, "a").join(KeyOptions{})
	if err := n.ExpireKey("a"); err != nil {
		t.Fatal(err)
	}
	if resp := a.register(""); !resp.NodeKeyExpired {
		t.Errorf("expired, without a key: %+v", resp)
	}
	if resp := a.register(n.AuthKey(KeyOptions{})); resp.Error != "" || resp.NodeKeyExpired { // the same node key
		t.Errorf("expired, with a key: %+v", resp)
	}
	old := a.key.Public()
	a.key = key.NewNode()
	a.register(n.AuthKey(KeyOptions{User: "other"}), func(r *control.RegisterRequest) { r.OldNodeKey = old })
	if all := n.Nodes(); len(all) != 2 || all[0].User != DefaultUser || all[1].User != "other" {
		t.Errorf("members %+v", all)
	}
}

// Clients that are too old are cut off without a word (control.md section 7.5).
func TestHeadscaleOldClient(t *testing.T) {
	n := New(t, Config{Headscale: true})
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	old := newRawNode(t, n, "old")
	old.version = headscaleMinimum - 1
	if c, err := old.dial(ctx); err == nil {
		c.Close()
		t.Error("an old client gets an early payload")
	}
	a := newRawNode(t, n, "a")
	a.call(control.PathRegister, control.RegisterRequest{Version: 112, NodeKey: a.key.Public(), Hostinfo: a.hostinfo()}, http.StatusBadRequest)
	a.call(control.PathMap, control.MapRequest{Version: 112, NodeKey: a.key.Public()}, http.StatusBadRequest)
	for v, want := range map[string]int{"": http.StatusBadRequest, "?v=x": http.StatusBadRequest, "?v=130": http.StatusOK} {
		var answer control.KeyResponse
		err := getJSON(ctx, n.URL()+control.PathKey+v, &answer)
		if ok := err == nil && !answer.PublicKey.IsZero(); ok != (want == http.StatusOK) {
			t.Errorf("key%s: %+v, %v", v, answer, err)
		}
	}
	var answer control.KeyResponse
	if err := getJSON(ctx, n.URL()+control.PathKey+"?v=38", &answer); err == nil {
		t.Errorf("key for version 38: %+v", answer)
	}
}
