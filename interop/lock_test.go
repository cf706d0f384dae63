package interop

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"tailscale.com/client/local"
	"tailscale.com/tailcfg"
	"tailscale.com/tka"
	"tailscale.com/types/key"

	"github.com/seed94491740/tsnode/node"
	"github.com/seed94491740/tsnode/state"
)

// A tsnet node turns tailnet lock on, and two nodes of ours join. They are
// kept apart until the tsnet node runs the commands that they tell, which sign
// them (SVC-143..148).
//
// Ours have the beginning of the lock from the start: that control server gives
// it to nodes of its own version only.
func TestTailnetLockOfTheReference(t *testing.T) {
	control, server := referenceControl(t)
	server.DefaultNodeCapabilities = &tailcfg.NodeCapMap{tailcfg.CapabilityTailnetLock: nil}
	theirs := tsnetNode(t, control, "theirs", "")
	ctx, cancel := context.WithTimeout(context.Background(), upTimeout)
	defer cancel()
	client, err := theirs.LocalClient()
	if err != nil {
		t.Fatal(err)
	}
	turnLockOn(t, ctx, client)
	server.SetExpireAllNodes(false) // has it tell the tsnet node of the lock
	ours := ourLockedNode(t, control, "ours", client)
	late := ourLockedNode(t, control, "late", client)
	sign(t, ctx, client, awaitCommand(t, ours))
	exchange(t, ours, theirs)
	if !hasPeer(ours, "theirs") || hasPeer(ours, "late") || hasPeer(late, "late") {
		t.Error("peers that are signed and those that are not are mixed up")
	}
	sign(t, ctx, client, awaitCommand(t, late))
	exchange(t, ours, late)
}

// turnLockOn has the tsnet node trust itself.
func turnLockOn(t *testing.T, ctx context.Context, client *local.Client) {
	t.Helper()
	status, err := client.TailnetLockStatus(ctx)
	if err != nil {
		t.Fatal(err)
	}
	trusted := []tka.Key{{Kind: tka.Key25519, Votes: 1, Public: status.PublicKey.Verifier()}}
	if _, err := client.TailnetLockInit(ctx, trusted, [][]byte{tka.DisablementKDF([]byte("secret"))}, nil); err != nil {
		t.Fatal(err)
	}
}

// ourLockedNode starts a node of ours that knows how the lock began.
func ourLockedNode(t *testing.T, control, name string, client *local.Client) *node.Node {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), upTimeout)
	defer cancel()
	store := state.NewMemory()
	if err := state.SaveLock(ctx, store, [][]byte{firstUpdate(t, client)}); err != nil {
		t.Fatal(err)
	}
	n := &node.Node{
		ControlURL: control, Hostname: name, Ephemeral: true, Logger: testLog(t, name), Store: store,
		Proxy: func(*http.Request) (*url.URL, error) { return nil, nil },
	}
	t.Cleanup(func() { n.Close() })
	if _, err := n.Up(ctx); err != nil {
		t.Fatalf("our node %s: %v", name, err)
	}
	return n
}

// firstUpdate returns what the tsnet node has of its lock, once it has seen it
// itself.
func firstUpdate(t *testing.T, client *local.Client) (update []byte) {
	t.Helper()
	eventually(t, upTimeout, func(ctx context.Context) error {
		all, err := client.TailnetLockLog(ctx, 10)
		if err != nil || len(all) != 1 {
			return fmt.Errorf("%d updates: %v", len(all), err)
		}
		update = all[0].Raw
		return nil
	})
	return update
}

// awaitCommand waits until a node knows that it is not signed, and returns the
// command that signs it.
func awaitCommand(t *testing.T, n *node.Node) (command string) {
	t.Helper()
	eventually(t, upTimeout, func(context.Context) error {
		health := n.Status().Health
		for _, problem := range health {
			if _, said, ok := strings.Cut(problem, "run: "); ok {
				command = said
				return nil
			}
		}
		return fmt.Errorf("not told that it is not signed: %q", health)
	})
	return command
}

// sign does what "tailscale lock sign" would.
func sign(t *testing.T, ctx context.Context, client *local.Client, command string) {
	t.Helper()
	var nodeKey key.NodePublic
	var lockKey key.NLPublic
	args := strings.Fields(command)
	if err := nodeKey.UnmarshalText([]byte(args[3])); err != nil {
		t.Fatal(err)
	}
	if err := lockKey.UnmarshalText([]byte(args[4])); err != nil {
		t.Fatal(err)
	}
	if err := client.TailnetLockSign(ctx, nodeKey, lockKey.Verifier()); err != nil {
		t.Fatal(err)
	}
}

func hasPeer(n *node.Node, name string) bool {
	for _, p := range n.Status().Peers {
		if strings.HasPrefix(p.Name, name) {
			return true
		}
	}
	return false
}
