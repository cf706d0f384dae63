package devnet

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/seed94491740/tsnode/control"
	"github.com/seed94491740/tsnode/key"
)

// followUp registers again with a login URL, in the background.
func (r *rawNode) followUp(url string) <-chan *control.RegisterResponse {
	answer := make(chan *control.RegisterResponse, 1)
	go func() {
		defer close(answer)
		req := &control.RegisterRequest{Version: r.version, NodeKey: r.key.Public(), Hostinfo: r.hostinfo(), Followup: url}
		resp, err := r.post(r.t.Context(), control.PathRegister, req)
		if err != nil {
			return
		}
		defer resp.Body.Close()
		out := new(control.RegisterResponse)
		if json.NewDecoder(resp.Body).Decode(out) == nil {
			answer <- out
		}
	}()
	return answer
}

func awaitAnswer(t *testing.T, answer <-chan *control.RegisterResponse) *control.RegisterResponse {
	t.Helper()
	select {
	case resp, ok := <-answer:
		if ok {
			return resp
		}
		t.Fatal("the follow-up has failed")
	case <-time.After(patience):
		t.Fatal("the follow-up is not answered")
	}
	return nil
}

// A person opens the page and approves (CTL-21).
func TestLoginPage(t *testing.T) {
	n := New(t, Config{})
	a := newRawNode(t, n, "<a>")
	resp := a.register("")
	if !strings.HasPrefix(resp.AuthURL, n.URL()+"/login/") || resp.MachineAuthorized || resp.Error != "" {
		t.Fatalf("answer %+v", resp)
	}
	if again := a.register(""); again.AuthURL != resp.AuthURL {
		t.Errorf("asked twice: %q and %q", resp.AuthURL, again.AuthURL)
	}
	answer := a.followUp(resp.AuthURL)
	page := func(form url.Values) (int, string) {
		t.Helper()
		client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: patience}
		var got *http.Response
		var err error
		if form == nil {
			got, err = client.Get(resp.AuthURL)
		} else {
			got, err = client.PostForm(resp.AuthURL, form)
		}
		if err != nil {
			t.Fatal(err)
		}
		defer got.Body.Close()
		b, _ := io.ReadAll(got.Body)
		return got.StatusCode, string(b)
	}
	if code, text := page(nil); code != http.StatusOK || !strings.Contains(text, "The node <b>a</b> asks to join") || !strings.Contains(text, "<form") {
		t.Errorf("page: %d %s", code, text)
	}
	if code, text := page(url.Values{"user": {"two words"}}); code != http.StatusBadRequest || !strings.Contains(text, "without spaces") {
		t.Errorf("bad user: %d %s", code, text)
	}
	if code, text := page(url.Values{"user": {"alice"}}); code != http.StatusOK || !strings.Contains(text, "has joined") {
		t.Errorf("approved: %d %s", code, text)
	}
	if resp := awaitAnswer(t, answer); resp.Error != "" || resp.AuthURL != "" || resp.Login.LoginName != "alice@tailnet.test" {
		t.Errorf("after approval: %+v", resp)
	}
	if code, text := page(nil); code != http.StatusNotFound || !strings.Contains(text, "start the node again") {
		t.Errorf("page afterwards: %d %s", code, text)
	}
}

func TestApproveAndRefuse(t *testing.T) {
	n := New(t, Config{})
	a, b := newRawNode(t, n, "a"), newRawNode(t, n, "b")
	urlA, urlB := a.register("").AuthURL, b.register("").AuthURL
	answerA, answerB := a.followUp(urlA), b.followUp(urlB)
	if err := n.Approve(urlA, ""); err != nil {
		t.Error(err)
	}
	if err := n.Refuse(urlB); err != nil {
		t.Error(err)
	}
	if resp := awaitAnswer(t, answerA); resp.Login.LoginName != "dev@tailnet.test" {
		t.Errorf("approved: %+v", resp)
	}
	if resp := awaitAnswer(t, answerB); resp.Error != "login was refused" {
		t.Errorf("refused: %+v", resp)
	}
	if err := n.Approve(urlA, ""); !errors.Is(err, ErrNoLogin) {
		t.Errorf("approve twice: %v", err)
	}
	// A follow-up of a login that is over, or of another node, gets a fresh URL.
	for _, old := range []string{urlB, n.URL() + "/login/none", "x"} {
		c := newRawNode(t, n, "c")
		if resp := awaitAnswer(t, c.followUp(old)); resp.AuthURL == "" || resp.AuthURL == old || resp.Error != "" {
			t.Errorf("follow-up of %s: %+v", old, resp)
		}
	}
}

// Nobody joins with the login of another key.
func TestLoginIsForOneKey(t *testing.T) {
	n := New(t, Config{})
	a, eve := newRawNode(t, n, "a"), newRawNode(t, n, "eve")
	url := a.register("").AuthURL
	if err := n.Approve(url, "alice"); err != nil {
		t.Fatal(err)
	}
	if resp := awaitAnswer(t, eve.followUp(url)); resp.AuthURL == "" || resp.AuthURL == url {
		t.Errorf("eve: %+v", resp)
	}
	if resp := awaitAnswer(t, a.followUp(url)); resp.Login.LoginName != "alice@tailnet.test" {
		t.Errorf("alice: %+v", resp)
	}
}

// Logins that wait are bounded, and end after a while.
func TestLoginLimits(t *testing.T) {
	n := newTestTailnet(t, "")
	now := time.Now()
	ask := func() *control.RegisterResponse {
		return n.register(&registration{machine: key.NewMachine().Public(), base: "http://x", RegisterRequest: &control.RegisterRequest{
			NodeKey: key.NewNode().Public(), Hostinfo: new(control.Hostinfo),
		}}, now)
	}
	var urls []string
	for range maxLogins {
		urls = append(urls, ask().AuthURL)
	}
	if resp := ask(); resp.Error == "" || resp.AuthURL != "" {
		t.Errorf("beyond the limit: %+v", resp)
	}
	first := n.logins[tokenOf(urls[0])]
	if d := n.wait(now); d != loginLifetime {
		t.Errorf("waits %v, want %v", d, loginLifetime)
	}
	n.advance(now.Add(loginLifetime))
	if !first.decided() || first.user != "" || len(n.logins) != 0 {
		t.Errorf("after %v there are %d logins", loginLifetime, len(n.logins))
	}
	if resp := ask(); resp.AuthURL == "" {
		t.Errorf("afterwards: %+v", resp)
	}
}
