package node

import (
	"crypto/tls"
	"encoding/json"
	"io"
	"log"
	"net/http"
	"net/netip"
	"testing"

	"github.com/seed94491740/tsnode/devnet"
	"github.com/seed94491740/tsnode/internal/simnet"
	"github.com/seed94491740/tsnode/netmap"
	"github.com/seed94491740/tsnode/state"
	"github.com/seed94491740/tsnode/transport/derp"
	"github.com/seed94491740/tsnode/transport/derp/relay"
)

// serveBootstrap has a host answer /bootstrap-dns for one name, and returns its
// entry in a DERP map.
func (g *ground) serveBootstrap(h *simnet.Host, name string, addrs []netip.Addr) *netmap.DERPNode {
	g.t.Helper()
	cert, err := relay.SelfSigned("relay.test")
	if err != nil {
		g.t.Fatal(err)
	}
	ln, err := h.Listen(g.t.Context(), "tcp", ":443")
	if err != nil {
		g.t.Fatal(err)
	}
	srv := &http.Server{
		ErrorLog: log.New(io.Discard, "", 0),
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/bootstrap-dns" && r.FormValue("q") == name {
				json.NewEncoder(w).Encode(map[string][]netip.Addr{name: addrs})
			}
		}),
	}
	g.t.Cleanup(func() { srv.Close() })
	go srv.Serve(tls.NewListener(ln, &tls.Config{Certificates: []tls.Certificate{cert}}))
	return &netmap.DERPNode{
		Name: "7a", RegionID: 7, HostName: "relay.test", IPv4: h.Addr4().String(), CertName: derp.PinCertName(cert.Certificate[0]),
	}
}

// TestResolverIsBroken: the host's resolver does not know the control server,
// but a relay that the last run has stored does (DERP-105). The node joins, and
// stores the relays of its new map.
func TestResolverIsBroken(t *testing.T) {
	synctestGround(t, devnet.Config{}, func(t *testing.T, g *ground) {
		known := g.serveBootstrap(g.net.AddHost("relay", simnet.HostConfig{}), "devnet.test", g.server.Addrs())
		g.net.SetName("devnet.test")
		store := state.NewMemory()
		old := &netmap.DERPMap{Regions: map[int]*netmap.Region{7: {RegionID: 7, Nodes: []*netmap.DERPNode{known}}}}
		if err := state.SaveRelays(t.Context(), store, old); err != nil {
			t.Fatal(err)
		}
		m := g.join(g.net.AddHost("node", simnet.HostConfig{}), func(n *Node) { n.Store = store })
		if kept, err := state.LoadRelays(t.Context(), store); err != nil || kept.Regions[7] != nil || len(kept.Regions) == 0 {
			t.Errorf("kept for the next run: %+v, %v", kept, err)
		}
		if m.Status().State != StateRunning {
			t.Errorf("the node is %v", m.Status().State)
		}
	})
}
