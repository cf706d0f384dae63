package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/seed94491740/tsnode/control"
	"github.com/seed94491740/tsnode/devnet"
	"github.com/seed94491740/tsnode/state"
)

// A key that nears its end is warned of in time; when it has ended the node talks
// to nobody, and an administrator who extends it is all that is needed (CTL-47).
func TestKeyExpiryIsToldAndExtensionNoticed(t *testing.T) {
	onModernGround(t, devnet.Config{}, func(t *testing.T, g *ground) {
		a, b := g.start(g.addHost("a")), g.join(g.addHost("b"))
		log := logEvents(a)
		a.up()
		time.Sleep(settled) // fake time
		flow := a.send(b, 7, 10*time.Millisecond)
		defer flow.end()
		expire := func(in time.Duration) {
			if err := g.tailnet.SetKeyExpiry("n0", time.Now().Add(in)); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second) // fake time
		}
		log.wants(t, "at the start", "Running")
		for _, warning := range []struct {
			left, told time.Duration
			soon       string // when the expiry is set a little before the warning is due
		}{
			{14 * 24 * time.Hour, 14 * 24 * time.Hour, ""},
			{24 * time.Hour, 24 * time.Hour, "KeyExpiring 24h1m0s"},
			{time.Hour, time.Hour, "KeyExpiring 1h1m0s"},
		} {
			expire(warning.left + time.Minute)
			log.wants(t, "when the expiry is set", warning.soon)
			time.Sleep(58 * time.Second) // fake time
			log.wants(t, "before it is due", "")
			time.Sleep(2 * time.Second) // fake time
			log.wants(t, "when it is due", fmt.Sprintf("KeyExpiring %v", warning.told))
		}
		flow.arrives(t, time.Second)
		expire(20 * time.Second)
		log.wants(t, "shortly before the end", "KeyExpiring 0s")
		time.Sleep(30 * time.Second)                                       // fake time
		log.wants(t, "at the end", "KeyExpired, bad auth key, NeedsLogin") // the auth key was good for one node
		if !flow.rests() {
			t.Error("packets arrive although the key has expired")
		}
		if st := a.Status(); st.State != StateNeedsLogin || st.AuthURL == "" {
			t.Errorf("status: %v, URL %q", st.State, st.AuthURL)
		}
		before := a.run.control.NodeKey.Get().Public()
		expire(30 * 24 * time.Hour)
		flow.arrives(t, 10*time.Second)
		log.wants(t, "once it is extended", "KeyExtended, Running")
		if a.run.control.NodeKey.Get().Public() != before {
			t.Error("an extended key was renewed")
		}
	})
}

// An expired key is renewed by itself where an auth key is at hand.
func TestExpiredKeyIsRenewedWithAuthKey(t *testing.T) {
	onModernGround(t, devnet.Config{}, func(t *testing.T, g *ground) {
		a := g.start(g.addHost("a"), g.withKey(devnet.KeyOptions{Reusable: true}))
		b := g.join(g.addHost("b"))
		log := logEvents(a)
		a.up()
		time.Sleep(settled) // fake time
		forth, back := a.send(b, 7, 10*time.Millisecond), b.send(a, 8, 10*time.Millisecond)
		defer forth.end()
		defer back.end()
		forth.arrives(t, 5*time.Second)
		if err := g.tailnet.ExpireKey("n0"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Second) // fake time
		log.wants(t, "after the end", "Running, KeyExpired, KeyRenewed, Running")
		forth.arrives(t, 5*time.Second)
		back.arrives(t, 5*time.Second)
	})
}

