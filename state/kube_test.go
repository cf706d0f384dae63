package state

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// TestKubeFormat: values are in the Secret under their names, with _ for what a
// Secret does not take, and raw (SVC-140).
func TestKubeFormat(t *testing.T) {
	inKube(t, "new", func(t *testing.T, w *kubeWorld) {
		k := w.open(t)
		mustWrite(t, k, "_serve/a9ab", []byte("\x00\xff any bytes"))
		mustWrite(t, k, "a.B-9_é", []byte("x"))
		mustWrite(t, k, "gone", []byte("x"))
		mustWrite(t, k, "gone", nil)
		want := map[string]any{
			"apiVersion": "v1", "kind": "Secret", "type": "Opaque",
			"metadata": map[string]any{"name": "keys", "namespace": "apps", "uid": "uid-of-keys", "resourceVersion": "105"},
			"data":     map[string]any{"_serve_a9ab": "AP8gYW55IGJ5dGVz", "a.B-9__": "eA=="},
		}
		if diff := cmp.Diff(want, w.whole("keys")); diff != "" {
			t.Errorf("the Secret (-want +got):\n%s", diff)
		}
		if got := mustRead(t, w.open(t), "_serve/a9ab"); string(got) != "\x00\xff any bytes" {
			t.Errorf("the next process reads %q", got)
		}
	})
}

// TestKubeAdopts: a Secret with the state of the reference is adopted without a
// login, and what others keep in it stays, be it written by patch or by update
// (SVC-136, SVC-138, SVC-140).
func TestKubeAdopts(t *testing.T) {
	for _, denied := range []string{"", "patch"} {
		inKube(t, "denied "+denied, func(t *testing.T, w *kubeWorld) {
			w.deny(denied)
			w.set("keys", goldenStore(t).values)
			w.set("keys", map[string][]byte{"authkey": []byte("k"), "device_id": []byte("n1")})
			before := w.whole("keys")
			before["metadata"].(map[string]any)["labels"] = map[string]any{"app": "web"}
			before["type"] = "example.com/node"
			w.mu.Lock()
			w.store("keys", before)
			w.mu.Unlock()

			k := w.open(t)
			p := load(t, k)
			if !p.LoggedIn() || p.Node.Public().String() != goldenNodeKey {
				t.Errorf("node key %v, want %s", p.Node.Public(), goldenNodeKey)
			}
			p.Prefs.Hostname = "renamed"
			save(t, k, p)

			after := w.whole("keys")
			if after["type"] != "example.com/node" || !cmp.Equal(after["metadata"].(map[string]any)["labels"], map[string]any{"app": "web"}) {
				t.Errorf("type %v, metadata %v", after["type"], after["metadata"])
			}
			values := w.get("keys")
			if values["authkey"] != "k" || values["device_id"] != "n1" {
				t.Errorf("what others had set is gone: %v", slices.Sorted(maps.Keys(values)))
			}
			if got := load(t, w.open(t)); got.Prefs.Hostname != "renamed" || got.Node.Public().String() != goldenNodeKey {
				t.Errorf("the next process loads %v named %s", got.Node.Public(), got.Prefs.Hostname)
			}
		})
	}
}

// TestKubeOpen: which requests a start takes, by what is there and what the pod
// may do; what is missing is named, with what to do (SVC-140, SVC-157).
func TestKubeOpen(t *testing.T) {
	const forbidden = `state: open Secret keys in namespace apps: secrets "keys" is forbidden: User "system:serviceaccount:apps:default" cannot `
	for _, test := range []struct {
		name     string
		missing  bool
		denied   string
		requests string
		err      string
	}{
		{"all rights", false, "create", "get 200, patch 200", ""},
		{"missing", true, "", "get 404, create 201, patch 200", ""},
		{"update alone", false, "patch", "get 200, patch 403, update 200", ""},
		{"missing, update alone", true, "patch", "get 404, create 201, patch 403, update 200", ""},
		{"no get", false, "get", "get 403", forbidden + "get *: grant the pod's service account the verbs get, update and patch on this Secret"},
		{"no writing", false, "patch update", "get 200, patch 403, update 403", forbidden + "update *: grant the pod's service account the verbs get, update and patch on this Secret"},
		{"missing, no create", true, "create", "get 404, create 403", "cannot create *: make an empty Secret of that name, or grant the pod's service account the verb create on secrets"},
	} {
		inKube(t, test.name, func(t *testing.T, w *kubeWorld) {
			if !test.missing {
				w.set("keys", nil)
			}
			w.deny(strings.Fields(test.denied)...)
			_, err := OpenKube(t.Context(), w.config)
			checkKubeError(t, err, test.err)
			if got := w.take(); got != test.requests {
				t.Errorf("requests %q, want %q", got, test.requests)
			}
		})
	}
}

