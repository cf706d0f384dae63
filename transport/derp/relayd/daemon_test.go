package relayd

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/seed94491740/tsnode/host"
	"github.com/seed94491740/tsnode/key"
	"github.com/seed94491740/tsnode/transport/derp"
	"github.com/seed94491740/tsnode/transport/derp/websocket"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds what a test waits for; only a failure takes so long.
const patience = 30 * time.Second

// testConfig is a relay on loopback with a certificate of its own.
func testConfig(t testing.TB) Config {
	c := DefaultConfig()
	dir := t.TempDir()
	c.Addr, c.HTTPPort, c.STUNPort, c.DebugAddr = "127.0.0.1:0", 0, 0, "127.0.0.1:0"
	c.Hostname, c.CertMode, c.CertDir = "127.0.0.1", CertManual, filepath.Join(dir, "certs")
	c.KeyFile = filepath.Join(dir, "relay.key")
	return c
}

// A running is a relay that serves until the test ends.
type running struct {
	*Daemon
	t     testing.TB
	addrs Addrs
	log   *logBuffer
	stop  func() error // asks it to stop and returns what Serve did

	webSocket func(context.Context, string, *tls.Config, derp.DialFunc) (net.Conn, error) // of clients; nil = none
}

// run starts a relay.
func run(t testing.TB, c Config) *running {
	t.Helper()
	log := new(logBuffer)
	c.Logger = slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	d, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	_, listening := d.Addrs()
	served := make(chan error, 1)
	go func() { served <- d.Serve(ctx) }()
	r := &running{Daemon: d, t: t, log: log}
	r.stop = sync.OnceValue(func() error {
		cancel()
		return <-served
	})
	t.Cleanup(func() {
		if err := r.stop(); !errors.Is(err, context.Canceled) {
			t.Errorf("Serve returned %v", err)
		}
	})
	select {
	case <-listening:
		r.addrs, _ = d.Addrs()
	case err := <-served:
		served <- err
		t.Fatalf("Serve returned %v", err)
	}
	return r
}

// A logBuffer keeps what is logged.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// roots trusts the relay's own certificate.
func (r *running) roots() *x509.CertPool {
	r.t.Helper()
	pem, err := os.ReadFile(filepath.Join(r.plan.CertDir, r.plan.Hostname+".crt"))
	if err != nil {
		r.t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem)
	return pool
}

// A response is what an HTTP server answered.
type response struct {
	status int
	header http.Header
	body   string
}

// ask sends one HTTP request over a connection of its own; redirects are
// answers.
func (r *running) ask(method, url string, header http.Header) response {
	r.t.Helper()
	transport := &http.Transport{DisableKeepAlives: true}
	if strings.HasPrefix(url, "https:") {
		transport.TLSClientConfig = &tls.Config{RootCAs: r.roots()}
	}
	client := &http.Client{
		Transport: transport, Timeout: patience,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	req, err := http.NewRequest(method, url, nil)
	if err != nil {
		r.t.Fatal(err)
	}
	for k, v := range header {
		req.Header[k] = v
	}
	if h := header.Get("Host"); h != "" {
		req.Host = h
	}
	resp, err := client.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return response{resp.StatusCode, resp.Header, string(body)}
}

// debug asks the debug server for a page.
func (r *running) debug(path string) response {
	r.t.Helper()
	return r.ask("GET", "http://"+r.addrs.Debug.String()+path, nil)
}

// counts waits until the metrics have a line: what a client sees may come before
// it is counted.
func (r *running) counts(line string) {
	r.t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for start := time.Now(); ; <-tick.C {
		text := r.debug("/metrics").body
		if strings.Contains(text, "\n"+line+"\n") {
			return
		}
		if time.Since(start) > patience {
			r.t.Fatalf("the metrics lack %q:\n%s", line, text)
		}
	}
}

// main is the URL of the relay.
func (r *running) main(path string) string { return "https://" + r.addrs.Main.String() + path }

// A client is one that is logged in to a relay.
type client struct {
	*derp.Conn
	t   testing.TB
	key key.NodePublic
}

// client logs in.
func (r *running) client(info derp.ClientInfo) *client {
	r.t.Helper()
	c, err := r.login(key.NewNode(), info)
	if err != nil {
		r.t.Fatal(err)
	}
	return c
}

func (r *running) login(private key.NodePrivate, info derp.ClientInfo) (*client, error) {
	r.t.Helper()
	u, err := derp.ParseURL(r.main("/derp"))
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	d := &derp.Dialer{Network: host.OS{}, Roots: r.roots(), WebSocket: r.webSocket}
	s, err := d.DialURL(ctx, u)
	if err != nil {
		return nil, err
	}
	conn, err := derp.Login(ctx, s, private, info)
	if err != nil {
		return nil, err
	}
	r.t.Cleanup(func() { conn.Close() })
	m, err := conn.Recv()
	if err != nil {
		return nil, err
	}
	if _, ok := m.(derp.ServerInfo); !ok {
		return nil, fmt.Errorf("the first message is %T", m)
	}
	return &client{conn, r.t, private.Public()}, nil
}

// next returns the next message.
func (c *client) next() derp.Message {
	c.t.Helper()
	m, err := c.Recv()
	if err != nil {
		c.t.Fatal(err)
	}
	return m
}

// The key file is made on first start, for the owner alone, in the reference's
// form, and kept (derp.md section 14.1).
func TestKeyIsMadeAndKept(t *testing.T) {
	c := testConfig(t)
	r := run(t, c)
	public := r.relay.PublicKey()
	info, err := os.Stat(c.KeyFile)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("%v, %v", info, err)
	}
	if b, err := os.ReadFile(c.KeyFile); err != nil || !strings.Contains(string(b), `"PrivateKey": "privkey:`) {
		t.Errorf("key file: %v", err)
	}
	r.stop()
	if again := run(t, c); again.relay.PublicKey() != public {
		t.Error("the key has changed over a restart")
	}
	if strings.Contains(r.log.String(), "privkey:") {
		t.Error("the log shows the private key")
	}
}

