// Programs that measure the product. The product never depends on this module.
module github.com/seed94491740/tsnode/bench

go 1.26.3

replace (
	github.com/seed94491740/tsnode => ../
	github.com/seed94491740/tsnode/bench/load => ./load
)

require (
	github.com/seed94491740/tsnode v0.0.0-00010101000000-000000000000
	github.com/seed94491740/tsnode/bench/load v0.0.0-00010101000000-000000000000
	golang.org/x/crypto v0.58.0
	golang.org/x/sys v0.49.0
)

require (
	github.com/coder/websocket v1.8.15 // indirect
	github.com/gaissmai/bart v0.30.0 // indirect
	github.com/google/btree v1.1.2 // indirect
	github.com/klauspost/compress v1.20.3 // indirect
	github.com/pires/go-proxyproto v0.15.0 // indirect
	github.com/tailscale/hujson v0.0.0-20260727124030-b80ff77dac4f // indirect
	golang.org/x/exp v0.0.0-20250711185948-6ae5c78190dc // indirect
	golang.org/x/net v0.62.0 // indirect
	golang.org/x/time v0.16.0 // indirect
	golang.zx2c4.com/wireguard v0.0.0-20260522210424-ecfc5a8d5446 // indirect
	gvisor.dev/gvisor v0.0.0-20260905035102-160fafc42237 // indirect
)
