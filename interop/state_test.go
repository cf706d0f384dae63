package interop

import (
	"context"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"tailscale.com/tsnet"
	"tailscale.com/types/logger"

	"github.com/seed94491740/tsnode/devnet"
	"github.com/seed94491740/tsnode/node"
)

// Acceptance item 5, the way back of TestStateDirectoryMovesBothWays: a state
// directory that our node has made is adopted by tsnet, and then by us again, with
// the same key, address and node. The control server lets nobody in without a key,
// and the one key is used up.
func TestOurStateDirectoryIsAdopted(t *testing.T) {
	tailnet := startDevnet(t, devnet.Config{})
	dir := filepath.Join(t.TempDir(), "state")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	type who struct {
		ip       netip.Addr
		key, id  string
		software string
	}
	ours := func(authKey string) who {
		t.Helper()
		n := &node.Node{Dir: dir, ControlURL: tailnet.URL(), Hostname: "mover", AuthKey: authKey, Logger: testLog(t, "mover")}
		defer n.Close()
		ctx, cancel := context.WithTimeout(context.Background(), upTimeout)
		defer cancel()
		st, err := n.Up(ctx)
		if err != nil {
			t.Fatalf("our node: %v", err)
		}
		return who{st.TailscaleIPs[0], st.Self.PublicKey.String(), string(st.Self.ID), "ours"}
	}
	theirs := func() who {
		t.Helper()
		s := &tsnet.Server{Dir: dir, ControlURL: tailnet.URL(), Hostname: "mover", Logf: logger.Discard}
		defer s.Close()
		ctx, cancel := context.WithTimeout(context.Background(), upTimeout)
		defer cancel()
		st, err := s.Up(ctx)
		if err != nil {
			t.Fatalf("tsnet: %v", err)
		}
		return who{st.TailscaleIPs[0], st.Self.PublicKey.String(), string(st.Self.ID), "tsnet"}
	}
	first := ours(tailnet.AuthKey(devnet.KeyOptions{}))
	for _, next := range []who{theirs(), ours("")} {
		if next.ip != first.ip || next.key != first.key || next.id != first.id {
			t.Errorf("%s: it is %+v; it was %+v", next.software, next, first)
		}
	}
	if n := len(tailnet.Nodes()); n != 1 {
		t.Errorf("the control server knows %d nodes, want 1", n)
	}
}
