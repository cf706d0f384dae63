package main

import (
	"bytes"
	"io"
	"strings"
	"testing"
)

// What a node on a TUN device cannot do is refused at the start, by the name of
// what asks for it; so is what is no name of a device, and what only a manager has.
func TestDeviceFlagsRefused(t *testing.T) {
	for _, c := range []struct {
		want string
		args []string
	}{
		{"--local with --tun", []string{"run", "--tun", "tst0", "-L", "8080:web:80"}},
		{"--remote with --tun", []string{"run", "--tun", "tst0", "-R", "80:localhost:3000"}},
		{"--stdio with --tun", []string{"run", "--tun", "tst0", "-W", "web:80"}},
		{"--socks5 with --tun", []string{"run", "--tun", "tst0", "-D", "1080"}},
		{"--http-proxy with --tun", []string{"run", "--tun", "tst0", "--http-proxy", "1080"}},
		{"--tunnel-user and --resolver", []string{"tunnel", "--tun", "tst0"}},
		{"--tunnel-user and --resolver", []string{"tunnel", "--tunnel-user", "nobody"}},
		{"--tunnel-user and --resolver", []string{"tunnel", "--resolver", "none"}},
		{"--tun needs --resolver", []string{"tunnel", "--manager", "--tun", "tst0"}},
		{"--resolver without --tun", []string{"tunnel", "--manager", "--resolver", "none"}},
		{"--json is the manager's", []string{"tunnel", "--json"}},
		{"--fd, --read-fd and --write-fd are the tunnel's", []string{"tunnel", "--manager", "--fd", "3"}},
		{"--fd, --read-fd and --write-fd are the tunnel's", []string{"tunnel", "--manager", "--read-fd", "3", "--write-fd", "4"}},
	} {
		var out bytes.Buffer
		cmd := newRoot()
		cmd.SetArgs(c.args)
		cmd.SetIn(strings.NewReader(""))
		cmd.SetOut(io.Discard)
		cmd.SetErr(&out)
		if err := cmd.ExecuteContext(t.Context()); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: %v; want an error with %q", c.args, err, c.want)
		}
	}
}
