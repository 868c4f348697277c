# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# Keys that are typed: not shown, new ones twice, three tries; and who interrupts gets the terminal back as it was.
cat >at_terminal.py <<'EOF'
import fcntl, os, pty, re, select, subprocess, sys, termios

def echoes():
    return bool(termios.tcgetattr(slave)[3] & termios.ECHO)

def seen(pattern):
    """Waits for some output; what came before it as well."""
    global output
    while not (match := re.search(pattern, output)):
        if not select.select([master], [], [], 60)[0]:
            sys.exit(f"never came: {pattern}, but {output!r}")
        output += os.read(master, 4096).decode()
    text, output = output[:match.end()], output[match.end():]
    return text

master, slave = pty.openpty()
output = ""
program = subprocess.Popen(["platter", *sys.argv[1].split()], stdin=slave, stdout=slave, stderr=slave,
                           start_new_session=True,
                           preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0))
for answer in sys.argv[2:]:
    text = seen(r" of \w+\.luks: ")
    print(text.replace("\r\n", "|"), "shown" if echoes() else "hidden")
    os.write(master, answer.encode().decode("unicode_escape").encode())
code = program.wait(60)
os.write(slave, b"EOF!")
text = seen("EOF!")[:-4]
print(text.replace("\r\n", "|"), "code", code, "and then", "shown" if echoes() else "hidden")
EOF
typed() { python3 at_terminal.py "$@"; }
typed 'create -q -f luks -o iter-time=1 a.luks 1M' 'first\n' 'first\n'
typed 'create -q -f luks -o iter-time=1 b.luks 1M' 'first\n' 'second\n'
typed 'create -q -f luks -o iter-time=1 b.luks 1M' '\n'
typed 'bench -q -c 1 a.luks' 'wrong\n' 'first\n'
typed 'bench -q -c 1 a.luks' 'wrong\n' '\x1a' 'first \n' 'first\n'
typed 'bench -q -c 1 a.luks' 'fir\x03'
typed 'compare a.luks a.luks' '\x03'
typed 'bench -q -c 1 a.luks' '\x04'
typed 'key change --iter-time 1 a.luks' 'first\n' 'second\n' 'second\n'
typed 'key remove --slot 1 a.luks' 'first\n' 'second\n'
printf wrong >wrong.key
typed 'bench -q -c 1 --key-file wrong.key a.luks'
left_here
