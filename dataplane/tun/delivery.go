package tun

import "github.com/seed94491740/tsnode/packet"

// deliveryMemory is what the packets of one batch may take before they are
// written, in bytes; the longest frame fits.
const deliveryMemory = 128 << 10

// A Delivery writes inbound packets to a device. One goroutine uses it.
type Delivery struct {
	writer *writer
	cutter cutter
	memory []byte // made for the first packet
	used   int    // bytes of it that committed packets take
	queue  []committed
}

// A committed is a frame in the memory of a Delivery.
type committed struct {
	at     int
	merged packet.Merged
}

// NewDelivery returns a Delivery for one receive goroutine.
func (d *Device) NewDelivery() *Delivery {
	return &Delivery{writer: newWriter(d), cutter: cutter{framing: d.framing}}
}

// Reserve returns memory for the next packet, n bytes. When the packets that
// were committed leave no room for it, they are written now: a write to a device
// does not wait.
func (d *Delivery) Reserve(n int) []byte {
	if d.memory == nil {
		d.memory = make([]byte, deliveryMemory)
	}
	space := d.cutter.framing.Header()
	if d.used+space+n > len(d.memory) {
		d.Flush()
	}
	start := d.used + space
	return d.memory[start : start+n : start+n]
}

// Commit says that the memory last reserved holds m, to be written by Flush. What
// is no IP packet is dropped.
func (d *Delivery) Commit(m packet.Merged) {
	end := d.used + d.cutter.framing.Header() + m.Len
	if m.Len <= 0 || end > len(d.memory) || !whole(d.memory[end-m.Len:end]) {
		return
	}
	d.queue = append(d.queue, committed{d.used, m})
	d.used = end
}

// Flush writes what was committed, in order: one system call for each packet, for
// a device takes no more at a time.
func (d *Delivery) Flush() {
	framing := d.cutter.framing
	for _, c := range d.queue {
		frame := d.memory[c.at : c.at+framing.Header()+c.merged.Len]
		if c.merged.Count > 1 && framing.Virtio == 0 {
			d.cutter.cut(frame, c.merged, d.writer.put)
			continue
		}
		framing.Put(frame, c.merged)
		d.writer.write(frame)
	}
	d.queue, d.used = d.queue[:0], 0
}