// A relay that cannot have one of its addresses has none of the others, and has
// made no key.
func TestOpensAllOrNothing(t *testing.T) {
	taken, err := host.OS{}.ListenUDPAt(t.Context(), netip.MustParseAddrPort("127.0.0.1:0"))
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	c := testConfig(t)
	c.STUNPort = int(taken.LocalAddr().Port()) // the last to be opened
	d, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	err = d.Serve(t.Context())
	if err == nil || !strings.Contains(err.Error(), "--stun-port") || !strings.Contains(err.Error(), "another process uses it") {
		t.Errorf("Serve returned %v", err)
	}
	if _, err := os.Stat(c.KeyFile); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("key file: %v", err)
	}
	if a, _ := d.Addrs(); a != (Addrs{}) {
		t.Errorf("it says that it listens: %v", a)
	}
}

// Clients are told that the relay stops, then their connections end (DERP-152).
func TestDrainTellsClients(t *testing.T) {
	r := run(t, testConfig(t))
	c := r.client(derp.ClientInfo{})
	go r.stop()
	m, ok := c.next().(derp.Restarting)
	if !ok || m.ReconnectIn < 0 || m.ReconnectIn > reconnectSpread || m.TryFor != tryFor {
		t.Errorf("got %+v", m)
	}
	if m, err := c.Recv(); err == nil {
		t.Errorf("after that: %+v", m)
	}
	if err := r.stop(); !errors.Is(err, context.Canceled) {
		t.Errorf("Serve returned %v", err)
	}
	if _, err := (host.OS{}).Dial(t.Context(), "tcp", r.addrs.Main.String()); err == nil {
		t.Error("the relay still listens")
	}
}

// Two clients exchange packets over TLS, and the TLS versions are counted
// (DERP-84).
func TestRelays(t *testing.T) {
	r := run(t, testConfig(t))
	a, b := r.client(derp.ClientInfo{}), r.client(derp.ClientInfo{})
	if err := a.Send(b.key, []byte("over the relay")); err != nil {
		t.Fatal(err)
	}
	m, ok := b.next().(derp.ReceivedPacket)
	if !ok || m.Source != a.key || string(m.Data) != "over the relay" {
		t.Errorf("got %+v", m)
	}
	if got := byTLSVersion(&r.tls.active)["1.3"]; got != 2 {
		t.Errorf("%d connections of TLS 1.3 are active, want 2", got)
	}
}

