package interop

import (
	"context"
	"io"
	"net"
	"path/filepath"
	"sync"
	"testing"

	"tailscale.com/client/local"

	"github.com/seed94491740/tsnode/key"
	"github.com/seed94491740/tsnode/transport/derp/relay"
	"github.com/seed94491740/tsnode/transport/derp/relay/admit"
)

// Our relay's check asks a node of the reference whether it knows a client, by
// the local API that its daemon serves: it knows its peers and nobody else
// (DERP-73).
func TestAdmissionByReferenceNode(t *testing.T) {
	t.Parallel()
	control, _ := referenceControl(t)
	ours, theirs := ourNode(t, control, "ours", ""), tsnetNode(t, control, "theirs", "")
	api, err := theirs.LocalClient()
	if err != nil {
		t.Fatal(err)
	}
	ip, _ := theirs.TailscaleIPs()
	exchangeUDP(t, ours, theirs, ip) // they know each other
	check := admit.LocalNode(localAPISocket(t, api), nil)
	if err := check(t.Context(), relay.Candidate{Key: ours.Status().Self.PublicKey}); err != nil {
		t.Errorf("a peer: %v", err)
	}
	if err := check(t.Context(), relay.Candidate{Key: key.NewNode().Public()}); err == nil {
		t.Error("a stranger is let in")
	}
}

// localAPISocket puts a tsnet node's local API, which is in memory, on a socket.
func localAPISocket(t *testing.T, api *local.Client) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "api.sock")
	ln, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	var open sync.WaitGroup
	t.Cleanup(func() {
		ln.Close()
		open.Wait()
	})
	open.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			open.Go(func() { pass(c, api) })
		}
	})
	return path
}

// pass connects c to a local API until either end closes.
func pass(c net.Conn, api *local.Client) {
	defer c.Close()
	to, err := api.Dial(context.Background(), "tcp", "local-tailscaled.sock:80")
	if err != nil {
		return
	}
	defer to.Close()
	go func() {
		io.Copy(to, c)
		to.Close()
	}()
	io.Copy(c, to)
}
