package portmap

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestSearches: unicast first, then both multicasts (PATH-103).
func TestSearches(t *testing.T) {
	var got []string
	for _, s := range searches(testGateway) {
		b := string(s.append(nil))
		if !strings.HasPrefix(b, "M-SEARCH * HTTP/1.1\r\nHOST: 239.255.255.250:1900\r\n") || !strings.HasSuffix(b, "\r\n\r\n") ||
			!strings.Contains(b, "\r\nMAN: \"ssdp:discover\"\r\n") || !strings.Contains(b, "\r\nMX: 2\r\n") {
			t.Errorf("search %q", b)
		}
		got = append(got, fmt.Sprint(s.to, " ", s.target))
	}
	want := "192.168.1.1:1900 ssdp:all, 239.255.255.250:1900 ssdp:all, 239.255.255.250:1900 urn:schemas-upnp-org:device:InternetGatewayDevice:1"
	if strings.Join(got, ", ") != want {
		t.Errorf("searches\n%s\nwant\n%s", strings.Join(got, ", "), want)
	}
}

const searchAnswer = "HTTP/1.1 200 OK\r\nCACHE-CONTROL: max-age=120\r\nST: %s\r\nUSN: uuid:1234::%[1]s\r\nEXT:\r\nSERVER: test\r\nLOCATION: %s\r\n\r\n"

func answerTo(st, location string) []byte { return fmt.Appendf(nil, searchAnswer, st, location) }

const igd1, igd2 = "urn:schemas-upnp-org:device:InternetGatewayDevice:1", "urn:schemas-upnp-org:device:InternetGatewayDevice:2"

// TestSearchAnswers: gateways at IPv4 literals count, and nothing else.
func TestSearchAnswers(t *testing.T) {
	for _, tt := range []struct {
		name   string
		b      []byte
		ok     bool
		failed string
	}{
		{"gateway", answerTo(igd1, "http://192.168.1.1:5000/desc.xml"), true, ""},
		{"second version", answerTo(igd2, "http://192.168.1.1/desc.xml"), true, ""},
		{"media server", answerTo("urn:schemas-upnp-org:device:MediaServer:1", "http://192.168.1.5/d.xml"), false, ""},
		{"host name", answerTo(igd1, "http://router.example/d.xml"), false, "not http at an IPv4 address"},
		{"IPv6", answerTo(igd1, "http://[fe80::1]/d.xml"), false, "not http at an IPv4 address"},
		{"https", answerTo(igd1, "https://192.168.1.1/d.xml"), false, "not http at an IPv4 address"},
		{"no location", answerTo(igd1, ""), false, "not http at an IPv4 address"},
		{"bad location", answerTo(igd1, "http://%zz"), false, "location"},
		{"status", []byte("HTTP/1.1 404 Not Found\r\n\r\n"), false, "404"},
		{"notification", []byte("NOTIFY * HTTP/1.1\r\n\r\n"), false, "SSDP answer"},
		{"empty", nil, false, "SSDP answer"},
	} {
		d, ok, err := parseSearchAnswer(tt.b)
		if ok != tt.ok || (err == nil) != (tt.failed == "") || err != nil && !strings.Contains(err.Error(), tt.failed) {
			t.Errorf("%s: %v, error %v; want %v, error with %q", tt.name, ok, err, tt.ok, tt.failed)
		}
		if ok && (d.server != "test" || !strings.Contains(d.usn, "InternetGatewayDevice")) {
			t.Errorf("%s: %+v", tt.name, d)
		}
	}
	whole := answerTo(igd1, "http://192.168.1.1:5000/desc.xml")
	for n := range len(whole) - 2 { // without the empty line it is no message
		if _, ok, _ := parseSearchAnswer(whole[:n]); ok {
			t.Errorf("an answer cut to %d bytes passes", n)
		}
	}
}

// TestDevicesAreSortedAndBounded: version 2 before version 1, each place once,
// ten at most (PATH-103).
func TestDevicesAreSortedAndBounded(t *testing.T) {
	var all []device
	add := func(st, location string) {
		d, ok, err := parseSearchAnswer(answerTo(st, location))
		if !ok || err != nil {
			t.Fatal(ok, err)
		}
		all = addDevice(all, d)
	}
	add(igd1, "http://192.168.1.1/1")
	add(igd2, "http://192.168.1.1/2")
	add(igd2, "http://192.168.1.1/2")
	if len(all) != 2 || all[0].location.Path != "/2" {
		t.Fatalf("devices %v", all)
	}
	for i := range 30 {
		add(igd1, fmt.Sprintf("http://192.168.1.1/x%d", i))
	}
	if len(all) != maxDevices {
		t.Errorf("%d devices, want %d", len(all), maxDevices)
	}
}

