package netmap

import (
	"encoding/json"
	"fmt"
	"testing"
)

// Addresses of services come from all values of the attribute, in order, each
// once; what cannot be read is left out (control.md section 9.4, SVC-118).
func TestServiceAddrs(t *testing.T) {
	m := &Netmap{Self: &Peer{CapMap: CapMap{attrServiceHost: {
		json.RawMessage(`{"svc:web": ["100.65.0.1", "fd7a:115c:a1e0::65"], "svc:db": ["100.65.0.2"]}`),
		json.RawMessage(`{"svc:web": ["::ffff:100.65.0.1", "100.65.0.3"], "svc:none": []}`),
		json.RawMessage(`{"svc:db": ["nowhere"]}`),
		json.RawMessage(`7`),
	}}}}
	for name, want := range map[string]string{
		"svc:web": "[100.65.0.1 fd7a:115c:a1e0::65 100.65.0.3]", "svc:db": "[100.65.0.2]", "svc:none": "[]", "web": "[]", "": "[]",
	} {
		if got := fmt.Sprint(m.ServiceAddrs(name)); got != want {
			t.Errorf("%q: %s, want %s", name, got, want)
		}
	}
	if got := new(Netmap).ServiceAddrs("svc:web"); got != nil {
		t.Errorf("without this node: %v", got)
	}
}
