package simnet_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed94491740/tsnode/control"
	"github.com/seed94491740/tsnode/devnet"
	"github.com/seed94491740/tsnode/host"
	"github.com/seed94491740/tsnode/internal/actor"
	"github.com/seed94491740/tsnode/internal/simnet"
	"github.com/seed94491740/tsnode/key"
	"github.com/seed94491740/tsnode/netmap"
	"github.com/seed94491740/tsnode/packet"
	"github.com/seed94491740/tsnode/transport"
	"github.com/seed94491740/tsnode/transport/derp"
	"github.com/seed94491740/tsnode/transport/stun"
	"github.com/seed94491740/tsnode/transport/udp"
)

// A server is anything that serves until its context ends.
type server interface{ Serve(context.Context) error }

// serve runs s until stop is called, which waits for its end.
func serve(s server) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.Serve(ctx)
	}()
	return func() {
		cancel()
		<-done
	}
}

// A mailbox is a transport.Receiver that keeps what it gets.
type mailbox struct{ got chan string }

func newMailbox() mailbox { return mailbox{make(chan string, 100)} }

func (m mailbox) receiver() transport.Receiver { return m }

func (m mailbox) Receive(_ transport.Endpoint, b []byte, segment, _ int) {
	if segment == 0 {
		segment = len(b)
	}
	for d := range slices.Chunk(b, max(segment, 1)) {
		m.got <- string(d)
	}
}

func (mailbox) Flush() {}

// next returns the next datagram, none after a second.
func (m mailbox) next() string {
	select {
	case s := <-m.got:
		return s
	case <-time.After(time.Second):
		return ""
	}
}

func datagram(b []byte) []packet.Burst { return []packet.Burst{{Buf: b, Size: len(b), Count: 1}} }

// TestUnderlay: the product's sockets and STUN server find each other through a
// NAT, also after the host has moved.
func TestUnderlay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		internet := simnet.New(1)
		defer internet.Close()
		home := internet.AddRouter("home", simnet.RouterConfig{NAT: simnet.Symmetric, Link: simnet.Conditions{Delay: 10 * time.Millisecond}})
		cafe := internet.AddRouter("cafe", simnet.RouterConfig{})
		node := home.AddHost("node", simnet.HostConfig{})
		public := internet.AddHost("stun", simnet.HostConfig{})
		conn, err := public.ListenUDP(t.Context(), "udp4", stun.DefaultPort)
		if err != nil {
			t.Fatal(err)
		}
		defer serve(stun.NewServer(conn, nil))()
		box := newMailbox()
		socket := udp.New(udp.Config{Network: node, Port: 41641, NewReceiver: box.receiver})
		defer serve(socket)()
		synctest.Wait()
		to := transport.Endpoint{Addr: netip.AddrPortFrom(public.Addr4(), stun.DefaultPort)}
		ask := func(router *simnet.Router) {
			t.Helper()
			id := stun.NewTxID()
			if err := socket.Send(to, datagram(stun.AppendRequest(nil, id))); err != nil {
				t.Fatal(err)
			}
			got, seen, err := stun.ParseResponse([]byte(box.next()))
			if err != nil || got != id || seen.Addr() != router.Outer() {
				t.Errorf("STUN answer %v (%v), want an address of %v", seen, err, router)
			}
		}
		ask(home)
		node.Move(cafe)
		ask(cafe)
		if v4, v6 := socket.LocalPorts(); v4 != 41641 || v6 != 41641 {
			t.Errorf("bound ports %d and %d", v4, v6)
		}
	})
}

// TestHTTP: net/http works as over the network of an operating system.
func TestHTTP(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		internet := simnet.New(1)
		defer internet.Close()
		server := internet.AddHost("server", simnet.HostConfig{Link: simnet.Conditions{Delay: 20 * time.Millisecond, Loss: 0.01}})
		home := internet.AddRouter("home", simnet.RouterConfig{})
		browser := home.AddHost("browser", simnet.HostConfig{})
		internet.SetName("www.example.com", server.Addrs()...)
		l, err := server.Listen(t.Context(), "tcp", ":80")
		if err != nil {
			t.Fatal(err)
		}
		web := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.Copy(w, r.Body) })}
		var serving sync.WaitGroup
		serving.Go(func() { web.Serve(l) })
		client := &http.Client{Transport: &http.Transport{DialContext: browser.Dial}}
		body := bytes.Repeat([]byte("0123456789"), 100000)
		for range 3 {
			r, err := client.Post("http://www.example.com/", "text/plain", bytes.NewReader(body))
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(r.Body)
			r.Body.Close()
			if err != nil || !bytes.Equal(got, body) {
				t.Fatalf("%d bytes came back (%v), want %d", len(got), err, len(body))
			}
		}
		client.CloseIdleConnections()
		web.Close()
		serving.Wait()
	})
}

