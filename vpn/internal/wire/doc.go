// Package wire is ../../vpn.proto as Go. Nothing here is written by hand but
// this file; generating needs protoc.
package wire

//go:generate go -C ../../../tools build -o ../vpn/internal/wire/protoc-gen-go google.golang.org/protobuf/cmd/protoc-gen-go
//go:generate protoc --plugin=./protoc-gen-go -I ../.. --go_out=. --go_opt=paths=source_relative vpn.proto
//go:generate rm protoc-gen-go
