//go:build !linux

package main

import "errors"

// namespaces are Linux's; elsewhere all is on loopback.
func namespaces() (*ground, error) { return loopback(), nil }

// runLink is Linux's, too.
func runLink() error { return errors.ErrUnsupported }
