package node_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/seed94491740/tsnode/devnet"
	"github.com/seed94491740/tsnode/node"
)

// The node key expires in the middle of a transfer: it stands still until the key
// is extended, renewed with an auth key, or renewed by a person, and goes on
// without a restart. Events tell that in this order.
func TestKeyExpiresDuringTransfer(t *testing.T) {
	for name, test := range map[string]struct {
		options devnet.KeyOptions // of the auth key that the node has
		mend    func(*testing.T, *devnet.Net, *node.Node)
		want    string
	}{
		"extended": {
			mend: func(t *testing.T, tailnet *devnet.Net, _ *node.Node) {
				if err := tailnet.SetKeyExpiry("alpha", time.Now().Add(30*24*time.Hour)); err != nil {
					t.Fatal(err)
				}
			},
			want: "Running KeyExpired NeedsLogin KeyExtended Running",
		},
		"renewed with the auth key": {
			options: devnet.KeyOptions{Reusable: true},
			mend:    func(*testing.T, *devnet.Net, *node.Node) {},
			want:    "Running KeyExpired KeyRenewed Running",
		},
		"renewed with another auth key": {
			mend: func(t *testing.T, tailnet *devnet.Net, n *node.Node) {
				key := tailnet.AuthKey(devnet.KeyOptions{})
				if err := n.Login(within(t, patience), node.LoginOptions{AuthKey: key}); err != nil {
					t.Fatal(err)
				}
			},
			want: "Running KeyExpired NeedsLogin KeyRenewed Running",
		},
		"renewed by a person": {
			mend: func(t *testing.T, tailnet *devnet.Net, n *node.Node) {
				if err := tailnet.Approve(n.Status().AuthURL, ""); err != nil {
					t.Fatal(err)
				}
			},
			want: "Running KeyExpired NeedsLogin KeyRenewed Running",
		},
	} {
		t.Run(name, func(t *testing.T) {
			tailnet := startDevnet(t, devnet.Config{})
			a, b := newNode(t, tailnet, "alpha"), newNode(t, tailnet, "beta")
			a.AuthKey = tailnet.AuthKey(test.options)
			serveEcho(t, b, 7)
			events := a.Events(within(t, 2*patience))
			up(t, a)
			up(t, b)
			sees(t, a, "beta")
			tr := startTransfer(t, a, "beta:7")
			tr.progresses(t, 3)
			got := takeEvents[node.Running](t, events)
			if err := tailnet.ExpireKey("alpha"); err != nil {
				t.Fatal(err)
			}
			if test.options.Reusable {
				got += takeEvents[node.KeyExpired](t, events)
			} else {
				got += takeEvents[node.NeedsLogin](t, events)
			}
			test.mend(t, tailnet, a)
			got += takeEvents[node.Running](t, events)
			if strings.TrimSpace(got) != test.want {
				t.Errorf("events %q, want %q", got, test.want)
			}
			tr.progresses(t, 20)
		})
	}
}

// A login at run time changes the node key in the middle of a transfer.
func TestLoginDuringTransfer(t *testing.T) {
	tailnet := startDevnet(t, devnet.Config{})
	a, b := newNode(t, tailnet, "alpha"), newNode(t, tailnet, "beta")
	serveEcho(t, b, 7)
	up(t, a)
	up(t, b)
	sees(t, a, "beta")
	tr := startTransfer(t, a, "beta:7")
	for range 3 {
		tr.progresses(t, 3)
		before := a.Status().Self.PublicKey
		key := tailnet.AuthKey(devnet.KeyOptions{})
		if err := a.Login(within(t, patience), node.LoginOptions{AuthKey: key}); err != nil {
			t.Fatal(err)
		}
		ctx := within(t, patience)
		for a.Status().Self.PublicKey == before {
			select {
			case <-time.After(5 * time.Millisecond):
			case <-ctx.Done():
				t.Fatal("the node key is the old one")
			}
		}
	}
	tr.progresses(t, 20)
}

// takeEvents returns the names of the events up to the next one of type E. Starting
// and ControlProblem, which may come or not, are left out.
func takeEvents[E node.Event](t *testing.T, events <-chan node.Event) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	names := ""
	for {
		select {
		case e := <-events:
			switch e.(type) {
			case node.Starting, node.ControlProblem:
			default:
				names += nameOf(e) + " "
			}
			if _, ok := e.(E); ok {
				return names
			}
		case <-ctx.Done():
			var none E
			t.Fatalf("no %T after %q", none, names)
		}
	}
}

func nameOf(e node.Event) string {
	switch e.(type) {
	case node.NeedsLogin:
		return "NeedsLogin"
	case node.Running:
		return "Running"
	case node.KeyExpired:
		return "KeyExpired"
	case node.KeyExtended:
		return "KeyExtended"
	case node.KeyRenewed:
		return "KeyRenewed"
	}
	return "?"
}
