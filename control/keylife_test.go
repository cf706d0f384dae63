package control

import (
	"context"
	"errors"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed94491740/tsnode/internal/actor"
	"github.com/seed94491740/tsnode/key"
)

// An auth key given at run time renews the node key; the old one stays in force
// until the server has accepted the new one (CTL-23), and the auth key is the one
// of later registrations.
func TestLoginWithAuthKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tc := start(t, func(c *Config, _ *testClient) { c.AuthKey = "first" })
		p := tc.running()
		old := tc.NodeKey.Get().Public()
		done := make(chan error, 1)
		go func() { done <- tc.Login(t.Context(), "second--TLsig-key") }()
		c := <-tc.register
		if c.OldNodeKey != old || c.NodeKey == old || c.Auth == nil || c.Auth.AuthKey != "second" {
			t.Errorf("request = %+v, want a new key in place of the old one, with the auth key", c.RegisterRequest)
		}
		time.Sleep(time.Minute) // fake time
		if got := tc.Status.Get(); got.State != StateRunning || tc.NodeKey.Get().Public() != old {
			t.Errorf("status = %+v before the answer, want the old key to go on", got)
		}
		c.answer <- &RegisterResponse{MachineAuthorized: true}
		if err := <-done; err != nil {
			t.Errorf("Login = %v", err)
		}
		<-p.gone
		p2 := <-tc.mapPolls
		if p2.NodeKey != c.NodeKey || tc.NodeKey.Get().Public() != c.NodeKey {
			t.Error("the new key is not the one in force")
		}
		p2.send(&MapResponse{Node: selfNode(c.NodeKey)})
		synctest.Wait()
		logout := make(chan error, 1)
		go func() { logout <- tc.Logout(t.Context()) }()
		c = <-tc.register
		if c.Auth == nil || c.Auth.AuthKey != "second" {
			t.Errorf("logout = %+v, want the new auth key", c.RegisterRequest)
		}
		c.answer <- &RegisterResponse{NodeKeyExpired: true}
		<-logout
	})
}

// An auth key that does not help changes nothing, whatever the server says of it.
func TestLoginWithBadAuthKey(t *testing.T) {
	for text, test := range map[string]struct {
		answer *RegisterResponse
		want   error
	}{
		"refused": {&RegisterResponse{Error: "invalid key: API key has expired"}, ErrBadAuthKey},
		"tag":     {&RegisterResponse{Error: "requested tags [tag:x] are invalid"}, ErrRefused},
		"person":  {&RegisterResponse{AuthURL: "http://127.0.0.1:8080/a"}, ErrRefused},
	} {
		t.Run(text, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tc := start(t, func(c *Config, _ *testClient) { c.AuthKey = "good" })
				p := tc.running()
				old := tc.NodeKey.Get().Public()
				done := make(chan error, 1)
				go func() { done <- tc.Login(t.Context(), "bad") }()
				c := <-tc.register
				c.answer <- test.answer
				if err := <-done; !errors.Is(err, test.want) {
					t.Errorf("Login = %v, want %v", err, test.want)
				}
				p.send(&MapResponse{PeersChanged: []*Node{peerNode(5)}}) // the poll is still there
				synctest.Wait()
				got := tc.Status.Get()
				if got.State != StateRunning || got.Err != nil || got.AuthURL != "" || tc.NodeKey.Get().Public() != old {
					t.Errorf("status = %+v, want everything as it was", got)
				}
				if k := tc.joinKey.Get().authKey; k != "good" {
					t.Errorf("the auth key is %q now", k)
				}
			})
		})
	}
}

// The caller bounds an attempt; another login takes its place (CTL-65).
func TestLoginIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tc := start(t, nil)
		tc.running()
		old := tc.NodeKey.Get().Public()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		done := make(chan error, 1)
		go func() { done <- tc.Login(ctx, "slow") }()
		<-tc.register // no answer
		if err := <-done; !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Login = %v, want that the time has run out", err)
		}
		synctest.Wait()
		if got := tc.Status.Get(); got.State != StateRunning || tc.NodeKey.Get().Public() != old {
			t.Errorf("status = %+v", got)
		}
		go func() { done <- tc.Login(t.Context(), "third") }()
		<-tc.register
		if err := tc.Login(t.Context(), ""); err != nil {
			t.Fatal(err)
		}
		if err := <-done; !errors.Is(err, errSuperseded) {
			t.Errorf("Login = %v, want that another one has come", err)
		}
		if c := <-tc.register; c.Auth != nil || c.OldNodeKey != old {
			t.Errorf("request = %+v, want a login of a person", c.RegisterRequest)
		}
	})
}

