package node_test

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/seed94491740/tsnode/devnet"
	"github.com/seed94491740/tsnode/node"
)

// SVC-53: over a tailnet, a peer is accepted when its connection is completed,
// refused when it is closed before, and known in either case (SVC-120): to ask who
// it is does not accept it.
func TestListenPending(t *testing.T) {
	tailnet := startDevnet(t, devnet.Config{})
	server, client := newNode(t, tailnet, "server"), newNode(t, tailnet, "client")
	up(t, server)
	up(t, client)
	sees(t, client, "server")
	sees(t, server, "client")
	ln, err := server.ListenPending("tcp", ":80")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	type completer interface{ Complete() (net.Conn, error) }
	whose := make(chan string, 1)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for refuse := true; ; refuse = !refuse {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			if refuse {
				if who, err := server.WhoIsConn(c); err != nil || who.Node.HostName != "client" {
					t.Errorf("before it is accepted: %+v, %v", who, err)
				}
				c.Close()
				if _, err := c.(completer).Complete(); !errors.Is(err, net.ErrClosed) {
					t.Errorf("Complete after Close: %v", err)
				}
				continue
			}
			accepted, err := c.(completer).Complete()
			if err != nil {
				t.Error(err)
				continue
			}
			name := "nobody"
			if who, err := server.WhoIsConn(c); err == nil {
				name = who.Node.HostName
			}
			whose <- name
			io.Copy(accepted, accepted)
			c.Close()
		}
	}()
	ip, _ := server.TailscaleIPs()
	at := netip.AddrPortFrom(ip, 80).String() // of a name, the other address would be tried after a refusal
	if _, err := client.Dial(within(t, time.Minute), "tcp", at); !errors.Is(err, node.ErrRefused) {
		t.Errorf("a refused connection: %v", err)
	}
	if err := echo(client, at, 100); err != nil {
		t.Error(err)
	}
	if got := <-whose; got != "client" {
		t.Errorf("the connection is of %q", got)
	}
	ln.Close()
	<-done
}

// SVC-54: a socket that acts for a peer stands for it, until it is forgotten.
func TestOnBehalf(t *testing.T) {
	tailnet := startDevnet(t, devnet.Config{})
	server, client := newNode(t, tailnet, "server"), newNode(t, tailnet, "client")
	up(t, server)
	up(t, client)
	sees(t, server, "client")
	ip, _ := client.TailscaleIPs()
	socket := net.TCPAddrFromAddrPort(netip.MustParseAddrPort("127.0.0.1:50000"))
	forget := server.OnBehalf("tcp", socket, netip.AddrPortFrom(ip, 1234))
	if who, err := server.WhoIs(t.Context(), socket.String()); err != nil || who.Node.HostName != "client" {
		t.Errorf("the socket is of %v, %v", who, err)
	}
	forget()
	if _, err := server.WhoIs(t.Context(), socket.String()); !errors.Is(err, node.ErrUnknownAddress) {
		t.Errorf("after it was forgotten: %v", err)
	}
}
