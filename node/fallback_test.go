package node_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"testing"

	"github.com/seed94491740/tsnode/devnet"
	"github.com/seed94491740/tsnode/node"
)

// A connection for which nobody listens goes to the handler that wants it, who
// knows whose it is; without one it is refused.
func TestFallbackTCPHandler(t *testing.T) {
	tailnet := startDevnet(t, devnet.Config{})
	web, me := newNode(t, tailnet, "web"), newNode(t, tailnet, "me")
	who, first := make(chan string, 1), make(chan [2]netip.AddrPort, 1)
	forget := web.RegisterFallbackTCPHandler(func(src, dst netip.AddrPort) (func(net.Conn), bool) {
		select {
		case first <- [2]netip.AddrPort{src, dst}:
		default:
		}
		switch dst.Port() {
		case 81:
			return nil, true // refused
		case 82:
			return nil, false
		}
		return func(c net.Conn) {
			defer c.Close()
			w, err := web.WhoIsConn(c)
			if err != nil {
				who <- err.Error()
				return
			}
			fmt.Fprint(c, "hello from nowhere")
			who <- w.Node.Name
		}, true
	})
	up(t, web)
	up(t, me)
	serveEcho(t, web, 7)
	c, err := me.Dial(within(t, patience), "tcp", "web:80")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if got, err := io.ReadAll(c); err != nil || string(got) != "hello from nowhere" {
		t.Errorf("got %q, %v", got, err)
	}
	mine, _ := me.TailscaleIPs()
	theirs, _ := web.TailscaleIPs()
	asked := <-first
	if name := <-who; name != "me.tailnet.test" || asked[0].Addr() != mine || asked[1] != netip.AddrPortFrom(theirs, 80) {
		t.Errorf("from %s, asked for %v", name, asked)
	}
	for _, address := range []string{"web:81", "web:82"} {
		if _, err := me.Dial(within(t, patience), "tcp", address); !errors.Is(err, node.ErrRefused) {
			t.Errorf("%s: %v", address, err)
		}
	}
	echo, err := me.Dial(within(t, patience), "tcp", "web:7")
	if err != nil {
		t.Fatalf("a port with a listener: %v", err)
	}
	echo.Close()
	forget()
	if _, err := me.Dial(within(t, patience), "tcp", "web:80"); !errors.Is(err, node.ErrRefused) {
		t.Errorf("after it was deregistered: %v", err)
	}
}

// The node closes whatever a handler does, and a handler that panics ends its
// connection alone.
func TestFallbackHandlerIsNotAwaited(t *testing.T) {
	tailnet := startDevnet(t, devnet.Config{})
	web, me := newNode(t, tailnet, "web"), newNode(t, tailnet, "me")
	began, stay := make(chan struct{}), make(chan struct{})
	defer close(stay)
	web.RegisterFallbackTCPHandler(func(_, dst netip.AddrPort) (func(net.Conn), bool) {
		if dst.Port() == 81 {
			return func(net.Conn) { panic("alas") }, true
		}
		return func(net.Conn) { close(began); <-stay }, true
	})
	up(t, web)
	up(t, me)
	sees(t, me, "web")
	ended, err := me.Dial(within(t, patience), "tcp", "web:81")
	if err != nil {
		t.Fatal(err)
	}
	defer ended.Close()
	io.ReadAll(ended) // returns
	c, err := me.Dial(within(t, patience), "tcp", "web:80")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	<-began
	web.Close()
}

// A handler may be registered when the node runs already and carries traffic; it is
// asked about hosts behind the node, too, before they are.
func TestFallbackTCPHandlerOfARunningNode(t *testing.T) {
	tailnet := startDevnet(t, devnet.Config{})
	router := newRouted(t, tailnet, "router", newLAN(t, lanHost), func(n *node.Node) { n.AdvertiseRoutes = []netip.Prefix{behind} })
	approve(t, tailnet, "router", behind)
	client := newRouted(t, tailnet, "client", newLAN(t), func(n *node.Node) { n.AcceptRoutes = true })
	eventually(t, "route", routes(client, lanHost, "router"))
	own, _ := router.TailscaleIPs()
	addresses := []string{netip.AddrPortFrom(own, 81).String(), netip.AddrPortFrom(lanHost, 81).String()}
	refused := func(when string) {
		t.Helper()
		for _, address := range addresses {
			if _, err := client.Dial(within(t, patience), "tcp", address); !errors.Is(err, node.ErrRefused) {
				t.Errorf("%s, %s: %v", when, address, err)
			}
		}
	}
	refused("without a handler")
	busy := startPump(t, client, netip.AddrPortFrom(lanHost, 80).String())
	for range 2 { // the second time there have been handlers before
		forget := router.RegisterFallbackTCPHandler(func(_, dst netip.AddrPort) (func(net.Conn), bool) {
			return func(c net.Conn) { fmt.Fprint(c, dst); c.Close() }, dst.Port() == 81
		})
		for _, address := range addresses {
			c, err := client.Dial(within(t, patience), "tcp", address)
			if err != nil {
				t.Fatalf("%s: %v", address, err)
			}
			if got, err := io.ReadAll(c); err != nil || string(got) != address {
				t.Errorf("%s: %q, %v", address, got, err)
			}
			c.Close()
		}
		busy.progresses(t, "a connection with a host that is there")
		forget()
		refused("after it was deregistered")
	}
}
