# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab: real Debian guests with stock kernels under QEMU, to test the collection on."""
