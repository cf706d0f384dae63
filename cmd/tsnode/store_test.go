package main

import "testing"

// TestKubeAddress: a pod's environment names the API server, with IPv6 in
// brackets (SVC-140).
func TestKubeAddress(t *testing.T) {
	for _, test := range []struct {
		host, https, port string
		want              string
	}{
		{"", "6443", "6443", ""},
		{"10.96.0.1", "", "", "10.96.0.1:443"},
		{"10.96.0.1", "", "6443", "10.96.0.1:6443"},
		{"10.96.0.1", "8443", "6443", "10.96.0.1:8443"},
		{"fd00:10:96::1", "443", "443", "[fd00:10:96::1]:443"},
		{"api.example.com", "443", "", "api.example.com:443"},
	} {
		environ := map[string]string{
			"KUBERNETES_SERVICE_HOST":       test.host,
			"KUBERNETES_SERVICE_PORT_HTTPS": test.https,
			"KUBERNETES_SERVICE_PORT":       test.port,
		}
		if got := kubeAddress(func(name string) string { return environ[name] }); got != test.want {
			t.Errorf("%+v: %q, want %q", test, got, test.want)
		}
	}
}
