package state

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// TestKubeToken: the token is read for each request, and once again when it has
// been replaced under way; one that is not accepted is asked about once (SVC-140).
func TestKubeToken(t *testing.T) {
	for _, test := range []struct {
		name     string
		rotate   func(*kubeWorld)
		requests string
		err      string
	}{
		{"replaced", func(w *kubeWorld) { w.accept("token-2"); w.file("token", "token-2") }, "patch 200", ""},
		{"replaced under way", func(w *kubeWorld) {
			w.at("patch", func() { w.accept("token-2"); w.file("token", "token-2") })
		}, "patch 401, patch 200", ""},
		{"replaced twice under way", func(w *kubeWorld) {
			w.accept("token-3")
			w.at("patch", func() { w.file("token", "token-2") })
		}, "patch 401, patch 401", "does not accept the token"},
		{"not accepted", func(w *kubeWorld) { w.accept("token-2") }, "patch 401",
			`state: write "a" to Secret keys in namespace apps: the API server does not accept the token of the pod's service account: see that the account still exists`},
		{"gone", func(w *kubeWorld) { os.Remove(filepath.Join(w.config.Account, "token")) }, "", "no such file"},
	} {
		inKube(t, test.name, func(t *testing.T, w *kubeWorld) {
			k := w.open(t)
			test.rotate(w)
			checkKubeError(t, k.Write(t.Context(), "a", []byte("x")), test.err)
			if got := w.take(); got != test.requests {
				t.Errorf("requests %q, want %q", got, test.requests)
			}
		})
	}
}

// TestKubeTrust: only the authority of the service account vouches for the API
// server; it, too, may be replaced. A server that is not trusted gets no token,
// and is not asked again (SVC-140).
func TestKubeTrust(t *testing.T) {
	inKube(t, "replaced", func(t *testing.T, w *kubeWorld) {
		k := w.open(t)
		w.trust(true)
		mustWrite(t, k, "a", []byte("x"))
	})
	inKube(t, "unknown", func(t *testing.T, w *kubeWorld) {
		k := w.open(t)
		w.trust(false)
		begin := time.Now()
		err := k.Write(t.Context(), "a", []byte("x"))
		checkKubeError(t, err, "no answer from the API server*certificate")
		if took := time.Since(begin); took > time.Second {
			t.Errorf("tried for %v", took)
		}
		if got := w.take(); got != "" {
			t.Errorf("requests %q", got)
		}
	})
}

// TestKubeAddresses: the API server is reached by its name in the cluster, and by
// an address of either family.
func TestKubeAddresses(t *testing.T) {
	for _, address := range []string{"", "kubernetes.default.svc:443", "[" + kubeServer6.String() + "]:443"} {
		inKube(t, address, func(t *testing.T, w *kubeWorld) {
			w.config.Address = address
			mustWrite(t, w.open(t), "a", []byte("x"))
		})
	}
}

