package interop

import (
	"context"
	"regexp"
	"strings"
	"testing"

	"github.com/seed94491740/tsnode/devnet"
)

// notOurs are metrics of what this node is not: a server of a serve configuration,
// and a relay between peers.
var notOurs = []string{"tailscaled_serve_", "tailscaled_peer_relay_"}

// A metric that has a name of the reference's has its type, too, and none of its
// metrics is missing but those of what this node is not (SVC-172).
func TestMetricsHaveTheReferencesNames(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), upTimeout)
	defer cancel()
	tailnet := devnet.New(t, devnet.Config{})
	theirs := tsnetNode(t, tailnet.URL(), "theirs", tailnet.AuthKey(devnet.KeyOptions{}))
	client, err := theirs.LocalClient()
	if err != nil {
		t.Fatal(err)
	}
	page, err := client.UserMetrics(ctx)
	if err != nil {
		t.Fatal(err)
	}
	want := make(map[string]string)
	for _, m := range regexp.MustCompile(`(?m)^# TYPE (\S+) (\S+)$`).FindAllStringSubmatch(string(page), -1) {
		want[m[1]] = m[2]
	}
	if len(want) == 0 {
		t.Fatalf("the reference has no metrics:\n%s", page)
	}
	got := make(map[string]string)
	for _, m := range ourNode(t, tailnet.URL(), "ours", tailnet.AuthKey(devnet.KeyOptions{})).Metrics() {
		if strings.HasPrefix(m.Name, "tailscaled_") {
			got[m.Name] = map[bool]string{true: "counter", false: "gauge"}[m.Counter]
		}
	}
	for name, kind := range got {
		if want[name] != kind {
			t.Errorf("%s is a %s here, there %q", name, kind, want[name])
		}
	}
	for name := range want {
		other := false
		for _, prefix := range notOurs {
			other = other || strings.HasPrefix(name, prefix)
		}
		if _, ok := got[name]; !ok && !other {
			t.Errorf("the reference has %s, this node has not", name)
		}
	}
}
