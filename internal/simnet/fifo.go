package simnet

// A fifo is a queue of bytes that moves what is left to the front from time to
// time.
type fifo struct {
	buf  []byte
	head int
}

func (f *fifo) len() int { return len(f.buf) - f.head }

// push appends b.
func (f *fifo) push(b []byte) {
	if f.head > 0 && f.head >= f.len() {
		f.buf = f.buf[:copy(f.buf, f.buf[f.head:])]
		f.head = 0
	}
	f.buf = append(f.buf, b...)
}

// at returns n bytes from an offset on.
func (f *fifo) at(offset, n int) []byte { return f.buf[f.head+offset:][:n] }

// skip drops the first n bytes.
func (f *fifo) skip(n int) {
	if f.head += n; f.head == len(f.buf) {
		f.buf, f.head = f.buf[:0], 0
	}
}

// trim gives back the memory of an empty queue.
func (f *fifo) trim() {
	if f.len() == 0 {
		f.buf = nil
	}
}
