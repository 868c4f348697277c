# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# Nothing can be done against kill -9; what it leaves has no name that looks finished.
data 8M a.raw
echo old >b.qcow2
platter convert -r 1M -f raw -O qcow2 a.raw b.qcow2 &
sleep 1
{
    kill -9 $!
    wait $! || echo "exit code $?"
} 2>/dev/null # where bash says that it was killed
cat b.qcow2
left_here | sed '/^[.]/d'
