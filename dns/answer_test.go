package dns

import (
	"testing"

	"golang.org/x/net/dns/dnsmessage"
)

// Records of RFC 9460 appendix D, with parameters by number.
func TestServiceRecords(t *testing.T) {
	foo := dnsmessage.MustNewName("foo.example.com.")
	for _, tt := range []struct {
		body dnsmessage.ResourceBody
		want string
	}{
		{&dnsmessage.HTTPSResource{SVCBResource: dnsmessage.SVCBResource{Target: foo}}, "0 foo.example.com."},
		{&dnsmessage.SVCBResource{Priority: 1, Target: dnsmessage.MustNewName(".")}, "1 ."},
		{&dnsmessage.SVCBResource{Priority: 16, Target: foo, Params: []dnsmessage.SVCParam{{Key: 3, Value: []byte{0, 53}}}}, `16 foo.example.com. key3=\0005`},
		{&dnsmessage.SVCBResource{Priority: 1, Target: foo, Params: []dnsmessage.SVCParam{{Key: 2}, {Key: 667, Value: []byte("hello\xd2qoo")}}}, `1 foo.example.com. key2 key667=hello\210qoo`},
	} {
		if got := data(tt.body); got != tt.want {
			t.Errorf("%v: %s, want %s", tt.body.GoString(), got, tt.want)
		}
	}
}
