# Builds, tests and installs libtlsresume. `make help` lists the targets.

CARGO            ?= cargo
CARGO_TARGET_DIR ?= target
INSTALL          ?= install

PREFIX     ?= /usr/local
LIBDIR     ?= $(PREFIX)/lib
INCLUDEDIR ?= $(PREFIX)/include
BINDIR     ?= $(PREFIX)/bin
MANDIR     ?= $(PREFIX)/share/man
DOCDIR     ?= $(PREFIX)/share/doc/libtlsresume
DESTDIR    ?=

# Cargo.toml is the one place that knows the version.
VERSION := $(shell sed -n 's/^version = "\(.*\)"$$/\1/p' Cargo.toml)
SONAME  := libtlsresume.so.$(firstword $(subst ., ,$(VERSION)))
RELEASE := $(CARGO_TARGET_DIR)/release
NGINX   := $(abspath $(CARGO_TARGET_DIR))/nginx

DOCS    := $(wildcard README.md CHANGELOG.md SECURITY.md LICENSE-* docs/*.md)
MAN     := $(wildcard man/*.[1-8])

# make splits at spaces, also what it removes.
ifneq ($(words x$(PREFIX)$(LIBDIR)$(INCLUDEDIR)$(BINDIR)$(MANDIR)$(DOCDIR)$(DESTDIR)),1)
$(error PREFIX, DESTDIR and the directories below must be without spaces)
endif

# $(call replace,FILE,COMMAND): the command makes $$new, which is then renamed to FILE. A program that has the old file
# mapped, or executes it, keeps it whole: written in place, it would die of SIGBUS or run half of each.
replace = new=$(1).new.$$$$; { $(2); } && mv -f $$new $(1) || { rm -f $$new; exit 1; }

# The API for Rust servers is built and tested with the rest.
ALL := --workspace --features tlsresume/openssl

# cargo has its own parallelism; targets named on one command line are meant in that order.
.NOTPARALLEL:
.PHONY: all library preload place-preload check-header header examples nginx-module servers-table deps demo test check bench simulation install uninstall \
	test-busy test-openssl test-cluster test-policies test-loom clean help

all: library preload check-header examples ## build library, programs and examples (the default)

# The library, and the programs of the workspace: tlsresumectl and the demo.
library:
	$(CARGO) build --release $(ALL)
	ln -sf libtlsresume.so $(RELEASE)/$(SONAME)

# A workspace of its own (preload/Cargo.toml says why). It serves programs that have the same libssl as the library.
preload: library
	TLSRESUME_LIBSSL=$$(readelf --dynamic --wide $(RELEASE)/libtlsresume.so \
		| sed -n 's/.*(NEEDED).*\[\(libssl[^]]*\)\]/\1/p') \
		$(CARGO) build --release --locked --manifest-path preload/Cargo.toml \
		--target-dir $(abspath $(CARGO_TARGET_DIR))/preload
	$(MAKE) --no-print-directory place-preload

# Puts what was built beside the library. By itself it builds nothing.
place-preload:
	$(call replace,$(RELEASE)/libtlsresume_preload.so,\
		cp $(CARGO_TARGET_DIR)/preload/release/libtlsresume_preload.so $$new)
	$(call replace,$(RELEASE)/with-tlsresume,\
		sed 's|@LIBDIR@|$(abspath $(RELEASE))|' preload/with-tlsresume.in > $$new && chmod 755 $$new)

# build.rs leaves the header in a directory that only cargo's messages name.
generated_header = $$($(CARGO) build --release $(ALL) --message-format=json 2>/dev/null \
	| sed -n -e '/"build-script-executed".*[/\#]tlsresume[@\#]/!d' \
		-e 's|.*"out_dir":"\([^"]*\)".*|\1/tlsresume.h|p')

check-header: library
	@cmp "$(generated_header)" include/tlsresume.h \
		|| { echo "include/tlsresume.h is not what src/ffi says: run make header" >&2; exit 1; }

header: library ## regenerate include/tlsresume.h from src/ffi
	$(call replace,include/tlsresume.h,cp "$(generated_header)" $$new)

# Always anew: their Makefile is for an installed header, and does not watch ours.
examples: library ## build the C examples into target/examples
	$(MAKE) --always-make -C examples OUT=$(abspath $(CARGO_TARGET_DIR))/examples \
		TLSRESUME='-I../include -L$(abspath $(RELEASE)) -ltlsresume' \
		LDFLAGS='-Wl,-rpath,$(abspath $(RELEASE))'

# Two builds: the one for trying finds the library where it was built, the one that is installed finds an installed one.
nginx-module: library ## build the nginx modules into target/nginx (needs nginx-dev)
	$(MAKE) -C examples/nginx OUT=$(NGINX) INC=$(abspath include) \
		LIBS='-L$(abspath $(RELEASE)) -Wl,-rpath,$(abspath $(RELEASE)) -ltlsresume'
	$(MAKE) -C examples/nginx OUT=$(NGINX)/install INC=$(abspath include) \
		LIBS='-L$(abspath $(RELEASE)) -ltlsresume'

servers-table: deps all ## measure docs/servers.md's table anew and write it
	TLSRESUME_UPDATE_DOCS=1 $(CARGO) test -p tlsresume-testkit --test real_servers

deps: ## install the Debian packages that are missing
	scripts/install-deps.sh

demo: deps all ## set up everything and show it at work
	$(RELEASE)/demo

check: ## formatting and lints
	$(CARGO) fmt --all --check
	$(CARGO) fmt --manifest-path preload/Cargo.toml --check
	$(CARGO) clippy $(ALL) --all-targets -- -D warnings
	TLSRESUME_LIBSSL=libssl.so $(CARGO) clippy --manifest-path preload/Cargo.toml \
		--target-dir $(abspath $(CARGO_TARGET_DIR))/preload -- -D warnings

test: deps all nginx-module check ## set up everything and run every test
	$(CARGO) test $(ALL) --no-fail-fast

test-busy: deps all nginx-module ## run every test beside busy processes, six for each processor (BUSY=N): over an hour
	scripts/test-busy.sh $(ALL)

bench: deps all nginx-module ## set up everything, run the benchmarks, write target/bench/results.md
	$(CC) -std=c99 -Wall -Wextra -Wpedantic -Werror -O2 -g -Iinclude \
		-o $(CARGO_TARGET_DIR)/examples/handshake benches/handshake.c examples/common.c \
		-L$(RELEASE) -Wl,-rpath,$(abspath $(RELEASE)) -ltlsresume -lssl -lcrypto
	$(CARGO) bench --features openssl --bench handshakes --bench store --bench throughput --bench nginx --bench stalls
	cd $(CARGO_TARGET_DIR)/bench && cat handshakes.md store.md throughput.md nginx.md stalls.md > results.md

simulation: ## let fleets of 10, 100 and 1,000 nodes share a ring for 6 hours (ARGS='--seeds 5 --hours 24 --json')
	$(CARGO) bench --features openssl --bench simulation -- $(ARGS)

test-openssl: deps ## build another OpenSSL and run the C tests with it (OPENSSL=1.1.1, 3.5 or 4.0; ten minutes the first time)
	scripts/test-openssl.sh $(OPENSSL)

test-cluster: deps all ## run the table of faults in depth, with the times of handshakes, a flood of invented session ids, and crowds that are looked up
	TLSRESUME_DEEP=1 $(CARGO) test -p tlsresume-testkit --test cluster -- --nocapture faults:: invented:: crowd::

test-policies: deps all ## run the matrix of policies in depth: every history, every kind, every place
	TLSRESUME_DEEP=1 $(CARGO) test --test policies -- --nocapture
	TLSRESUME_DEEP=1 $(CARGO) test -p tlsresume-testkit --test cluster -- --nocapture policies::

test-loom: ## let the model checker try every order of the store's atomic operations
	RUSTFLAGS="--cfg loom" $(CARGO) test --release --lib --target-dir $(CARGO_TARGET_DIR)/loom loom

$(RELEASE)/libtlsresume.so $(RELEASE)/libtlsresume_preload.so $(RELEASE)/tlsresumectl:
	@echo "$@ is missing: run make all first" >&2; exit 1

install: $(RELEASE)/libtlsresume.so $(RELEASE)/libtlsresume_preload.so $(RELEASE)/tlsresumectl ## install below PREFIX (DESTDIR, LIBDIR, INCLUDEDIR, BINDIR, MANDIR, DOCDIR)
	$(INSTALL) -d $(DESTDIR)$(LIBDIR)/pkgconfig $(DESTDIR)$(INCLUDEDIR) $(DESTDIR)$(DOCDIR) $(DESTDIR)$(BINDIR)
	$(call replace,$(DESTDIR)$(LIBDIR)/libtlsresume.so.$(VERSION),$(INSTALL) -m 755 $< $$new)
	ln -sf libtlsresume.so.$(VERSION) $(DESTDIR)$(LIBDIR)/$(SONAME)
	ln -sf $(SONAME) $(DESTDIR)$(LIBDIR)/libtlsresume.so
	$(call replace,$(DESTDIR)$(LIBDIR)/libtlsresume_preload.so,\
		$(INSTALL) -m 755 $(RELEASE)/libtlsresume_preload.so $$new)
	$(call replace,$(DESTDIR)$(BINDIR)/with-tlsresume,\
		sed 's|@LIBDIR@|$(LIBDIR)|' preload/with-tlsresume.in > $$new && chmod 755 $$new)
	$(call replace,$(DESTDIR)$(BINDIR)/tlsresumectl,$(INSTALL) -m 755 $(RELEASE)/tlsresumectl $$new)
	$(call replace,$(DESTDIR)$(INCLUDEDIR)/tlsresume.h,$(INSTALL) -m 644 include/tlsresume.h $$new)
	$(call replace,$(DESTDIR)$(LIBDIR)/pkgconfig/tlsresume.pc,\
		sed -e 's|@PREFIX@|$(PREFIX)|' -e 's|@LIBDIR@|$(LIBDIR)|' \
			-e 's|@INCLUDEDIR@|$(INCLUDEDIR)|' -e 's|@VERSION@|$(VERSION)|' \
			pkgconfig/tlsresume.pc.in > $$new && chmod 644 $$new)
	$(INSTALL) -m 644 $(DOCS) $(DESTDIR)$(DOCDIR)
	for page in $(MAN); do \
		$(INSTALL) -D -m 644 $$page $(DESTDIR)$(MANDIR)/man$${page##*.}/$${page##*/} || exit; \
	done
