#!/bin/bash
# Every check of the project. A person runs what CI runs:
#
#   ./check.sh quick        before a commit: format, vet, tests of changed packages
#   ./check.sh              before a push: everything below, in this order
#   ./check.sh NAME...      single checks: format vet staticcheck licences
#                           cross race interop fuzz
#
# FUZZTIME sets how long each fuzz target runs (default 30000x: so many inputs).
set -euo pipefail
cd "$(dirname "$0")"

title() { printf '\n== %s\n' "$*"; }

# modules lists the folders of all Go modules, the product first.
modules() { echo .; find . -mindepth 2 -name go.mod -not -path '*/testdata/*' -printf '%h\n' | sort; }

check_format() {
	title "format"
	local files
	files=$(git ls-files -co --exclude-standard '*.go' | xargs -r gofmt -l)
	if [ -n "$files" ]; then
		printf 'not formatted; run gofmt -w on:\n%s\n' "$files" >&2
		return 1
	fi
}

check_vet() {
	local m
	for m in $(modules); do
		[ "$m" = ./tools ] && continue # only a list of tools
		title "go vet $m"
		(cd "$m" && go vet ./...)
	done
}

check_staticcheck() {
	local bin m
	bin=$(mktemp -d)
	title "staticcheck"
	(cd tools && go build -o "$bin/staticcheck" honnef.co/go/tools/cmd/staticcheck)
	for m in $(modules); do
		[ "$m" = ./tools ] && continue
		(cd "$m" && "$bin/staticcheck" ./...)
	done
	rm -rf "$bin"
}

# The licence of every module the command links is written down, and no other.
check_licences() {
	title "licences"
	local bin
	bin=$(mktemp -d)
	go build -o "$bin/tsnode" ./cmd/tsnode
	go version -m "$bin/tsnode" | awk '$1 == "dep" { print $2 }' | sort >"$bin/linked"
	sed -n 's/^| `\([^`]*\)` |.*/\1/p' doc/LICENCES.md | sort >"$bin/listed"
	if ! diff "$bin/listed" "$bin/linked"; then
		echo 'doc/LICENCES.md (<) and the modules linked into the command (>) differ' >&2
		return 1
	fi
	rm -rf "$bin"
}

check_cross() {
	local target
	for target in linux/arm64 darwin/arm64 windows/amd64 freebsd/amd64; do
		title "build and vet $target"
		CGO_ENABLED=0 GOOS=${target%/*} GOARCH=${target#*/} go build ./...
		CGO_ENABLED=0 GOOS=${target%/*} GOARCH=${target#*/} go vet ./...
	done
}

check_race() {
	title "race detector"
	go test -race -count=1 ./...
}

check_interop() {
	title "interop: real peers on the other side"
	(cd interop && go test -count=1 ./...)
}

# fuzz_targets prints "package target" for each fuzz target of the product.
fuzz_targets() {
	grep -rHo --include='*_test.go' '^func Fuzz[A-Za-z0-9_]*' . |
		grep -v '^./\(interop\|bench\|tools\)/' |
		sed 's#^\(.*\)/[^/]*\.go:func \(.*\)#\1 \2#' | sort
}

# A number of inputs rather than a time: a target that -fuzztime stops by the
# clock fails at times without having found anything, the more so on a loaded
# machine (https://go.dev/issue/75804, there before Go 1.27).
check_fuzz() {
	local pkg target
	fuzz_targets | while read -r pkg target; do
		title "fuzz $pkg $target"
		go test "$pkg" -run='^$' -fuzz="^$target\$" -fuzztime="${FUZZTIME:-30000x}" -fuzzminimizetime=1x </dev/null
	done
}

check_quick() {
	check_format
	title "go vet"
	go vet ./...
	local dirs
	dirs=$(git status --porcelain --untracked-files=all -- '*.go' | awk '{ print $NF }' |
		grep -v '^\(interop\|bench\|tools\)/' | xargs -r -n1 dirname | sort -u | sed 's#^#./#')
	title "tests of changed packages"
	if [ -z "$dirs" ]; then
		echo 'nothing has changed since the last commit'
	else
		# shellcheck disable=SC2086 # one argument for each package
		go test $dirs
	fi
}

if [ $# -eq 0 ]; then
	set -- format vet staticcheck licences cross race interop fuzz
fi
for name; do
	if ! declare -F "check_$name" >/dev/null; then
		echo "check.sh: no check named '$name'; the head of this file lists them" >&2
		exit 2
	fi
	"check_$name"
done
title "all checks passed"
