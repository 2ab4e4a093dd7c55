# Starts machines and runs scripts on them: lab.sh DIR NAME:HOLDER...
#
# Runs in mount and process namespaces of its own; each machine gets a mount namespace more, and the
# network namespace of the process HOLDER. Reads lines "MACHINE" from standard input, runs
# DIR/lab/step there with its output in DIR/lab/said, and prints the exit code.
set -e
dir=$1
shift
mount --make-rprivate /
mkdir "$dir/disk" "$dir/net"
mount -t tmpfs -o mode=755 none "$dir/disk"
for pair in "$@"; do
    : >"$dir/net/${pair%%:*}"
    mount --bind "/proc/${pair#*:}/ns/net" "$dir/net/${pair%%:*}"
done
mount -t proc proc /proc
for pair in "$@"; do
    name=${pair%%:*}
    nsenter --net="$dir/net/$name" unshare -m -u sh "$dir/machine.sh" "$dir" "$name" </dev/null &
done
for pair in "$@"; do
    for _ in $(seq 600); do
        [ -s "$dir/lab/pid.${pair%%:*}" ] && break
        sleep 0.05
    done
    [ -s "$dir/lab/pid.${pair%%:*}" ]
done
echo ready
while read -r name; do
    code=0
    "$dir/ssh" --lab "$dir/lab" "$name" 'sh /run/lab/step' </dev/null >"$dir/lab/said" 2>&1 || code=$?
    echo "$code"
done
