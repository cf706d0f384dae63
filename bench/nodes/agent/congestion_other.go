//go:build !linux

package main

import "errors"

// setCongestion is Linux's.
func setCongestion(int, string) error { return errors.ErrUnsupported }
