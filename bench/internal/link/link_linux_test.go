package link

import (
	"errors"
	"io"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// device returns a device whose packets the test sends and receives.
func device(t *testing.T) (dev, test *os.File) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	dev, test = os.NewFile(uintptr(fds[0]), "device"), os.NewFile(uintptr(fds[1]), "test")
	t.Cleanup(func() {
		dev.Close()
		test.Close()
	})
	return dev, test
}

// TestLink: packets pass both ways after the delay, and are counted without
// their headers' device bytes being touched; the link ends with a device.
func TestLink(t *testing.T) {
	const header = 10
	a, left := device(t)
	b, right := device(t)
	l, err := New(a, b, header, 1)
	if err != nil {
		t.Fatal(err)
	}
	l.Set(Conditions{Delay: 5 * ms})
	done := make(chan error)
	go func() { done <- l.Run() }()
	for _, way := range []struct{ from, to *os.File }{{left, right}, {right, left}} {
		began := time.Now()
		if _, err := way.from.WriteString("0123456789packet"); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, 100)
		n, err := way.to.Read(got)
		if err != nil || string(got[:n]) != "0123456789packet" {
			t.Fatalf("%q, error %v", got[:n], err)
		}
		if took := time.Since(began); took < 5*ms {
			t.Errorf("took %v", took)
		}
	}
	if c := l.Counts(); c[0] != (Counts{Packets: 1}) || c[1] != (Counts{Packets: 1}) {
		t.Errorf("counts %+v", c)
	}
	if lag := l.Lag(); lag.Mean <= 0 || lag.Most < lag.Mean {
		t.Errorf("lag %+v", lag)
	}
	left.Close()
	if err := <-done; !errors.Is(err, io.EOF) {
		t.Errorf("error %v, want EOF", err)
	}
}
