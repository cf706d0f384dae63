package state

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed94491740/tsnode/internal/simnet"
)

// kubeServer6 is an address of the API server.
var kubeServer6 = netip.MustParseAddr("2001:db8:10::1")

// A kubeWorld is a cluster: an API server, and a pod with a service account.
type kubeWorld struct {
	*fakeKube
	config KubeConfig // of the pod
	server *simnet.Host
	cert   *tls.Certificate // of the API server; replaced while it runs by trust
}

func newKubeWorld(t testing.TB) *kubeWorld {
	t.Helper()
	internet := simnet.New(1)
	t.Cleanup(internet.Close)
	pod := internet.AddHost("pod", simnet.HostConfig{})
	w := &kubeWorld{
		fakeKube: newFakeKube(t),
		config:   KubeConfig{Secret: "keys", Account: t.TempDir(), Network: pod},
		server:   internet.AddHost("api", simnet.HostConfig{}),
	}
	w.server.AddAddr(kubeServer6)
	internet.SetName("kubernetes.default.svc", w.server.Addr4())
	w.file("namespace", "apps")
	w.file("token", "token-1\n")
	w.trust(true)
	w.serve()
	return w
}

// serve answers at port 443.
func (w *kubeWorld) serve() {
	l, err := w.server.Listen(w.t.Context(), "tcp", ":443")
	if err != nil {
		w.t.Fatal(err)
	}
	secure := tls.NewListener(l, &tls.Config{GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
		w.mu.Lock()
		defer w.mu.Unlock()
		return w.cert, nil
	}})
	srv := &http.Server{Handler: w.fakeKube, ErrorLog: log.New(io.Discard, "", 0)}
	go srv.Serve(secure)
	w.t.Cleanup(func() { srv.Close() })
}

// file writes a file of the service account.
func (w *kubeWorld) file(name, text string) {
	w.t.Helper()
	if err := os.WriteFile(filepath.Join(w.config.Account, name), []byte(text), 0o600); err != nil {
		w.t.Fatal(err)
	}
}

// trust gives the API server another certificate, which the pod knows or not.
func (w *kubeWorld) trust(known bool) {
	w.t.Helper()
	cert, authority := kubeCertificate(w.t)
	w.mu.Lock()
	w.cert = cert
	w.mu.Unlock()
	if known {
		w.file("ca.crt", authority)
	}
}

// hang ends with the test.
func (w *kubeWorld) hang() { <-w.t.Context().Done() }

// open opens the store of the pod, which must succeed.
func (w *kubeWorld) open(t testing.TB) *Kube {
	t.Helper()
	k, err := OpenKube(t.Context(), w.config)
	if err != nil {
		t.Fatal(err)
	}
	w.take()
	return k
}

// inKube runs a test in a cluster, on fake time.
func inKube(t *testing.T, name string, f func(t *testing.T, w *kubeWorld)) {
	t.Run(name, func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) { f(t, newKubeWorld(t)) })
	})
}

// kubeCertificate makes a certificate of an API server, valid at any time, and
// what is to be trusted for it.
func kubeCertificate(t testing.TB) (*tls.Certificate, string) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Unix(0, 0), NotAfter: time.Unix(1<<32, 0),
		DNSNames: []string{"kubernetes.default.svc"}, IPAddresses: []net.IP{kubeServer6.AsSlice()},
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, k.Public(), k)
	if err != nil {
		t.Fatal(err)
	}
	authority := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: k}, string(authority)
}