// checkKubeError fails unless err has each part of want between asterisks, in
// that order; "" wants none.
func checkKubeError(t *testing.T, err error, want string) {
	t.Helper()
	if want == "" || err == nil {
		if err != nil || want != "" {
			t.Errorf("error %v, want %q", err, want)
		}
		return
	}
	rest := err.Error()
	for part := range strings.SplitSeq(want, "*") {
		_, after, ok := strings.Cut(rest, part)
		if !ok {
			t.Errorf("error %q, want %q", err, want)
			return
		}
		rest = after
	}
}

// TestKubeWrite: a write is one request, one that changes nothing none, and a pod
// that may not patch is not tried again (SVC-137, SVC-140).
func TestKubeWrite(t *testing.T) {
	for denied, verb := range map[string]string{"": "patch", "patch": "update"} {
		inKube(t, verb, func(t *testing.T, w *kubeWorld) {
			w.deny(denied)
			k := w.open(t)
			for _, step := range []struct {
				value    []byte
				requests string
			}{
				{[]byte("one"), verb + " 200"},
				{[]byte("one"), ""},
				{[]byte{}, verb + " 200"},
				{[]byte{}, ""},
				{nil, verb + " 200"},
				{nil, ""},
			} {
				mustWrite(t, k, "a", step.value)
				if got := w.take(); got != step.requests {
					t.Errorf("write of %q: requests %q, want %q", step.value, got, step.requests)
				}
			}
		})
	}
}

// TestKubeConflict: what somebody else has written since the Secret was seen
// stays, and is seen (SVC-140).
func TestKubeConflict(t *testing.T) {
	for denied, verb := range map[string]string{"": "patch", "patch": "update"} {
		inKube(t, verb, func(t *testing.T, w *kubeWorld) {
			w.deny(denied)
			k := w.open(t)
			w.at(verb, func() { w.set("keys", map[string][]byte{"other": []byte("theirs"), "a": []byte("theirs")}) })
			mustWrite(t, k, "a", []byte("ours"))
			if diff := cmp.Diff(map[string]string{"other": "theirs", "a": "ours"}, w.get("keys")); diff != "" {
				t.Errorf("values (-want +got):\n%s", diff)
			}
			if got := mustRead(t, k, "other"); string(got) != "theirs" {
				t.Errorf("read %q", got)
			}
			if got, want := w.take(), verb+" 409, get 200, "+verb+" 200"; got != want {
				t.Errorf("requests %q, want %q", got, want)
			}
		})
	}
}

// TestKubeDeleted: a Secret that is deleted while the node runs is made anew with
// all that it held.
func TestKubeDeleted(t *testing.T) {
	inKube(t, "deleted", func(t *testing.T, w *kubeWorld) {
		k := w.open(t)
		mustWrite(t, k, "a", []byte("kept"))
		w.take()
		w.remove("keys")
		mustWrite(t, k, "b", []byte("new"))
		if diff := cmp.Diff(map[string]string{"a": "kept", "b": "new"}, w.get("keys")); diff != "" {
			t.Errorf("values (-want +got):\n%s", diff)
		}
		if got, want := w.take(), "patch 404, get 404, create 201, patch 200"; got != want {
			t.Errorf("requests %q, want %q", got, want)
		}
	})
}

// TestKubeCreatedByOther: a Secret that somebody else makes at the same time is
// used.
func TestKubeCreatedByOther(t *testing.T) {
	inKube(t, "created", func(t *testing.T, w *kubeWorld) {
		w.at("create", func() { w.set("keys", map[string][]byte{"a": []byte("theirs")}) })
		k, err := OpenKube(t.Context(), w.config)
		if err != nil {
			t.Fatal(err)
		}
		if got := mustRead(t, k, "a"); string(got) != "theirs" {
			t.Errorf("read %q", got)
		}
		if got, want := w.take(), "get 404, create 409, get 200, patch 200"; got != want {
			t.Errorf("requests %q, want %q", got, want)
		}
	})
}

