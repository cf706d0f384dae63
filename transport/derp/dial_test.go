package derp

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/seed94491740/tsnode/host"
	"github.com/seed94491740/tsnode/internal/actor"
	"github.com/seed94491740/tsnode/netmap"
)

// TestLegs: DERP-122, DERP-124, DERP-125.
func TestLegs(t *testing.T) {
	yes := func() bool { return true }
	for name, tt := range map[string]struct {
		d    Dialer
		node netmap.DERPNode
		want []leg
	}{
		"names":         {Dialer{}, netmap.DERPNode{HostName: "r.test"}, []leg{{"tcp4", "r.test:443", 0}, {"tcp6", "r.test:443", 0}}},
		"port":          {Dialer{}, netmap.DERPNode{HostName: "r.test", DERPPort: 8443}, []leg{{"tcp4", "r.test:8443", 0}, {"tcp6", "r.test:8443", 0}}},
		"plain":         {Dialer{PlainHTTP: true}, netmap.DERPNode{HostName: "r.test"}, []leg{{"tcp4", "r.test:3340", 0}, {"tcp6", "r.test:3340", 0}}},
		"forced":        {Dialer{}, netmap.DERPNode{HostName: "r.test", IPv4: "192.0.2.1", IPv6: "2001:db8::1"}, []leg{{"tcp4", "192.0.2.1:443", 0}, {"tcp6", "[2001:db8::1]:443", 0}}},
		"IPv4 off":      {Dialer{}, netmap.DERPNode{HostName: "r.test", IPv4: "none"}, []leg{{"tcp6", "r.test:443", 0}}},
		"wrong family":  {Dialer{}, netmap.DERPNode{HostName: "r.test", IPv4: "2001:db8::1"}, []leg{{"tcp6", "r.test:443", 0}}},
		"both off":      {Dialer{}, netmap.DERPNode{HostName: "r.test", IPv4: "none", IPv6: "none"}, nil},
		"IPv4 literal":  {Dialer{}, netmap.DERPNode{HostName: "192.0.2.1"}, []leg{{"tcp4", "192.0.2.1:443", 0}}},
		"IPv6 literal":  {Dialer{}, netmap.DERPNode{HostName: "2001:db8::1"}, []leg{{"tcp6", "[2001:db8::1]:443", 0}}},
		"prefer IPv6":   {Dialer{PreferIPv6: yes}, netmap.DERPNode{HostName: "r.test"}, []leg{{"tcp4", "r.test:443", ipv4Delay}, {"tcp6", "r.test:443", 0}}},
		"no one behind": {Dialer{PreferIPv6: yes}, netmap.DERPNode{HostName: "r.test", IPv6: "none"}, []leg{{"tcp4", "r.test:443", 0}}},
	} {
		if diff := cmp.Diff(tt.want, tt.d.legs(&tt.node), cmp.AllowUnexported(leg{})); diff != "" {
			t.Errorf("%s: -want +got\n%s", name, diff)
		}
	}
}

// A scripted network answers each dial as a test says.
type scripted struct {
	host.Network
	dial func(ctx context.Context, network, address string) (net.Conn, error)

	mu    sync.Mutex
	calls []string
	open  int // connections given out and not closed
}

type counted struct {
	net.Conn
	n    *scripted
	once sync.Once
}

func (c *counted) Close() error {
	c.once.Do(func() {
		c.n.mu.Lock()
		defer c.n.mu.Unlock()
		c.n.open--
	})
	return c.Conn.Close()
}

func (s *scripted) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	s.mu.Lock()
	s.calls = append(s.calls, network+" "+address)
	s.mu.Unlock()
	c, err := s.dial(ctx, network, address)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open++
	return &counted{Conn: c, n: s}, nil
}

var errRefused = errors.New("refused")

// deadEnd returns a connection whose other end is closed.
func deadEnd() net.Conn {
	here, there := net.Pipe()
	there.Close()
	return here
}

