# The part of the demo that is about hosts: a real sshd as the target, and ssh and scp through the
# gateway. Sourced by deploy/demo, whose functions it uses.
# shellcheck shell=bash disable=SC2154

# The only account that an sshd of one's own can open is one's own.
host_login=$(id -un)

make_host_keys() {
    mkdir "$dir/host"
    ssh-keygen -q -t ed25519 -N '' -C demo-host -f "$dir/host/key"
}

# The `[[target]]` entry of the host.
host_target() {
    cat <<-CONF

		[[target]]
		name = "web-1"
		kind = "ssh"
		address = "127.0.0.1:$host_port"
		environment = "uat"
		domain = "bank-core"
		accesses = { deploy = "$host_login" }
		host_keys = ["$(cut -d ' ' -f 1,2 "$dir/host/key.pub")"]
	CONF
}

# What `sallyport target bootstrap ssh` makes of a host: it trusts the gateway's login authority.
start_host() {
    cp "$dir/node/ssh/login_ca.pub" "$dir/host/sallyport_ca.pub"
    cat >"$dir/host/config" <<-CONF
		Port $host_port
		ListenAddress 127.0.0.1
		HostKey $dir/host/key
		TrustedUserCAKeys $dir/host/sallyport_ca.pub
		AuthorizedKeysFile none
		PasswordAuthentication no
		KbdInteractiveAuthentication no
		PermitRootLogin yes
		UsePAM no
		StrictModes no
		PidFile none
		Subsystem sftp internal-sftp
	CONF
    # Privilege separation wants it, and only a system's own start makes it.
    [[ $(id -u) -ne 0 ]] || mkdir -p /run/sshd
    setsid /usr/sbin/sshd -D -e -f "$dir/host/config" </dev/null >"$dir/sshd.log" 2>&1 &
    host=$!
    wait_for "the host's sshd listens" 30 host_listens
}
host_listens() {
    kill -0 "$host" 2>/dev/null || fail "sshd ended: $(tail -n 5 "$dir/sshd.log")"
    (exec 3<>"/dev/tcp/127.0.0.1/$host_port") 2>/dev/null
}

# ssh takes its configuration from the home directory that the system knows, so it is named here.
ssh_config() { printf '%s' "$dir/people/$1/state/ssh/config"; }

tell_of_hosts() {
    local session request connection code shown
    tell "Hosts are reached in the same way, by the ssh that people have. The host trusts one authority of the gateway's and keeps no keys of people's."
    as alice sallyport config ssh
    must_succeed
    as alice ssh -F "$(ssh_config alice)" web-1 id -un
    must_end_with 77
    must_show 'sallyport request web-1 deploy'
    as alice sallyport request web-1 deploy --for 20m --reason 'CHG-12: new certificate'
    must_succeed
    request=$(id_shown req)
    as bob sallyport approve "$request"
    must_succeed
    session=$(id_shown ses)
    as alice ssh -F "$(ssh_config alice)" web-1 'echo "on the host as $(id -un)"; exit 3'
    must_end_with 3
    must_show "on the host as $host_login"
    printf 'the new certificate\n' >"$dir/people/alice/certificate.pem"
    as alice scp -q -F "$(ssh_config alice)" "$dir/people/alice/certificate.pem" "web-1:$dir/host/certificate.pem"
    must_succeed
    [[ $(<"$dir/host/certificate.pem") == 'the new certificate' ]] || fail "step $step: the file did not arrive"

    tell "She works in a shell. Bob revokes the session: the shell is told why, and what ran on the host is gone."
    printf '\nalice$ ssh web-1 &\n'
    (run_as alice exec ssh -tt -F "$(ssh_config alice)" web-1) >"$dir/shell.log" 2>&1 \
        < <(printf 'echo working; sleep 987654\n'; exec sleep 600) &
    sleeper=$!
    at_work() { pgrep -f 'sleep 987654' >/dev/null; }
    wait_for "the shell is at work" 30 at_work
    as bob sallyport revoke "$session" --why 'change window closed'
    must_succeed
    code=0
    wait "$sleeper" || code=$?
    sleeper=
    printf '\nalice'\''s shell, meanwhile:\n'
    shown=$(tr -d '\r' <"$dir/shell.log")
    printf '%s\n' "$shown" | tail -n 4 | indented
    must_fail
    must_show 'your session was revoked by bob: change window closed'
    wait_for "what ran on the host is gone" 10 is_gone
    connection=$(run_as dora sallyport connections --all --json | grep -oE 'con-[0-9a-z]+' | sort -u |
        while read -r id; do
            if run_as dora sallyport replay "$id" </dev/null 2>/dev/null | grep -q 'sleep 987654'; then say "$id"; fi
        done)
    as dora sallyport replay "$connection"
    must_succeed
    must_show 'sleep 987654'
}
is_gone() { ! pgrep -f 'sleep 987654' >/dev/null; }
