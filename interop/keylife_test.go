package interop

import (
	"context"
	"io"
	"net/netip"
	"testing"
	"time"

	"github.com/seed94491740/tsnode/devnet"
	"github.com/seed94491740/tsnode/node"
)

// The reference's control server lets the node key expire and takes that back: our
// node goes on with the same key and tells so. What it carries meanwhile is not
// looked at: that server shows peers both keys once a renewal was begun.
func TestKeyExpiresOnReferenceControl(t *testing.T) {
	control, server := referenceControl(t)
	n := ourNode(t, control, "alpha", "")
	server.AllNodes()         // takes the lock that later requests take
	server.RequireAuth = true // from here on no key is renewed without a person
	ctx, cancel := context.WithTimeout(context.Background(), upTimeout)
	defer cancel()
	events := n.Events(ctx)
	before := n.Status().Self.PublicKey
	server.SetExpireAllNodes(true)
	awaitEvent[node.KeyExpired](t, events)
	server.SetExpireAllNodes(false)
	awaitEvent[node.KeyExtended](t, events)
	if st, err := n.Up(ctx); err != nil || st.Self.PublicKey != before {
		t.Errorf("%v; want it to run with the same key", err)
	}
}

// Our node renews its key in the middle of a transfer with a tsnet node, which
// follows.
func TestReferenceFollowsRenewedKey(t *testing.T) {
	tailnet := startDevnet(t, devnet.Config{})
	key := tailnet.AuthKey(devnet.KeyOptions{Reusable: true})
	ours, theirs := ourNode(t, tailnet.URL(), "ours", key), tsnetNode(t, tailnet.URL(), "theirs", key)
	ip, _ := theirs.TailscaleIPs()
	serveOneEcho(t, theirs)
	ctx, cancel := context.WithTimeout(context.Background(), upTimeout)
	defer cancel()
	events := ours.Events(ctx)
	c := dialWhenKnown(t, ours, "tcp", netip.AddrPortFrom(ip, 7004))
	defer c.Close()
	pingPong(t, c)
	if err := ours.Login(ctx, node.LoginOptions{AuthKey: tailnet.AuthKey(devnet.KeyOptions{})}); err != nil {
		t.Fatal(err)
	}
	awaitEvent[node.KeyRenewed](t, events)
	pingPong(t, c)
	if err := tailnet.ExpireKey("ours"); err != nil { // the newest auth key is used up
		t.Fatal(err)
	}
	awaitEvent[node.NeedsLogin](t, events)
	if err := tailnet.SetKeyExpiry("ours", time.Time{}); err != nil {
		t.Fatal(err)
	}
	awaitEvent[node.KeyExtended](t, events)
	pingPong(t, c)
}

// serveOneEcho sends what comes on one connection back.
func serveOneEcho(t *testing.T, on dialer) {
	t.Helper()
	ln, err := on.Listen("tcp", ":7004")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		if c, err := ln.Accept(); err == nil {
			defer c.Close()
			io.Copy(c, c)
		}
	}()
}

// awaitEvent waits for an event of type E.
func awaitEvent[E node.Event](t *testing.T, events <-chan node.Event) {
	t.Helper()
	for e := range events {
		if _, ok := e.(E); ok {
			return
		}
	}
	var none E
	t.Fatalf("the events have ended without %T", none)
}