// TestDescriptions: services that map ports, best first, always at the
// gateway's own address.
func TestDescriptions(t *testing.T) {
	base, _ := url.Parse("http://192.168.1.1:5000/rootDesc.xml")
	for _, tt := range []struct{ file, want string }{
		{"igd1.xml", "WANIPConnection:1 http://192.168.1.1:5000/ctl/IPConn"},
		{"igd2.xml", "WANIPConnection:2 http://192.168.1.1:5000/ctl/IPConn, WANIPConnection:1 http://192.168.1.1:5000/ctl/IPConn1"},
		{"urlbase.xml", "WANPPPConnection:1 http://192.168.1.1:49000/upnp/control/WANPPP1, WANIPConnection:1 http://192.168.1.1:80/legacy"},
	} {
		f, err := os.Open(filepath.Join("testdata", tt.file))
		if err != nil {
			t.Fatal(err)
		}
		services, err := parseDescription(f, base)
		f.Close()
		if err != nil {
			t.Errorf("%s: %v", tt.file, err)
		}
		if got := describe(services); got != tt.want {
			t.Errorf("%s:\n got %s\nwant %s", tt.file, got, tt.want)
		}
	}
}

func describe(services []service) string {
	var all []string
	for _, s := range services {
		_, kind, _ := strings.Cut(string(s.kind), ":service:")
		all = append(all, kind+" "+s.control.String())
	}
	return strings.Join(all, ", ")
}

func TestBadDescriptions(t *testing.T) {
	base, _ := url.Parse("http://192.168.1.1/d.xml")
	for name, text := range map[string]string{
		"empty":        "",
		"no XML":       "<html><p>Login",
		"no service":   "<root><device><deviceType>x</deviceType></device></root>",
		"other":        "<root><service><serviceType>urn:x:service:Y:1</serviceType><controlURL>/c</controlURL></service></root>",
		"end only":     "</root>",
		"deep":         strings.Repeat("<a>", 1000),
		"cut":          "<root><service><serviceType>urn:schemas-upnp-org:service:WANIPConnection:1</serviceType><control",
		"not relative": "<root><service><serviceType>urn:schemas-upnp-org:service:WANIPConnection:1</serviceType><controlURL>http://%zz</controlURL></service></root>",
	} {
		if s, err := parseDescription(strings.NewReader(text), base); !errors.Is(err, errNoService) {
			t.Errorf("%s: services %v, error %v", name, s, err)
		}
	}
	many := "<root>" + strings.Repeat("<service><serviceType>urn:schemas-upnp-org:service:WANIPConnection:1</serviceType><controlURL>/c</controlURL></service>", 100)
	if s, err := parseDescription(strings.NewReader(many), base); err != nil || len(s) != maxServices {
		t.Errorf("%d services, error %v; want %d", len(s), err, maxServices)
	}
}

// TestReplies: values by name whatever the prefixes; faults are errors.
func TestReplies(t *testing.T) {
	const envelope = `<?xml version="1.0"?><s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"><s:Body>%s</s:Body></s:Envelope>`
	values, err := parseReply(strings.NewReader(fmt.Sprintf(envelope,
		`<u:GetExternalIPAddressResponse xmlns:u="x"><NewExternalIPAddress> 203.0.113.7 </NewExternalIPAddress></u:GetExternalIPAddressResponse>`)))
	if err != nil || values["NewExternalIPAddress"] != "203.0.113.7" {
		t.Errorf("%v, error %v", values, err)
	}
	_, err = parseReply(strings.NewReader(fmt.Sprintf(envelope,
		`<s:Fault><faultcode>s:Client</faultcode><detail><UPnPError><errorCode>718</errorCode><errorDescription>Conflict</errorDescription></UPnPError></detail></s:Fault>`)))
	var f fault
	if !errors.As(err, &f) || f.code != faultConflict || f.reason != "Conflict" {
		t.Errorf("error %v, want fault 718", err)
	}
	if _, err := parseReply(strings.NewReader("<a")); err == nil {
		t.Error("half an element is no error")
	}
}

func FuzzSearchAnswer(f *testing.F) {
	f.Add(answerTo(igd1, "http://192.168.1.1:5000/desc.xml"))
	f.Add(answerTo(igd2, "http://router/desc.xml"))
	f.Fuzz(func(t *testing.T, b []byte) {
		d, ok, err := parseSearchAnswer(b)
		if !ok {
			return
		}
		if err != nil {
			t.Fatalf("a device and an error: %v", err)
		}
		if at := atGateway(d.location, testGateway); at.Hostname() != testGateway.String() || at.User != nil {
			t.Errorf("%q leads to %q", d.location, at)
		}
	})
}

func FuzzDescription(f *testing.F) {
	files, err := filepath.Glob("testdata/*.xml")
	if err != nil || len(files) < 3 {
		f.Fatalf("%d descriptions, error %v", len(files), err)
	}
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(b))
	}
	base, _ := url.Parse("http://192.168.1.1:5000/d.xml")
	f.Fuzz(func(t *testing.T, text string) {
		services, err := parseDescription(strings.NewReader(text), base)
		if (len(services) == 0) == (err == nil) || len(services) > maxServices {
			t.Fatalf("%d services, error %v", len(services), err)
		}
		for _, s := range services {
			if ip, err := netip.ParseAddr(s.control.Hostname()); err != nil || ip != testGateway {
				t.Errorf("control at %q, not at the gateway", s.control)
			}
			if _, err := newAction(context.Background(), s, "X", nil); err != nil {
				t.Errorf("control at %q cannot be asked: %v", s.control, err)
			}
		}
	})
}