// A login with another auth key at run time changes the node key and nothing
// else: flows go on, the node stays running; a bad one changes nothing (CTL-23).
func TestLoginRenewsKeyUnderTraffic(t *testing.T) {
	onModernGround(t, devnet.Config{KeyLifetime: 30 * 24 * time.Hour}, func(t *testing.T, g *ground) {
		a, b := g.start(g.addHost("a")), g.join(g.addHost("b"))
		log := logEvents(a)
		a.up()
		time.Sleep(settled) // fake time
		forth, back := a.send(b, 7, 10*time.Millisecond), b.send(a, 8, 10*time.Millisecond)
		forth.arrives(t, 5*time.Second)
		before, ips := a.run.control.NodeKey.Get().Public(), a.Status().TailscaleIPs
		ctx := context.Background()
		if err := a.Login(ctx, LoginOptions{AuthKey: "tskey-auth-none"}); !errors.Is(err, ErrBadAuthKey) {
			t.Errorf("bad key: %v", err)
		}
		time.Sleep(time.Second) // fake time
		if a.run.control.NodeKey.Get().Public() != before {
			t.Error("a bad auth key has changed the node key")
		}
		if err := a.Login(ctx, LoginOptions{AuthKey: g.tailnet.AuthKey(devnet.KeyOptions{})}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Second) // fake time
		log.wants(t, "of all this", "Running, KeyRenewed")
		forth.end()
		back.end()
		t.Logf("quiet for %v and %v", forth.quiet(), back.quiet())
		if forth.quiet() > time.Second || back.quiet() > time.Second {
			t.Error("the renewal has held flows up for more than a second")
		}
		st := a.Status()
		if st.Self.PublicKey == before || !slices.Equal(st.TailscaleIPs, ips) || len(g.tailnet.Nodes()) != 2 {
			t.Errorf("key %v, addresses %v, %d nodes", st.Self.PublicKey, st.TailscaleIPs, len(g.tailnet.Nodes()))
		}
	})
}

// A node that waits for approval sends and receives nothing; what an administrator
// decides counts at once, both ways (CTL-27).
func TestApprovalComesAndGoes(t *testing.T) {
	onModernGround(t, devnet.Config{NeedApproval: true}, func(t *testing.T, g *ground) {
		a := g.start(g.addHost("a"))
		b := g.join(g.addHost("b"), g.withKey(devnet.KeyOptions{Preapproved: true}))
		log := logEvents(a)
		if err := a.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(3 * time.Second) // fake time
		log.wants(t, "before the approval", "NeedsApproval")
		if p := a.run.plane.Load(); p != nil && !p.ended.Load() {
			t.Error("the packet pipeline runs before the approval")
		}
		if err := g.tailnet.ApproveNode("n0"); err != nil {
			t.Fatal(err)
		}
		a.up()
		time.Sleep(settled) // fake time
		forth, back := a.send(b, 7, 10*time.Millisecond), b.send(a, 8, 10*time.Millisecond)
		defer forth.end()
		defer back.end()
		forth.arrives(t, 5*time.Second)
		back.arrives(t, 5*time.Second)
		log.wants(t, "after the approval", "Running")
		for range 2 {
			if err := g.tailnet.RevokeNode("n0"); err != nil {
				t.Fatal(err)
			}
			if !forth.rests() || !back.rests() {
				t.Error("packets arrive without approval")
			}
			log.wants(t, "after its end", "NeedsApproval")
			if err := g.tailnet.ApproveNode("n0"); err != nil {
				t.Fatal(err)
			}
			forth.arrives(t, 10*time.Second)
			back.arrives(t, 10*time.Second)
			log.wants(t, "after the next one", "Running")
		}
	})
}

