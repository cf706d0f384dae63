//go:build !unix

package tun

import (
	"errors"
	"fmt"
	"os"
)

var (
	errAgain  = errors.New("nothing to read")
	errClosed = os.ErrClosed

	errUnsupported = fmt.Errorf("tun: a TUN device that is a descriptor: %w on this system", errors.ErrUnsupported)
)

// A descriptor is none on this system.
type descriptor struct{}

// A call is none on this system.
type call struct{}

// Duplicate fails on this system.
func Duplicate(uintptr) (*os.File, error) { return nil, errUnsupported }

func open(*os.File) (*descriptor, Framing, string, error) { return nil, Framing{}, "", errUnsupported }

func (*descriptor) read([]byte) (int, error)  { return 0, errUnsupported }
func (*descriptor) write(*call, []byte) error { return errUnsupported }
func (*descriptor) await() error              { return errUnsupported }
func (*descriptor) interrupt()                {}
func (*descriptor) resume()                   {}
func (*descriptor) close() error              { return nil }