// TestKubeAccount: what is wrong with a Secret's name or a service account is
// said before anybody is asked (SVC-140).
func TestKubeAccount(t *testing.T) {
	for _, test := range []struct {
		name   string
		secret string
		files  string // NAME=TEXT; NAME- is removed
		err    string
	}{
		{"no name", "", "", `state: kube:: "" cannot be the name of a Secret: write kube:NAME in lower-case letters, digits, hyphens and dots`},
		{"upper case", "Keys", "", `state: kube:Keys: "Keys" cannot be the name of a Secret`},
		{"path", "a/../b", "", "cannot be the name"},
		{"too long", strings.Repeat("a", 254), "", "cannot be the name"},
		{"longest", strings.Repeat("a", 253), "", ""},
		{"dots", "keys.web-0", "", ""},
		{"no namespace", "keys", "namespace-", "state: kube:keys: no service account of Kubernetes: open *namespace: no such file or directory: run in a pod that has one (automountServiceAccountToken), or keep the keys elsewhere"},
		{"empty namespace", "keys", "namespace=", "namespace is empty"},
		{"odd namespace", "keys", "namespace=../x", "namespace holds no name of a namespace"},
		{"no token", "keys", "token-", "token: no such file"},
		{"empty token", "keys", "token= ", "token is empty"},
		{"no authority", "keys", "ca.crt-", "ca.crt: no such file"},
		{"odd authority", "keys", "ca.crt=x", "ca.crt holds no certificate"},
	} {
		inKube(t, test.name, func(t *testing.T, w *kubeWorld) {
			w.config.Secret = test.secret
			if name, ok := strings.CutSuffix(test.files, "-"); ok {
				os.Remove(filepath.Join(w.config.Account, name))
			} else if name, text, ok := strings.Cut(test.files, "="); ok {
				w.file(name, text)
			}
			_, err := OpenKube(t.Context(), w.config)
			checkKubeError(t, err, test.err)
			if got := w.take(); test.err != "" && got != "" {
				t.Errorf("requests %q", got)
			}
		})
	}
}

// TestKubeErrorText: what the API server says is repeated on one line, bounded,
// and only where it forbids.
func TestKubeErrorText(t *testing.T) {
	for body, want := range map[string]string{
		`{"kind":"Status","reason":"Forbidden","message":"exceeded\nquota"}`:        "exceeded quota: grant",
		`{"kind":"Status","message":"` + strings.Repeat("é", maxKubeMessage) + `"}`: strings.Repeat("é", maxKubeMessage/2) + ": grant",
		`{"kind":"Secret","message":"x"}`:                                           "to patch it is forbidden: grant",
		`<html>`:                                                                    "to patch it is forbidden: grant",
		``:                                                                          "to patch it is forbidden: grant",
	} {
		if got := parseKubeError("patch", http.StatusForbidden, []byte(body)).Error(); !strings.HasPrefix(got, want) {
			t.Errorf("%s: %q, want %q", body, got, want)
		}
	}
	for body, want := range map[string]string{
		`{"kind":"Status","reason":"Invalid","message":"x"}`: "the API server refuses to update it: 422 Invalid",
		`?`: "the API server refuses to update it: 422 Unprocessable Entity",
	} {
		if got := parseKubeError("update", http.StatusUnprocessableEntity, []byte(body)).Error(); got != want {
			t.Errorf("%s: %q, want %q", body, got, want)
		}
	}
}

// TestParseKubeSecret: an answer that is no Secret is told from one, and null is
// no value.
func TestParseKubeSecret(t *testing.T) {
	for body, want := range map[string]string{
		`{"kind":"Secret","metadata":{"resourceVersion":"7"}}`:                                                  "",
		`{"kind":"Secret","metadata":{"resourceVersion":"7"},"data":null,"immutable":false}`:                    "",
		`{"kind":"Secret","metadata":{"resourceVersion":"7"},"data":{"a":"eA==","b":null,"c":""},"future":[1]}`: "",
		`{"kind":"Secret","metadata":{"resourceVersion":"7"},"immutable":true}`:                                 "immutable",
		`{"kind":"Secret","metadata":{}}`:                                                                       "no resourceVersion",
		`{"kind":"SecretList","metadata":{"resourceVersion":"7"}}`:                                              `its kind is "SecretList"`,
		`{"kind":"Secret","metadata":{"resourceVersion":"7"},"data":{"a":"%"}}`:                                 "data: illegal base64",
		`{"kind":"Secret","metadata":{"resourceVersion":"7"},"data":["a"]}`:                                     "data: json",
		`null`:   "its kind is",
		`[]`:     "no Secret",
		`<html>`: "no Secret",
		``:       "no Secret",
	} {
		s, err := parseKubeSecret([]byte(body))
		checkKubeError(t, err, want)
		if err != nil || len(s.values) == 0 {
			continue
		}
		if diff := cmp.Diff(map[string][]byte{"a": []byte("x"), "c": {}}, s.values); diff != "" {
			t.Errorf("%s (-want +got):\n%s", body, diff)
		}
	}
}