// A key that expires while a login is under way is renewed all the same when
// that login fails.
func TestKeyExpiresDuringLogin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tc := start(t, nil)
		p := tc.running()
		k := tc.NodeKey.Get().Public()
		done := make(chan error, 1)
		go func() { done <- tc.Login(t.Context(), "bad") }()
		c := <-tc.register
		self := selfNode(k)
		self.Expired = true
		p.send(&MapResponse{Node: self})
		synctest.Wait()
		c.answer <- &RegisterResponse{Error: "invalid key"}
		if err := <-done; !errors.Is(err, ErrBadAuthKey) {
			t.Errorf("Login = %v", err)
		}
		if c := <-tc.register; c.OldNodeKey != k || c.Auth != nil {
			t.Errorf("request = %+v, want a renewal", c.RegisterRequest)
		}
	})
}

// forgotten plays a server that does not know the node any more, until it is
// asked about that. It returns the question.
func (tc *testClient) forgotten() registerCall {
	tc.t.Helper()
	p := tc.running()
	p.end()
	for {
		select {
		case p := <-tc.mapPolls:
			p.frames <- nil // 404
		case c := <-tc.register:
			return c
		}
	}
}

// A node that was removed ends with an error that says so, and forgets its login.
func TestNodeDeletedIsFinal(t *testing.T) {
	for _, ephemeral := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			tc := start(t, func(c *Config, _ *testClient) { // an ephemeral one without a key cannot join
				if c.Ephemeral = ephemeral; !ephemeral {
					c.AuthKey = "k"
				}
			})
			c := tc.forgotten()
			if c.Auth != nil || c.NodeKey != tc.NodeKey.Get().Public() {
				t.Errorf("request = %+v, want a question without an auth key", c.RegisterRequest)
			}
			c.answer <- &RegisterResponse{AuthURL: "http://127.0.0.1:8080/a"}
			err := <-tc.served
			tc.served <- nil
			var fatal *actor.FatalError
			if !errors.As(err, &fatal) || !errors.Is(err, ErrNodeDeleted) || !errors.Is(tc.Status.Get().Err, ErrNodeDeleted) {
				t.Errorf("Serve = %v, want ErrNodeDeleted", err)
			}
			if creds, _ := tc.keys.get(); !creds.Node.IsZero() || tc.Netmap.Get() != nil && ephemeral {
				t.Error("the login is still there")
			}
		})
	}
}

// An ephemeral node that was removed joins as another one, if it has a key.
func TestEphemeralNodeDeletedJoinsAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tc := start(t, func(c *Config, _ *testClient) { c.Ephemeral, c.AuthKey = true, "k" })
		c := tc.forgotten()
		c.answer <- &RegisterResponse{AuthURL: "http://127.0.0.1:8080/a"}
		again := <-tc.register
		if again.NodeKey == c.NodeKey || !again.OldNodeKey.IsZero() || again.Auth == nil || again.Auth.AuthKey != "k" {
			t.Errorf("request = %+v, want a new node", again.RegisterRequest)
		}
		synctest.Wait()
		if got := tc.Status.Get(); !errors.Is(got.Err, ErrNodeDeleted) || tc.Netmap.Get() != nil {
			t.Errorf("status = %+v, want to know why", got)
		}
		again.answer <- &RegisterResponse{MachineAuthorized: true}
		p := <-tc.mapPolls
		self := selfNode(again.NodeKey)
		self.ID, self.StableID = 2, "n2"
		p.send(&MapResponse{Node: self})
		synctest.Wait()
		if got := tc.Status.Get(); got.State != StateRunning || got.Err != nil {
			t.Errorf("status = %+v, want running", got)
		}
	})
}

// With a key that is used up it is over; the error has both reasons.
func TestEphemeralNodeDeletedKeyUsedUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tc := start(t, func(c *Config, _ *testClient) { c.Ephemeral, c.AuthKey = true, "k" })
		c := tc.forgotten()
		c.answer <- &RegisterResponse{AuthURL: "http://127.0.0.1:8080/a"}
		c = <-tc.register
		c.answer <- &RegisterResponse{Error: "authkey already used"}
		err := <-tc.served
		tc.served <- nil
		if !errors.Is(err, ErrNodeDeleted) || !errors.Is(err, ErrBadAuthKey) {
			t.Errorf("Serve = %v", err)
		}
	})
}

// What is no deletion is not taken for one (CTL-44).
func TestNodeIsNotDeleted(t *testing.T) {
	for name, test := range map[string]struct {
		answer any
		then   func(*testing.T, *testClient, key.NodePublic)
	}{
		"known after all": {&RegisterResponse{MachineAuthorized: true}, func(t *testing.T, tc *testClient, k key.NodePublic) {
			if p := <-tc.mapPolls; p.NodeKey != k {
				t.Error("polls with another key")
			}
		}},
		"expired": {&RegisterResponse{NodeKeyExpired: true}, func(t *testing.T, tc *testClient, k key.NodePublic) {
			if c := <-tc.register; c.OldNodeKey != k || c.Auth == nil {
				t.Errorf("request = %+v, want a renewal with the auth key", c.RegisterRequest)
			}
		}},
		"another machine's": {&RegisterResponse{Error: "node exists with a different machine key"}, func(t *testing.T, tc *testClient, k key.NodePublic) {
			if c := <-tc.register; c.NodeKey != k || c.Auth == nil {
				t.Errorf("request = %+v, want a registration", c.RegisterRequest)
			}
		}},
		"out of order": {func(w http.ResponseWriter) { http.Error(w, "no", http.StatusServiceUnavailable) }, func(t *testing.T, tc *testClient, k key.NodePublic) {
			if c := <-tc.register; c.NodeKey != k || c.Auth != nil {
				t.Errorf("request = %+v, want the question again", c.RegisterRequest)
			}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tc := start(t, func(c *Config, _ *testClient) { c.AuthKey = "k" })
				c := tc.forgotten()
				c.answer <- test.answer
				test.then(t, tc, c.NodeKey)
			})
		})
	}
}