// keys keeps a node's credentials as long as a test lasts.
type keys struct {
	mu    sync.Mutex
	creds control.Credentials
}

func (k *keys) Load(context.Context) (control.Credentials, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.creds, nil
}

func (k *keys) Save(_ context.Context, c control.Credentials) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.creds = c
	return nil
}

// A member is what of a node a tailnet needs to work through relays.
type member struct {
	client *control.Client
	relays *derp.Regions
	box    mailbox
	stops  []func()
}

func join(t *testing.T, tailnet *devnet.Net, network host.Network, name, authKey string) *member {
	t.Helper()
	store, home := new(keys), actor.NewCell(1)
	client, err := control.New(control.Config{
		URL: tailnet.URL(), Network: network, Machine: key.NewMachine(), Keys: store, Disco: key.NewDisco().Public(),
		Hostinfo: actor.NewCell(control.Hostinfo{Hostname: name}), Home: home, AuthKey: authKey,
	})
	if err != nil {
		t.Fatal(err)
	}
	m := &member{client: client, box: newMailbox()}
	m.stops = append(m.stops, serve(client))
	m.await(t, "itself and relays", func(n *netmap.Netmap) bool { return n.DERP != nil && n.Self.BaseName() == name })
	creds, _ := store.Load(t.Context())
	m.relays = derp.New(derp.Config{
		Network: network, Private: creds.Node, Map: actor.NewCell(client.Netmap.Get().DERP), Home: home, NewReceiver: m.box.receiver,
	})
	m.stops = append(m.stops, serve(m.relays))
	return m
}

func (m *member) await(t *testing.T, what string, wanted func(*netmap.Netmap) bool) *netmap.Netmap {
	t.Helper()
	late := time.After(time.Minute)
	for {
		n, changed := m.client.Netmap.Load()
		if n != nil && wanted(n) {
			return n
		}
		select {
		case <-changed:
		case <-late:
			t.Fatalf("no netmap with %s, but %+v; status %+v", what, n, m.client.Status.Get())
		}
	}
}

func (m *member) leave() {
	for _, stop := range slices.Backward(m.stops) {
		stop()
	}
}

// TestTailnet: control server, relays and clients of two nodes live an hour in
// one bubble, behind NATs that let no UDP through; one of them moves.
func TestTailnet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		internet := simnet.New(1)
		defer internet.Close()
		link := simnet.Conditions{Delay: 10 * time.Millisecond, NoUDP: true}
		core := internet.AddHost("core", simnet.HostConfig{})
		home := internet.AddRouter("home", simnet.RouterConfig{Link: link})
		cafe := internet.AddRouter("cafe", simnet.RouterConfig{Link: link})
		tailnet, err := devnet.Start(t.Context(), devnet.Config{Network: core, Listen: net.JoinHostPort(core.Addr4().String(), "80")})
		if err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := tailnet.Close(); err != nil {
				t.Error(err)
			}
		}()
		authKey := tailnet.AuthKey(devnet.KeyOptions{Reusable: true})
		roaming := home.AddHost("a", simnet.HostConfig{})
		a := join(t, tailnet, roaming, "a", authKey)
		defer a.leave()
		b := join(t, tailnet, cafe.AddHost("b", simnet.HostConfig{}), "b", authKey)
		defer b.leave()
		seesB := func(n *netmap.Netmap) bool { _, ok := n.PeerByName("b"); return ok }
		peer, _ := a.await(t, "b", seesB).PeerByName("b")
		to := transport.Endpoint{Region: 1, Key: peer.Key}
		say := func(text string) {
			t.Helper()
			for range 30 { // until the relay is connected
				if err := a.relays.Send(to, datagram([]byte(text))); err != nil {
					t.Fatal(err)
				}
				if b.box.next() == text {
					return
				}
			}
			t.Errorf("%q did not arrive", text)
		}
		say("hello")
		for i := range 60 {
			time.Sleep(time.Minute)
			say(fmt.Sprint("minute ", i))
		}
		roaming.Move(cafe)
		a.client.NetworkChanged()
		a.relays.NetworkChanged()
		say("from the café")
	})
}
