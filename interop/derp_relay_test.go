package interop

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"log"
	"net"
	"net/http"
	"net/netip"
	"sync/atomic"
	"testing"

	"go4.org/mem"
	"tailscale.com/derp/derpserver"
	"tailscale.com/tailcfg"
	tskey "tailscale.com/types/key"
	"tailscale.com/types/logger"

	"github.com/seed94491740/tsnode/interop/peer"
	"github.com/seed94491740/tsnode/key"
	"github.com/seed94491740/tsnode/transport/derp"
	"github.com/seed94491740/tsnode/transport/derp/relay"
)

// A way is how a client reaches a relay (DERP-167).
type way string

const (
	fastStart       way = "TLS fast start"
	withoutMetaCert way = "TLS without MetaCert"
	plainHTTP       way = "plain HTTP"
	webSocket       way = "WebSocket"
)

// ways are all of them.
var ways = []way{fastStart, withoutMetaCert, plainHTTP, webSocket}

// relayKinds are the kinds of relays and of clients.
var relayKinds = []peer.Kind{peer.Ours, peer.Reference}

// meshKeyText is the mesh key of all relays here.
const meshKeyText = "6d6573682d6b65792d6f662d74686573652d74657374732c2d33322062797465"

// A testRelay is a relay of either kind in this process, listening on loopback.
type testRelay struct {
	kind    peer.Kind
	way     way
	address string
	key     key.NodePublic
	roots   *x509.CertPool // trust its certificate

	ours      *relay.Server      // nil if it is the reference's
	reference *derpserver.Server // nil if it is ours

	http       *http.Server
	fastStarts atomic.Int64 // requests that wanted one
}

// startRelay starts a relay that has the mesh key, for the length of the test.
func startRelay(t *testing.T, kind peer.Kind, w way) *testRelay {
	t.Helper()
	if kind == peer.Ours {
		return startOurRelay(t, w, relay.Options{MeshKey: ourMeshKey(t)})
	}
	rl := newReferenceRelay(t, w)
	rl.serve(t)
	return rl
}

func startOurRelay(t *testing.T, w way, o relay.Options) *testRelay {
	t.Helper()
	o.Logger = testLog(t, "relay")
	s := relay.New(key.NewNode(), o)
	rl := &testRelay{kind: peer.Ours, way: w, key: s.PublicKey(), roots: loopbackRoots(), ours: s}
	rl.serve(t)
	return rl
}

// newReferenceRelay makes a relay of the reference, to be served.
func newReferenceRelay(t *testing.T, w way) *testRelay {
	t.Helper()
	s := derpserver.New(tskey.NewNode(), logger.Discard)
	if err := s.SetMeshKey(meshKeyText); err != nil {
		t.Fatal(err)
	}
	return &testRelay{kind: peer.Reference, way: w, key: asOurKey(s.PublicKey()), roots: loopbackRoots(), reference: s}
}

// serve listens for HTTP and passes it to the relay, for the length of the test.
func (rl *testRelay) serve(t *testing.T) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(rl.close)
	rl.address = ln.Addr().String()
	rl.http = &http.Server{Handler: rl.handler(), ErrorLog: log.New(io.Discard, "", 0)}
	if rl.way != plainHTTP {
		ln = tls.NewListener(ln, rl.tlsConfig())
	}
	go rl.http.Serve(ln)
}

// handler counts what clients ask for.
func (rl *testRelay) handler() http.Handler {
	inner := http.Handler(nil)
	if rl.ours != nil {
		inner = rl.ours.Handler()
	} else {
		inner = derpserver.AddWebSocketSupport(rl.reference, derpserver.Handler(rl.reference))
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get(derp.FastStartHeader) != "" {
			rl.fastStarts.Add(1)
		}
		inner.ServeHTTP(w, r)
	})
}

