package control

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed94491740/tsnode/internal/actor"
	"github.com/seed94491740/tsnode/key"
)

func TestBadAuthKeyIsFinal(t *testing.T) {
	for _, text := range []string{"invalid pre auth key", "authkey already used", "invalid key: API key does not exist"} {
		synctest.Test(t, func(t *testing.T) {
			tc := start(t, func(c *Config, _ *testClient) { c.AuthKey = "tskey-auth-secret" })
			c := <-tc.register
			c.answer <- &RegisterResponse{Error: text}
			err := <-tc.served
			tc.served <- nil
			var fatal *actor.FatalError
			if !errors.Is(err, ErrBadAuthKey) || !errors.As(err, &fatal) || strings.Contains(err.Error(), "secret") {
				t.Errorf("%q: Serve = %v, want a final ErrBadAuthKey", text, err)
			}
			if got := tc.Status.Get().Err; !errors.Is(got, ErrBadAuthKey) {
				t.Errorf("%q: status error = %v", text, got)
			}
		})
	}
}

func TestInteractiveLogin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tc := start(t, nil)
		c := <-tc.register
		if c.Auth != nil || c.Followup != "" {
			t.Errorf("request = %+v", c.RegisterRequest)
		}
		const url1, url2 = "http://127.0.0.1:8080/register/1", "http://127.0.0.1:8080/register/2"
		c.answer <- &RegisterResponse{AuthURL: url1}
		f := <-tc.register
		if f.Followup != url1 || f.NodeKey != c.NodeKey {
			t.Errorf("follow-up = %+v, want the same key and the URL (CTL-21)", f.RegisterRequest)
		}
		synctest.Wait()
		if got := tc.Status.Get(); got.State != StateNeedsLogin || got.AuthURL != url1 {
			t.Errorf("status = %+v", got)
		}
		if _, saves := tc.keys.get(); saves != 0 {
			t.Error("the candidate key was kept before it was accepted (CTL-23)")
		}
		time.Sleep(time.Hour) // a person takes a while; there is no timeout
		begin := time.Now()
		f.answer <- &RegisterResponse{AuthURL: url2}
		f = <-tc.register
		if f.Followup != url2 || time.Since(begin) != 0 {
			t.Errorf("follow-up of a new URL = %q after %v", f.Followup, time.Since(begin))
		}
		f.answer <- &RegisterResponse{AuthURL: url2}
		f = <-tc.register
		if time.Since(begin) == 0 {
			t.Error("the same URL was followed up without a pause")
		}
		f.answer <- &RegisterResponse{MachineAuthorized: true}
		p := <-tc.mapPolls
		p.send(&MapResponse{Node: selfNode(c.NodeKey)})
		synctest.Wait()
		if got := tc.Status.Get(); got.State != StateRunning || got.AuthURL != "" {
			t.Errorf("status = %+v", got)
		}
	})
}

func TestLoginURLIsChecked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tc := start(t, nil)
		c := <-tc.register
		c.answer <- &RegisterResponse{AuthURL: "javascript:alert(1)"}
		<-tc.register
		synctest.Wait()
		if got := tc.Status.Get(); got.AuthURL != "" || got.Err == nil {
			t.Errorf("status = %+v, want no URL (CTL-43)", got)
		}
	})
}

func TestRestartRegistersStoredKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stored := key.NewNode()
		tc := start(t, func(_ *Config, tc *testClient) { tc.keys.creds = Credentials{Node: stored} })
		if c := tc.accepts(); c.NodeKey != stored.Public() || !c.OldNodeKey.IsZero() {
			t.Errorf("request = %+v, want the stored key (CTL-22)", c.RegisterRequest)
		}
		<-tc.mapPolls
	})
}

func TestExpiredKeyIsRenewedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stored := key.NewNode()
		tc := start(t, func(_ *Config, tc *testClient) { tc.keys.creds = Credentials{Node: stored} })
		c := <-tc.register
		c.answer <- &RegisterResponse{NodeKeyExpired: true}
		c = <-tc.register
		if c.NodeKey == stored.Public() || c.OldNodeKey != stored.Public() {
			t.Errorf("request = %+v, want a new key that replaces the old one (CTL-24)", c.RegisterRequest)
		}
		if want := []string{stored.Public().String(), c.NodeKey.String()}; !slices.Equal(c.hint, want) {
			t.Errorf("Ts-Lb = %q, want old and new key", c.hint)
		}
		c.answer <- &RegisterResponse{AuthURL: "http://127.0.0.1:8080/register/1"}
		f := <-tc.register
		synctest.Wait()
		if got := tc.Status.Get(); got.State != StateNeedsLogin || !errors.Is(got.Err, ErrKeyExpired) {
			t.Errorf("status = %+v, want needs login because the key expired", got)
		}
		f.answer <- &RegisterResponse{MachineAuthorized: true}
		<-tc.mapPolls
		if creds, _ := tc.keys.get(); creds.Node.Public() != f.NodeKey || !creds.OldNode.Equal(stored) {
			t.Error("the new key and the one before it were not kept")
		}
	})
}

func TestBadAuthKeyOfKnownNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tc := start(t, func(c *Config, tc *testClient) {
			c.AuthKey, tc.keys.creds = "spent", Credentials{Node: key.NewNode()}
		})
		c := <-tc.register
		c.answer <- &RegisterResponse{Error: "authkey expired"}
		c = <-tc.register
		if c.Auth != nil {
			t.Error("a refused auth key was sent again although the node is known")
		}
		c.answer <- &RegisterResponse{MachineAuthorized: true}
		<-tc.mapPolls
		synctest.Wait()
		if err := tc.Status.Get().Err; err != nil {
			t.Errorf("status error = %v", err)
		}
	})
}

func TestKeyExpiryStartsLogin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tc := start(t, nil)
		c := tc.accepts()
		p := <-tc.mapPolls
		self := selfNode(c.NodeKey)
		// The bubble's clock is in 2000, before the epoch of expiry: the server's counts.
		server := time.Unix(expiryEpoch, 0).Add(time.Hour).UTC()
		self.KeyExpiry = server.Add(30 * time.Second)
		p.send(&MapResponse{Node: self, ControlTime: server})
		synctest.Wait()
		if got := tc.Status.Get(); got.State != StateRunning || !got.KeyExpiry.Equal(self.KeyExpiry) {
			t.Errorf("status = %+v", got)
		}
		r := <-tc.register
		if r.NodeKey == c.NodeKey || r.OldNodeKey != c.NodeKey {
			t.Errorf("request = %+v, want a renewal", r.RegisterRequest)
		}
		r.answer <- &RegisterResponse{AuthURL: "http://127.0.0.1:8080/a"}
		f := <-tc.register
		synctest.Wait()
		if got := tc.Status.Get(); got.State != StateNeedsLogin || !errors.Is(got.Err, ErrKeyExpired) {
			t.Errorf("status = %+v", got)
		}
		// An administrator extends the key instead: no login is needed any more.
		self.KeyExpiry = server.Add(time.Hour)
		p.send(&MapResponse{Node: self})
		synctest.Wait() // the login is given up
		if got := tc.Status.Get(); got.State != StateRunning || got.Err != nil || got.AuthURL != "" {
			t.Errorf("status = %+v (CTL-47)", got)
		}
		_ = f
	})
}

func TestApproval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tc := start(t, nil)
		c := <-tc.register
		c.answer <- &RegisterResponse{MachineAuthorized: false}
		p := <-tc.mapPolls
		self := selfNode(c.NodeKey)
		self.MachineAuthorized = false
		p.send(&MapResponse{Node: self})
		synctest.Wait()
		if got := tc.Status.Get(); got.State != StateNeedsApproval {
			t.Errorf("status = %+v (CTL-27)", got)
		}
		self.MachineAuthorized = true
		p.send(&MapResponse{Node: self})
		synctest.Wait()
		if got := tc.Status.Get(); got.State != StateRunning {
			t.Errorf("status = %+v (CTL-27)", got)
		}
	})
}

func TestLogoutAndLogin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tc := start(t, nil)
		p := tc.running()
		k := tc.NodeKey.Get().Public()
		done := make(chan error, 1)
		go func() { done <- tc.Logout(t.Context()) }()
		c := <-tc.register
		if c.NodeKey != k || !c.Expiry.Equal(time.Unix(123, 0)) {
			t.Errorf("request = %+v, want the key with an expiry in the past (CTL-26)", c.RegisterRequest)
		}
		<-p.gone
		c.answer <- &RegisterResponse{NodeKeyExpired: true}
		if err := <-done; err != nil {
			t.Errorf("Logout = %v", err)
		}
		synctest.Wait()
		creds, _ := tc.keys.get()
		if got := tc.Status.Get(); got.State != StateLoggedOut || !errors.Is(got.Err, ErrLoggedOut) || !creds.Node.IsZero() || tc.Netmap.Get() != nil || !tc.NodeKey.Get().IsZero() {
			t.Errorf("status = %+v, want everything of the login gone", got)
		}
		if err := tc.Login(t.Context(), ""); err != nil {
			t.Fatal(err)
		}
		if c := tc.accepts(); c.NodeKey == k || !c.OldNodeKey.IsZero() {
			t.Errorf("request = %+v, want a new node", c.RegisterRequest)
		}
		<-tc.mapPolls
	})
}