# Only if make nginx-module was run: not everybody has nginx.
	for module in $(wildcard $(NGINX)/install/*.so); do \
		$(call replace,$(DESTDIR)$(LIBDIR)/nginx/modules/$${module##*/},$(INSTALL) -D -m 644 $$module $$new); \
	done
# The loader finds a new library only through its cache; a staged tree is not on this system.
	$(if $(DESTDIR),,-ldconfig)

uninstall: ## remove what install put there
	rm -f $(addprefix $(DESTDIR)$(LIBDIR)/,libtlsresume.so $(SONAME) libtlsresume.so.$(VERSION) libtlsresume_preload.so)
	rm -f $(addprefix $(DESTDIR)$(BINDIR)/,with-tlsresume tlsresumectl)
	rm -f $(addprefix $(DESTDIR)$(LIBDIR)/nginx/modules/,ngx_http_tlsresume_module.so ngx_stream_tlsresume_module.so)
	rm -f $(DESTDIR)$(LIBDIR)/pkgconfig/tlsresume.pc $(DESTDIR)$(INCLUDEDIR)/tlsresume.h
	rm -f $(foreach page,$(notdir $(MAN)),$(DESTDIR)$(MANDIR)/man$(subst .,,$(suffix $(page)))/$(page))
	rm -rf $(DESTDIR)$(DOCDIR)
	$(if $(DESTDIR),,-ldconfig)

clean: ## remove everything that was built
	$(CARGO) clean

help: ## list the targets
	@sed -n 's/^\([a-z0-9.-]*\):.*## \(.*\)/  \1 \2/p' $(firstword $(MAKEFILE_LIST)) \
		| awk '{ name = $$1; $$1 = ""; printf "  %-20s%s\n", name, $$0 }'