func (rl *testRelay) tlsConfig() *tls.Config {
	cert := loopback()
	c := &tls.Config{
		NextProtos:     []string{"http/1.1"},
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return &cert, nil },
	}
	switch {
	case rl.way == withoutMetaCert:
	case rl.ours != nil:
		rl.ours.AddMetaCert(c)
	default:
		rl.reference.ModifyTLSConfigToAddMetaCert(c)
	}
	return c
}

// url is where clients dial.
func (rl *testRelay) url() string {
	if rl.way == plainHTTP {
		return "http://" + rl.address + "/derp"
	}
	return "https://" + rl.address + "/derp"
}

// secondOfRegion is a map of region 1, in which this relay comes second, behind
// one that cannot be reached.
func (rl *testRelay) secondOfRegion() *tailcfg.DERPMap {
	at := netip.MustParseAddrPort(rl.address)
	return &tailcfg.DERPMap{Regions: map[int]*tailcfg.DERPRegion{1: {RegionID: 1, Nodes: []*tailcfg.DERPNode{
		{Name: "best", RegionID: 1, HostName: "best.invalid", IPv4: "none", IPv6: "none"},
		{Name: "this", RegionID: 1, HostName: at.Addr().String(), DERPPort: int(at.Port()), InsecureForTests: true},
	}}}}
}

func (rl *testRelay) close() {
	rl.http.Close()
	if rl.ours != nil {
		rl.ours.Close()
	} else {
		rl.reference.Close()
	}
}

// loopbackCert is the certificate of all relays here, signed by itself.
var loopbackCert = func() tls.Certificate {
	cert, err := relay.SelfSigned("127.0.0.1")
	if err != nil {
		panic(err)
	}
	if cert.Leaf, err = x509.ParseCertificate(cert.Certificate[0]); err != nil {
		panic(err)
	}
	return cert
}()

// loopback returns a copy of the certificate: the reference's relay adds its
// own to the chain.
func loopback() tls.Certificate {
	cert := loopbackCert
	cert.Certificate = append([][]byte(nil), cert.Certificate...)
	return cert
}

// loopbackRoots trusts the certificate of the relays.
func loopbackRoots() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(loopbackCert.Leaf)
	return pool
}

// Keys, and those of the reference's types.

func asOurKey(k tskey.NodePublic) key.NodePublic {
	return key.NodePublicFromRaw([key.Size]byte(k.AppendTo(nil)))
}

func asTheirKey(k key.NodePublic) tskey.NodePublic {
	raw := k.Raw()
	return tskey.NodePublicFromRaw32(mem.B(raw[:]))
}

func asTheirPrivate(t *testing.T, k key.NodePrivate) (theirs tskey.NodePrivate) {
	t.Helper()
	if err := theirs.UnmarshalText([]byte(k.SecretText())); err != nil {
		t.Fatal(err)
	}
	return theirs
}

func ourMeshKey(t *testing.T) key.Mesh {
	t.Helper()
	k, err := key.ParseMesh(meshKeyText)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func theirMeshKey(t *testing.T) tskey.DERPMesh {
	t.Helper()
	k, err := tskey.ParseDERPMesh(meshKeyText)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// metrics returns what the relay counts, by the names of DERP-83.
func (rl *testRelay) metrics(t *testing.T) map[string]any {
	t.Helper()
	v := interface{ String() string }(nil)
	if rl.ours != nil {
		v = rl.ours.Var()
	} else {
		v = rl.reference.ExpVar(false)
	}
	all := make(map[string]any)
	if err := json.Unmarshal([]byte(v.String()), &all); err != nil {
		t.Fatalf("metrics of the relay: %v", err)
	}
	return all
}

// count returns one number of metrics.
func (rl *testRelay) count(t *testing.T, name string) float64 {
	t.Helper()
	n, ok := rl.metrics(t)[name].(float64)
	if !ok {
		t.Fatalf("the relay has no metric %s", name)
	}
	return n
}
