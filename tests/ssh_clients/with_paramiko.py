"""What paramiko can do: HOST PORT USER KEY CERTIFICATE DIRECTORY. Says what it saw."""

import hashlib
import os
import socket
import sys
import threading

import paramiko

host, port, user, key, certificate, directory = sys.argv[1:]
pkey = paramiko.Ed25519Key.from_private_key_file(key)
if certificate:
    pkey.load_certificate(certificate)
client = paramiko.SSHClient()
client.set_missing_host_key_policy(paramiko.MissingHostKeyPolicy())
client.connect(host, int(port), user, pkey=pkey, allow_agent=False, look_for_keys=False)


def run(line, given=b""):
    stdin, stdout, stderr = client.exec_command(line)
    stdin.write(given)
    stdin.channel.shutdown_write()
    out, err = stdout.read(), stderr.read()
    return stdout.channel.recv_exit_status(), hashlib.sha256(out).hexdigest(), err


everything = bytes(range(256)) * 4000
print("exec", run("echo out; echo err >&2; exit 7"))
print("bytes", run("cat; echo done", everything))
print("signal", run("kill -TERM $$"))

channel = client.get_transport().open_session()
channel.get_pty("vt100", 90, 30)
channel.exec_command("stty size; read -r x; stty size; echo $TERM $x")
seen = channel.recv(100)
channel.resize_pty(91, 31)
channel.sendall(b"typed\n")
while more := channel.recv(1000):
    seen += more
print("terminal", seen, channel.recv_exit_status())

sftp = client.open_sftp()
there = os.path.join(directory, "there")
sftp.put(os.path.join(directory, "local"), there)
sftp.get(there, os.path.join(directory, "back"))
with open(os.path.join(directory, "back"), "rb") as back:
    print("sftp", hashlib.sha256(back.read()).hexdigest(), sftp.stat(there).st_size)
sftp.rename(there, there + ".moved")
print("listed", [name for name in sorted(sftp.listdir(directory)) if name.startswith("there")])
sftp.remove(there + ".moved")
try:
    sftp.stat(there)
except FileNotFoundError:
    print("gone")

server = socket.create_server(("127.0.0.1", 0))


def answer():
    peer, _ = server.accept()
    peer.sendall(peer.recv(100).upper())
    peer.close()


thread = threading.Thread(target=answer)
thread.start()
forward = client.get_transport().open_channel("direct-tcpip", server.getsockname(), ("127.0.0.1", 1))
forward.sendall(b"forwarded")
print("forward", forward.recv(100))
thread.join()
print("rekey", client.get_transport().renegotiate_keys(), run("echo after"))
client.close()
