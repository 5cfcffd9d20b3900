#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Builds the disk, kernel and initrd of one guest in the folder $WORK, as root.
# lab/image.py calls it through `unshare --mount`, so that every mount made here
# ends with this process, however it ends. All input comes by variables:
#   WORK SUITE ARCH NAME DISK_SIZE   plain words
#   MIRROR KEYRING                   for debootstrap
#   SOURCES                          the guest's sources.list
#   KERNEL KERNEL_SUITE PACKAGES     what is installed (KERNEL_SUITE may be empty)
#   PUBLIC_KEY                       root's authorized key
#   OWNER                            uid:gid that gets the result
set -eu

rootfs=$WORK/rootfs

in_guest() {
    chroot "$rootfs" /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 \
        DEBIAN_FRONTEND=noninteractive ${http_proxy:+"http_proxy=$http_proxy"} "$@"
}

# All Debian suites share debootstrap's script `sid`; a release newer than this
# machine has no link to it yet.
script=
[ -e "/usr/share/debootstrap/scripts/$SUITE" ] || script=/usr/share/debootstrap/scripts/sid
include=
case $MIRROR in https:*) include=--include=ca-certificates ;; esac
# shellcheck disable=SC2086
debootstrap --variant=minbase --arch="$ARCH" --keyring="$KEYRING" $include \
    "$SUITE" "$rootfs" "$MIRROR" $script

# Only while building: no services started, no fsync for every file.
printf '#!/bin/sh\nexit 101\n' >"$rootfs/usr/sbin/policy-rc.d"
chmod 755 "$rootfs/usr/sbin/policy-rc.d"
echo force-unsafe-io >"$rootfs/etc/dpkg/dpkg.cfg.d/build"
mount -t proc proc "$rootfs/proc"
mount -t sysfs sysfs "$rootfs/sys"

# Only what the disk needs in the initrd: unpacking it is a good part of the boot
# without kvm.
mkdir -p "$rootfs/etc/initramfs-tools/conf.d" "$rootfs/usr/share/initramfs-tools/modules.d"
echo MODULES=list >"$rootfs/etc/initramfs-tools/conf.d/modules"
printf 'virtio_pci\nvirtio_blk\next4\n' >"$rootfs/usr/share/initramfs-tools/modules.d/virtio"

printf '%s\n' "$SOURCES" >"$rootfs/etc/apt/sources.list"
apt_get="apt-get -qy -o Dpkg::Options::=--force-confold --no-install-recommends"
# shellcheck disable=SC2086
{
    in_guest $apt_get update
    in_guest $apt_get dist-upgrade
    in_guest $apt_get install $PACKAGES
    in_guest $apt_get install ${KERNEL_SUITE:+-t "$KERNEL_SUITE"} "$KERNEL"
}
in_guest apt-get clean

echo "$NAME" >"$rootfs/etc/hostname"
printf '127.0.0.1 localhost\n127.0.1.1 %s\n::1 localhost ip6-localhost ip6-loopback\n' "$NAME" >"$rootfs/etc/hosts"
echo '/dev/vda / ext4 errors=remount-ro 0 0' >"$rootfs/etc/fstab"

# QEMU's user network is always the same, so no time is spent on DHCP. Only the
# virtio NIC is named: whatever interfaces tests make are left alone.
rm -f "$rootfs/etc/resolv.conf"
echo 'nameserver 10.0.2.3' >"$rootfs/etc/resolv.conf"
cat >"$rootfs/etc/systemd/network/10-virtio.network" <<'EOF'
[Match]
Driver=virtio_net

[Network]
Address=10.0.2.15/24
Gateway=10.0.2.2
IPv6AcceptRA=no
EOF
in_guest systemctl enable systemd-networkd.service ssh.service
in_guest systemctl disable systemd-networkd-wait-online.service
# A test host must not start work of its own while it is looked at.
in_guest systemctl mask apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer \
    e2scrub_all.timer e2scrub_reap.service fstrim.timer

mkdir -p "$rootfs/root/.ssh"
chmod 700 "$rootfs/root/.ssh"
printf '%s\n' "$PUBLIC_KEY" >"$rootfs/root/.ssh/authorized_keys"
chmod 600 "$rootfs/root/.ssh/authorized_keys"

# A known machine id, or the guest takes its first start for an installation and enables every
# unit anew. Each guest is given its own one on its kernel command line.
rm -f "$rootfs/etc/machine-id" "$rootfs/var/lib/dbus/machine-id"
in_guest systemd-machine-id-setup
mkdir -p "$rootfs/var/lib/dbus"
ln -s /etc/machine-id "$rootfs/var/lib/dbus/machine-id"

rm -f "$rootfs/usr/sbin/policy-rc.d" "$rootfs/etc/dpkg/dpkg.cfg.d/build"
umount "$rootfs/sys" "$rootfs/proc"

set -- "$rootfs"/boot/vmlinuz-*
[ $# -eq 1 ] || {
    echo "one kernel was expected in the guest's /boot, but there are: $*"
    exit 1
}
cp "$1" "$WORK/vmlinuz"
cp "$rootfs/boot/initrd.img-${1##*/vmlinuz-}" "$WORK/initrd"
# Everything is initialized now, or the guest's kernel does it after each boot.
mke2fs -q -t ext4 -E lazy_itable_init=0,lazy_journal_init=0 -d "$rootfs" "$WORK/disk.img" "$DISK_SIZE"
rm -rf "$rootfs"
chown "$OWNER" "$WORK/vmlinuz" "$WORK/initrd" "$WORK/disk.img"
