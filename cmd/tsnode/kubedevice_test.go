package main

import (
	"encoding/pem"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/seed94491740/tsnode/node"
	"github.com/seed94491740/tsnode/state"
)

// TestKubeDevice: a Secret says who its node is, in the forms of the reference's
// container image (SVC-157).
func TestKubeDevice(t *testing.T) {
	status := &node.Status{
		TailscaleIPs: []netip.Addr{netip.MustParseAddr("100.64.0.1"), netip.MustParseAddr("fd7a:115c:a1e0::1")},
		Self:         &node.PeerStatus{ID: "n1", Name: "web.example.ts.net"},
	}
	store := state.NewMemory()
	if err := noteDevice(t.Context(), store, deviceValues(status, "uid-1")); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"device_id": "n1", "device_fqdn": "web.example.ts.net.", "device_ips": `["100.64.0.1","fd7a:115c:a1e0::1"]`,
		"pod_uid": "uid-1", "tailscale_capver": "130",
	} {
		if got, err := store.Read(t.Context(), name); string(got) != want {
			t.Errorf("%s = %q, %v; want %q", name, got, err, want)
		}
	}
	if values := deviceValues(&node.Status{}, ""); len(values) != 2 {
		t.Errorf("a node that is nobody yet: %v", values)
	}
}

// TestKubeAuthKey: the auth key that a Secret holds is used (node-services.md
// section 17, TS_AUTHKEY).
func TestKubeAuthKey(t *testing.T) {
	for data, want := range map[string]string{`{"authkey":"a2V5"}`: "key", `{}`: ""} {
		store, err := state.OpenKube(t.Context(), podWith(t, data))
		if err != nil {
			t.Fatal(err)
		}
		if got := storedAuthKey(store); got != want {
			t.Errorf("auth key %q of %s, want %q", got, data, want)
		}
	}
	if got := storedAuthKey(nil); got != "" {
		t.Errorf("auth key %q without a store", got)
	}
}

// podWith returns where a pod finds a Secret with these values.
func podWith(t *testing.T, data string) state.KubeConfig {
	t.Helper()
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `{"kind":"Secret","metadata":{"resourceVersion":"1"},"data":`+data+`}`)
	}))
	t.Cleanup(server.Close)
	account := t.TempDir()
	for name, text := range map[string]string{
		"namespace": "apps", "token": "t",
		"ca.crt": string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})),
	} {
		if err := os.WriteFile(filepath.Join(account, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return state.KubeConfig{Secret: "keys", Address: server.Listener.Addr().String(), Account: account}
}
