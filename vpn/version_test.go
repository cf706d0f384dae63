package vpn

import (
	"fmt"
	"testing"
)

// VT-02: lists of versions, and the version that two of them agree on.
func TestCommonVersion(t *testing.T) {
	for _, tt := range []struct{ a, b, want string }{
		{"1.3", "1.1", "1.1"},
		{"1.3", "1.3", "1.3"},
		{"1.3,2.1", "1.7", "1.3"},
		{"1.2,2.4,3.2", "2.3,3.3", "3.2"},
		{"1.3", "1.3,2.1", "1.3"},
		{"1.8", "2.8", ""},
		{"1.0", "1.18446744073709551615", "1.0"},
	} {
		for _, lists := range [][2]string{{tt.a, tt.b}, {tt.b, tt.a}} {
			a, err := parseVersions(lists[0])
			if err != nil {
				t.Fatal(err)
			}
			b, err := parseVersions(lists[1])
			if err != nil {
				t.Fatal(err)
			}
			got, err := common(a, b)
			if (err == nil) != (tt.want != "") || err == nil && got.String() != tt.want {
				t.Errorf("%v: got %v, %v, want %q", lists, got, err, tt.want)
			}
		}
	}
}

// VT-02, VPN-06: what is no list of versions.
func TestParseVersionsRejects(t *testing.T) {
	for _, text := range []string{
		"", "1", "1.", ".1", "1.0.0", "1.x", "x.1", "0.1", "1.0,1.1", "2.0,1.0", "1.0,", ",1.0",
		"+1.0", "1.-1", "1.0 ", "18446744073709551616.0", "1.18446744073709551616", "1_0.1",
	} {
		if list, err := parseVersions(text); err == nil {
			t.Errorf("%q: got %v", text, list)
		}
	}
	if list, err := parseVersions("1.2,3.4"); err != nil || fmt.Sprint(list) != "[1.2 3.4]" {
		t.Errorf("got %v, %v", list, err)
	}
}
