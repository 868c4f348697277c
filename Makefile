# SPDX-License-Identifier: MIT
#
# The front door: each target does its own set-up, from a fresh clone on a bare Debian 12. The build
# itself is meson's; the directories it works in stand below build/.

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-servers quick bench fuzz tsan fmt lint man install deb clean

PREFIX       ?= /usr/local
FUZZ_SECONDS ?= 60
BENCH        ?=
SANITIZE     := -Dc_args=-fno-sanitize-recover=all -Db_lundef=false

help: ## list what there is
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1 \2/p' Makefile | \
	    while read -r name what; do printf '  make %-13s %s\n' "$$name" "$$what"; done

setup: ## install the Debian packages that are missing
	@tools/setup

demo: build/release/build.ninja ## take a real disk through every format and back, and prove it equal
	@tools/build release
	@tools/demo build/release/cli/platter

test: build/test/build.ninja ## build with sanitizers and run all other tests
	@tools/test build/test --no-suite servers

test-servers: build/test/build.ninja ## run the tests of a real Ceph and its S3 gateway, which are started for it
	@tools/setup $$(cat tests/servers/packages.txt)
	@tools/build test
	@tests/servers/with-ceph tools/test build/test --suite servers

quick: build/test/build.ninja ## the unit tests alone
	@tools/test build/test --suite unit

bench: build/release/build.ninja ## measure against qemu-img; writes bench/RESULTS.md (BENCH='--rows ... --runs N')
	@tools/setup $$(cat tests/servers/packages.txt)
	@tools/build release
	@bench/run $(BENCH)

fuzz: build/fuzz/build.ninja ## run each fuzz target for FUZZ_SECONDS (60)
	@tools/build fuzz
	@tools/fuzz build/fuzz $(FUZZ_SECONDS)

tsan: build/tsan/build.ninja ## run the threaded tests under ThreadSanitizer
	@tools/test build/tsan --suite unit --suite model

fmt: setup ## lay out all C sources with clang-format
	@tools/sources | xargs clang-format -i

lint: build/lint-gcc/build.ninja build/lint-clang/build.ninja ## layout, layers, lengths, and both compilers' warnings as errors
	@tools/lint
	@tools/build lint-gcc
	@tools/build lint-clang
	@echo 'lint: clean'

man: build/release/build.ninja ## build the man pages
	@tools/build release
	@find build/release -name '*.1' | sort

install: build/release/build.ninja ## install into PREFIX (/usr/local); DESTDIR is honoured
	@meson configure build/release -Dprefix=$(PREFIX)
	@tools/build release
	@meson install -C build/release --no-rebuild
	@if [ -z '$(DESTDIR)' ] && [ "$$(id -u)" = 0 ]; then ldconfig; fi

deb: build/deb/build.ninja ## make a Debian package
	@tools/setup dpkg-dev
	@tools/build deb
	@tools/deb build/deb

clean: ## remove everything that was built, and the disks of bench
	@rm -rf build bench/work

# What each build directory is for. A sanitizer's finding ends the program.
build/release/build.ninja:    OPTIONS = --buildtype=release -Dtests=false --prefix=$(PREFIX)
build/deb/build.ninja:        OPTIONS = --buildtype=release -Dtests=false --prefix=/usr
build/test/build.ninja:       OPTIONS = -Db_sanitize=address,undefined $(SANITIZE)
build/tsan/build.ninja:       OPTIONS = -Db_sanitize=thread $(SANITIZE)
build/fuzz/build.ninja:       OPTIONS = -Db_sanitize=address,undefined $(SANITIZE) -Dfuzz=true
build/fuzz/build.ninja:       COMPILER = clang
build/lint-gcc/build.ninja:   OPTIONS = --werror --buildtype=release
# clang's warnings are the same without its optimizer; some of gcc's need it.
build/lint-clang/build.ninja: OPTIONS = --werror --buildtype=plain
build/lint-clang/build.ninja: COMPILER = clang
COMPILER = $(if $(filter default,$(origin CC)),gcc,$(CC))

build/%/build.ninja: Makefile | setup
	@mkdir -p build
	@CC='$(COMPILER)' meson setup $(if $(wildcard $@),--reconfigure) build/$* $(OPTIONS) \
	    > build/$*.log 2>&1 || { cat build/$*.log; exit 1; }
	@touch $@
