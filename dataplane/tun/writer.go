package tun

import "errors"

// A writer writes frames to a device, and counts. One goroutine uses it.
type writer struct {
	device *Device
	call   call
	put    func(frame []byte) // write, as a value that is made once
}

func newWriter(d *Device) *writer {
	w := &writer{device: d}
	w.put = w.write
	return w
}

// write writes one frame. One that the device does not take is lost: no receive
// goroutine waits for it (VPN-43).
func (w *writer) write(frame []byte) {
	switch err := w.device.descriptor.write(&w.call, frame); {
	case err == nil:
		w.device.written.Add(1)
	case !errors.Is(err, errClosed):
		w.device.refuse(err)
	}
}
