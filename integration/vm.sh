#!/bin/sh
# Builds what virtual machines of the tests need, in a directory, from the
# archives of Debian and Ubuntu:
#
#	bookworm.img, trixie.img	Debian with systemd 252 and 257
#	linux-VERSION		Linux in user mode, as a program
#	vmlinuz-VERSION, initrd.img-VERSION	Linux for machines
#
# Needs root, mmdebstrap, mke2fs and user-mode-linux, which is taken as it is
# installed. What is there and was built by the same script is kept.
set -eu
dir=$1
want=$(sha256sum <"$0")
mkdir -p "$dir"
[ "$(cat "$dir/built-by" 2>/dev/null)" != "$want" ] || exit 0
rm -rf "$dir/built-by" "$dir/root" "$dir/apt" "$dir"/*.img "$dir"/*.gpg "$dir"/linux-* "$dir"/vmlinuz-* "$dir"/initrd.img-*
trap 'rm -rf "$dir/root" "$dir/apt"' EXIT
root=$dir/root
apt=$dir/apt
export TMPDIR=$dir

inside() { chroot "$root" "$@"; }

# system SUITE PACKAGES [SOURCES]: a root file system, without kernels.
system() {
	rm -rf "$root"
	packages=systemd,systemd-sysv,dbus,dbus-user-session,libpam-systemd,uidmap,e2fsprogs,xfsprogs,btrfs-progs
	mmdebstrap --quiet --variant=minbase --include="$packages,util-linux,procps,kmod,initramfs-tools,zstd,$2" "$1" "$root" ${3-}
	inside useradd -m -s /bin/sh -u 1000 user
	inside useradd -m -s /bin/sh -u 1001 plain
	mkdir -p "$root/var/lib/systemd/linger" "$root/data"
	: >"$root/var/lib/systemd/linger/user"
	echo 'LABEL=data /data ext4 ro,x-systemd.device-timeout=900 0 0' >"$root/etc/fstab"
	cat >"$root/etc/systemd/system/guest.service" <<'EOF'
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
	inside systemctl -q mask apparmor.service systemd-timesyncd.service apt-daily.timer apt-daily-upgrade.timer e2scrub_reap.service
	for m in /usr/lib/uml/modules/*; do
		modules "$m"
	done
}

# modules DIRECTORY: of a kernel, for the system.
modules() {
	mkdir -p "$root/lib/modules"
	cp -a "$1" "$root/lib/modules"
	inside depmod "${1##*/}"
}

# image NAME: the system as a disk, and its own kernels.
image() {
	for k in "$root"/boot/vmlinuz-*; do
		[ ! -e "$k" ] || mv "$k" "$root/boot/initrd.img-${k##*/vmlinuz-}" "$dir"
	done
	rm -rf "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/* "$root"/boot/* "$root"/usr/share/doc "$root"/usr/share/locale
	mke2fs -q -t ext4 -L root -d "$root" "$dir/$1.img" 3G
}

# packages KEYRING LINE...: has the commands below look at these sources.
packages() {
	rm -rf "$apt"
	mkdir -p "$apt/lists/partial" "$apt/archives/partial" "$apt/none"
	signed=$1
	shift
	for line; do
		echo "deb [arch=amd64 signed-by=$signed] $line" >>"$apt/sources"
	done
	cat >"$apt/conf" <<EOF
Dir::State "$apt"; Dir::State::status "/dev/null"; Dir::Cache "$apt"; Dir::Etc::SourceList "$apt/sources";
Dir::Etc::SourceParts "$apt/none"; Dir::Etc::Preferences "none"; Dir::Etc::PreferencesParts "$apt/none";
APT::Architecture "amd64"; APT::Sandbox::User "root"; Acquire::Languages "none"; Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false";
EOF
	APT_CONFIG=$apt/conf apt-get -qq update
}

# take PACKAGE...: unpacked, in $apt/tree.
take() {
	rm -rf "$apt/tree"
	for p; do
		(cd "$apt/archives" && APT_CONFIG=$apt/conf apt-get -qq download "$p")
	done
	for p in "$apt"/archives/*.deb; do
		dpkg-deb -x "$p" "$apt/tree"
		rm "$p"
	done
}

# of PACKAGE PATTERN: names that it depends on.
of() { APT_CONFIG=$apt/conf apt-cache depends --important "$1" | sed -n "s/^ *Depends: \($2\)\$/\1/p"; }

# kernel: what was taken, for the system.
kernel() {
	for m in "$apt"/tree/lib/modules/*; do
		version=${m##*/}
		cp "$apt/tree/boot/vmlinuz-$version" "$apt/tree/boot/config-$version" "$root/boot"
		modules "$m"
		inside update-initramfs -c -k "$version" >"$apt/initramfs.log" 2>&1
	done
}

debian=/usr/share/keyrings/debian-archive-keyring.gpg
mirror=http://deb.debian.org
ubuntu=http://archive.ubuntu.com/ubuntu
packages $debian "$mirror/debian trixie main"
take ubuntu-keyring
cp "$apt/tree/usr/share/keyrings/ubuntu-archive-keyring.gpg" "$dir"

sources=/etc/apt/sources.list.d/debian.sources
[ -e "$sources" ] || sources=
system bookworm linux-image-cloud-amd64,linux-image-6.12-cloud-amd64 $sources
packages $debian "$mirror/debian bullseye main"
take user-mode-linux
for m in "$apt"/tree/usr/lib/uml/modules/*; do
	modules "$m"
	cp "$apt/tree/usr/bin/linux.uml" "$dir/linux-${m##*/}"
done
packages "$dir/ubuntu-archive-keyring.gpg" "$ubuntu focal main" # the last that lacks openat2
image=$(of linux-image-virtual 'linux-image-.*')
take "$image" "$(of "$image" 'linux-modules-.*')"
kernel
image bookworm

system trixie apparmor
packages "$dir/ubuntu-archive-keyring.gpg" "$ubuntu noble main" # forbids user namespaces by AppArmor
image=$(of linux-image-virtual 'linux-image-.*')
take "$image" "$(of "$image" 'linux-modules-.*')"
kernel
image trixie
printf '%s\n' "$want" >"$dir/built-by"