// TestKubeTransient: a server that is away or busy is asked again for 30 s, and
// what cannot pass is told at once (SVC-140).
func TestKubeTransient(t *testing.T) {
	for _, test := range []struct {
		name     string
		fail     []int
		requests string
		err      string
	}{
		{"busy", []int{429}, "patch 429, patch 200", ""},
		{"starting", []int{500, 502, 503, 504}, "patch 500, patch 502, patch 503, patch 504, patch 200", ""},
		{"broken connection", []int{0, 0}, "patch 0, patch 0, patch 200", ""},
		{"refused", []int{400}, "patch 400", `state: write "a" to Secret keys in namespace apps: the API server refuses to patch it: 400 Failure`},
		{"redirected", []int{302}, "patch 302", "302 Failure"},
		{"invalid", []int{422}, "patch 422", "422 Failure"},
	} {
		inKube(t, test.name, func(t *testing.T, w *kubeWorld) {
			k := w.open(t)
			w.fail(test.fail...)
			err := k.Write(t.Context(), "a", []byte("x"))
			checkKubeError(t, err, test.err)
			if got := w.take(); got != test.requests {
				t.Errorf("requests %q, want %q", got, test.requests)
			}
		})
	}
}

// TestKubeGivesUp: a server that stays away fails a write after 30 s, one that
// hangs too, and values are as before (SVC-140).
func TestKubeGivesUp(t *testing.T) {
	for name, outage := range map[string]func(*kubeWorld){
		"unavailable": func(w *kubeWorld) { w.fail(slices.Repeat([]int{503}, 1000)...) },
		"unplugged":   func(w *kubeWorld) { w.server.Unplug() },
		"hanging":     func(w *kubeWorld) { w.at("patch", w.hang) },
	} {
		inKube(t, name, func(t *testing.T, w *kubeWorld) {
			k := w.open(t)
			mustWrite(t, k, "a", []byte("old"))
			outage(w)
			begin := time.Now()
			err := k.Write(t.Context(), "a", []byte("new"))
			if took := time.Since(begin); took != kubeTimeout || !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("after %v: %v", took, err)
			}
			if got := mustRead(t, k, "a"); string(got) != "old" {
				t.Errorf("read %q", got)
			}
		})
	}
}

// TestKubeCanceled: a caller that gives up is not held, neither by the server nor
// by another write.
func TestKubeCanceled(t *testing.T) {
	inKube(t, "canceled", func(t *testing.T, w *kubeWorld) {
		k := w.open(t)
		w.at("patch", w.hang)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		errs := make(chan error)
		for range 2 {
			go func() { errs <- k.Write(ctx, "a", []byte("x")) }()
		}
		begin := time.Now()
		for range 2 {
			if err := <-errs; !errors.Is(err, context.DeadlineExceeded) {
				t.Error(err)
			}
		}
		if took := time.Since(begin); took != time.Second {
			t.Errorf("took %v", took)
		}
	})
}

// TestKubeBounds: a Secret is not filled beyond what Kubernetes takes, and an
// answer without end is not read.
func TestKubeBounds(t *testing.T) {
	inKube(t, "full", func(t *testing.T, w *kubeWorld) {
		k := w.open(t)
		mustWrite(t, k, "a", make([]byte, maxSecretSize-1))
		mustWrite(t, k, "b", make([]byte, 1))
		w.take()
		err := k.Write(t.Context(), "c", make([]byte, 1))
		checkKubeError(t, err, "the Secret would hold 1048577 bytes, and takes 1048576")
		if got := w.take(); got != "" {
			t.Errorf("requests %q", got)
		}
	})
	inKube(t, "endless", func(t *testing.T, w *kubeWorld) {
		w.set("keys", map[string][]byte{"a": make([]byte, maxKubeAnswer)})
		_, err := OpenKube(t.Context(), w.config)
		checkKubeError(t, err, "is no Secret: it is larger than 4194304 bytes")
	})
	inKube(t, "immutable", func(t *testing.T, w *kubeWorld) {
		w.set("keys", nil)
		w.mu.Lock()
		w.secrets["keys"]["immutable"] = true
		w.mu.Unlock()
		_, err := OpenKube(t.Context(), w.config)
		checkKubeError(t, err, "the Secret is immutable: name another one")
	})
}

// TestKubeShowsNoSecrets: neither a store nor an error of one shows a value or
// the token, even when the server repeats them.
func TestKubeShowsNoSecrets(t *testing.T) {
	inKube(t, "errors", func(t *testing.T, w *kubeWorld) {
		k := w.open(t)
		mustWrite(t, k, "a", []byte("classified"))
		texts := []string{fmt.Sprint(k), fmt.Sprintf("%v %+v %#v", k, k, k.secret)}
		for _, status := range []int{400, 401, 418, 422} {
			w.fail(status)
			err := k.Write(t.Context(), "b", []byte("classified"))
			if err == nil {
				t.Fatalf("%d is no error", status)
			}
			texts = append(texts, err.Error())
		}
		for _, text := range texts {
			if strings.Contains(text, "classified") || strings.Contains(text, "Y2xhc3NpZmllZA") || strings.Contains(text, "token-1") {
				t.Errorf("shown: %s", text)
			}
		}
	})
}
