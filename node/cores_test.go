package node

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"testing"
	"time"

	"github.com/seed94491740/tsnode/devnet"
)

// TestLoopsFor: WG-78 and WG-79.
func TestLoopsFor(t *testing.T) {
	for cores, want := range map[int]int{1: 1, 2: 1, 3: 1, 4: 2, 5: 2, 6: 3, 8: 4, 64: 4} {
		if got := loopsFor(cores); got != want {
			t.Errorf("%d on %d cores, want %d", got, cores, want)
		}
	}
}

// TestManyCores: nodes whose packets are shared by several goroutines, as on a
// machine of many cores, carry the streams of several peers at once unharmed
// (WG-78, WG-79), and Close ends all of them.
func TestManyCores(t *testing.T) {
	const peers = 4
	tailnet := devnet.New(t, devnet.Config{})
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	start := func(name string) *Node {
		n := &Node{
			Hostname: name, ControlURL: tailnet.URL(), AuthKey: tailnet.AuthKey(devnet.KeyOptions{}), Ephemeral: true,
			Proxy: func(*http.Request) (*url.URL, error) { return nil, nil }, seams: seams{loops: 4},
		}
		t.Cleanup(func() { n.Close() })
		if _, err := n.Up(ctx); err != nil {
			t.Fatal(err)
		}
		return n
	}
	hub := start("hub")
	ln, err := hub.Listen("tcp", ":7")
	if err != nil {
		t.Fatal(err)
	}
	go echoAll(ln)
	done := make(chan error, peers)
	for i := range peers {
		n := start(fmt.Sprint("peer", i))
		go func() { done <- echoed(ctx, n, "hub:7") }()
	}
	for range peers {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	if n := len(hub.run.stack.Links()); n != 4 {
		t.Errorf("the hub has %d links", n)
	}
}

func echoAll(ln net.Listener) {
	for {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			io.Copy(c, c)
		}()
	}
}

// echoed sends random bytes to an echo and compares what comes back.
func echoed(ctx context.Context, n *Node, address string) error {
	c, err := n.Dial(ctx, "tcp", address)
	if err != nil {
		return err
	}
	defer c.Close()
	sent := make([]byte, 2<<20)
	rand.Read(sent)
	writing := make(chan error, 1)
	go func() {
		_, err := c.Write(sent)
		writing <- err
	}()
	got := make([]byte, len(sent))
	if _, err := io.ReadFull(c, got); err != nil {
		return fmt.Errorf("%s: read: %w", n.Hostname, err)
	}
	if !bytes.Equal(got, sent) {
		return fmt.Errorf("%s: the echo differs", n.Hostname)
	}
	return <-writing
}
