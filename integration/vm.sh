#!/bin/sh
# Builds what virtual machines of the tests need, from Debian's packages, in a
# directory: root.img, and vmlinuz-VERSION and initrd.img-VERSION of each
# kernel. Needs root, mmdebstrap, mke2fs and user-mode-linux. What is there and
# was built by the same script is kept.
set -eu
dir=$1
want=$(sha256sum <"$0")
mkdir -p "$dir"
[ "$(cat "$dir/built-by" 2>/dev/null)" != "$want" ] || exit 0
rm -rf "$dir/built-by" "$dir/root" "$dir"/vmlinuz-* "$dir"/initrd.img-*
trap 'rm -rf "$dir/root"' EXIT

packages=systemd,systemd-sysv,dbus,dbus-user-session,libpam-systemd,uidmap,e2fsprogs,xfsprogs,btrfs-progs,util-linux,procps
packages=$packages,kmod,initramfs-tools,linux-image-cloud-amd64,linux-image-6.12-cloud-amd64
sources=/etc/apt/sources.list.d/debian.sources
[ -e "$sources" ] || sources=
TMPDIR=$dir mmdebstrap --quiet --variant=minbase --include="$packages" bookworm "$dir/root" $sources

inside() { chroot "$dir/root" "$@"; }
inside useradd -m -s /bin/sh -u 1000 user
inside useradd -m -s /bin/sh -u 1001 plain
mkdir -p "$dir/root/var/lib/systemd/linger" "$dir/root/data"
: >"$dir/root/var/lib/systemd/linger/user"
echo 'LABEL=data /data ext4 ro 0 0' >"$dir/root/etc/fstab"
cat >"$dir/root/etc/systemd/system/guest.service" <<'EOF'
[Unit]
Description=the tests for which this machine was started
After=multi-user.target dbus.service systemd-user-sessions.service systemd-logind.service user@1000.service
[Service]
Type=oneshot
ExecStart=/data/run
ExecStopPost=systemctl --no-block poweroff --force
StandardOutput=tty
StandardError=tty
TTYPath=/dev/ttyS1
[Install]
WantedBy=multi-user.target
EOF
inside systemctl -q enable guest.service
inside systemctl -q mask systemd-timesyncd.service apt-daily.timer apt-daily-upgrade.timer e2scrub_reap.service
mv "$dir"/root/boot/vmlinuz-* "$dir"/root/boot/initrd.img-* "$dir"
rm -rf "$dir"/root/var/cache/apt/* "$dir"/root/var/lib/apt/lists/* "$dir"/root/boot/* "$dir"/root/usr/share/doc "$dir"/root/usr/share/locale
rm -f "$dir/root.img"
for m in /usr/lib/uml/modules/*; do
	cp -a "$m" "$dir/root/lib/modules"
	inside depmod "${m##*/}"
done
mke2fs -q -t ext4 -L root -d "$dir/root" "$dir/root.img" 3G
printf '%s\n' "$want" >"$dir/built-by"
