package interop

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/seed94491740/tsnode/devnet"
	"github.com/seed94491740/tsnode/node"
)

// A flow that the policy denies is refused with a word: our dial of their node
// fails at once. (Theirs of ours runs into its timeout: tsnet v1.102.5 does not
// end a dial for such a word of anybody.)
func TestPolicyRejects(t *testing.T) {
	tailnet := startDevnet(t, devnet.Config{Policy: []byte(`{"acls": [{"action": "accept", "src": ["*"], "dst": ["*:7001"]}]}`)})
	k := tailnet.AuthKey(devnet.KeyOptions{Reusable: true})
	ours, theirs := ourNode(t, tailnet.URL(), "ours", k), tsnetNode(t, tailnet.URL(), "theirs", k)
	ourIP, _ := ours.TailscaleIPs()
	theirIP, _ := theirs.TailscaleIPs()
	exchangeTCP(t, ours, theirs, theirIP, 1000)
	exchangeTCP(t, theirs, ours, ourIP, 1000)

	began := time.Now()
	_, err := ours.Dial(context.Background(), "tcp", netip.AddrPortFrom(theirIP, 9999).String())
	if !errors.Is(err, node.ErrRejected) {
		t.Errorf("we dial them: %v, want ErrRejected", err)
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("our dial took %v", took)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	if c, err := theirs.Dial(ctx, "tcp", netip.AddrPortFrom(ourIP, 9999).String()); err == nil {
		c.Close()
		t.Error("they reach a port that the policy denies")
	}
}

// The relay, then the control server restart in the middle of a transfer
// between a node of each kind: it goes on.
func TestRestartsInTheMiddleOfATransfer(t *testing.T) {
	tailnet := startDevnet(t, devnet.Config{})
	k := tailnet.AuthKey(devnet.KeyOptions{Reusable: true})
	ours, theirs := ourNode(t, tailnet.URL(), "ours", k), tsnetNode(t, tailnet.URL(), "theirs", k)
	theirIP, _ := theirs.TailscaleIPs()
	ln, err := theirs.Listen("tcp", ":7003")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	go func() {
		if c, err := ln.Accept(); err == nil {
			defer c.Close()
			io.Copy(c, c)
		}
	}()
	c := dialWhenKnown(t, ours, "tcp", netip.AddrPortFrom(theirIP, 7003))
	defer c.Close()
	pingPong(t, c)
	if err := tailnet.RestartRelay(1); err != nil {
		t.Fatal(err)
	}
	pingPong(t, c)
	if err := tailnet.RestartControl(); err != nil {
		t.Fatal(err)
	}
	pingPong(t, c)
	ctx, cancel := context.WithTimeout(context.Background(), upTimeout)
	defer cancel()
	if err := tailnet.AwaitOnline(ctx, "ours", "theirs"); err != nil {
		t.Errorf("the nodes did not come back to the control server: %v", err)
	}
	pingPong(t, c)
}

// pingPong sends blocks over a connection to an echo and wants them back.
func pingPong(t *testing.T, c net.Conn) {
	t.Helper()
	c.SetDeadline(time.Now().Add(30 * time.Second))
	block := bytes.Repeat([]byte("0123456789"), 2000)
	got := make([]byte, len(block))
	for range 20 {
		if _, err := c.Write(block); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, block) {
			t.Fatalf("echo: %v", err)
		}
	}
}