// An ephemeral node that the control server has removed joins as another one.
func TestRemovedEphemeralNodeJoinsAnew(t *testing.T) {
	onModernGround(t, devnet.Config{}, func(t *testing.T, g *ground) {
		a := g.start(g.addHost("a"), g.withKey(devnet.KeyOptions{Reusable: true}), func(n *Node) { n.Ephemeral = true })
		b := g.join(g.addHost("b"))
		log := logEvents(a)
		a.up()
		old := a.Status()
		if err := g.tailnet.Remove("n0"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(3 * time.Second) // fake time
		a.up()
		log.wants(t, "of all this", "Running, removed, Rejoined, Running")
		if st := a.Status(); st.Self.ID == old.Self.ID || st.Self.PublicKey == old.Self.PublicKey {
			t.Error("the node is the one that was removed")
		}
		time.Sleep(settled) // fake time
		flow := a.send(b, 7, 10*time.Millisecond)
		defer flow.end()
		flow.arrives(t, 5*time.Second)
	})
}

// Any other node ends with an error that says so; its state is good for a new
// node.
func TestRemovedNodeEnds(t *testing.T) {
	onModernGround(t, devnet.Config{}, func(t *testing.T, g *ground) {
		store := state.NewMemory()
		kept := func(n *Node) { n.Store = store }
		a := g.start(g.addHost("a"), g.withKey(devnet.KeyOptions{Reusable: true}), kept)
		log := logEvents(a)
		a.up()
		old := a.Status().Self.ID
		if err := g.tailnet.Remove("n0"); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		until(t, time.Second, func() bool { return a.Status().State == StateStopped })
		t.Logf("noticed after %v", time.Since(began))
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if _, err := a.Up(ctx); !errors.Is(err, ErrNodeDeleted) {
			t.Errorf("Up: %v, want ErrNodeDeleted", err)
		}
		if _, err := a.Dial(ctx, "tcp", "n1:80"); !errors.Is(err, ErrNodeDeleted) {
			t.Errorf("Dial: %v, want ErrNodeDeleted", err)
		}
		if err := a.Login(ctx, LoginOptions{}); err == nil {
			t.Error("a node that has ended logs in")
		}
		if got := strings.ReplaceAll(log.take(), "removed, ", ""); got != "Running, Stopped" { // the end may come first
			t.Errorf("events %q", got)
		}
		a.Close()
		if again := g.join(a.host, kept); again.Status().Self.ID == old {
			t.Error("the node is the one that was removed")
		}
	})
}

// A logout from elsewhere, by another process with the same state or an
// administrator, is an expired key: a person may log in again.
func TestLogoutFromElsewhere(t *testing.T) {
	onModernGround(t, devnet.Config{}, func(t *testing.T, g *ground) {
		a := g.start(g.addHost("a"), func(n *Node) { n.AuthKey = "" })
		log := logEvents(a)
		if err := a.Start(); err != nil {
			t.Fatal(err)
		}
		approve := func() {
			until(t, 5*time.Second, func() bool { return a.Status().AuthURL != "" })
			if err := g.tailnet.Approve(a.Status().AuthURL, ""); err != nil {
				t.Fatal(err)
			}
		}
		approve()
		a.up()
		id := a.Status().Self.ID
		if err := g.tailnet.ExpireKey("n0"); err != nil {
			t.Fatal(err)
		}
		until(t, 5*time.Second, func() bool { return a.Status().State == StateNeedsLogin })
		approve()
		a.up()
		log.wants(t, "of all this", "NeedsLogin, Running, KeyExpired, NeedsLogin, KeyRenewed, Running")
		if a.Status().Self.ID != id {
			t.Error("the node is another one")
		}
	})
}

// With tailnet lock, whose signatures the node cannot verify, it talks to nobody
// and says so in an event and its status (SVC-144, CTL-41).
func TestTailnetLockIsTold(t *testing.T) {
	onModernGround(t, devnet.Config{}, func(t *testing.T, g *ground) {
		a, b := g.start(g.addHost("a")), g.join(g.addHost("b"))
		log := logEvents(a)
		a.up()
		time.Sleep(settled) // fake time
		flow := a.send(b, 7, 10*time.Millisecond)
		defer flow.end()
		flow.arrives(t, 5*time.Second)
		for range 2 {
			if err := g.tailnet.SendMap("n0", &control.MapResponse{TKAInfo: &control.TKAInfo{Head: "x"}}); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second) // fake time
		}
		log.wants(t, "of all this", "Running, TailnetLocked")
		if !flow.rests() || !slices.ContainsFunc(a.Status().Health, func(s string) bool { return strings.Contains(s, "tailnet lock") }) {
			t.Errorf("packets arrive, or the status does not say why not: %q", a.Status().Health)
		}
	})
}

// The end of the node key is judged by the control server's clock, which may not
// be ours (control.md section 9.3).
func TestKeyExpiryFollowsServersClock(t *testing.T) {
	onModernGround(t, devnet.Config{}, func(t *testing.T, g *ground) {
		a := g.start(g.addHost("a"))
		log := logEvents(a)
		a.up()
		if err := g.tailnet.SetKeyExpiry("n0", time.Now().Add(20*24*time.Hour)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second) // fake time
		log.wants(t, "by our own clock", "Running")
		for _, ahead := range []struct {
			by   time.Duration
			want string
		}{
			{30 * time.Second, ""}, // no difference at all
			{10 * 24 * time.Hour, "KeyExpiring 240h0m0s"},
			{0, ""},
			{19*24*time.Hour + 12*time.Hour, "KeyExpiring 12h0m0s"},
		} {
			if err := g.tailnet.SendMap("n0", &control.MapResponse{KeepAlive: true, ControlTime: time.Now().Add(ahead.by).UTC()}); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second) // fake time
			log.wants(t, fmt.Sprintf("%v ahead", ahead.by), ahead.want)
		}
	})
}
