package transport

import (
	"net/netip"
	"testing"

	"github.com/seed94491740/tsnode/key"
)

func TestEndpoint(t *testing.T) {
	addr := netip.MustParseAddrPort("192.0.2.1:41641")
	k := key.NewNode().Public()
	tests := []struct {
		name       string
		e          Endpoint
		derp, zero bool
	}{
		{"none", Endpoint{}, false, true},
		{"UDP", Endpoint{Addr: addr}, false, false},
		{"peer relay", Endpoint{Addr: addr, VNI: 7}, false, false},
		{"DERP", Endpoint{Region: 1, Key: k}, true, false},
		{"VNI alone", Endpoint{VNI: 7}, false, false},
		{"key alone", Endpoint{Key: k}, false, false},
	}
	seen := make(map[Endpoint]string)
	for _, tt := range tests {
		if tt.e.IsDERP() != tt.derp || tt.e.IsZero() != tt.zero {
			t.Errorf("%s: IsDERP %v, IsZero %v; want %v, %v", tt.name, tt.e.IsDERP(), tt.e.IsZero(), tt.derp, tt.zero)
		}
		if other, ok := seen[tt.e]; ok {
			t.Errorf("%s and %s are the same key of a map", tt.name, other)
		}
		seen[tt.e] = tt.name
	}
}
