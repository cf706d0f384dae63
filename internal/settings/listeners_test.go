package settings

import "testing"

// Which addresses others on the network do not reach (SVC-168).
func TestOnlyLocal(t *testing.T) {
	for address, want := range map[string]bool{"127.0.0.1:1": true, "localhost:1": true, "[::1]:1": true, "unix:/x": true, ":1": false, "10.0.0.1:1": false, "[::]:1": false} {
		if got := onlyLocal(address); got != want {
			t.Errorf("%s: only local %v", address, got)
		}
	}
}
