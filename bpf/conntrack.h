/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Layout of the object's maps, shared with user space:
 * plugins/module_utils/_kernel/conntrack/layout.py holds the same numbers, and a unit test compares
 * the two through the object's own BTF. A change here raises CONNTRACK_LAYOUT, so that a loader
 * never reads maps that it misunderstands.
 */
#ifndef BTFLEET_CONNTRACK_H
#define BTFLEET_CONNTRACK_H

#define CONNTRACK_LAYOUT 2

/* Addresses in network byte order (IPv4 in the first word, the others zero). */
struct conntrack_addr {
	__u32 word[4];
};

/*
 * One direction of a flow, as the kernel keys it. Ports in host byte order; ICMP has its id as
 * sport and type << 8 | code as dport; GRE has its keys; protocols without ports have zeros.
 * No padding, or look-ups from user space would have to guess it.
 */
struct conntrack_key {
	__u32 netns; /* inode number of the network namespace */
	__u16 zone; /* conntrack zone of this direction */
	__u8 family; /* AF_INET or AF_INET6 */
	__u8 protocol; /* IPPROTO_* */
	struct conntrack_addr saddr;
	struct conntrack_addr daddr;
	__u16 sport;
	__u16 dport;
};

/* Bits of conntrack_value.flags. */
#define CONNTRACK_ORIG 1 /* the key is the flow's original direction */
#define CONNTRACK_SEEDED 2 /* taken in, not seen being inserted: older than created_ns says */

/*
 * The other direction of the flow.
 *
 * Inode numbers of namespaces are used again. So whoever reads an entry has to look its key's netns
 * up in netns_ended: an entry whose created_ns is not later than what is there belongs to a
 * namespace that is gone, and says nothing about the one that has the number now. An entry of
 * conntrack_live to which that applies is none of a live flow. Times are of CLOCK_MONOTONIC, so an
 * age is now less closed_ns, or now less created_ns.
 */
struct conntrack_value {
	__u64 ct; /* address of the nf_conn: a cookie, only compared; 0 = unknown */
	__u64 created_ns; /* when the entry was written */
	__u64 closed_ns; /* when the flow ended; 0 while it lives */
	struct conntrack_addr saddr;
	struct conntrack_addr daddr;
	__u16 sport;
	__u16 dport;
	__u16 zone;
	__u8 flags;
	__u8 generation; /* the pass of the take-in that came by last; 0 = none yet */
};

/* What the loader tells the programs while it works. */
struct conntrack_load {
	__u64 copy_since_ns; /* iter_copy passes over flows that were closed before */
	__u64 stale_before_ns; /* iter_stale passes over entries that were made later */
	__u64 generation; /* which pass of the take-in this is */
};

/* Index into `counters`. Every way out of a program that loses or skips something is counted. */
enum conntrack_counter {
	COUNTER_INSERT_HITS, /* runs of the insert program */
	COUNTER_INSERT_UNTRANSLATED, /* the reply mirrors the original: nothing to store */
	COUNTER_INSERT_DISABLED, /* protocol switched off by a setting */
	COUNTER_INSERT_READ_FAILED, /* kernel memory, or a call's noted argument, could not be read
				     */
	COUNTER_INSERTED, /* flows written to conntrack_live */
	COUNTER_LIVE_FULL, /* flows lost because conntrack_live is full */
	COUNTER_LIVE_UPDATE_FAILED, /* flows lost for any other reason */
	COUNTER_DELETE_HITS, /* runs of the delete program */
	COUNTER_DELETE_READ_FAILED,
	COUNTER_DELETED, /* flows moved from conntrack_live to conntrack_closed */
	COUNTER_DELETE_SUCCESSOR, /* left alone: the tuple already belongs to another flow */
	COUNTER_CLOSED_UPDATE_FAILED, /* flows deleted without a trace in conntrack_closed */
	COUNTER_SEED_HITS, /* flows that the loader's dump came by */
	COUNTER_SEEDED, /* flows that it wrote */
	COUNTER_SUPERSEDED, /* closed flows dropped: one without an entry has their tuple now */
	COUNTER_NETNS_END_FAILED, /* the end of a namespace could not be noted */
	/* What the kernel says how often it passed over a program: user space writes these */
	COUNTER_INSERT_MISSED,
	COUNTER_DELETE_MISSED,
	COUNTER_NETNS_END_MISSED,
	COUNTER_COUNT,
};

#endif
