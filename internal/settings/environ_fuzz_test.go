package settings

import (
	"regexp"
	"strings"
	"testing"
)

// FuzzEnvironment: no environment makes the reader fail otherwise than with errors
// that begin with the name of a variable; what it accepts it accepts again in the
// same way, and what it sets has a source.
func FuzzEnvironment(f *testing.F) {
	for _, seed := range []string{
		"TS_AUTHKEY=file:/run/key\nTS_HOSTNAME=web\nTS_ROUTES=10.0.0.0/8,fd00::/8",
		"TS_EXTRA_ARGS=--login-server=http://a -accept-routes --exit-node auto --hostname=b --reset --ssh=false",
		"TS_EXTRA_ARGS=--advertise-tags=tag:a,tag:b --accept-routes=10.0.0.0/8,router -- --hostname",
		"TS_EXTRA_ARGS=- -- --- -=- --=x --hostname",
		"TS_TAILSCALED_EXTRA_ARGS=--port=41641 --socks5-server=:1055 --outbound-http-proxy-listen=:1055 --verbose=1 --tun=userspace-networking",
		"TS_SOCKS5_SERVER=:1055 unix:/s\nTSNODE_LOCAL=1:a:1 2-3:b:2-3/udp\nTSNODE_PROXY_ALLOW=*.x,[::1]:1-2",
		"TS_ENABLE_METRICS=true\nTS_LOCAL_ADDR_PORT=[::]:1\nTS_HEALTHCHECK_ADDR_PORT=:2",
		"TS_CLIENT_ID=id\nTS_CLIENT_SECRET=s\nPOD_IPS=1,2,3",
		"TSNODE_MEMORY_LIMIT=1e400GiB\nTS_BOOT_TIMEOUT=-1s\nTSNODE_PORT=65536\nTS_USERSPACE=0",
		"TS_KUBE_SECRET=\nKUBERNETES_SERVICE_HOST=10.0.0.1\nTS_ACCEPT_DNS=\x00\n=\nTS_",
	} {
		f.Add(seed)
	}
	place := regexp.MustCompile(`^(TS_|TSNODE_|POD_|KUBERNETES_|EXPERIMENTAL_)[A-Z0-9_*]+: `)
	f.Fuzz(func(t *testing.T, text string) {
		environ := strings.Split(text, "\n")
		into, again := newTarget(everything), newTarget(everything)
		err, errAgain := readEnvironment(environ, into), readEnvironment(environ, again)
		if (err == nil) != (errAgain == nil) {
			t.Fatalf("%v, then %v", err, errAgain)
		}
		if err != nil {
			for _, e := range each(err) {
				if !place.MatchString(e.Error()) {
					t.Errorf("an error without its variable: %q", e)
				}
			}
			return
		}
		unset := newTarget(everything)
		for name, v := range into.values {
			if v.String() != again.values[name].String() {
				t.Errorf("%s: %q, then %q", name, v, again.values[name])
			}
			if v.String() != unset.values[name].String() && into.settings.from[name] == "" {
				t.Errorf("%s is %q, and nothing has set it", name, v)
			}
		}
	})
}