// TestRace: DERP-124: the first family to connect wins, the other is closed.
func TestRace(t *testing.T) {
	after := func(d time.Duration, err error) func(context.Context) (net.Conn, error) {
		return func(ctx context.Context) (net.Conn, error) {
			if err := actor.Sleep(ctx, d); err != nil {
				return nil, err
			}
			return deadEnd(), err
		}
	}
	lateAnyway := func(context.Context) (net.Conn, error) {
		time.Sleep(time.Second) // a dial that does not notice that it was cancelled
		return deadEnd(), nil
	}
	for name, tt := range map[string]struct {
		v4, v6 func(context.Context) (net.Conn, error)
		took   time.Duration
		fails  bool
	}{
		"IPv4 first":      {after(10*time.Millisecond, nil), after(20*time.Millisecond, nil), 10 * time.Millisecond, false},
		"IPv6 alone":      {after(time.Millisecond, errRefused), after(20*time.Millisecond, nil), 20 * time.Millisecond, false},
		"both late":       {after(time.Hour, nil), after(time.Hour, nil), nodeDial, true},
		"both refuse":     {after(time.Millisecond, errRefused), after(2*time.Millisecond, errRefused), 2 * time.Millisecond, true},
		"loser connected": {after(time.Millisecond, nil), lateAnyway, time.Second, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := &scripted{dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
					if network == "tcp4" {
						return tt.v4(ctx)
					}
					return tt.v6(ctx)
				}}
				d := &Dialer{Network: n}
				start := time.Now()
				c, err := d.connect(t.Context(), &netmap.DERPNode{HostName: "r.test"})
				if took := time.Since(start); took != tt.took || tt.fails != (err != nil) {
					t.Errorf("error %v after %v", err, took)
				}
				if err == nil {
					c.Close()
				}
				if n.open != 0 {
					t.Errorf("%d connections stay open", n.open)
				}
			})
		})
	}
}

// TestNodeOrder: DERP-123: nodes in the map's order, not those that only do
// STUN; the error is the first node's.
func TestNodeOrder(t *testing.T) {
	n := &scripted{dial: func(_ context.Context, _, address string) (net.Conn, error) {
		return nil, errors.New(address + " refused")
	}}
	d := &Dialer{Network: n, PlainHTTP: true}
	region := &netmap.Region{RegionID: 7, Nodes: []*netmap.DERPNode{
		{Name: "7s", HostName: "s.test", STUNOnly: true}, nil,
		{Name: "7a", HostName: "a.test", IPv6: "none"}, {Name: "7b", HostName: "b.test", IPv6: "none"},
	}}
	_, err := d.Dial(t.Context(), region)
	if err == nil || !strings.Contains(err.Error(), "region 7: node 7a: a.test:3340 refused") {
		t.Errorf("error %v", err)
	}
	if want := []string{"tcp4 a.test:3340", "tcp4 b.test:3340"}; !cmp.Equal(n.calls, want) {
		t.Errorf("dialed %v, want %v", n.calls, want)
	}
	for _, f := range []func(context.Context, *netmap.Region) (*Stream, error){d.Dial, d.DialTLS} {
		if _, err := f(t.Context(), &netmap.Region{RegionID: 8}); err == nil || !strings.Contains(err.Error(), "region 8 has no relay nodes") {
			t.Errorf("error %v", err)
		}
	}
	if _, err := d.DialTLS(t.Context(), region); err == nil || !strings.Contains(err.Error(), "node 7b") {
		t.Errorf("error %v", err)
	}
}

// answer plays a server that reads a request head and writes a response.
func answer(response string, request chan<- string) net.Conn {
	here, there := net.Pipe()
	go func() {
		defer there.Close()
		var head []byte
		buf := make([]byte, 1024)
		for !strings.HasSuffix(string(head), "\r\n\r\n") {
			n, err := there.Read(buf)
			if err != nil {
				return
			}
			head = append(head, buf[:n]...)
		}
		request <- string(head)
		there.Write([]byte(response))
	}()
	return here
}

// TestUpgrade: DERP-129: the request, and answers other than 101.
func TestUpgrade(t *testing.T) {
	for name, tt := range map[string]struct{ response, err, pending string }{
		"101":      {"HTTP/1.1 101 Switching Protocols\r\nUpgrade: DERP\r\n\r\nframes", "", "frames"},
		"404":      {"HTTP/1.1 404 Not Found\r\nContent-Length: 20\r\n\r\nderp server disabled", `"404 Not Found" instead of 101: "derp server disabled"`, ""},
		"not HTTP": {"SSH-2.0-x\r\n", "HTTP answer", ""},
		"silence":  {"", "EOF", ""},
	} {
		t.Run(name, func(t *testing.T) {
			request := make(chan string, 2)
			n := &scripted{dial: func(_ context.Context, _, address string) (net.Conn, error) {
				if address != "b.test:3340" {
					return nil, errRefused
				}
				return answer(tt.response, request), nil
			}}
			d := &Dialer{Network: n, PlainHTTP: true}
			region := &netmap.Region{RegionID: 7, Nodes: []*netmap.DERPNode{{Name: "7b", HostName: "b.test", IPv6: "none"}}}
			s, err := d.Dial(t.Context(), region)
			if want := "GET /derp HTTP/1.1\r\nHost: b.test:3340\r\nConnection: Upgrade\r\nUpgrade: DERP\r\n\r\n"; <-request != want {
				t.Errorf("request is not %q", want)
			}
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Errorf("error %v, want %q", err, tt.err)
				}
				return
			}
			if err != nil || string(s.pending) != tt.pending || s.Node.Name != "7b" {
				t.Fatalf("%+v, %v", s, err)
			}
			if _, ok := s.TLS(); ok {
				t.Error("TLS where there is none")
			}
			s.Close()
		})
	}
}

