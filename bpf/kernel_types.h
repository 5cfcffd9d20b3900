/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The few kernel types that the programs touch, each with only the members that they read.
 * Offsets come from the running kernel's BTF (CO-RE), so order and padding mean nothing here.
 */
#ifndef BTFLEET_KERNEL_TYPES_H
#define BTFLEET_KERNEL_TYPES_H

/* Tells libbpf's bpf_tracing.h to use the kernel's register names, as a full vmlinux.h would. */
#define __VMLINUX_H__

/* Registers at a kprobe: fixed by each architecture, so not relocated. */
#if defined(__TARGET_ARCH_x86)
struct pt_regs {
	unsigned long r15, r14, r13, r12, bp, bx, r11, r10, r9, r8, ax, cx, dx, si, di;
	unsigned long orig_ax, ip, cs, flags, sp, ss;
};
#define TARGET_ARCH "x86_64"
#elif defined(__TARGET_ARCH_arm64)
struct user_pt_regs {
	__u64 regs[31];
	__u64 sp, pc, pstate;
};
struct pt_regs;
#define TARGET_ARCH "aarch64"
#else
#error "no register layout for this architecture"
#endif

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

union nf_inet_addr {
	__u32 all[4];
};

union nf_conntrack_man_proto {
	__be16 all;
};

struct nf_conntrack_man {
	union nf_inet_addr u3;
	union nf_conntrack_man_proto u;
	__u16 l3num;
};

struct nf_conntrack_tuple {
	struct nf_conntrack_man src;
	struct {
		union nf_inet_addr u3;
		union {
			__be16 all;
		} u;
		__u8 protonum;
	} dst;
};

struct nf_conntrack_tuple_hash {
	struct nf_conntrack_tuple tuple;
};

struct nf_conntrack_zone {
	__u16 id;
	__u8 dir;
};

struct ns_common {
	unsigned int inum;
};

struct net {
	struct ns_common ns;
};

typedef struct {
	struct net *net;
} possible_net_t;

struct seq_file;

struct bpf_iter_meta {
	struct seq_file *seq;
};

struct sk_buff {
	unsigned long _nfct; /* CONFIG_NF_CONNTRACK: a nf_conn and, in the lowest bits, a ctinfo */
};

struct nf_conn {
	struct nf_conntrack_zone zone; /* CONFIG_NF_CONNTRACK_ZONES */
	struct nf_conntrack_tuple_hash tuplehash[2];
	unsigned long status;
	possible_net_t ct_net;
};

#pragma clang attribute pop

/* A program's context has one shape in every kernel, so nothing is relocated. */
struct bpf_iter__bpf_map_elem {
	struct bpf_iter_meta *meta;
	struct bpf_map *map;
	void *key; /* both are null at the end of the map */
	void *value;
};

#endif
