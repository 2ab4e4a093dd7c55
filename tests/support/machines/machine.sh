# Becomes one machine: a copy-on-write view of this system's files with empty /run, /tmp, /root,
# /srv, /var and /home, and a name of its own: machine.sh DIR NAME
set -e
dir=$1 name=$2
disk=$dir/disk/$name root=$dir/disk/$name/root
mkdir "$disk" "$disk/upper" "$disk/work" "$root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$disk/upper,workdir=$disk/work" "$root"
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
mount --rbind /sys "$root/sys"
for empty in run tmp root srv var home; do
    mkdir -p "$root/$empty"
    mount -t tmpfs -o mode=755 none "$root/$empty"
done
chmod 1777 "$root/tmp"
mkdir -p "$root/var/log" "$root/var/lib" "$root/var/cache" "$root/var/tmp" "$root/etc/systemd/system" "$root/run/lab" "$root/etc/cron.d" "$root/etc/cron.weekly"
mount --bind "$dir/lab" "$root/run/lab"
rm -rf "$root/etc/makuo" "$root/usr/local/bin/makuo"
cp "$dir/hosts" "$root/etc/hosts"
cp "$dir/ssh" "$dir/scp" "$dir/systemctl" "$root/usr/local/bin/"
cp -R "$dir/$name/." "$root/root/"
hostname "$name"
exec chroot "$root" sh -c "echo \$\$ >/run/lab/pid.$name && exec sleep infinity"
