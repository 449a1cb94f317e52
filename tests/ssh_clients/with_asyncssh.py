"""What asyncssh can do: HOST PORT USER KEY CERTIFICATE DIRECTORY. Says what it saw."""

import asyncio
import hashlib
import os
import sys

import asyncssh

host, port, user, key, certificate, directory = sys.argv[1:]


async def answer(reader, writer):
    writer.write((await reader.read(100)).upper())
    writer.write_eof()


async def main():
    keys = [(key, certificate)] if certificate else [key]
    options = {"username": user, "client_keys": keys, "known_hosts": None, "agent_path": None, "config": None}
    async with asyncssh.connect(host, int(port), **options) as connection:
        done = await connection.run("echo out; echo err >&2; exit 7")
        print("exec", done.exit_status, done.exit_signal, done.stdout, done.stderr)
        for name in ["TERM", "KILL", "USR1", "SEGV", "XCPU"]:
            done = await connection.run(f"ulimit -c 0; kill -{name} $$")
            print("signal", name, done.exit_status, done.exit_signal)
        # Whether a signal reaches the program is up to the host; what comes after it does in any case.
        for name in ["TERM", "INT", "USR1"]:
            process = await connection.create_process("trap '' TERM INT USR1; echo ready; read -r x; echo got $x")
            assert await process.stdout.readline() == "ready\n"
            process.send_signal(name)
            process.stdin.write("after\n")
            print("sent", name, await process.stdout.read(), (await process.wait()).exit_status)
        everything = bytes(range(256)) * 4000
        done = await connection.run("cat; echo done", input=everything, encoding=None)
        print("bytes", done.stdout == everything + b"done\n")

        many = await asyncio.gather(*[connection.run(f"echo {n}; exit {n}") for n in range(20)])
        print("many", [(done.stdout, done.exit_status) for done in many])

        process = await connection.create_process(
            "stty size; read -r x; stty size; echo $TERM $LC_MARK $x",
            term_type="vt100", term_size=(90, 30), env={"LC_MARK": "marked", "FOO": "no"},
        )
        seen = await process.stdout.readline()
        process.change_terminal_size(91, 31)
        process.stdin.write("typed\n")
        print("terminal", seen + await process.stdout.read(), (await process.wait()).exit_status)

        async with connection.start_sftp_client() as sftp:
            there = os.path.join(directory, "there")
            await sftp.put(os.path.join(directory, "local"), there)
            await sftp.get(there, os.path.join(directory, "back"))
            with open(os.path.join(directory, "back"), "rb") as back:
                print("sftp", sftp.version, hashlib.sha256(back.read()).hexdigest())
            await sftp.remove(there)
            print("gone", not await sftp.exists(there))

        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        local = server.sockets[0].getsockname()[1]
        reader, writer = await connection.open_connection("127.0.0.1", local)
        writer.write(b"forwarded")
        writer.write_eof()
        print("forward", await reader.read())

        listener = await connection.forward_remote_port("127.0.0.1", 0, "127.0.0.1", local)
        reader, writer = await asyncio.open_connection("127.0.0.1", listener.get_port())
        writer.write(b"backward")
        writer.write_eof()
        print("listened", await reader.read())
        writer.close()
        listener.close()
        await listener.wait_closed()
        server.close()
        try:
            await connection.open_connection("127.0.0.1", local)
        except asyncssh.ChannelOpenError as refused:
            print("nobody there", refused.code)


asyncio.run(main())