// TestIdealNode: a client that did not reach the region's first node says so.
func TestIdealNode(t *testing.T) {
	request := make(chan string, 2)
	n := &scripted{dial: func(_ context.Context, _, address string) (net.Conn, error) {
		if address != "b.test:3340" {
			return nil, errRefused
		}
		return answer("HTTP/1.1 101 x\r\n\r\n", request), nil
	}}
	d := &Dialer{Network: n, PlainHTTP: true}
	s, err := d.Dial(t.Context(), &netmap.Region{RegionID: 7, Nodes: []*netmap.DERPNode{
		{Name: "7a", HostName: "a.test", IPv6: "none"}, {Name: "7b", HostName: "b.test", IPv6: "none"},
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if got := <-request; !strings.Contains(got, "\r\nIdeal-Node: 7a\r\n") {
		t.Errorf("request %q", got)
	}
}

// VPN-22: headers of the configuration are in the request, and cannot break out of
// it.
func TestHeaders(t *testing.T) {
	request := make(chan string, 1)
	n := &scripted{dial: func(context.Context, string, string) (net.Conn, error) {
		return answer("HTTP/1.1 101 x\r\n\r\n", request), nil
	}}
	cfg := Config{Network: n, PlainHTTP: true, Headers: http.Header{"X-Gate": {"open", "a\r\nHost: b"}, "Bad Name": {"x"}}}
	s, err := cfg.dialer().Dial(t.Context(), &netmap.Region{RegionID: 7, Nodes: []*netmap.DERPNode{{Name: "7a", HostName: "a.test", IPv6: "none"}}})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if got := <-request; !strings.HasSuffix(got, "\r\nUpgrade: DERP\r\nX-Gate: open\r\nX-Gate: a  Host: b\r\n\r\n") {
		t.Errorf("request %q", got)
	}
}

// TestProxy: DERP-126.
func TestProxy(t *testing.T) {
	const head = "CONNECT r.test:8443 HTTP/1.1\r\nHost: r.test:8443\r\n"
	for name, tt := range map[string]struct{ proxy, dials, request, response, err string }{
		"plain":       {"http://p.test", "tcp p.test:80", head + "\r\n", "HTTP/1.1 200 OK\r\n\r\n", ""},
		"port":        {"http://p.test:8080", "tcp p.test:8080", head + "\r\n", "HTTP/1.1 200 OK\r\n\r\n", ""},
		"credentials": {"http://u:p@p.test", "tcp p.test:80", head + "Proxy-Authorization: Basic dTpw\r\n\r\n", "HTTP/1.1 200 OK\r\n\r\n", ""},
		"refused":     {"http://u:secret@p.test", "tcp p.test:80", head + "Proxy-Authorization: Basic dTpzZWNyZXQ=\r\n\r\n", "HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", `"407 Proxy Authentication Required"`},
		"too early":   {"http://p.test", "tcp p.test:80", head + "\r\n", "HTTP/1.1 200 OK\r\n\r\nsurprise", "before the tunnel"},
		"no answer":   {"http://p.test", "tcp p.test:80", head + "\r\n", "", "answer to CONNECT"},
		"socks":       {"socks5://p.test", "", "", "", `scheme "socks5" is not supported`},
	} {
		t.Run(name, func(t *testing.T) {
			request := make(chan string, 1)
			n := &scripted{dial: func(context.Context, string, string) (net.Conn, error) { return answer(tt.response, request), nil }}
			d := &Dialer{Network: n, Proxy: func(r *http.Request) (*url.URL, error) {
				if r.URL.String() != "https://r.test/" {
					t.Errorf("proxy asked for %v", r.URL)
				}
				return url.Parse(tt.proxy)
			}}
			c, err := d.connect(t.Context(), &netmap.DERPNode{HostName: "r.test", DERPPort: 8443})
			if tt.request != "" {
				if got := <-request; got != tt.request {
					t.Errorf("request %q, want %q", got, tt.request)
				}
			}
			if tt.dials != strings.Join(n.calls, ",") {
				t.Errorf("dialed %v, want %s", n.calls, tt.dials)
			}
			if tt.err == "" {
				if err != nil {
					t.Fatal(err)
				}
				c.Close()
			} else if err == nil || !strings.Contains(err.Error(), tt.err) || strings.Contains(err.Error(), "secret") {
				t.Errorf("error %v, want %q", err, tt.err)
			}
			if n.open != 0 {
				t.Errorf("%d connections stay open", n.open)
			}
		})
	}
	d := &Dialer{Proxy: func(*http.Request) (*url.URL, error) { return nil, errRefused }}
	if _, err := d.connect(t.Context(), &netmap.DERPNode{HostName: "r.test"}); !errors.Is(err, errRefused) {
		t.Errorf("error %v", err)
	}
}
