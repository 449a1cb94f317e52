# `just` lists these. Each is a command that can as well be typed.

# List the recipes
default:
    @just --list --unsorted

# Everything that continuous integration checks
check: fmt-check lint doc deny
    deploy/test

# All tests, with the controls that they need
test *arguments:
    cargo test --features testing {{ arguments }}

# Play the story against a real PostgreSQL; `just demo --keep` leaves it running
demo *arguments:
    deploy/demo {{ arguments }}

# Format
fmt:
    cargo fmt --all

[private]
fmt-check:
    cargo fmt --all --check

# Lints, warnings are errors
lint:
    cargo clippy --locked --all-targets --all-features -- -D warnings

# Documentation, warnings are errors
doc:
    RUSTDOCFLAGS='-D warnings -A rustdoc::private_intra_doc_links' cargo doc --locked --no-deps --document-private-items

# Licences, banned crates, sources
deny:
    cargo deny check bans licenses sources

# Known vulnerabilities; needs a network
advisories:
    cargo deny check advisories

# Benchmarks
bench *arguments:
    cargo bench {{ arguments }}

# Fuzz one parser for a minute; needs nightly and cargo-fuzz
fuzz target seconds="60":
    cd fuzz && cargo +nightly fuzz run {{ target }} -- -max_total_time={{ seconds }}