func TestLoginRenewsInTheBackground(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tc := start(t, nil)
		p := tc.running()
		old := tc.NodeKey.Get().Public()
		if err := tc.Login(t.Context(), ""); err != nil {
			t.Fatal(err)
		}
		c := <-tc.register
		if c.OldNodeKey != old || c.NodeKey == old {
			t.Errorf("request = %+v, want a renewal", c.RegisterRequest)
		}
		c.answer <- &RegisterResponse{AuthURL: "http://127.0.0.1:8080/a"}
		f := <-tc.register
		p.send(&MapResponse{PeersChanged: []*Node{peerNode(5)}})
		synctest.Wait()
		if got := tc.Status.Get(); got.State != StateRunning || got.AuthURL == "" || len(tc.Netmap.Get().Peers) != 1 {
			t.Errorf("status = %+v, want the old key to go on (CTL-23)", got)
		}
		f.answer <- &RegisterResponse{MachineAuthorized: true}
		p2 := <-tc.mapPolls
		<-p.gone
		if p2.NodeKey != c.NodeKey {
			t.Error("the poll did not change to the new key")
		}
	})
}

func TestUnknownNodeRegistersAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tc := start(t, nil)
		c := tc.accepts()
		for range unknownLimit {
			p := <-tc.mapPolls
			p.frames <- nil // 404
		}
		var again registerCall
		for again.answer == nil {
			select {
			case again = <-tc.register:
			case p := <-tc.mapPolls:
				p.frames <- nil
			}
		}
		if again.NodeKey != c.NodeKey {
			t.Errorf("request = %+v, want the same key (CTL-44)", again.RegisterRequest)
		}
		synctest.Wait()
		if err := tc.Status.Get().Err; !errors.Is(err, ErrNodeUnknown) {
			t.Errorf("status error = %v, want ErrNodeUnknown", err)
		}
	})
}

func TestTooManyRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tc := start(t, nil)
		c := <-tc.register
		begin := time.Now()
		c.answer <- func(w http.ResponseWriter) {
			w.Header().Set("Retry-After", "17")
			http.Error(w, "slow down", http.StatusTooManyRequests)
		}
		<-tc.register
		if d := time.Since(begin); d != 17*time.Second {
			t.Errorf("asked again after %v, want 17s (CTL-25)", d)
		}
		var status *StatusError
		if err := tc.Status.Get().Err; !errors.As(err, &status) || status.Text != "slow down" {
			t.Errorf("status error = %v", err)
		}
	})
}

func TestUnsupportedVersionIsFinal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tc := start(t, nil)
		c := <-tc.register
		c.answer <- func(w http.ResponseWriter) { http.Error(w, "unsupported client version: 130", http.StatusBadRequest) }
		err := <-tc.served
		tc.served <- nil
		if !errors.Is(err, ErrUnsupportedVersion) {
			t.Errorf("Serve = %v, want ErrUnsupportedVersion", err)
		}
	})
}

func TestKeyStoreFailureIsFinal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broken := errors.New("disk full")
		tc := start(t, func(_ *Config, tc *testClient) { tc.keys.err = broken })
		err := <-tc.served
		tc.served <- nil
		var fatal *actor.FatalError
		if !errors.Is(err, broken) || !errors.As(err, &fatal) {
			t.Errorf("Serve = %v", err)
		}
	})
}

func TestLogoutFailureStaysLoggedIn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tc := start(t, nil)
		tc.running()
		k := tc.NodeKey.Get().Public()
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		tc.network.set("127.0.0.1:8080", nil)
		tc.drop()
		if err := tc.Logout(ctx); err == nil {
			t.Error("Logout succeeded without a server")
		}
		tc.listen("127.0.0.1:8080", nil)
		if c := tc.accepts(); c.NodeKey != k || !c.Expiry.IsZero() {
			t.Errorf("request = %+v, want the node to go on", c.RegisterRequest)
		}
		<-tc.mapPolls
	})
}
