package tun

import (
	"errors"
	"os"
	"strings"
	"testing"
)

// Names that no interface can have are told from others before anything is made.
func TestCreateRefusesNames(t *testing.T) {
	for _, name := range []string{"", "sixteen-letters0", "a/b", "a:b", "a b", ".", "..", "tun%d"} {
		f, err := Create(name)
		if err == nil {
			f.Close()
			t.Errorf("made a device named %q", name)
		} else if !strings.Contains(err.Error(), "want a name") {
			t.Errorf("%q: %v; want an error that says what a name is", name, err)
		}
	}
}

// A device is made under its name and gone with its file; another program's, and an
// interface that is no TUN device, are told apart. Who may make none is told what
// to ask for.
func TestCreate(t *testing.T) {
	f, err := Create("tstcreate0")
	if err != nil {
		if !errors.Is(err, os.ErrPermission) && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
		if text := err.Error(); !strings.Contains(text, "CAP_NET_ADMIN") && !strings.Contains(text, "this user") && !strings.Contains(text, "no TUN devices") {
			t.Errorf("%v: want what to do", err)
		}
		return
	}
	defer f.Close()
	d, err := New(f, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if d.Name() != "tstcreate0" || d.framing.Virtio == 0 {
		t.Errorf("device %q with framing %+v; want the name, and a virtio-net header", d.Name(), d.framing)
	}
	if _, err := Create("tstcreate0"); err == nil || !strings.Contains(err.Error(), "another program") {
		t.Errorf("a device that is open: %v", err)
	}
	if _, err := Create("lo"); err == nil || !strings.Contains(err.Error(), "no TUN device") {
		t.Errorf("the loopback interface: %v", err)
	}
}