// Who may use the relay is asked of the admission URL, and who may not is
// counted (DERP-74).
func TestAdmissionURL(t *testing.T) {
	good := key.NewNode()
	controller := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var q struct{ NodePublic key.NodePublic }
		err := json.NewDecoder(r.Body).Decode(&q)
		w.Header().Set("Connection", "close") // no idle connection outlives the test
		json.NewEncoder(w).Encode(map[string]bool{"Allow": err == nil && q.NodePublic == good.Public()})
	}))
	defer controller.Close()
	c := testConfig(t)
	c.VerifyURL = controller.URL
	r := run(t, c)
	if _, err := r.login(good, derp.ClientInfo{}); err != nil {
		t.Errorf("the good client: %v", err)
	}
	if _, err := r.login(key.NewNode(), derp.ClientInfo{}); err == nil {
		t.Error("another client is let in")
	}
	r.counts(`derp_closed_connections{reason="not_admitted"} 1`)
}

// A browser's client speaks through a WebSocket, and is counted (DERP-84,
// DERP-100).
func TestWebSocket(t *testing.T) {
	r := run(t, testConfig(t))
	r.webSocket = websocket.Dial
	a, b := r.client(derp.ClientInfo{}), r.client(derp.ClientInfo{})
	if err := a.Send(b.key, []byte("framed twice")); err != nil {
		t.Fatal(err)
	}
	if m, ok := b.next().(derp.ReceivedPacket); !ok || string(m.Data) != "framed twice" {
		t.Errorf("got %+v", m)
	}
	r.counts("derp_websocket_accepts 2")
}

// A relay passes packets on to the clients of another one of its region
// (DERP-85, DERP-149).
func TestMesh(t *testing.T) {
	psk := filepath.Join(t.TempDir(), "mesh.key")
	if err := os.WriteFile(psk, []byte(strings.Repeat("5a", 32)+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	ca := filepath.Join(t.TempDir(), "ca.pem")
	first := testConfig(t)
	first.PSKFile = psk
	one := run(t, first)
	pem, err := os.ReadFile(filepath.Join(first.CertDir, "127.0.0.1.crt"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(ca, pem, 0o600); err != nil {
		t.Fatal(err)
	}
	second := testConfig(t)
	second.PSKFile, second.MeshCA, second.CertDir = psk, ca, first.CertDir
	second.MeshWith = []string{one.addrs.Main.String()}
	two := run(t, second)

	far, near := one.client(derp.ClientInfo{}), two.client(derp.ClientInfo{})
	got := make(chan derp.ReceivedPacket, 1)
	go func() {
		for {
			m, err := far.Recv()
			if err != nil {
				close(got)
				return
			}
			if p, ok := m.(derp.ReceivedPacket); ok {
				p.Data = bytes.Clone(p.Data)
				got <- p
				return
			}
		}
	}()
	tick := time.NewTicker(10 * time.Millisecond) // until the link has told who is there
	defer tick.Stop()
	for timeout := time.After(patience); ; {
		if err := near.Send(far.key, []byte("across")); err != nil {
			t.Fatal(err)
		}
		select {
		case p, ok := <-got:
			if !ok || p.Source != near.key || string(p.Data) != "across" {
				t.Errorf("got %+v", p)
			}
			if page := two.debug("/debug/").body; !strings.Contains(page, "connected since") {
				t.Errorf("the index does not show the link:\n%s", page)
			}
			return
		case <-tick.C:
		case <-timeout:
			t.Fatalf("no packet got across\n%s", two.log)
		}
	}
}

// Over the limit connections are closed and counted, and the relay goes on
// (DERP-150).
func TestAcceptLimit(t *testing.T) {
	c := testConfig(t)
	c.AcceptLimit, c.AcceptBurst = 1e-9, 1
	r := run(t, c)
	in := r.client(derp.ClientInfo{}) // the whole burst
	const over = 5
	for range over {
		conn, err := host.OS{}.Dial(t.Context(), "tcp", r.addrs.Main.String())
		if err != nil {
			t.Fatal(err)
		}
		conn.SetReadDeadline(time.Now().Add(patience))
		if _, err := conn.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("over the limit: %v", err)
		}
		conn.Close()
	}
	r.counts("tls_listener_accepted_connections 1")
	r.counts(fmt.Sprintf("tls_listener_rejected_connections %d", over))
	if err := in.SendPing([derp.PingSize]byte{1}); err != nil {
		t.Fatal(err)
	}
	if m, ok := in.next().(derp.Pong); !ok {
		t.Errorf("the client that is in gets %+v", m)
	}
}
