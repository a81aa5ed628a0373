# The developer's short list. The work is in `cargo xtask`; see `cargo xtask help`.

# Format, clippy, docs, licenses, advisories
lint:
    cargo xtask lint

# Every test; installs what they need
test:
    cargo xtask test

# What CI runs
ci:
    cargo xtask ci

# Set up, build, fetch models, serve
run *arguments:
    cargo xtask run {{arguments}}

# Set up, build with microphone and loudspeaker, talk to a running server
talk *arguments:
    cargo xtask talk {{arguments}}

# Measure
bench *arguments:
    cargo xtask bench {{arguments}}