// The end of a key is noticed within a minute of waking from a sleep, in which
// timers stand still (CTL-47): the timer never waits longer.
func TestExpiryTimerLooksEveryMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tc := start(t, nil)
		c := tc.accepts()
		p := <-tc.mapPolls
		self := selfNode(c.NodeKey)
		server := time.Unix(expiryEpoch, 0).Add(time.Hour).UTC()
		self.KeyExpiry = server.Add(365 * 24 * time.Hour)
		p.send(&MapResponse{Node: self, ControlTime: server})
		synctest.Wait()
		poll := &poller{state: &mapState{current: tc.Netmap.Get()}}
		timer := time.NewTimer(time.Hour)
		began := time.Now()
		poll.armExpiry(timer)
		<-timer.C
		if waited := time.Since(began); waited != time.Minute {
			t.Errorf("looks after %v, want %v", waited, time.Minute)
		}
	})
}

// A server may tell of the renewed key on the poll of the old one before it has
// answered the registration, which must not be taken for an extension.
func TestRenewalShowsBeforeItsAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tc := start(t, nil)
		p := tc.running()
		self := selfNode(tc.NodeKey.Get().Public())
		self.Expired = true
		p.send(&MapResponse{Node: self})
		c := <-tc.register
		self.Key, self.Expired = c.NodeKey, false
		p.send(&MapResponse{Node: self})
		synctest.Wait()
		c.answer <- &RegisterResponse{MachineAuthorized: true}
		p = <-tc.mapPolls
		p.send(&MapResponse{Node: self})
		synctest.Wait()
		if got := tc.Status.Get(); p.NodeKey != c.NodeKey || tc.NodeKey.Get().Public() != c.NodeKey || got.State != StateRunning || got.Err != nil {
			t.Errorf("status = %+v, want the new key in force", got)
		}
	})
}

// A key that is extended while the server works on its renewal is renewed: the
// answer may say that it is no longer in force. Without one it lives on.
func TestKeyIsExtendedDuringRenewal(t *testing.T) {
	for _, renewed := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			tc := start(t, nil)
			p := tc.running()
			old := tc.NodeKey.Get().Public()
			self := selfNode(old)
			self.Expired = true
			p.send(&MapResponse{Node: self})
			c := <-tc.register
			self.Expired = false
			p.send(&MapResponse{Node: self})
			synctest.Wait()
			answer, want := &RegisterResponse{AuthURL: "http://127.0.0.1:8080/a"}, old
			if renewed {
				answer, want = &RegisterResponse{MachineAuthorized: true}, c.NodeKey
			}
			c.answer <- answer
			synctest.Wait()
			if got := tc.Status.Get(); tc.NodeKey.Get().Public() != want || got.State != StateRunning || got.Err != nil || got.AuthURL != "" {
				t.Errorf("renewed %v: status = %+v, key in force %v", renewed, got, tc.NodeKey.Get().Public())
			}
		})
	}
}

// An extension that shows while the renewed key is being kept comes too late: all
// parts work for the new key.
func TestKeyIsExtendedWhileTheNewOneIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tc := start(t, nil)
		p := tc.running()
		self := selfNode(tc.NodeKey.Get().Public())
		self.Expired = true
		p.send(&MapResponse{Node: self})
		c := <-tc.register
		tc.keys.hold = make(chan struct{})
		c.answer <- &RegisterResponse{MachineAuthorized: true}
		synctest.Wait()
		self.Expired = false
		p.send(&MapResponse{Node: self})
		synctest.Wait()
		close(tc.keys.hold)
		if p = <-tc.mapPolls; p.NodeKey != c.NodeKey || tc.NodeKey.Get().Public() != c.NodeKey {
			t.Errorf("polls for %v, in force is %v, want the new key %v", p.NodeKey, tc.NodeKey.Get().Public(), c.NodeKey)
		}
	})
}

// A login that is under way when the client ends is told so.
func TestLoginEndsWithServe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tc := start(t, nil)
		tc.running()
		done := make(chan error, 1)
		go func() { done <- tc.Login(context.Background(), "slow") }()
		<-tc.register // no answer
		tc.cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Login = %v, want that the client has ended", err)
		}
	})
}
