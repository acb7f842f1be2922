# Every command of this house. `just` alone lists them.

_list:
    @just --list --unsorted

# Runs three regions on this machine; `just up --site DIR` publishes DIR at once.
up *ARGS:
    cargo run --release -- up {{ARGS}}

# Passes the tests.
test *ARGS:
    cargo test --workspace {{ARGS}}

# What CI runs: formatting, lints, documentation, all tests.
check:
    .ci/run

# Formats everything.
fmt:
    cargo fmt --all

# Licences, bans and sources by cargo-deny; the same file is checked by a test.
deny:
    cargo deny check licenses bans sources

# The figures of SPECIFICATION.md, measured on this machine.
bench *ARGS:
    cargo run --release -p atoll-bench -- {{ARGS}}

# Lives through so many worlds of the simulation (tests/simulation); CI takes 10,000.
simulate SEEDS="1000000":
    ATOLL_SEEDS={{SEEDS}} cargo test --release -p atoll-tests --test simulation -- --nocapture

# Tells the history of one world, with a mistake made in it where one is named.
world SEED MISTAKE="":
    ATOLL_SEED={{SEED}} ATOLL_MISTAKE={{MISTAKE}} cargo test -p atoll-tests --test simulation one_seed -- --nocapture

# Breaks real processes while purges run, and prints what held (docs/drills.md); `--short` takes five minutes.
drills *ARGS:
    cargo run --release -p atoll-bench -- drills {{ARGS}}

# Feeds a fuzz target (see fuzz/Cargo.toml) with inputs for a while; needs nightly and cargo-fuzz.
fuzz TARGET SECONDS="60":
    cargo +nightly fuzz run {{TARGET}} -- -max_total_time={{SECONDS}}
