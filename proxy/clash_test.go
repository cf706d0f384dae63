package proxy

import "testing"

// Which forwards cannot be together.
func TestClashes(t *testing.T) {
	for _, test := range []struct {
		a, b string
		want bool
	}{
		{"-R 80:a:1", "-R 80:b:2", true},
		{"-R 80:a:1", "-R 80:a:1,max=7", true},
		{"-R 80:a:1", "-R 80:a:1", false}, // one
		{"-R 80:a:1", "-R 81:a:1", false},
		{"-R 80:a:1", "-R 80:a:1/udp", false},
		{"-R 53:a:1/udp", "-R 53:b:1/udp", true},
		{"-R 80-90:a:80-90", "-R 85:b:1", true},
		{"-R 0.0.0.0:80:a:1", "-R *:80:b:1", true},
		{"-R 100.64.0.1:80:a:1", "-R *:80:b:1", false}, // the nearer one has it
		{"-R 100.64.0.1:80:a:1", "-R 100.64.0.1:80:b:1", true},
		{"-R 80:a:1", "-L 80:b:1", false},
		{"-L 80:a:1", "-L 80:b:1", true},
		{"-L 80:a:1", "-L 127.0.0.1:80:b:1", true},
		{"-L 127.0.0.1:80:a:1", "-L [::1]:80:b:1", false},
		{"-L 80:a:1", "-D 80", true},
		{"-L 0:a:1", "-L 0:b:1", false},
		{"-D 1080", "-H 1080", false}, // one
		{"-D 1080", "-H 1080,max=7", true},
		{"-D 0", "-H 0", false},
		{"-L unix:/s:a:1", "-D unix:/s", true},
		{"-L unix:/s:a:1", "-D unix:/t", false},
	} {
		if pairs := Clashes(specs(t, test.a, test.b)); (len(pairs) > 0) != test.want {
			t.Errorf("%s and %s: %v", test.a, test.b, pairs)
		}
	}
	if pairs := Clashes(specs(t, "-R 80:a:1", "-D 1", "-R 80:b:1", "-R 80:c:1")); len(pairs) != 2 || pairs[0] != [2]int{0, 2} || pairs[1] != [2]int{0, 3} {
		t.Errorf("pairs %v", pairs)
	}
}
