# Sourced by run and test: makes sure that what builds and runs Hookmill is there, or says what to type. With with_libraries=1 also
# what the providers' own libraries need, which the tests sign with.

# Debian packages: a C compiler and make for librdkafka and ring, headers for its TLS and compression, a JDK and Maven for
# Kafka and Postgres, xz for the latter's archive; valgrind for the test that counts instructions.
# No cmake: librdkafka is built by its own configure and make.
packages=()

need() { # need COMMAND PACKAGE...
    command -v "$1" >/dev/null 2>&1 || packages+=("${@:2}")
}

java_version() {
    java -version 2>&1 | sed -n 's/.*version "\([0-9]*\).*/\1/p' | head -n 1
}

need cc gcc libc6-dev
need c++ g++
need make make
need pkg-config pkg-config
need tar tar
need xz xz-utils
need curl curl ca-certificates
need mvn maven
if [ "${with_libraries:-}" = 1 ]; then
    need node nodejs
    need npm npm
    need python3 python3
    python3 -c 'import ensurepip, venv' 2>/dev/null || packages+=(python3-venv)
fi
if [ "$(uname -sm)" = "Linux x86_64" ]; then
    need valgrind valgrind libc6-dbg
fi
if ! command -v jar >/dev/null 2>&1 || [ "$(java_version || echo 0)" -lt 17 ] 2>/dev/null; then
    packages+=(default-jdk-headless)
fi
if command -v pkg-config >/dev/null 2>&1; then
    pkg-config --exists openssl 2>/dev/null || packages+=(libssl-dev)
    pkg-config --exists zlib 2>/dev/null || packages+=(zlib1g-dev)
else
    packages+=(libssl-dev zlib1g-dev)
fi

if [ ${#packages[@]} -gt 0 ]; then
    if [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null 2>&1; then
        echo "installing ${packages[*]} …"
        export DEBIAN_FRONTEND=noninteractive
        apt-get update -qq
        apt-get install -y -qq --no-install-recommends "${packages[@]}" >/dev/null
    elif command -v apt-get >/dev/null 2>&1; then
        echo "missing: type  sudo apt-get install ${packages[*]}" >&2
        exit 1
    elif command -v brew >/dev/null 2>&1; then
        echo "missing: type  brew install openjdk maven pkg-config openssl@3 xz node python" >&2
        exit 1
    else
        echo "missing (names of Debian's packages): ${packages[*]}; install them with your system's package manager" >&2
        exit 1
    fi
fi
if [ "$(java_version || echo 0)" -lt 17 ] 2>/dev/null; then
    echo "Kafka needs Java 17 or later, and $(command -v java) is $(java_version): install a newer JDK and put it first in PATH" >&2
    exit 1
fi

# Rust: what Cargo.toml asks for as rust-version.
wanted_rust=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$root/Cargo.toml")
if ! command -v cargo >/dev/null 2>&1 && [ -x "$HOME/.cargo/bin/cargo" ]; then
    PATH="$HOME/.cargo/bin:$PATH"
fi
if ! command -v cargo >/dev/null 2>&1; then
    if [ "$(id -u)" -eq 0 ]; then
        echo "installing Rust …"
        curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y --quiet --profile minimal -c rustfmt -c clippy
        PATH="$HOME/.cargo/bin:$PATH"
    else
        echo "missing Rust: type  curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh" >&2
        exit 1
    fi
fi
have_rust=$(rustc --version | sed 's/rustc \([0-9.]*\).*/\1/')
if [ "$(printf '%s\n' "$wanted_rust" "$have_rust" | sort -V | head -n 1)" != "$wanted_rust" ]; then
    echo "Rust $have_rust is too old, $wanted_rust is needed: type  rustup update stable" >&2
    exit 1
fi