// FuzzKubeSecret: whatever a server sends, what is read from it is sent back the
// same, with all that we do not know, and shows no value.
func FuzzKubeSecret(f *testing.F) {
	f.Add([]byte(`{"kind":"Secret","metadata":{"resourceVersion":"7","labels":{"a":"b"}},"data":{"a":"eA==","b":null},"future":[1]}`))
	f.Add([]byte(`{"kind":"Secret","metadata":{"resourceVersion":"7"}}`))
	f.Add([]byte(`{"kind":"Status","status":"Failure","message":"secrets \"x\" not found","reason":"NotFound","code":404}`))
	f.Add([]byte(`{"kind":"Status","reason":"\u0000\ud800","message":"\n"}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		if text := parseKubeError("get", http.StatusForbidden, body).Error(); strings.ContainsAny(text, "\n\x00") || len(text) > maxKubeMessage+200 {
			t.Errorf("error %q", text)
		}
		s, err := parseKubeSecret(body)
		if err != nil {
			return
		}
		whole, err := s.update(nil)
		if err != nil {
			t.Fatal(err)
		}
		b, err := json.Marshal(whole)
		if err != nil {
			t.Fatal(err)
		}
		again, err := parseKubeSecret(b)
		if err != nil {
			t.Fatalf("%s: %v", b, err)
		}
		if again.version != s.version || len(again.whole) < len(s.whole) || len(again.values) != len(s.values) {
			t.Errorf("%s came back as %s", body, b)
		}
		for key, v := range s.values {
			if !bytes.Equal(v, again.values[key]) {
				t.Errorf("value of %q: %q, then %q", key, v, again.values[key])
			}
		}
	})
}

// TestFakeKube: the API server of these tests does what the Kubernetes
// documentation says of the real one, also where the store does not ask for it:
// the tests above are worth what it is.
func TestFakeKube(t *testing.T) {
	const (
		merge     = "application/merge-patch+json"
		strategic = "application/strategic-merge-patch+json"
		jsonPatch = "application/json-patch+json"
	)
	w := newKubeWorld(t)
	w.set("keys", map[string][]byte{"a": []byte("1")}) // version 101
	for _, step := range []struct {
		method, kind, body string
		status             int
		want               string // part of the answer
	}{
		{"GET", "", "", 200, `"resourceVersion":"101"`},
		{"PATCH", merge, `{"data":{"b":"Mg=="}}`, 200, `"data":{"a":"MQ==","b":"Mg=="}`},
		{"PATCH", merge, `{"data":{"b":"Mg=="}}`, 200, `"resourceVersion":"102"`}, // changes nothing
		{"PATCH", merge, `{"metadata":{"resourceVersion":"101"},"data":{"b":null}}`, 409, `"reason":"Conflict"`},
		{"PATCH", merge, `{"metadata":{"resourceVersion":"102"},"data":{"b":null,"c":null}}`, 200, `"data":{"a":"MQ=="}`},
		{"PATCH", strategic, `{"data":{"$patch":"replace","b":"Mg=="}}`, 200, `"data":{"b":"Mg=="}`},
		{"PATCH", strategic, `{"data":{"a":"MQ==","b":null}}`, 200, `"data":{"a":"MQ=="}`},
		{"PATCH", jsonPatch, `[{"op":"add","path":"/data/b","value":"Mg=="},{"op":"remove","path":"/data/a"}]`, 200, `"data":{"b":"Mg=="}`},
		{"PATCH", jsonPatch, `[{"op":"remove","path":"/data/a"}]`, 422, `"reason":"Invalid"`},
		{"PATCH", jsonPatch, `[{"op":"test","path":"/metadata/resourceVersion","value":"1"}]`, 422, `"reason":"Invalid"`},
		{"PATCH", jsonPatch, `[{"op":"replace","path":"/data","value":{"a/b":"MQ=="}}]`, 422, `"reason":"Invalid"`},
		{"PATCH", "application/json", `{}`, 415, `"reason":"UnsupportedMediaType"`},
		{"PATCH", merge, `{"data":{"b":"%"}}`, 400, `"reason":"BadRequest"`},
		{"PUT", "", `{"apiVersion":"v1","kind":"Secret","metadata":{"name":"keys","resourceVersion":"101"}}`, 409, `"reason":"Conflict"`},
		{"PUT", "", `{"apiVersion":"v1","kind":"Secret","metadata":{"name":"other"}}`, 400, `"reason":"BadRequest"`},
		{"PUT", "", `{"apiVersion":"v1","kind":"Secret","metadata":{"name":"keys"},"future":1}`, 200, `"resourceVersion":"107"`},
		{"POST", "", `{"apiVersion":"v1","kind":"Secret","metadata":{"name":"keys"}}`, 409, `"reason":"AlreadyExists"`},
	} {
		status, body := w.ask(t, step.method, step.kind, step.body)
		if status != step.status || !strings.Contains(body, step.want) {
			t.Errorf("%s %s %s: %d %s; want %d with %s", step.method, step.kind, step.body, status, body, step.status, step.want)
		}
	}
}

// TestFakeKubeWatch: a watch tells what happened behind a version and happens
// from then on, and that it was too long ago.
func TestFakeKubeWatch(t *testing.T) {
	w := newKubeWorld(t)
	w.set("keys", nil)  // 101
	w.set("other", nil) // 102
	w.set("keys", map[string][]byte{"a": []byte("1")})
	next := w.watchFrom(t, 101)
	w.set("keys", map[string][]byte{"a": []byte("2")})
	w.remove("keys")
	for _, want := range []string{"MODIFIED 103", "MODIFIED 104", "DELETED 105"} {
		if got := next(); got != want {
			t.Errorf("event %s, want %s", got, want)
		}
	}
	w.forget()
	if got := w.watchFrom(t, 101)(); got != "ERROR Expired" {
		t.Errorf("a watch from long ago: %s", got)
	}
}

// ask sends a request for the Secret as the pod does.
func (w *kubeWorld) ask(t *testing.T, method, kind, body string) (status int, answer string) {
	t.Helper()
	path := "/keys"
	if method == "POST" {
		path = ""
	}
	resp := w.send(t, method, path, kind, body)
	defer resp.Body.Close()
	var b bytes.Buffer
	if _, err := b.ReadFrom(resp.Body); err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, b.String()
}

func (w *kubeWorld) send(t *testing.T, method, path, kind, body string) *http.Response {
	t.Helper()
	api, err := newKubeAPI(w.config)
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(t.Context(), method, "https://"+kubeAddress+"/api/v1/namespaces/apps/secrets"+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer token-1")
	req.Header.Set("Content-Type", kind)
	resp, err := api.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	return resp
}

// watchFrom watches the Secret from a version on; next returns the type of the next
// event, and its version or reason.
func (w *kubeWorld) watchFrom(t *testing.T, version int) (next func() string) {
	t.Helper()
	resp := w.send(t, "GET", fmt.Sprintf("?watch=1&fieldSelector=metadata.name=keys&resourceVersion=%d", version), "", "")
	t.Cleanup(func() { resp.Body.Close() })
	events := json.NewDecoder(resp.Body)
	return func() string {
		var e struct {
			Type   string
			Object struct {
				Reason   string
				Metadata struct{ ResourceVersion string }
			}
		}
		if err := events.Decode(&e); err != nil {
			t.Fatal(err)
		}
		return e.Type + " " + e.Object.Metadata.ResourceVersion + e.Object.Reason
	}
}
