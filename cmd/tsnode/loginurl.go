package main

import (
	"fmt"
	"io"
	"os"
	"strings"

	"rsc.io/qr"
)

// loginText asks a person to visit url.
func loginText(url string) string {
	return fmt.Sprintf("\nTo join the tailnet, visit:\n\n\t%s\n\n", url)
}

// printLogin asks the person at w to visit url, with a QR code on a terminal.
func printLogin(w io.Writer, url string) {
	io.WriteString(w, loginText(url))
	if f, ok := w.(*os.File); ok && isTerminal(f) {
		io.WriteString(w, qrText(url))
	}
}

func isTerminal(f *os.File) bool {
	_, ok := columns(f)
	return ok
}

// quietZone is the light border of a QR code, in modules (ISO/IEC 18004
// section 5.3.8 asks for four; two are enough on a screen).
const quietZone = 2

// qrText draws url as a QR code with two modules in each character cell; empty
// when it is too long for one. It is light on dark as terminals mostly are.
func qrText(url string) string {
	code, err := qr.Encode(url, qr.L)
	if err != nil {
		return ""
	}
	var b strings.Builder
	for y := -quietZone; y < code.Size+quietZone; y += 2 {
		for x := -quietZone; x < code.Size+quietZone; x++ {
			b.WriteString(halves[light(code, x, y)][light(code, x, y+1)])
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// halves are the cells by whether the upper and the lower module are light.
var halves = [2][2]string{{" ", "▄"}, {"▀", "█"}}

func light(c *qr.Code, x, y int) int {
	if c.Black(x, y) {
		return 0
	}
	return 1
}
