package settings

import (
	"slices"
	"strings"
	"testing"
)

// What every variable of the container image does (SVC-153, SVC-155): it sets
// something, is accepted, or is refused by its name with a reason.
func TestContainerEnvironment(t *testing.T) {
	for _, test := range []struct {
		environ string // apart by |
		want    string // setting=value, or what the error says
		warning string
	}{
		{"TS_AUTHKEY=file:/run/key", "auth-key=file:/run/key", ""},
		{"TS_AUTH_KEY=k", "auth-key=k", ""},
		{"TS_AUTHKEY=first|TS_AUTH_KEY=second", "auth-key=first", ""},
		{"TS_CLIENT_ID=id|TS_CLIENT_SECRET=file:/s|TS_EXTRA_ARGS=--advertise-tags=tag:a", "auth-key=file:/s", ""},
		{"TS_CLIENT_SECRET=s", "error TS_CLIENT_SECRET: a node of an OAuth client needs tags", ""},
		{"TS_CLIENT_ID=id", "error TS_CLIENT_ID: the secret of the OAuth client is missing: set TS_CLIENT_SECRET", ""},
		{"TS_CLIENT_SECRET=s|TS_AUTHKEY=k", "error TS_CLIENT_SECRET: TS_AUTHKEY is set, too", ""},
		{"TS_ID_TOKEN=t", "error TS_ID_TOKEN: identity federation", ""},
		{"TS_AUDIENCE=a", "error TS_AUDIENCE: identity federation", ""},
		{"TS_HOSTNAME=web", "hostname=web", ""},
		{"TS_HOSTNAME=", "hostname=", ""},
		{"TS_ROUTES=10.0.0.0/8,fd12:3456::/32", "advertise-routes=10.0.0.0/8,fd12:3456::/32", ""},
		{"TS_ROUTES=", "advertise-routes=", ""},
		{"TS_ROUTES=10.0.0.0", `error TS_ROUTES: "10.0.0.0": want a network`, ""},
		{"TS_ACCEPT_DNS=false", "accept-dns=false", ""},
		{"TS_ACCEPT_DNS=perhaps", "accept-dns=true", "TS_ACCEPT_DNS"},
		{"TS_ACCEPT_DNS=false|TS_EXTRA_ARGS=--accept-dns", "accept-dns=true", ""},
		{"TS_EXTRA_ARGS=--login-server=http://a -accept-routes --exit-node auto --hostname=b --reset --ssh=false|TS_HOSTNAME=c", "login-server=http://a accept-routes=true exit-node=auto hostname=b", ""},
		{"TS_EXTRA_ARGS=--ssh", "error TS_EXTRA_ARGS: --ssh: this version has no SSH server", ""},
		{"TS_EXTRA_ARGS=--nothing", "error TS_EXTRA_ARGS: unknown flag: --nothing", ""},
		{"TS_EXTRA_ARGS=--state-dir=x", "error TS_EXTRA_ARGS: unknown flag: --state-dir", ""},
		{"TS_EXTRA_ARGS=--advertise-routes=x", `error TS_EXTRA_ARGS: --advertise-routes: "x": want a network`, ""},
		{"TS_EXTRA_ARGS=loose", `error TS_EXTRA_ARGS: "loose" is no flag`, ""},
		{"TS_TAILSCALED_EXTRA_ARGS=--port=41641 --socks5-server=:1055 --outbound-http-proxy-listen=:1055 --verbose=1 --tun=userspace-networking", "port=41641 socks5=localhost:1055 http-proxy=localhost:1055 verbose=true", "listens on loopback only"},
		{"TS_TAILSCALED_EXTRA_ARGS=--statedir=/a --state=mem: --socket=/b --verbose=0", "state-dir=/a state=mem: socket=/b verbose=false", ""},
		{"TS_TAILSCALED_EXTRA_ARGS=--tun=tailscale0", "error TS_TAILSCALED_EXTRA_ARGS: --tun: this is a node in userspace", ""},
		{"TS_TAILSCALED_EXTRA_ARGS=--config=/x", "error TS_TAILSCALED_EXTRA_ARGS: --config: that is a file of tailscaled", ""},
		{"TS_AUTH_ONCE=true", "", ""},
		{"TS_USERSPACE=true", "", ""},
		{"TS_USERSPACE=whatever", "", ""},
		{"TS_USERSPACE=false", "error TS_USERSPACE: false asks for the kernel's network stack", ""},
		{"TS_STATE_DIR=/state", "state-dir=/state ephemeral=false", ""},
		{"TS_KUBE_SECRET=keys", "state=kube:keys ephemeral=false", ""},
		{"KUBERNETES_SERVICE_HOST=10.0.0.1", "state=kube:tailscale", ""},
		{"KUBERNETES_SERVICE_HOST=10.0.0.1|TS_KUBE_SECRET=", "state= ephemeral=true", ""},
		{"KUBERNETES_SERVICE_HOST=10.0.0.1|TS_STATE_DIR=/state", "state= state-dir=/state", ""},
		{"TS_SOCKET=/tmp/s", "socket=/tmp/s", ""},
		{"TS_SOCKS5_SERVER=0.0.0.0:1055", "error TS_SOCKS5_SERVER: -D 0.0.0.0:1055: others on the network could use this proxy", ""},
		{"TS_SOCKS5_SERVER=0.0.0.0:1055|TSNODE_PROXY_OPEN=true|TS_OUTBOUND_HTTP_PROXY_LISTEN=localhost:1056", "socks5=0.0.0.0:1055 http-proxy=localhost:1056", ""},
		{"TS_SOCKS5_SERVER=:1055", "socks5=localhost:1055", "TS_SOCKS5_SERVER=:1055 listens on loopback only"},
		{"TS_SERVE_CONFIG=/serve.json", "error TS_SERVE_CONFIG: a serve configuration is not part of this version", ""},
		{"TS_DEST_IP=10.0.0.1", "error TS_DEST_IP: it needs the kernel's forwarding", ""},
		{"TS_EXPERIMENTAL_DEST_DNS_NAME=a", "error TS_EXPERIMENTAL_DEST_DNS_NAME: it needs", ""},
		{"TS_TAILNET_TARGET_IP=100.64.0.1", "error TS_TAILNET_TARGET_IP: it needs", ""},
		{"TS_TAILNET_TARGET_FQDN=a.ts.net", "error TS_TAILNET_TARGET_FQDN: it needs", ""},
		{"TS_ENABLE_METRICS=true", "metrics=:9002 health=", ""},
		{"TS_ENABLE_HEALTH_CHECK=1|TS_LOCAL_ADDR_PORT=127.0.0.1:1", "health=127.0.0.1:1 metrics=", ""},
		{"TS_ENABLE_HEALTH_CHECK=1|TS_LOCAL_ADDR_PORT=x", "error TS_ENABLE_HEALTH_CHECK: TS_LOCAL_ADDR_PORT: want [IP]:port", ""},
		{"TS_ENABLE_HEALTH_CHECK=maybe", "health=", "TS_ENABLE_HEALTH_CHECK"},
		{"TS_HEALTHCHECK_ADDR_PORT=:9003", "health=:9003", ""},
		{"TS_DEBUG_ADDR_PORT=:1", "error TS_DEBUG_ADDR_PORT: there is no debug server", ""},
		{"TS_BOOT_TIMEOUT=90s", "timeout=1m30s", ""},
		{"TS_BOOT_TIMEOUT=90", "error TS_BOOT_TIMEOUT: want a duration", ""},
		{"TS_EXPERIMENTAL_VERSIONED_CONFIG_DIR=/c", "error TS_EXPERIMENTAL_VERSIONED_CONFIG_DIR: it is for proxies of the Kubernetes operator", ""},
		{"TS_EXPERIMENTAL_CERT_SHARE=false", "", ""},
		{"TS_EXPERIMENTAL_CERT_SHARE=true", "error TS_EXPERIMENTAL_CERT_SHARE: a serve", ""},
		{"TS_EXPERIMENTAL_SERVICE_AUTO_ADVERTISEMENT=true", "", ""},
		{"TS_INGRESS_PROXIES_CONFIG_PATH=/x", "error TS_INGRESS_PROXIES_CONFIG_PATH: it is for", ""},
		{"TS_EGRESS_PROXIES_CONFIG_PATH=/x", "error TS_EGRESS_PROXIES_CONFIG_PATH: it is for", ""},
		{"EXPERIMENTAL_ALLOW_PROXYING_CLUSTER_TRAFFIC_VIA_INGRESS=true", "error EXPERIMENTAL_ALLOW_PROXYING_CLUSTER_TRAFFIC_VIA_INGRESS: it is for", ""},
		{"TS_EXPERIMENTAL_ENABLE_FORWARDING_OPTIMIZATIONS=true", "error TS_EXPERIMENTAL_ENABLE_FORWARDING_OPTIMIZATIONS: it needs", ""},
		{"POD_IPS=10.0.0.1,fd00::1|POD_IP=10.0.0.1|POD_UID=u|POD_NAME=n-0|TS_KUBERNETES_READ_API_SERVER_ADDRESS_FROM_ENV=1", "", ""},
		{"POD_IPS=10.0.0.1,10.0.0.2,10.0.0.3", "error POD_IPS: 3 addresses", ""},
		{"TS_NO_LOGS_NO_SUPPORT=true|TS_DEBUG_MTU=1200", "", ""},
		{"TS_HOSTNAM=web", "hostname=", "TS_HOSTNAM: did you mean TS_HOSTNAME?"},
		{"TSNODE_WHATEVER_THIS_IS=1", "", "unknown variable TSNODE_WHATEVER_THIS_IS"},
		{"HOME=/root|PORT=80", "port=0", ""},
	} {
		s, err := read(t, "", strings.Split(test.environ, "|"))
		if text, isError := strings.CutPrefix(test.want, "error "); isError {
			if err == nil || !strings.HasPrefix(err.Error(), text) {
				t.Errorf("%s:\ngot  %v\nwant %s", test.environ, err, text)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", test.environ, err)
			continue
		}
		for say := range strings.FieldsSeq(test.want) {
			name, want, _ := strings.Cut(say, "=")
			if got := find(t, name).value(s).String(); got != want {
				t.Errorf("%s: %s is %q, want %q", test.environ, name, got, want)
			}
		}
		if got := strings.Join(s.Warnings, "\n"); (got != "") != (test.warning != "") || !strings.Contains(got, test.warning) {
			t.Errorf("%s: warnings %q, want %q", test.environ, got, test.warning)
		}
	}
}

func find(t *testing.T, name string) Setting {
	t.Helper()
	i := slices.IndexFunc(table, func(s Setting) bool { return s.Name == name })
	if i < 0 {
		t.Fatalf("no setting %q", name)
	}
	return table[i]
}

// No error about a variable shows what it holds, where that may be a secret.
func TestSecretsAreNotShown(t *testing.T) {
	for _, environ := range [][]string{
		{"TS_AUTHKEY=hush", "TS_CLIENT_SECRET=hush"}, {"TS_CLIENT_SECRET=hush"}, {"TS_ID_TOKEN=hush"}, {"TS_EXTRA_ARGS=--auth-key=hush --ssh"},
		{"TS_EXTRA_ARGS=--client-secret=hush --nothing"}, {"TSNODE_PROXY_AUTH=hush", "TS_USERSPACE=false"},
	} {
		if _, err := read(t, "", environ); err == nil || strings.Contains(err.Error(), "hush") {
			t.Errorf("%q: %v", environ, err)
		}
	}
}

// Every variable that the protocol's table names is understood (SVC-153).
func TestEveryVariableOfTheTable(t *testing.T) {
	var known []string
	for _, v := range Variables() {
		if slices.Contains(known, v.Name) {
			t.Errorf("%s is there twice", v.Name)
		}
		known = append(known, v.Name)
	}
	for _, name := range containerVariables(t) {
		if !slices.Contains(known, name) {
			t.Errorf("%s is not understood", name)
		}
	}
}
