# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# What the cases share. Read by every bash of a case.

# Runs qemu-img and platter with the same arguments: standard output and exit code must be the same,
# and who fails must say why.
same() {
    local theirs=0 ours=0
    qemu-img "$@" >.theirs 2>.theirs.err || theirs=$?
    platter "$@" >.ours 2>.ours.err || ours=$?
    if [ $theirs -ne $ours ]; then
        echo "DIFFERENT exit code: $theirs, ours $ours: $*"
        cat .theirs.err .ours.err
    elif ! diff .theirs .ours >.diff; then
        echo "DIFFERENT output: $*"
        cat .diff
    elif [ $ours -ne 0 ] && [ ! -s .ours ] && [ ! -s .ours.err ] && [[ " $* " != *' -q '* ]]; then
        echo "SILENT failure: $*"
    else
        echo "same ($ours): $*"
    fi
    rm -f .theirs .theirs.err .ours .ours.err .diff
}

# Runs a command that is to fail, and tells its code.
code_of() {
    local code=0
    "$@" || code=$?
    echo "exit code $code"
}

# count [grep's options] PATTERN: how many lines of the input match. None is a count; what fails before
# it in the pipe, or grep itself, fails the case.
count() {
    grep -c "$@" || [ $? = 1 ]
}

# repeated SIZE LINE: the line again and again, so many bytes.
repeated() {
    (yes "$2" || true) | head -c "$1"
}

# What is in the directory, hidden files as well.
left_here() {
    find . -mindepth 1 -printf '%P\n' | sort
}

# data SIZE FILE [SEED]: bytes that do not compress and are the same in every run. They are made once for
# all cases of a folder.
data() {
    local made="$KEPT/$1-${3:-1}"
    [ -e "$made" ] || python3 -c 'import random, sys
sys.stdout.buffer.write(random.Random(int(sys.argv[2])).randbytes(int(sys.argv[1])))' \
        "$(numfmt --from=iec "$1")" "${3:-1}" >"$made"
    cat "$made" >"$2"
}

# put OFFSET TEXT FILE: overwrites bytes.
put() {
    printf "%b" "$2" | dd of="$3" bs=1 seek="$1" conv=notrunc status=none
}

# archive FILE [-c NAME=TEXT]... [-s SEED] [-x N]... [-t N]... [-p SLOTS] [[ID:]NAME=RAW]...: a VMA
# archive of these disks, by the tests' own writer; -s shuffles its clusters, -x leaves one out, -t has
# one twice.
archive() {
    PYTHONDONTWRITEBYTECODE=1 python3 "${BASH_ENV%/*}/make_archive.py" "$@"
}

# three_disks: a.raw with holes, whose size is no multiple of a cluster, b.raw of zeros, c.raw full.
three_disks() {
    data 300K a.raw 1
    truncate -s 700K a.raw
    data 100K end 2
    dd if=end of=a.raw bs=1K seek=650 conv=notrunc status=none
    truncate -s 740K a.raw
    truncate -s 256K b.raw
    data 528K c.raw 3
    rm end
}
