# The commands of the project; `make ci` is exactly what continuous integration runs.

.PHONY: run test zones scenarios bench bench-live suites fuzz soak soak-brief pair powercut powercut-brief balanced simulate simulate-brief ci lint tools

# Builds, starts the service on the embedded store with CSV files, and says where to post.
run:
	cargo run --release --locked -- serve

# All tests, against real servers they start themselves on free ports. Most of them wait for those, so more
# run at once than there are cores.
test: tools
	RUST_TEST_THREADS=$${RUST_TEST_THREADS:-4} cargo test --locked

# Every day of every time zone from 2020 to 2030; `make test` looks at those around changes of clocks.
zones:
	cargo test --locked --lib -- --ignored every_day_of_every_zone

# The stories of tests/scenarios/README.md, told while they run; N=4 plays one. `make test` plays them too.
scenarios: tools
	cargo test --locked --test it -- --nocapture --test-threads 1 scenarios::$(if $(N),s$(N)_)

# The figures of docs/benchmarks.md, in CPU seconds: some minutes, best on an idle machine.
bench: tools
	cargo bench --locked --bench core
	cargo bench --locked --bench service

# Live clients by the thousand, beside the Socket.IO server of its authors, which npm fetches: some ten minutes, with
# two cores for itself. HOLD=300 holds tens of thousands of connections for so many seconds.
HOLD ?= 60
bench-live: tools
	cargo bench --locked --bench live -- --hold $(HOLD) $(if $(ONLY),--only $(ONLY))

# What takes minutes and tools of its own: the API against its own description.
suites:
	@scripts/tools python3
	cargo build --locked
	scripts/schemathesis target/debug/meanwhile

# Arbitrary input for every decoder, for so many seconds; `make test` looks for two or three of them.
SECONDS ?= 600
fuzz:
	cargo test --locked --lib --test it --no-run
	end=$$(($$(date +%s) + $(SECONDS))); while [ $$(date +%s) -lt $$end ]; do \
	    PROPTEST_CASES=5000 cargo test --locked --quiet --lib --test it fuzz:: || exit 1; done

# Kills everything for so many seconds in each world, two worlds at a time, and counts; SEED=7 draws the same faults
# again, ONLY=embedded,redis-replica chooses worlds. docs/reliability.md has its tables.
soak: tools
	cargo test --locked --test soak -- --seconds $(SECONDS) $(if $(SEED),--seed $(SEED)) $(if $(ONLY),--only $(ONLY))

# So many readings shuffled over three instances that are killed so often each, against one quiet instance.
READINGS ?= 1000000
KILLS ?= 20
pair: tools
	cargo test --locked --test soak -- pair --readings $(READINGS) --kills $(KILLS) $(if $(SEED),--seed $(SEED))

# A little of both for every change, the first in four worlds at once: about three minutes with the closing of everything.
soak-brief: tools
	cargo test --locked --test soak -- --seconds 40 --at-once 4 \
	    --only embedded,redis-always,redis-everysec,redis-replica
	cargo test --locked --test soak -- pair --readings 50000 --kills 2

# Cuts the power so often, as far as a disk notices. Needs root and loop devices, and says so where they are missing.
ROUNDS ?= 300
powercut: tools
	cargo test --locked --test soak -- --power-cuts $(ROUNDS) $(if $(SEED),--seed $(SEED))

# A few of them for every change.
powercut-brief: tools
	cargo test --locked --test soak -- --power-cuts 5

# Kills one of three instances behind HAProxy, then behind nginx, under 1,000 clients and 2,000 posts a second, and
# compares the books of all of them: the figures of docs/deployment.md.
balanced: tools
	cargo test --locked --test it -- --ignored --nocapture proxies::dying::an_instance_is_killed_under_a_thousand

# Random schedules of the protocol without I/O, 1,000,000 in some ten minutes; SEED=7 plays the same ones again.
SCHEDULES ?= 1000000
simulate:
	cargo test --release --locked --test simulator -- --schedules $(SCHEDULES) $(if $(SEED),--seed $(SEED))

# Some of them for every change: half a minute.
simulate-brief:
	cargo test --locked --test simulator -- --schedules 20000 --threads 2

ci: test soak-brief powercut-brief simulate-brief lint

lint:
	cargo fmt --check
	cargo clippy --locked --all-targets --test soak --test simulator -- --deny warnings
	RUSTDOCFLAGS="--deny warnings" cargo doc --locked --no-deps --lib
	scripts/dependencies

# What the tests need besides the toolchain.
tools:
	@scripts/tools redis-server postgres chromium systemd-analyze python3 curl cc node npm nginx haproxy stunnel openssl
